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

"""Block devices and volumes."""

from typing import Any

from nova.conductor import manager as conductor_manager
from nova import objects
from nova import utils

from nova_ssm.tasks import base
from nova_ssm.tasks import types


class CreateBlockDeviceMappings(base.NovaTask):
    """Create the records of the server's disks.

    Recovery: take them if they are all there; if only some are, create them
    anew.
    """

    default_provides = 'instance_bdms'
    deferred = True

    def execute(self, instance: types.Instance, cell: types.Cell,
                block_device_mapping: types.Disks) -> types.Disks:
        return self.manager._create_block_device_mapping(
            cell, instance.flavor, instance.uuid, block_device_mapping)

    def recover(self, instance: types.Instance, cell: types.Cell,
                block_device_mapping: types.Disks) -> types.Disks:
        with conductor_manager.obj_target_cell(instance, cell) as cctxt:
            found = objects.BlockDeviceMappingList.get_by_instance_uuid(
                cctxt, instance.uuid)
            if found and len(found) == len(block_device_mapping):
                return found
            for bdm in found:
                bdm.destroy()
        return self.execute(instance, cell, block_device_mapping)


class ReattachVolumes(base.NovaTask):
    """Reserve the server's volumes again for the next attempt.

    The compute that failed has deleted their attachments. One that is still
    there is taken.

    Reversion strategy: if it failed itself, delete the attachments that no
    record of a disk knows of: cinder may have made one, and its answer was
    lost. The others go with the server, or with its next host.
    Recovery: delete the attachments that no record of a disk knows of, then
    reserve what is not reserved.
    """

    default_provides = 'instance_bdms'
    reversion = 'delete the attachments that no disk knows of'

    def execute(self, context: types.Context, instance: types.Instance,
                wanted: bool) -> types.Disks:
        if not wanted:
            return objects.BlockDeviceMappingList()
        bdms = objects.BlockDeviceMappingList.get_by_instance_uuid(
            context, instance.uuid)
        self.manager._validate_existing_attachment_ids(
            context, instance, bdms)
        return bdms

    def recover(self, context: types.Context, instance: types.Instance,
                wanted: bool) -> types.Disks:
        if wanted:
            self._drop_unknown(context, instance)
        return self.execute(context, instance, wanted)

    def _drop_unknown(self, context: types.Context,
                      instance: types.Instance) -> None:
        # Also those of a server that was deleted meanwhile.
        with utils.temporary_mutation(context, read_deleted='yes'):
            bdms = objects.BlockDeviceMappingList.get_by_instance_uuid(
                context, instance.uuid)
        volumes = [bdm for bdm in bdms if bdm.is_volume]
        if not volumes:
            return
        known = {bdm.attachment_id for bdm in volumes}
        for attachment in self.manager.volume_api.attachment_get_all(
                context, instance_id=instance.uuid):
            if attachment['id'] not in known:
                self.manager.volume_api.attachment_delete(
                    context, attachment['id'])

    def had_effect(self, result: Any) -> bool:
        return any(bdm.is_volume for bdm in result)

    def revert(self, context: types.Context, instance: types.Instance,
               result: Any, flow_failures: types.Failures) -> None:
        if isinstance(result, base.Failure):
            self._drop_unknown(context, instance)
