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

"""Building servers: what the API, or a compute that failed, asks for."""

from collections.abc import Iterable
from typing import Any

from nova import context as nova_context
from nova import exception
from nova import objects
from oslo_log import log as logging

from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm.engine import runner as runner_module
from nova_ssm.engine import serialization
from nova_ssm.flows import build_instances as flows
from nova_ssm import keys
from nova_ssm import plugins
from nova_ssm.tasks import abandoned

LOG = logging.getLogger(__name__)


class BuildInstances(plugins.Workflow):
    """Builds new servers, and tries again where a compute has failed."""

    methods = ('schedule_and_build_instances', 'build_instances')

    #: Failures that Nova keeps to itself: the server's fault tells of them.
    _quiet = frozenset(('ScheduleInstances', 'CheckRetries',
                        'ClaimAlternate', 'SetAvailabilityZone',
                        'CreateArqs'))

    def flow_types(self) -> Iterable[registry.FlowType]:
        return flows.flow_types(self.manager)

    def schedule_and_build_instances(
            self, context: nova_context.RequestContext,
            build_requests: list[objects.BuildRequest],
            request_specs: list[objects.RequestSpec], image: dict,
            admin_password: str | None, injected_files: Any,
            requested_networks: Any, block_device_mapping: Any,
            tags: Any = None) -> None:
        spec = request_specs[0]
        outcome = self._begin(journal.FlowRequest(
            name='schedule_and_build_instances', context=context,
            uuid=keys.build(spec.instance_uuid),
            subject=spec.instance_uuid, project_id=spec.project_id,
            user_id=context.user_id, request_id=context.request_id,
            store={'build_requests': build_requests,
                   'request_specs': request_specs, 'image': image,
                   'admin_password': serialization.Secret(admin_password),
                   'injected_files': serialization.Secret(injected_files),
                   'requested_networks': requested_networks,
                   'block_device_mapping': block_device_mapping,
                   'tags': tags}))
        if outcome and outcome.failed_task != 'ScheduleInstances':
            outcome.reraise()

    def _begin(self, request: journal.FlowRequest
               ) -> runner_module.Outcome | None:
        try:
            return self.begin(request)
        except exception.MigrationPreCheckError:
            return None     # the servers are in ERROR, and say why

    def takes(self, method: str, *args: Any, **kwargs: Any) -> bool:
        """Leave to Nova what only computes older than Queens send."""
        if method != 'build_instances':
            return True
        return (kwargs['request_spec'] is not None and
                kwargs['host_lists'] is not None and
                bool(kwargs['filter_properties'].get('retry')) and
                isinstance(kwargs['filter_properties'].get('instance_type'),
                           objects.Flavor | None) and
                (not kwargs['requested_networks'] or isinstance(
                    kwargs['requested_networks'],
                    objects.NetworkRequestList)))

    def build_instances(
            self, context: nova_context.RequestContext,
            instances: list[objects.Instance], image: dict,
            filter_properties: dict, admin_password: str | None,
            injected_files: Any, requested_networks: Any,
            security_groups: Any, block_device_mapping: Any,
            legacy_bdm: bool, request_spec: objects.RequestSpec,
            host_lists: list) -> None:
        """Try servers on their next hosts.

        The block devices are those of the first attempt; the database knows
        better what has become of them.
        """
        for instance, host_list in zip(instances, host_lists,
                                       strict=False):
            outcome = self.runner.run(journal.FlowRequest(
                name='reschedule_instance', context=context,
                subject=instance.uuid, project_id=instance.project_id,
                user_id=instance.user_id, request_id=context.request_id,
                store={
                    'instance': instance, 'cell': None, 'image': image,
                    'filter_properties': filter_properties,
                    'admin_password': serialization.Secret(admin_password),
                    'injected_files': serialization.Secret(injected_files),
                    'requested_networks': requested_networks,
                    'security_groups': security_groups,
                    'request_spec': request_spec,
                    'host_list': list(host_list)}))
            if outcome.failed_task == 'CreateArqs':
                LOG.error('Failed to reschedule. Reason: %s',
                          outcome.failure, exc_info=outcome.failure)
            if outcome.failed_task not in self._quiet:
                outcome.reraise()

    def on_worker_death(self, worker_id: str) -> None:
        """Have servers looked after whose computes were calling it."""
        self.look_after('fail_abandoned_builds', worker_id,
                        abandoned.BUILD_FLOWS)
