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

"""The compute task manager that nova-conductor is told to use.

Nova's own, but for the operations that ``[ssm] workflows`` names: those are
run by their plugins.
"""

from collections.abc import Iterable
import threading
from typing import Any

from nova.conductor import manager
from nova import context as nova_context
from oslo_config import cfg
from oslo_log import log as logging

from nova_ssm import computes
from nova_ssm import conf
from nova_ssm.engine import exception as engine_exc
from nova_ssm import exception
from nova_ssm import plugins
from nova_ssm import runtime
from nova_ssm.workflows import audit

CONF = cfg.CONF
LOG = logging.getLogger(__name__)


class ComputeTaskManager(manager.ComputeTaskManager):
    """Routes an operation to its workflow, or to Nova.

    :raises ConfigurationError: if it could not run what it is told to
    """

    def __init__(self) -> None:
        conf.register_opts(CONF)
        super().__init__()
        #: Whether the move that this thread serves has gone well.
        self._moved = threading.local()
        self.compute_rpcapi = computes.ComputeAPI()
        try:
            self.ssm = runtime.Runtime(CONF, self.host)
            self._workflows = plugins.load(CONF.ssm.workflows, self,
                                           self.ssm.runner)
            if self._workflows:
                plugins.add(self._workflows,
                            audit.Audit(self, self.ssm.runner),
                            self.ssm.runner)
            self.ssm.extend(self)
        except (engine_exc.EngineError, exception.ConfigurationError) as exc:
            # Who loads us logs it, in one line.
            raise exception.ConfigurationError(str(exc)) from None

    def reset(self) -> None:
        """Look again what versions the computes have: SIGHUP."""
        super().reset()
        self.compute_rpcapi = computes.ComputeAPI()

    def post_start_hook(self) -> None:
        """Go on with what dead conductors left, in each worker."""
        if self._workflows:
            self.ssm.start(self._on_worker_death)
        for workflow in self._each():
            workflow.start()

    def _each(self) -> Iterable[plugins.Workflow]:
        return {id(one): one for one in self._workflows.values()}.values()

    def set_shutdown_in_progress(self) -> None:
        """Let other conductors go on: this worker is told to stop.

        Called before it takes its last messages. Their flows are journaled,
        and not begun here.
        """
        self.ssm.suspend()

    def graceful_shutdown(self, timeout: float) -> None:
        """Wait for the steps that are under way, and give the lease back.

        :param timeout: seconds that are left of Nova's own. If none are, Nova
            goes on without us, and ends the process: the others wait for the
            end of the lease.
        """
        if timeout > 0:
            self.ssm.stop(timeout)

    def _on_worker_death(self, worker_id: str) -> None:
        self.ssm.telemetry.worker_died(worker_id)
        for workflow in self._each():
            workflow.on_worker_death(worker_id)

    def _workflow(self, method: str, **kwargs: Any) -> Any:
        workflow = self._workflows.get(method)
        if workflow is None or not workflow.takes(method, **kwargs):
            return getattr(super(), method)
        return getattr(workflow, method)

    def ssm_answer(self, context: nova_context.RequestContext) -> str | None:
        """Say who we are to a conductor that looks for lost requests.

        Not a part of Nova's RPC API: conductors ask each other.

        :returns: the id of the worker; None if we keep no journal
        """
        workflow: Any = self._workflows.get('ssm_answer')
        return workflow.ssm_answer(context) if workflow else None

    def schedule_and_build_instances(
            self, context: nova_context.RequestContext, build_requests: Any,
            request_specs: Any, image: Any, admin_password: Any,
            injected_files: Any, requested_networks: Any,
            block_device_mapping: Any, tags: Any = None) -> None:
        kwargs = {'build_requests': build_requests,
                  'request_specs': request_specs, 'image': image,
                  'admin_password': admin_password,
                  'injected_files': injected_files,
                  'requested_networks': requested_networks,
                  'block_device_mapping': block_device_mapping, 'tags': tags}
        run = self._workflow('schedule_and_build_instances', **kwargs)
        run(context, **kwargs)

    def build_instances(
            self, context: nova_context.RequestContext, instances: Any,
            image: Any, filter_properties: Any, admin_password: Any,
            injected_files: Any, requested_networks: Any,
            security_groups: Any, block_device_mapping: Any = None,
            legacy_bdm: bool = True, request_spec: Any = None,
            host_lists: Any = None) -> None:
        kwargs = {'instances': instances, 'image': image,
                  'filter_properties': filter_properties,
                  'admin_password': admin_password,
                  'injected_files': injected_files,
                  'requested_networks': requested_networks,
                  'security_groups': security_groups,
                  'block_device_mapping': block_device_mapping,
                  'legacy_bdm': legacy_bdm, 'request_spec': request_spec,
                  'host_lists': host_lists}
        self._workflow('build_instances', **kwargs)(context, **kwargs)

    # Nova's RPC methods target the cell, keep the action's events and tell
    # callers what they expect; they call these to do the work.

    def _live_migrate(
            self, context: nova_context.RequestContext, instance: Any,
            scheduler_hint: Any, block_migration: Any, disk_over_commit: Any,
            request_spec: Any) -> None:
        kwargs = {'instance': instance, 'scheduler_hint': scheduler_hint,
                  'block_migration': block_migration,
                  'disk_over_commit': disk_over_commit,
                  'request_spec': request_spec}
        self._workflow('_live_migrate', **kwargs)(context, **kwargs)

    def _cold_migrate(
            self, context: nova_context.RequestContext, instance: Any,
            flavor: Any, filter_properties: Any, clean_shutdown: Any,
            request_spec: Any, host_list: Any) -> None:
        kwargs = {'instance': instance, 'flavor': flavor,
                  'filter_properties': filter_properties,
                  'clean_shutdown': clean_shutdown,
                  'request_spec': request_spec, 'host_list': host_list}
        self._workflow('_cold_migrate', **kwargs)(context, **kwargs)
        self._moved.it = True

    def migrate_server(self, context: nova_context.RequestContext,
                       *args: Any, **kwargs: Any) -> None:
        """As Nova's, whatever fails behind a move that went well.

        The compute that could not take a server waits for the answer, and
        puts the server into ERROR if that is bad, while the next one is at
        work with it already.
        """
        self._moved.it = False
        try:
            super().migrate_server(context, *args, **kwargs)
        except Exception:
            if not ('_cold_migrate' in self._workflows and self._moved.it):
                raise
            LOG.exception('The event of a move could not be closed')
