#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""How servers end that will not be built: in cell0, or in ERROR.

Nova's own helpers do it. They are not made to be called twice; these
functions find out how far an earlier call came, and finish it.
"""

from collections.abc import Sequence

from nova.compute import vm_states
from nova.conductor import manager as conductor_manager
from nova import context as nova_context
from nova.db.api import api as api_db
from nova.db.api import models as api_models
from nova import exception
from nova import objects
from oslo_log import log as logging
import sqlalchemy as sa

from nova_ssm.tasks import base
from nova_ssm.tasks import casts
from nova_ssm.tasks import moves
from nova_ssm.tasks import notices
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

#: The event that Nova puts down for a server that it buries.
_EVENT = 'conductor_schedule_and_build_instances'


def bury(manager: types.Manager, context: types.Context, exc: BaseException,
         build_requests: list[types.BuildRequest],
         request_spec: types.RequestSpec, block_device_mapping: types.Disks,
         tags: types.Tags) -> None:
    """Put servers that found no host into cell0, in ERROR with a fault.

    Safe to be called again after it was interrupted.
    """
    fresh = []
    for build_request in build_requests:
        begun = _in_cell0(context, build_request.instance_uuid)
        if begun is not None:
            _finish_burial(manager, context, exc, begun, build_request,
                           request_spec, block_device_mapping, tags)
        elif _was_known(build_request):
            fresh.append(build_request)
    if fresh:
        base.while_handling(
            exc, manager._bury_in_cell0, context, request_spec, exc,
            build_requests=fresh, block_device_mapping=block_device_mapping,
            tags=tags)


def _was_known(build_request: types.BuildRequest) -> bool:
    """Whether it was still there when it was read from the database.

    If it was not, its user had deleted the server, or it is buried already.
    """
    return build_request.obj_attr_is_set('instance')


def is_wanted(context: types.Context, uuid: str) -> bool:
    """Whether the server's build request is there: now, in the database."""
    try:
        # Only its row: to make the server in it out of that takes longer
        # than to ask.
        objects.BuildRequest._get_by_instance_uuid_from_db(context, uuid)
    except exception.BuildRequestNotFound:
        return False
    return True


@api_db.context_manager.reader
def wanted(context: types.Context, uuids: Sequence[str]) -> set[str]:
    """Which of these servers have their build request: one look for all.

    Nova looks for one at a time, and reads all of it.
    """
    column = api_models.BuildRequest.instance_uuid
    return set(context.session.scalars(
        sa.select(column).where(column.in_(uuids))))


def lives(context: types.Context, uuid: str) -> bool:
    """Whether the server is in a cell that has hosts."""
    try:
        cell = objects.InstanceMapping.get_by_instance_uuid(
            context, uuid).cell_mapping
    except exception.InstanceMappingNotFound:
        return False
    return cell is not None and not cell.is_cell0()


def _in_cell0(context: types.Context, uuid: str) -> types.Instance | None:
    """The server's record in cell0, if it has one and no other."""
    try:
        cell0 = _cell0(context)
    except exception.CellMappingNotFound:
        # Nova says what is missing when it is asked to bury.
        return None
    return None if lives(context, uuid) else instance_in(context, cell0, uuid)


def _cell0(context: types.Context) -> types.Cell:
    return objects.CellMapping.get_by_uuid(
        context, objects.CellMapping.CELL0_UUID)


def _finish_burial(manager: types.Manager, context: types.Context,
                   exc: BaseException, instance: types.Instance,
                   build_request: types.BuildRequest,
                   request_spec: types.RequestSpec,
                   block_device_mapping: types.Disks,
                   tags: types.Tags) -> None:
    cell0 = _cell0(context)
    with conductor_manager.obj_target_cell(instance, cell0) as cctxt:
        told = is_told(cctxt, instance)
        if not is_wanted(context, instance.uuid):
            # To destroy the build request is the last step of all, so who
            # destroyed it before that was the server's user.
            if not told:
                _fail_action(manager, cctxt, exc, instance)
                instance.destroy()
            return
        _map(context, instance, cell0)
        _fail_action(manager, cctxt, exc, instance)
        _complete(manager, cctxt, instance, cell0, block_device_mapping, tags)
        if told:
            notices.send_again(cctxt, instance, 'build_instances', exc,
                               request_spec)
        else:
            base.while_handling(
                exc, manager._set_vm_state_and_notify, cctxt, instance.uuid,
                'build_instances',
                {'vm_state': vm_states.ERROR, 'task_state': None}, exc,
                request_spec)
        try:
            build_request.destroy()
        except exception.BuildRequestNotFound:
            instance.destroy()


def _fail_action(manager: types.Manager, context: types.Context,
                 exc: BaseException, instance: types.Instance) -> None:
    """Let the action that asked for the server tell why it has failed.

    Nova's helper creates the action, opens an event of it and closes that. A
    conductor that died in between has left it without the event, or the event
    open: nobody else would close it.

    :param context: targeted at cell0
    """
    if objects.InstanceAction.get_by_request_id(
            context, instance.uuid, context.request_id) is None:
        base.while_handling(
            exc, manager._create_instance_action_for_cell0, context,
            instance, exc)
        return
    if not casts.events(context, instance.uuid):
        objects.InstanceActionEvent.event_start(
            context, instance.uuid, _EVENT, want_result=False,
            host=manager.host)
    # No compute has this server: all that is open is a conductor's.
    moves.close_events(context, instance.uuid, exc, of_computes=True)


def leave_in_error(manager: types.Manager, context: types.Context,
                   exc: BaseException, instance: types.Instance,
                   cell: types.Cell, build_request: types.BuildRequest,
                   request_spec: types.RequestSpec,
                   block_device_mapping: types.Disks,
                   tags: types.Tags) -> None:
    """Leave a server to its user in ERROR, with a fault that says why.

    Safe to be called again after it was interrupted.
    """
    current = instance_in(context, cell, instance.uuid)
    if current is None:
        LOG.debug('The server was deleted meanwhile', instance=instance)
        return
    if current.host:
        LOG.warning('The server is on host %s already, it is left as it is',
                    current.host, instance=instance)
        return
    with conductor_manager.obj_target_cell(current, cell) as cctxt:
        if is_told(cctxt, current):
            _complete(manager, cctxt, current, cell, block_device_mapping,
                      tags)
            _map(context, current, cell)
            _forget_request(build_request, request_spec)
            notices.send_again(cctxt, current, 'build_instances', exc,
                               request_spec)
            return
        if _has_disks(cctxt, current):
            block_device_mapping = None
    base.while_handling(
        exc, manager._cleanup_build_artifacts, context, exc, [instance],
        [build_request], [request_spec], block_device_mapping, tags,
        {instance.uuid: cell})


def is_told(context: types.Context, instance: types.Instance) -> bool:
    """Whether the server is in ERROR already, with a fault.

    :param context: targeted at the cell of the server
    """
    return (instance.vm_state == vm_states.ERROR and
            objects.InstanceFault.get_latest_for_instance(
                context, instance.uuid) is not None)


def _map(context: types.Context, instance: types.Instance,
         cell: types.Cell) -> None:
    """Point the API at the record, unless it is pointed at one."""
    try:
        mapping = objects.InstanceMapping.get_by_instance_uuid(
            context, instance.uuid)
    except exception.InstanceMappingNotFound:
        LOG.error('No instance mapping was found.', instance=instance)
        return
    if mapping.cell_mapping is None:
        mapping.cell_mapping = cell
        mapping.save()


def _complete(manager: types.Manager, context: types.Context,
              instance: types.Instance, cell: types.Cell,
              block_device_mapping: types.Disks, tags: types.Tags) -> None:
    """Create the disks' records, if there are none yet, and the tags."""
    if block_device_mapping and not _has_disks(context, instance):
        manager._create_block_device_mapping(
            cell, instance.flavor, instance.uuid, block_device_mapping)
    manager._create_tags(context, instance.uuid, tags)


def _has_disks(context: types.Context, instance: types.Instance) -> bool:
    return bool(objects.BlockDeviceMappingList.get_by_instance_uuid(
        context, instance.uuid))


def _forget_request(build_request: types.BuildRequest,
                    request_spec: types.RequestSpec) -> None:
    for obj, gone in ((build_request, exception.BuildRequestNotFound),
                      (request_spec, exception.RequestSpecNotFound)):
        try:
            obj.destroy()
        except gone:
            LOG.debug('%s is gone already', type(obj).__name__)


def instance_in(context: types.Context, cell: types.Cell,
                uuid: str) -> types.Instance | None:
    """The server's record in a cell, None if it has none there."""
    with nova_context.target_cell(context, cell) as cctxt:
        try:
            return objects.Instance.get_by_uuid(cctxt, uuid)
        except exception.InstanceNotFound:
            return None
