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

One class an operation, an entry point in ``nova_ssm.workflows``: those of
this package stand in the package of that name.
"""

import abc
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any, ClassVar
import uuid

from nova.conductor import manager as conductor_manager
from nova import context as nova_context
from nova import exception as nova_exc
from oslo_db import exception as db_exc
from oslo_log import log as logging
import stevedore

from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm.engine import registry
from nova_ssm.engine import runner as runner_module
from nova_ssm import exception
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

    def start(self) -> None:  # noqa: B027
        """Begin what goes on beside the calls: in each worker, once."""

    def begin(self, request: journal.FlowRequest
              ) -> runner_module.Outcome | None:
        """Run a flow whose id follows from the request.

        :returns: None if somebody has begun it already: it came twice
        :raises MigrationPreCheckError: if it came so late that it was taken
            for lost, and was ended
        """
        try:
            return self.runner.run(request)
        except db_exc.DBDuplicateEntry:
            there = queries.flow(self.runner.db, request.uuid)
            LOG.warning('Request %s for %s is not begun again: flow %s (%s) '
                        'is there', request.request_id, request.subject,
                        there.uuid, there.name)
            if there.name == request.name:
                return None
            raise nova_exc.MigrationPreCheckError(
                reason='request %s came too late, it was taken for lost'
                       % request.request_id) from None

    def on_worker_death(self, worker_id: str) -> None:  # noqa: B027
        """Look after what a dead conductor worker leaves beside its flows.

        Called once or more for each, by any conductor. Most have nothing to
        look after.
        """

    def look_after(self, name: str, worker_id: str,
                   flows: Sequence[str]) -> None:
        """Post a flow that looks after the servers of flows, once a worker.

        :param name: of the flow that looks after them; it takes the times
            between which flows have ended that need it
        :param flows: the names of the flows whose servers may need it; if
            none runs, or has ended then, nothing is posted
        """
        db = self.runner.db
        found_at = queries.clock(db)
        lease_end = queries.lease_end(db, worker_id)
        # It may have been dead for long: nobody was there to notice.
        died_after = found_at if lease_end is None else min(
            found_at, lease_end - self.runner.worker.lease)
        told_since = died_after - 2 * abandoned.window()
        if not queries.has_flows(db, flows, told_since):
            return
        request = journal.FlowRequest(
            name=name, subject=worker_id,
            store={'told_since': told_since,
                   'told_until': found_at + abandoned.window()},
            context=nova_context.get_admin_context(),
            version=self.runner.registry.get(name).version,
            # The same for all who notice: one of them posts it.
            uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, name + worker_id)))
        try:
            self.runner.board.start(request, owner=None)
        except db_exc.DBDuplicateEntry:
            LOG.debug('Flow %s is posted already for worker %s', name,
                      worker_id)


def load(names: list[str], manager: conductor_manager.ComputeTaskManager,
         runner: runner_module.Runner) -> dict[str, Workflow]:
    """Make the workflows of ``[ssm] workflows``.

    :returns: the workflow of each method that one of them takes over
    :raises ConfigurationError: if a name is unknown, or a plugin broken
    """
    by_method: dict[str, Workflow] = {}
    for name in names:
        add(by_method, _load(name, manager, runner), runner)
    return by_method


def add(by_method: dict[str, Workflow], workflow: Workflow,
        runner: runner_module.Runner) -> None:
    """Let a workflow take over its methods, and its flows be resumed.

    :raises ConfigurationError: if another one has one of its methods
    """
    for method in workflow.methods:
        if method in by_method:
            raise exception.ConfigurationError(
                '[ssm] workflows names two plugins that both run %s: '
                'leave one of them out' % method)
        by_method[method] = workflow
    for flow_type in workflow.flow_types():
        runner.registry.add(flow_type)


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
