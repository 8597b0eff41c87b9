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

from nova_ssm.tasks import base


class CreateBlockDeviceMappings(base.NovaTask):
    """Create the records of the server's disks.

    Recovery: take them if they are all there; if only some are, create them
    anew.
    """

    default_provides = 'instance_bdms'

    def execute(self, instance, cell, block_device_mapping):
        return self.manager._create_block_device_mapping(
            cell, instance.flavor, instance.uuid, block_device_mapping)

    def recover(self, instance, cell, block_device_mapping):
        with conductor_manager.obj_target_cell(instance, cell) as cctxt:
            found = objects.BlockDeviceMappingList.get_by_instance_uuid(
                cctxt, instance.uuid)
            if found and len(found) == len(block_device_mapping):
                return found
            for bdm in found:
                bdm.destroy()
        return self.execute(instance, cell, block_device_mapping)

    def had_effect(self, result: Any) -> bool:
        return bool(result)


class ReattachVolumes(base.NovaTask):
    """Reserve the server's volumes again for the next attempt.

    The compute that failed has deleted their attachments. One that is still
    there is taken, so that it can be repeated.
    """

    default_provides = 'instance_bdms'

    def execute(self, context, instance, wanted):
        if not wanted:
            return objects.BlockDeviceMappingList()
        bdms = objects.BlockDeviceMappingList.get_by_instance_uuid(
            context, instance.uuid)
        self.manager._validate_existing_attachment_ids(
            context, instance, bdms)
        return bdms

    def had_effect(self, result: Any) -> bool:
        return any(bdm.is_volume for bdm in result)
