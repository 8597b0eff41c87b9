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

"""From one request to one flow a server."""

import copy
from typing import Any

from nova_ssm.engine import journal
from nova_ssm.tasks import base
from nova_ssm.tasks import types


class SpawnBuilds(base.NovaSpawn):
    """Post a flow for each server of the request that is to be built."""

    def execute(self, context: types.Context,
                build_requests: list[types.BuildRequest],
                request_specs: list[types.RequestSpec],
                host_lists: list[list[types.Selection]],
                instances: list[types.Instance | None],
                cells: list[types.Cell | None], image: types.Properties,
                admin_password: types.Secret, injected_files: types.Secret,
                requested_networks: types.Networks,
                block_device_mapping: types.Disks,
                tags: types.Tags) -> list[journal.FlowRequest]:
        return [
            journal.FlowRequest(
                # They are run side by side, and a context has the
                # transactions of its thread.
                name='build_instance', context=copy.copy(context),
                subject=instance.uuid, project_id=instance.project_id,
                user_id=instance.user_id, request_id=context.request_id,
                store={
                    'build_request': build_request,
                    'request_spec': request_spec, 'host_list': host_list,
                    'instance': instance, 'cell': cell, 'image': image,
                    'admin_password': admin_password,
                    'injected_files': injected_files,
                    'requested_networks': requested_networks,
                    'block_device_mapping': block_device_mapping,
                    'tags': tags})
            for build_request, request_spec, host_list, instance, cell
            in zip(build_requests, request_specs, host_lists, instances,
                   cells, strict=True)
            if instance is not None]

    def had_effect(self, result: Any) -> bool:
        return bool(result)
