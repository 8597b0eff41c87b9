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

"""What is sent to nova-compute."""

from collections.abc import Callable
from typing import ClassVar

from nova.compute import task_states
from nova.compute import vm_states
from nova.conductor import manager as conductor_manager
from nova import exception
from nova import objects
from oslo_log import log as logging

from nova_ssm.tasks import casts
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

#: The event that a compute opens on a server's action as its first deed.
BUILD_EVENT = 'compute__do_build_and_run_instance'


class CastBuild(casts.Cast):
    """Tell the compute to build the server: once, and not twice.

    Reversion strategy: none, it is the last step.
    Recovery: wait until the compute shows that it has taken the server. If
    it does not, make sure that no message is on its way, then cast again.
    """

    def execute(self, context: types.Context, instance: types.Instance,
                cell: types.Cell, image: types.Properties,
                build_spec: types.RequestSpec,
                local_properties: types.Properties,
                admin_password: types.Secret, injected_files: types.Secret,
                bound_networks: types.Networks, security_groups: list[str],
                instance_bdms: types.Disks, host: types.Selection,
                alternates: list[types.Selection], accel_uuids: list[str],
                wanted: bool) -> None:
        if not wanted:
            return
        with conductor_manager.obj_target_cell(instance, cell) as cctxt:
            self.manager.compute_rpcapi.build_and_run_instance(
                cctxt, instance=instance, image=image,
                request_spec=build_spec, filter_properties=local_properties,
                admin_password=admin_password.value,
                injected_files=injected_files.value,
                requested_networks=bound_networks,
                security_groups=security_groups,
                block_device_mapping=instance_bdms, host=host.service_host,
                node=host.nodename, limits=host.limits, host_list=alternates,
                accel_uuids=accel_uuids)

    def recover(self, context: types.Context, instance: types.Instance,
                cell: types.Cell, image: types.Properties,
                build_spec: types.RequestSpec,
                local_properties: types.Properties,
                admin_password: types.Secret, injected_files: types.Secret,
                bound_networks: types.Networks, security_groups: list[str],
                instance_bdms: types.Disks, host: types.Selection,
                alternates: list[types.Selection], accel_uuids: list[str],
                wanted: bool) -> None:
        if not wanted:
            return
        with conductor_manager.obj_target_cell(instance, cell) as cctxt:
            if self._was_taken(
                    cctxt, instance, host.service_host,
                    lambda: self._is_taken(cctxt, instance,
                                           host.service_host),
                    lambda: _slot_free(cctxt, host.service_host)):
                LOG.info('Compute %s has taken the server already',
                         host.service_host, instance=instance)
                return
        LOG.info('Compute %s has not got the server, casting again',
                 host.service_host, instance=instance)
        self.execute(context, instance, cell, image, build_spec,
                     local_properties, admin_password, injected_files,
                     bound_networks, security_groups, instance_bdms, host,
                     alternates, accel_uuids, wanted)

    @staticmethod
    def _is_taken(context: types.Context, instance: types.Instance,
                  host: str) -> bool:
        """Whether there is a sign of the compute, or of the user."""
        try:
            now = objects.Instance.get_by_uuid(context, instance.uuid)
        except exception.InstanceNotFound:
            return True
        if (now.host or now.vm_state != vm_states.BUILDING or
                now.task_state != task_states.SCHEDULING):
            return True
        return any(event.event == BUILD_EVENT and event.host == host
                   for event in casts.events(context, instance.uuid))


class _Slots:
    """Tells from outside that a compute has a build slot free.

    Builds that wait for one show nowhere. But while any waits, all slots are
    taken: the number of those that run stays at its peak.
    """

    #: Looks in a row: a build that has its slot is not seen at once.
    calm: ClassVar[int] = 10

    def __init__(self) -> None:
        self._peak = 0
        self._looks = 0

    def look(self, building: int) -> bool:
        """Whether a slot is free, told by how many builds are seen now."""
        self._peak = max(self._peak, building)
        free = building < self._peak or not building
        self._looks = self._looks + 1 if free else 0
        return self._looks >= self.calm


def _slot_free(context: types.Context, host: str) -> Callable[[], bool]:
    """A look at whether the compute has had a build slot free since."""
    slots = _Slots()
    return lambda: slots.look(_building_on(context, host))


def _building_on(context: types.Context, host: str) -> int:
    return sum(instance.vm_state == vm_states.BUILDING for instance in
               objects.InstanceList.get_by_host(context, host,
                                                expected_attrs=[]))
