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

"""How builds end that nobody works on: in ERROR, with a fault.

They are not built after all: the request held what is kept nowhere else,
the admin password that its user was told, injected files, and the networks
and ports that were asked for. A server without these is not what its user
has asked for, and nothing would say so. In ERROR it can be deleted, and
created anew, by its user or by what has asked for it.
"""

from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova import exception
from nova import objects
from oslo_log import log as logging

from nova_ssm.tasks import audit_steps
from nova_ssm.tasks import base
from nova_ssm.tasks import burial
from nova_ssm.tasks import moves
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

_LOST = ('the request was lost with a nova-conductor, before it was begun: '
         'delete the server and create it again')


class EndLostBuild(base.NovaTask):
    """Put the servers of a lost request into ERROR, where they are.

    Those without a record come into cell0, as those do that no host is
    found for. What a conductor may have claimed is freed.

    Recovery: finish it; what was done is not done twice.
    """

    def execute(self, context: types.Context,
                details: types.Properties) -> None:
        for uuid in details['servers']:
            self._end(context, uuid)

    def _end(self, context: types.Context, uuid: str) -> None:
        try:
            request = objects.BuildRequest.get_by_instance_uuid(context, uuid)
        except exception.BuildRequestNotFound:
            LOG.info('The server is built, deleted or in ERROR already',
                     instance_uuid=uuid)
            return
        owner = audit_steps.context_of(context, request.instance)
        exc = exception.BuildAbortException(instance_uuid=uuid, reason=_LOST)
        spec = _spec_of(context, request.instance)
        disks = _new_disks(owner, request.block_device_mappings)
        record, cell = _find(context, uuid)
        if record is not None and not cell.is_cell0():
            burial.leave_in_error(
                self.manager, owner, exc, record, cell, request, spec,
                disks, request.tags)
        else:
            burial.bury(self.manager, owner, exc, [request], spec,
                        disks, request.tags)
        self.manager.report_client.delete_allocation_for_instance(
            context, uuid, force=True)


def _spec_of(context: types.Context,
             instance: types.Instance) -> types.RequestSpec:
    try:
        return objects.RequestSpec.get_by_instance_uuid(
            context, instance.uuid)
    except exception.RequestSpecNotFound:
        # Notifications tell of it, of whatever is known.
        return objects.RequestSpec.from_components(
            context, instance.uuid, {}, instance.flavor, None, None, {},
            None, instance.availability_zone, project_id=instance.project_id,
            user_id=instance.user_id)


def _new_disks(context: types.Context, disks: types.Disks) -> types.Disks:
    """Disks as they came by RPC: those of a build request cannot be saved."""
    return objects.BlockDeviceMappingList(context, objects=[
        objects.BlockDeviceMapping(context, **{
            name: getattr(disk, name) for name in disk.fields
            if disk.obj_attr_is_set(name) and name != 'id'})
        for disk in disks])


def _find(context: types.Context, uuid: str
          ) -> tuple[types.Instance | None, types.Cell]:
    """The record of a server, in whichever cell it is."""
    cell = None
    for cell in objects.CellMappingList.get_all(context):
        record = burial.instance_in(context, cell, uuid)
        if record is not None:
            return record, cell
    return None, cell


class FailStuckBuild(audit_steps.Look):
    """Put a server that waits for a host into ERROR, free what it holds.

    What it holds on a compute that has not said that it is done with it is
    freed when the server is deleted, as Nova has it: if the compute comes to
    it after all, it builds it, and the server is as it was asked for.

    Does nothing if somebody has touched the server meanwhile. A request to
    try another host that comes late has its row in the journal before it
    looks at the server, which is put into ERROR before we look for that row:
    so one of us sees the other.

    Recovery: finish it; a server in ERROR is not told twice.
    """

    def execute(self, context: types.Context,
                details: types.Properties | None) -> None:
        if details is None:
            return
        uuid = details['group']
        with audit_steps.server_of(context, details) as (cctxt, instance):
            if instance is None or instance.host not in (
                    None, details.get('host')):
                return
            owner = audit_steps.context_of(cctxt, instance)
            if not self._take(instance):
                return
            if self.survey().owned([uuid]):
                self._put_back(instance, details['task_state'])
                return
            if not burial.is_told(cctxt, instance):
                self._tell(owner, instance, bool(details.get('kept')))
        if details.get('kept'):
            return
        self.manager.report_client.delete_allocation_for_instance(
            context, uuid, force=True)

    @staticmethod
    def _take(instance: types.Instance) -> bool:
        """Put it into ERROR, if it still waits."""
        if instance.vm_state == vm_states.ERROR:
            return instance.task_state is None      # an attempt of ours
        if instance.vm_state != vm_states.BUILDING:
            return False
        instance.vm_state, instance.task_state = vm_states.ERROR, None
        try:
            instance.save(expected_vm_state=[vm_states.BUILDING],
                          expected_task_state=[task_states.SCHEDULING, None])
        except (exception.InstanceUpdateConflict,
                exception.InstanceNotFound) as exc:
            LOG.info('The server is left as it is: %s', exc,
                     instance=instance)
            return False
        return True

    @staticmethod
    def _put_back(instance: types.Instance, task_state: str | None) -> None:
        """Let it wait again: somebody looks for a host after all."""
        LOG.info('Somebody looks for a host for the server after all',
                 instance=instance)
        instance.vm_state, instance.task_state = (vm_states.BUILDING,
                                                  task_state)
        try:
            instance.save(expected_vm_state=[vm_states.ERROR],
                          expected_task_state=[None])
        except (exception.InstanceUpdateConflict,
                exception.InstanceNotFound) as exc:
            LOG.info('It has gone on: %s', exc, instance=instance)

    def _tell(self, context: types.Context, instance: types.Instance,
              kept: bool) -> None:
        exc = exception.BuildAbortException(
            instance_uuid=instance.uuid, reason=(
                'its nova-compute has not begun it, or has given it up '
                'without a word' if kept else
                'nobody looks for a host for it any more: the '
                'nova-conductor that did is gone'))
        _end_events(context, instance, exc)
        if kept:
            # Its state is as we have put it, or its compute has it.
            base.while_handling(
                exc, compute_utils.add_instance_fault_from_exc, context,
                instance, exc)
            return
        spec = _spec_of(context, instance)
        base.while_handling(
            exc, self.manager._cleanup_when_reschedule_fails, context,
            instance, exc, spec.to_legacy_request_spec_dict(), None)


def _end_events(context: types.Context, instance: types.Instance,
                exc: BaseException) -> None:
    """Let the action fail by which the server was asked for."""
    for action in objects.InstanceActionList.get_by_instance_uuid(
            context, instance.uuid):
        if action.action == instance_actions.CREATE:
            moves.close_events(
                audit_steps.context_of(context, instance, action.request_id),
                instance.uuid, exc, of_computes=True)
