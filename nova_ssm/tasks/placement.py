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

"""Allocations in placement."""

from typing import Any, TypeAlias

from nova.scheduler import utils as scheduler_utils
from oslo_serialization import jsonutils

from nova_ssm.tasks import allocations
from nova_ssm.tasks import base
from nova_ssm.tasks import scheduling
from nova_ssm.tasks import types

#: The host, the alternates that are left, the request as claimed.
_Claimed: TypeAlias = tuple[types.Selection, list[types.Selection],
                            types.RequestSpec]


class ClaimAlternate(base.NovaTask):
    """Claim the resources of the next alternate host that has them.

    Reversion strategy: remove the server's allocations.
    Recovery: if the server holds allocations on one of the alternates, take
    that one.
    """

    default_provides = ('host', 'alternates', 'claimed_spec')
    reversion = 'free the allocations'

    def execute(self, context: types.Context, instance: types.Instance,
                host_list: list[types.Selection],
                claim_spec: types.RequestSpec,
                request_spec: types.RequestSpec) -> _Claimed:
        for index, host in enumerate(host_list):
            if not host.allocation_request:
                # A scheduler without placement: nothing to claim.
                return host, host_list[index + 1:], request_spec
            if scheduler_utils.claim_resources(
                    context.elevated(), self.manager.report_client,
                    claim_spec, instance.uuid,
                    jsonutils.loads(host.allocation_request),
                    host.allocation_request_version):
                return self._take(host_list, index, request_spec)
        raise scheduling.exhausted(instance)

    def recover(self, context: types.Context, instance: types.Instance,
                host_list: list[types.Selection],
                claim_spec: types.RequestSpec,
                request_spec: types.RequestSpec) -> _Claimed:
        held = allocations.held_by(self.manager, context, instance.uuid)
        for index, host in enumerate(host_list):
            if held and held.keys() == allocations.providers(host):
                return self._take(host_list, index, request_spec)
        return self.execute(context, instance, host_list, claim_spec,
                            request_spec)

    @staticmethod
    def _take(host_list: list[types.Selection], index: int,
              request_spec: types.RequestSpec) -> _Claimed:
        host = host_list[index]
        # The claim has moved the groups to this host's providers.
        scheduler_utils.fill_provider_mapping(request_spec, host)
        return host, host_list[index + 1:], request_spec

    def revert(self, context: types.Context, instance: types.Instance,
               result: Any, flow_failures: types.Failures) -> None:
        self.manager.report_client.delete_allocation_for_instance(
            context, instance.uuid, force=True)
