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

"""Accelerator requests in cyborg."""

from typing import Any

from nova.accelerator import cyborg
from nova.compute import utils as compute_utils

from nova_ssm.tasks import base
from nova_ssm.tasks import types


class CreateArqs(base.NovaTask):
    """Create the server's accelerator requests and bind them to its host.

    Reversion strategy: delete them.
    Recovery: delete what is bound to the server, then create them again.
    """

    default_provides = ('accel_uuids', 'bound_networks')
    reversion = 'delete the accelerator requests'

    def execute(self, context: types.Context, instance: types.Instance,
                host: types.Selection, build_spec: types.RequestSpec,
                requested_networks: types.Networks,
                wanted: bool) -> tuple[list[str], types.Networks]:
        if not wanted:
            return [], requested_networks
        uuids = self.manager._create_and_bind_arq_for_instance(
            context, instance, host.nodename, build_spec, requested_networks)
        return uuids, requested_networks

    def recover(self, context: types.Context, instance: types.Instance,
                host: types.Selection, build_spec: types.RequestSpec,
                requested_networks: types.Networks,
                wanted: bool) -> tuple[list[str], types.Networks]:
        if wanted and self._may_have_any(instance, requested_networks):
            # Those of its ports are bound to the server, too.
            client = cyborg.get_client(context)
            if client.get_arqs_for_instance(instance.uuid):
                client.delete_arqs_for_instance(instance.uuid)
        return self.execute(context, instance, host, build_spec,
                            requested_networks, wanted)

    @staticmethod
    def _may_have_any(instance: types.Instance,
                      requested_networks: types.Networks) -> bool:
        return bool(
            instance.flavor.extra_specs.get('accel:device_profile') or
            any(network.device_profile for network in requested_networks or
                ()))

    def had_effect(self, result: Any) -> bool:
        return bool(result[0])

    def revert(self, context: types.Context, instance: types.Instance,
               requested_networks: types.Networks, result: Any,
               flow_failures: types.Failures) -> None:
        uuids = [network.arq_uuid for network in requested_networks or ()
                 if network.arq_uuid]
        if not isinstance(result, base.Failure) and result:
            uuids = sorted({*uuids, *result[0]})
        compute_utils.delete_arqs_if_needed(context, instance, uuids or None)
