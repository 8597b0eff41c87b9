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

"""Where a server goes: tasks that ask the scheduler, or its answer."""

import copy
from typing import Any, ClassVar, TypeAlias

from nova import availability_zones
from nova.compute import vm_states
from nova import exception
from nova.i18n import _
from nova import objects
from nova.scheduler import utils as scheduler_utils
from oslo_log import log as logging

from nova_ssm import exception as ssm_exc
from nova_ssm.tasks import allocations
from nova_ssm.tasks import base
from nova_ssm.tasks import burial
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

_Told: TypeAlias = tuple[types.RequestSpec, types.Properties, types.Selection,
                         list[types.Selection], list[str]]
_Checked: TypeAlias = tuple[types.Properties, types.Properties,
                            types.RequestSpec]


class ScheduleInstances(base.NovaTask):
    """Have the scheduler choose and claim hosts for all servers of a request.

    Reversion strategy: if no hosts were found, bury the servers in cell0; if
    a later task failed, remove their allocations.
    Recovery: remove what an earlier attempt may have claimed, schedule again.
    """

    default_provides = 'host_lists'
    reversion = 'bury the servers in cell0, or free their allocations'

    #: Seconds that a scheduler may go on claiming for a dead conductor.
    settle: ClassVar[float] = 1.0

    def execute(self, context: types.Context,
                request_specs: list[types.RequestSpec]
                ) -> list[list[types.Selection]]:
        uuids = [spec.instance_uuid for spec in request_specs]
        try:
            return self.manager._schedule_instances(
                context, request_specs[0], uuids, return_alternates=True)
        except Exception:
            LOG.exception('Failed to schedule instances')
            raise

    def recover(self, context: types.Context,
                request_specs: list[types.RequestSpec]
                ) -> list[list[types.Selection]]:
        self._await_quiet(context, request_specs)
        self._free(context, request_specs)
        return self.execute(context, request_specs)

    def _await_quiet(self, context: types.Context,
                     request_specs: list[types.RequestSpec]) -> None:
        allocations.await_quiet(
            self.manager, context,
            [spec.instance_uuid for spec in request_specs], self.settle)

    def _free(self, context: types.Context,
              request_specs: list[types.RequestSpec]) -> None:
        for spec in request_specs:
            self.manager.report_client.delete_allocation_for_instance(
                context, spec.instance_uuid, force=True)

    def revert(self, context: types.Context,
               build_requests: list[types.BuildRequest],
               request_specs: list[types.RequestSpec],
               block_device_mapping: types.Disks, tags: types.Tags,
               result: Any, flow_failures: types.Failures) -> None:
        if isinstance(result, base.Failure):
            exc = base.cause_of(result, flow_failures)
            burial.bury(self.manager, context, exc, build_requests,
                        request_specs[0], block_device_mapping, tags)
            if isinstance(exc, exception.NoValidHost):
                return      # the scheduler has left nothing
            # It may have claimed for a conductor that died, or gave up.
            request_specs = [
                spec for spec in request_specs
                if not burial.lives(context, spec.instance_uuid)]
            self._await_quiet(context, request_specs)
        self._free(context, request_specs)


class PrepareBuild(base.NovaTask):
    """Work out what the compute has to be told."""

    effect = False
    default_provides = ('build_spec', 'local_properties', 'host',
                        'alternates', 'security_groups')

    def execute(self, instance: types.Instance,
                request_spec: types.RequestSpec,
                host_list: list[types.Selection]) -> _Told:
        host, alternates = host_list[0], host_list[1:]
        LOG.debug('Selected host: %s; Selected node: %s; Alternates: %s',
                  host.service_host, host.nodename,
                  [(alternate.service_host, alternate.nodename)
                   for alternate in alternates], instance=instance)
        properties = request_spec.to_legacy_filter_properties_dict()
        scheduler_utils.populate_retry(properties, instance.uuid)
        scheduler_utils.populate_filter_properties(properties, host)
        scheduler_utils.fill_provider_mapping(request_spec, host)
        # The compute's RPC takes the names of security groups.
        groups = [group.identifier for group in request_spec.security_groups]
        return request_spec, properties, host, alternates, groups


class CheckRetries(base.NovaTask):
    """See whether the server may be tried on another host at all.

    :raises MaxRetriesExceeded: if it may not, or if there is none
    :raises TooLate: if it does not wait for one any more: its request was
        taken for lost
    """

    effect = False
    default_provides = ('retry_properties', 'legacy_spec', 'claim_spec')

    def execute(self, context: types.Context, instance: types.Instance,
                request_spec: types.RequestSpec,
                filter_properties: types.Properties,
                host_list: list[types.Selection]) -> _Checked:
        _see_that_it_waits(instance)
        properties = copy.deepcopy(filter_properties)
        legacy_spec = request_spec.to_legacy_request_spec_dict()
        scheduler_utils.populate_retry(properties, instance.uuid)
        claim_spec = objects.RequestSpec.from_primitives(
            context, legacy_spec, properties)
        if not host_list:
            raise exhausted(instance)
        return properties, legacy_spec, claim_spec


def _see_that_it_waits(instance: types.Instance) -> None:
    # Behind the first row of the flow: who takes the server for stuck puts
    # it into ERROR, and then looks whether it has a flow.
    try:
        now = objects.Instance.get_by_uuid(instance._context, instance.uuid)
    except exception.InstanceNotFound:
        return      # a later task finds out
    if now.host or now.vm_state != vm_states.BUILDING:
        raise ssm_exc.TooLate(
            'server %s does not wait for a host: it is %s%s' % (
                now.uuid, now.vm_state, ' on %s' % now.host if now.host
                else ''))


class PrepareRebuild(base.NovaTask):
    """Work out what the compute of the next attempt has to be told."""

    effect = False
    default_provides = ('build_spec', 'local_properties')

    def execute(self, context: types.Context, host: types.Selection,
                claimed_spec: types.RequestSpec, legacy_spec: types.Properties,
                retry_properties: types.Properties
                ) -> tuple[types.RequestSpec, types.Properties]:
        properties = copy.deepcopy(retry_properties)
        scheduler_utils.populate_filter_properties(properties, host)
        build_spec = objects.RequestSpec.from_primitives(
            context, legacy_spec, properties)
        # The legacy form has no place for these.
        build_spec.requested_resources = claimed_spec.requested_resources
        return build_spec, properties


def zone_of(context: types.Context, host: types.Selection) -> str:
    """The availability zone of a host that the scheduler has chosen."""
    if 'availability_zone' in host:
        return host.availability_zone
    # Schedulers of older releases do not tell it.
    return availability_zones.get_host_availability_zone(
        context, host.service_host)


def exhausted(instance: objects.Instance) -> exception.MaxRetriesExceeded:
    """The error of a server that no host is left for."""
    return exception.MaxRetriesExceeded(reason=_(
        'Exhausted all hosts available for retrying build failures for '
        'instance %(instance_uuid)s.') % {'instance_uuid': instance.uuid})
