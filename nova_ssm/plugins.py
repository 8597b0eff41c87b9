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

"""From an RPC call to a flow, and back to its result or exception.

One class an operation, an entry point in ``nova_ssm.workflows``.
"""

import abc
from collections.abc import Iterable
from typing import Any, ClassVar
import uuid

from nova.conductor import manager as conductor_manager
from nova import context as nova_context
from nova import objects
from oslo_db import exception as db_exc
from oslo_log import log as logging
import stevedore

from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm.engine import registry
from nova_ssm.engine import runner as runner_module
from nova_ssm.engine import serialization
from nova_ssm import exception
from nova_ssm.flows import build_instances
from nova_ssm.tasks import abandoned

LOG = logging.getLogger(__name__)

NAMESPACE = 'nova_ssm.workflows'


class Workflow(abc.ABC):
    """An operation of ComputeTaskManager that is run as task graphs.

    :param manager: the conductor's manager, whose helpers the tasks call
    """

    #: The methods of the manager that this workflow takes over.
    methods: ClassVar[tuple[str, ...]] = ()

    def __init__(self, manager: conductor_manager.ComputeTaskManager,
                 runner: runner_module.Runner) -> None:
        self.manager = manager
        self.runner = runner

    @abc.abstractmethod
    def flow_types(self) -> Iterable[registry.FlowType]:
        """The flows that it runs, and resumes."""

    def takes(self, method: str, *args: Any, **kwargs: Any) -> bool:
        """Whether it runs this call; if not, it is left to Nova."""
        return True


    def on_worker_death(self, worker_id: str) -> None:  # noqa: B027
        """Look after what a dead conductor worker leaves beside its flows.

        Called once or more for each, by any conductor. Most have nothing to
        look after.
        """


class BuildInstances(Workflow):
    """Builds new servers, and tries again where a compute has failed."""

    methods = ('schedule_and_build_instances', 'build_instances')

    #: Failures that Nova keeps to itself: the server's fault tells of them.
    _quiet = frozenset(('ScheduleInstances', 'CheckRetries',
                        'ClaimAlternate', 'SetAvailabilityZone',
                        'CreateArqs'))

    def flow_types(self) -> Iterable[registry.FlowType]:
        return build_instances.flow_types(self.manager)

    def schedule_and_build_instances(
            self, context: nova_context.RequestContext,
            build_requests: list[objects.BuildRequest],
            request_specs: list[objects.RequestSpec], image: dict,
            admin_password: str | None, injected_files: Any,
            requested_networks: Any, block_device_mapping: Any,
            tags: Any = None) -> None:
        spec = request_specs[0]
        outcome = self.runner.run(journal.FlowRequest(
            name='schedule_and_build_instances', context=context,
            subject=spec.instance_uuid, project_id=spec.project_id,
            user_id=context.user_id, request_id=context.request_id,
            store={'build_requests': build_requests,
                   'request_specs': request_specs, 'image': image,
                   'admin_password': serialization.Secret(admin_password),
                   'injected_files': serialization.Secret(injected_files),
                   'requested_networks': requested_networks,
                   'block_device_mapping': block_device_mapping,
                   'tags': tags}))
        if outcome.failed_task != 'ScheduleInstances':
            outcome.reraise()

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
        if not queries.subjects_finished(
                self.runner.db, abandoned.BUILD_FLOWS, 2 * abandoned.window()):
            return
        request = journal.FlowRequest(
            name='fail_abandoned_builds', store={}, subject=worker_id,
            context=nova_context.get_admin_context(),
            version=self.runner.registry.get('fail_abandoned_builds').version,
            # The same for all who notice: one of them posts it.
            uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, worker_id)))
        try:
            self.runner.board.start(request, owner=None)
        except db_exc.DBDuplicateEntry:
            LOG.debug('The builds that worker %s may have left are looked '
                      'after already', worker_id)


def load(names: list[str], manager: conductor_manager.ComputeTaskManager,
         runner: runner_module.Runner) -> dict[str, Workflow]:
    """Make the workflows of ``[ssm] workflows``.

    :returns: the workflow of each method that one of them takes over
    :raises ConfigurationError: if a name is unknown, or a plugin broken
    """
    by_method: dict[str, Workflow] = {}
    for name in names:
        workflow = _load(name, manager, runner)
        for method in workflow.methods:
            if method in by_method:
                raise exception.ConfigurationError(
                    '[ssm] workflows names two plugins that both run %s: '
                    'leave one of them out' % method)
            by_method[method] = workflow
        for flow_type in workflow.flow_types():
            runner.registry.add(flow_type)
    return by_method


def _load(name: str, manager: conductor_manager.ComputeTaskManager,
          runner: runner_module.Runner) -> Workflow:
    try:
        loaded: Any = stevedore.DriverManager(
            NAMESPACE, name, invoke_on_load=True,
            invoke_args=(manager, runner), on_load_failure_callback=_broken)
    except stevedore.exception.NoMatches:
        raise exception.ConfigurationError(
            '[ssm] workflows names %r, which is not installed; installed '
            'are: %s' % (name, ', '.join(installed()) or 'none')) from None
    return loaded.driver


def _broken(manager: Any, entry_point: Any, exc: BaseException) -> None:
    raise exception.ConfigurationError(
        'the plugin %r that [ssm] workflows names cannot be loaded (%s: %s): '
        'mend it, or take its name out' % (
            entry_point.name, type(exc).__name__, exc)) from exc


def installed() -> list[str]:
    """The names that [ssm] workflows may have."""
    return sorted(stevedore.ExtensionManager(
        NAMESPACE, invoke_on_load=False).entry_points_names())
