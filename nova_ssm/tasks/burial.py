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

from typing import Any

from nova.compute import vm_states
from nova.conductor import manager as conductor_manager
from nova import context as nova_context
from nova import exception
from nova import objects
from oslo_log import log as logging

from nova_ssm.tasks import base

LOG = logging.getLogger(__name__)

Manager = conductor_manager.ComputeTaskManager


def bury(manager: Manager, context: nova_context.RequestContext,
         exc: Exception, build_requests: list[objects.BuildRequest],
         request_spec: objects.RequestSpec, block_device_mapping: Any,
         tags: Any) -> None:
    """Put servers that found no host into cell0, in ERROR with a fault.

    Safe to be called again after it was interrupted.
    """
    fresh = []
    for build_request in build_requests:
        half = _half_buried(context, build_request.instance_uuid)
        if half is not None:
            _finish(manager, context, exc, half, build_request, request_spec,
                    block_device_mapping, tags)
        elif _is_known(build_request):
            fresh.append(build_request)
    if fresh:
        base.while_handling(
            exc, manager._bury_in_cell0, context, request_spec, exc,
            build_requests=fresh, block_device_mapping=block_device_mapping,
            tags=tags)


def _is_known(build_request: objects.BuildRequest) -> bool:
    """Whether it was still there when it was read from the database.

    If it was not, its user deleted the server, or it is buried already.
    """
    return build_request.obj_attr_is_set('instance')


def _half_buried(context: nova_context.RequestContext,
                 uuid: str) -> objects.Instance | None:
    """The server's record in cell0, if nothing leads to it yet."""
    try:
        mapping = objects.InstanceMapping.get_by_instance_uuid(context, uuid)
        cell0 = objects.CellMapping.get_by_uuid(
            context, objects.CellMapping.CELL0_UUID)
    except (exception.InstanceMappingNotFound, exception.CellMappingNotFound):
        return None
    if mapping.cell_mapping is not None:
        return None
    return instance_in(context, cell0, uuid)


def _finish(manager: Manager, context: nova_context.RequestContext,
            exc: Exception, instance: objects.Instance,
            build_request: objects.BuildRequest,
            request_spec: objects.RequestSpec, block_device_mapping: Any,
            tags: Any) -> None:
    cell0 = objects.CellMapping.get_by_uuid(
        context, objects.CellMapping.CELL0_UUID)
    with conductor_manager.obj_target_cell(instance, cell0) as cctxt:
        base.while_handling(
            exc, manager._create_instance_action_for_cell0, cctxt, instance,
            exc)
    leave_in_error(manager, context, exc, instance, cell0, build_request,
                   request_spec, block_device_mapping, tags)


def leave_in_error(manager: Manager, context: nova_context.RequestContext,
                   exc: Exception, instance: objects.Instance,
                   cell: objects.CellMapping,
                   build_request: objects.BuildRequest,
                   request_spec: objects.RequestSpec,
                   block_device_mapping: Any, tags: Any) -> None:
    """Leave a server to its user in ERROR, with a fault that says why.

    Safe to be called again after it was interrupted.
    """
    current = instance_in(context, cell, instance.uuid)
    if current is None:
        LOG.debug('The server was deleted meanwhile', instance=instance)
        return
    if current.vm_state == vm_states.ERROR and _is_done(
            context, current.uuid):
        return
    with nova_context.target_cell(context, cell) as cctxt:
        if objects.BlockDeviceMappingList.get_by_instance_uuid(
                cctxt, instance.uuid):
            block_device_mapping = None
    base.while_handling(
        exc, manager._cleanup_build_artifacts, context, exc, [instance],
        [build_request], [request_spec], block_device_mapping, tags,
        {instance.uuid: cell})


def _is_done(context: nova_context.RequestContext, uuid: str) -> bool:
    try:
        objects.BuildRequest.get_by_instance_uuid(context, uuid)
    except exception.BuildRequestNotFound:
        return True
    return False


def instance_in(context: nova_context.RequestContext,
                cell: objects.CellMapping,
                uuid: str) -> objects.Instance | None:
    """The server's record in a cell, None if it has none there."""
    with nova_context.target_cell(context, cell) as cctxt:
        try:
            return objects.Instance.get_by_uuid(cctxt, uuid)
        except exception.InstanceNotFound:
            return None
