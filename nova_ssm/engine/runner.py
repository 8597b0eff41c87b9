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

"""Runs flows durably: starts them, resumes them, and says how they ended."""

import dataclasses
import os
import threading
from typing import Any, Iterable

from oslo_log import log as logging
from taskflow.engines.action_engine import compiler
from taskflow.engines.action_engine import engine as action_engine
from taskflow import exceptions as taskflow_exc
from taskflow.persistence import models
from taskflow import states as taskflow_states

from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import jobboard
from nova_ssm.engine import journal
from nova_ssm.engine import loading
from nova_ssm.engine import registry as registry_module
from nova_ssm.engine import serialization
from nova_ssm.engine import states
from nova_ssm.engine import worker as worker_module

LOG = logging.getLogger(__name__)

#: How a run ends, beside the final states: another worker owns the flow.
LOST = 'LOST'


@dataclasses.dataclass
class Outcome:
    """How a run of a flow ended.

    :param state: a final state of a flow, or LOST
    :param failed_task: the task that failed first
    :param failure: what it raised, as it was raised
    :param results: what the tasks provided, by name
    :param children: how the flows ended that this one posted
    """

    uuid: str
    state: str
    failed_task: str | None = None
    failure: BaseException | None = None
    results: dict[str, Any] = dataclasses.field(default_factory=dict)
    children: list['Outcome'] = dataclasses.field(default_factory=list)

    def reraise(self) -> None:
        """Raise what made the flow, or the first such child, fail."""
        for outcome in (self, *self.children):
            if outcome.failure is not None:
                raise outcome.failure


class Runner:
    """Runs flows in the calling thread.

    :param db: where the journal is
    :param serializer: how values are journaled
    :param registry: the flows that can be run
    :param host: the service's host name
    :param lease: of this process, in seconds
    :param renew: False leaves renewing the lease to the caller
    """

    def __init__(self, db: database.Database,
                 serializer: serialization.Serializer,
                 registry: registry_module.Registry, host: str,
                 lease: float = 10, renew: bool = True) -> None:
        self.db = db
        self.registry = registry
        self.after_commit: journal.AfterCommit | None = None
        self.board = jobboard.SQLJobBoard(
            'nova_ssm', {'database': db, 'serializer': serializer})
        self._serializer = serializer
        self._host = host
        self._lease = lease
        self._renew = renew
        self._worker: worker_module.Worker | None = None
        self._lock = threading.Lock()

    @property
    def worker(self) -> worker_module.Worker:
        """This process's worker: registered when it is first needed."""
        if self._worker is None or self._worker.pid != os.getpid():
            with self._lock:
                if self._worker is None or self._worker.pid != os.getpid():
                    worker = worker_module.Worker(
                        self.db, self._host, self._lease)
                    worker.start(renew=self._renew)
                    self._worker = worker
        return self._worker

    def close(self) -> None:
        """Give the lease back. What still runs is taken over by others."""
        if self._worker is not None and self._worker.pid == os.getpid():
            self._worker.stop()
            self._worker = None
        self.db.close()

    # -- running ----------------------------------------------------------

    def run(self, request: journal.FlowRequest) -> Outcome:
        """Start a flow and run it, and its children, to the end."""
        request.version = self.registry.get(request.name).version
        self.board.start(request, owner=self.worker.id)
        if self.after_commit is not None:
            self.after_commit(request.uuid, states.START, None, None)
        return self._run_started(request)

    def _run_started(self, request: journal.FlowRequest) -> Outcome:
        log = self._log(request.uuid, next_seq=1)
        detail = journal.new_detail(
            request.uuid, request.name,
            {**request.store, 'context': request.context})
        return self._execute(log, detail)

    def resume(self, job: jobboard.SQLJob) -> Outcome:
        """Take a flow that nobody runs, and run it to the end.

        :raises taskflow.exceptions.UnclaimableJob: if somebody was faster
        """
        next_seq = self.board.claim(job, self.worker.id)
        return self.resume_claimed(job.uuid, job.name, next_seq)

    def resume_claimed(self, uuid: str, name: str,
                       next_seq: int) -> Outcome:
        """Go on with a flow that this worker owns."""
        log = self._log(uuid, next_seq)
        try:
            loaded = loading.load(self.db, self._serializer, uuid, name)
        except Exception as exc:
            # Not a reason to revert: it may be readable elsewhere.
            LOG.error('Flow %s (%s) cannot be read back, it stays as it is: '
                      '%s', uuid, name, exc)
            raise
        log.started = loaded.started
        log.failed = loaded.failed
        log.seen = loaded.seen
        return self._execute(log, loaded.detail, loaded)

    def _log(self, uuid: str, next_seq: int) -> journal.FlowLog:
        return journal.FlowLog(
            self.db, self._serializer, uuid, self.worker,
            after_commit=self.after_commit, next_seq=next_seq)

    def _execute(self, log: journal.FlowLog, detail: models.FlowDetail,
                 loaded: loading.Loaded | None = None) -> Outcome:
        """Run the graph until it ends, then its children."""
        flow = self.registry.get(detail.name).factory()
        engine = action_engine.SerialActionEngine(
            flow, detail, journal.JournalBackend(log), {})
        engine.compile()
        log.tasks = {atom.name: atom for atom in _atoms(engine)}
        engine.prepare()
        if loaded is not None:
            _arm(log, engine.storage, loaded)
        try:
            state = self._run_engine(engine, log)
        except exception.FlowLost as lost:
            LOG.warning('%s; leaving it to its new owner', lost)
            return Outcome(log.uuid, LOST)
        outcome = Outcome(log.uuid, state,
                          results=_results(engine, state))
        if log.failed:
            outcome.failed_task, outcome.failure = log.failed
        for child in log.children:
            outcome.children.append(self._run_started(child))
        return outcome

    def _run_engine(self, engine: action_engine.SerialActionEngine,
                    log: journal.FlowLog) -> str:
        try:
            engine.run()
        except Exception as exc:
            # The failure of a task comes out here too; the log has it.
            if log.failed is None:
                LOG.exception('Flow %s broke', log.uuid)
                log.failed = ('engine', exc)
        state = _STATES.get(engine.storage.get_flow_state(), states.FAILURE)
        log.end(state)
        return state


#: TaskFlow's names of a flow's end, and ours.
_STATES = {taskflow_states.SUCCESS: states.SUCCESS,
           taskflow_states.REVERTED: states.REVERTED}


def _atoms(engine: action_engine.SerialActionEngine) -> Iterable[Any]:
    graph = engine.compilation.execution_graph
    return [node for node, data in graph.nodes(data=True)
            if data['kind'] in compiler.ATOMS]


def _arm(log: journal.FlowLog, storage: Any,
         loaded: loading.Loaded) -> None:
    """Let what may have begun already look before it leaps."""
    for name, task in log.tasks.items():
        if storage.get_atom_state(name) != taskflow_states.PENDING:
            continue
        if loaded.missing:
            _refuse(task, loaded.missing[0])
        elif hasattr(task, 'recover_first') and (
                not task.once or name in log.started):
            task.recover_first()


def _refuse(task: Any, why: str) -> None:
    def execute(*args: Any, **kwargs: Any) -> Any:
        raise exception.SecretUnavailable(
            'the flow was interrupted, and a secret that it needs to go on '
            'cannot be read back: %s' % why)
    task.__dict__['execute'] = execute


def _results(engine: action_engine.SerialActionEngine,
             state: str) -> dict[str, Any]:
    if state != states.SUCCESS:
        return {}
    return engine.storage.fetch_all()


#: Raised by Runner.resume when somebody else was faster.
Unclaimable = taskflow_exc.UnclaimableJob
