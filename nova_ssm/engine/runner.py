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

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import os
import threading
from typing import Any, ClassVar

from oslo_log import log as logging
from taskflow import exceptions as taskflow_exc
from taskflow.persistence import models

from nova_ssm.engine import abreast
from nova_ssm.engine import backend
from nova_ssm.engine import boards
from nova_ssm.engine import database
from nova_ssm.engine import engine as engine_module
from nova_ssm.engine import events
from nova_ssm.engine import exception
from nova_ssm.engine import jobboard
from nova_ssm.engine import journal
from nova_ssm.engine import loading
from nova_ssm.engine import obeying
from nova_ssm.engine import orders
from nova_ssm.engine import ownership
from nova_ssm.engine import queries
from nova_ssm.engine import registry as registry_module
from nova_ssm.engine import resuming
from nova_ssm.engine import running
from nova_ssm.engine import serialization
from nova_ssm.engine import starts
from nova_ssm.engine import states
from nova_ssm.engine import task as ssm_task
from nova_ssm.engine import troubles
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
    """Runs flows in the calling thread, and their children beside it.

    :cvar largest: the bytes that one task may give to the journal. In use
        there is no limit; tests set one, to learn which task gives more than
        one row holds.

    :param db: where the journal is
    :param serializer: how values are journaled
    :param registry: the flows that can be run
    :param host: the service's host name
    :param lease: of this process, in seconds
    :param renew: False leaves renewing the lease to the caller
    :param board: makes the job board; by default ``sql``
    :param concurrency: how many children of a flow are run side by side
    """

    largest: ClassVar[int | None] = None

    def __init__(self, db: database.Database,
                 serializer: serialization.Serializer,
                 registry: registry_module.Registry, host: str,
                 lease: float = 10, renew: bool = True,
                 board: boards.Factory | None = None,
                 concurrency: int = 1) -> None:
        self.db = db
        self.registry = registry
        self.after_commit: journal.AfterCommit | None = None
        #: Who is told of the flows that are run here.
        self.listeners = events.Listeners()
        self.board: boards.Board = (board or sql_board)(db, serializer)
        self._engines = engine_module.Engines()
        self._helpers = abreast.Helpers(concurrency)
        self._serializer = serializer
        self._host = host
        self.lease = lease
        self._renew = renew
        self._worker: worker_module.Worker | None = None
        self._lock = threading.Lock()
        self._idle = threading.Condition()
        self._running: dict[str, ownership.Ownership] = {}
        self._stopping = threading.Event()
        self._unreleased: dict[str, str] = {}
        #: The flows that are asked for, and not yet in the journal.
        self.starts = starts.Starts()

    @property
    def worker(self) -> worker_module.Worker:
        """This process's worker: registered when it is first needed."""
        if self._worker is None or self._worker.pid != os.getpid():
            with self._lock:
                if self._worker is None or self._worker.pid != os.getpid():
                    worker = worker_module.Worker(
                        self.db, self._host, self.lease)
                    if self._stopping.is_set():
                        worker.suspend()
                    worker.start(renew=self._renew)
                    self.board.attach(worker, self._renew)
                    self._worker = worker
        return self._worker

    def suspend(self) -> None:
        """Let each flow stop at its next step, and others go on with it.

        What is asked for from now on is posted, and not begun.
        """
        with self._lock:
            self._stopping.set()
            worker = self._worker
        if worker is not None and worker.pid == os.getpid():
            worker.suspend()
        with self._idle:
            for held in self._running.values():
                held.wake()

    def close(self, patience: float | None = None) -> None:
        """Stop at the next step of each flow, and give the lease back.

        What has not ended is taken over by others: at once if it has come to
        its next step in time, else when the lease has run out.

        :param patience: how many seconds to wait for the steps that are
            under way, by default for as long as the lease lasts
        """
        self.suspend()
        worker = self._worker
        if worker is not None and worker.pid == os.getpid():
            with self._idle:
                idle = self._idle.wait_for(
                    lambda: not self._running,
                    self.lease if patience is None else patience)
                left = sorted(self._running)
            if left:
                LOG.warning('Worker %s stops while steps of these flows are '
                            'under way: %s', worker.id, ', '.join(left))
            self.board.detach(idle)
            worker.stop(idle)
            self._worker = None
        self._helpers.close()
        self.db.close()

    def held(self) -> dict[str, ownership.Ownership]:
        """The flows that this process runs, by uuid."""
        with self._idle:
            return dict(self._running)

    # -- running ----------------------------------------------------------

    def run(self, request: journal.FlowRequest) -> Outcome:
        """Start a flow and run it, and its children, to the end.

        A process that is being stopped leaves it to others.

        :raises UnknownFlow: if no flow of that name is registered
        :raises NotSerializable: if it is given what cannot be journaled
        :raises DatabaseUnusable: if the journal cannot be written any more;
            the flow is left to recovery
        """
        request.version = self.registry.get(request.name).version
        if self._stopping.is_set():
            return self._leave(request)
        worker = self.worker
        lapses = worker.lapses
        with self.starts.one():
            self.board.start(request, owner=worker.id)
        if self.after_commit is not None:
            self.after_commit(request.uuid, states.START, None, None)
        return self._run_started(request, worker, lapses)

    def _leave(self, request: journal.FlowRequest) -> Outcome:
        """Post a flow that came while this process is being stopped."""
        LOG.info('Flow %s (%s) is left to another worker: this one is being '
                 'stopped', request.uuid, request.name)
        self.board.start(request, owner=None)
        return Outcome(request.uuid, LOST)

    def _run_started(self, request: journal.FlowRequest,
                     worker: worker_module.Worker,
                     lapses: int | None) -> Outcome:
        if not self.board.holds(request.uuid):
            self.board.adopt(request.uuid, worker.id)
        log = self._log_of(worker, request.uuid, request.next_seq)
        log.ownership.lapses = lapses
        log.version = request.version
        log.mask = request.mask
        log.telling = self.listeners.begin(request)
        detail = journal.new_detail(
            request.uuid, request.name,
            {**request.store, 'context': request.context})
        with self._holding(log):
            return self._execute(log, detail)

    def unreadable(self, uuid: str) -> str | None:
        """Why a flow cannot be read back here, None if it probably can."""
        return loading.unreadable(self.db, self._serializer, uuid)

    def resume(self, job: jobboard.SQLJob) -> Outcome:
        """Take a flow that nobody runs, and run it to the end.

        :raises taskflow.exceptions.UnclaimableJob: if somebody was faster
        """
        next_seq = self.board.claim(job, self.worker.id)
        return self.resume_claimed(job.uuid, job.name, next_seq)

    def resume_claimed(self, uuid: str, name: str, next_seq: int,
                       at_rest: Callable[[], None] | None = None) -> Outcome:
        """Go on with a flow that this worker owns.

        :param at_rest: called when one of its tasks begins to wait
        :raises Exception: if it cannot be read back, or not be journaled;
            it is free again then
        """
        log = self._log(uuid, next_seq)
        if at_rest is not None:
            log.ownership.at_rest = at_rest
        with self._holding(log):
            return self._go_on(log, name)

    def _go_on(self, log: journal.FlowLog, name: str) -> Outcome:
        """Go on with a flow of ours as its journal, and people, have it."""
        log.forget()
        order = orders.of(self.db, log.uuid)
        if order is not None and not order.open:
            order = None
        log.ownership.obey(order.verb if order else None)
        if order is not None and order.verb == orders.PAUSE:
            LOG.info('Flow %s waits, as ordered by %s', log.uuid, order.why)
            self.release(log.uuid, log.writer)
            return Outcome(log.uuid, LOST)
        if order is not None and order.verb == orders.KILL:
            return self._kill(log, order)
        # Failing here is no reason to revert: it may be readable elsewhere,
        # or later.
        loaded = loading.load(self.db, self._serializer, log.uuid, name)
        obeying.renew(self.registry, loaded)
        log.version = loaded.flow.version
        log.telling = self.listeners.begin(loaded.flow, resumed=True)
        log.mask = loaded.mask
        log.started = loaded.started
        log.failed = loaded.failed
        log.stuck = loaded.stuck
        log.seen = loaded.seen
        loaded.order = order
        return self._execute(log, loaded.detail, loaded)

    def _kill(self, log: journal.FlowLog, order: orders.Order) -> Outcome:
        """Give a flow up that may not even be readable."""
        LOG.warning('Flow %s is given up, as ordered by %s', log.uuid,
                    order.why)
        failure = exception.FlowKilled('given up by %s; %s' % (
            order.why, queries.left(self.db, log.uuid)))
        log.failed = ('kill', failure)
        log.telling = self.listeners.begin(
            queries.flow(self.db, log.uuid), resumed=True)
        log.end(states.KILLED)
        log.telling.ended(states.KILLED, log.failed, log.mask)
        self.board.finish(log.uuid, log.writer)
        return Outcome(log.uuid, states.KILLED, 'kill', failure)

    def _log(self, uuid: str, next_seq: int) -> journal.FlowLog:
        return self._log_of(self.worker, uuid, next_seq)

    def _log_of(self, worker: worker_module.Worker, uuid: str,
                next_seq: int) -> journal.FlowLog:
        return journal.FlowLog(
            self.db, self._serializer, uuid, worker, self.board,
            after_commit=self.after_commit, next_seq=next_seq,
            version_of=lambda name: self.registry.get(name).version,
            largest=self.largest)

    @contextlib.contextmanager
    def _holding(self, log: journal.FlowLog) -> Iterator[None]:
        """Let go of a flow, and its children, that are not run to the end."""
        with self._idle:
            self._running[log.uuid] = log.ownership
        try:
            yield
        except BaseException as exc:
            log.telling.left(events.BROKEN)
            for uuid in (log.uuid, *(child.uuid for child in log.children)):
                self.release(uuid, log.writer)
            if isinstance(exc, exception.JournalBroken):
                raise exception.DatabaseUnusable(str(exc)) from exc
            raise
        finally:
            with self._idle:
                del self._running[log.uuid]
                self._idle.notify_all()

    def release(self, uuid: str, owner: str) -> None:
        """Let others go on with a flow, now or when the database is back."""
        try:
            self.board.release(uuid, owner)
        except Exception as exc:  # noqa: BLE001 - tried again until it works
            LOG.warning('Flow %s could not be released, trying again later: '
                        '%s', uuid, database.first_line(exc))
            self._unreleased[uuid] = owner

    def release_again(self) -> None:
        """Release what could not be released when it should have been."""
        for uuid, owner in list(self._unreleased.items()):
            del self._unreleased[uuid]
            self.release(uuid, owner)

    def _execute(self, log: journal.FlowLog, detail: models.FlowDetail,
                 loaded: loading.Loaded | None = None) -> Outcome:
        """Run the graph until it ends, then its children."""
        try:
            outcome = self._run_graph(log, detail, loaded)
        except exception.FlowOrdered as ordered:
            LOG.info('%s', ordered)
            log.telling.left(events.SUSPENDED)
            return self._go_on(log, detail.name)
        except exception.FlowSuspended as suspended:
            LOG.info('%s', suspended)
            log.telling.left(events.SUSPENDED)
            self.release(log.uuid, log.writer)
            outcome = Outcome(log.uuid, LOST)
        except exception.FlowLost as lost:
            LOG.warning('%s; leaving it to its new owner', lost)
            log.telling.left(events.LOST)
            self.release(log.uuid, log.writer)
            outcome = Outcome(log.uuid, LOST)
        # They are ours, whatever has become of their parent.
        outcome.children += self._helpers.run(
            lambda child: self._run_started(child, log.worker,
                                            log.ownership.lapses),
            log.children, lambda child: child.context)
        return outcome

    def _run_graph(self, log: journal.FlowLog, detail: models.FlowDetail,
                   loaded: loading.Loaded | None) -> Outcome:
        results: dict[str, Any] = {}
        try:
            engine = self._prepare(log, detail, loaded)
            if loaded is not None and loaded.trouble is not None:
                troubles.clear(self.db, log.uuid)
            if loaded is not None and loaded.again:
                obeying.begin_again(self.registry, loaded)
        except Exception as exc:
            if loaded is not None and not loaded.again:
                raise
            # Nothing has been done yet, so there is nothing to be undone.
            log.failed = ('engine', exc)
            state = states.REVERTED
        else:
            if loaded is not None:
                resuming.arm(engine, loaded, obeying.cancellation(
                    self.db, self.registry, log, engine, loaded))
            state = running.run(engine, log)
            if state == states.SUCCESS:
                results = engine.storage.fetch_all()
        log.end(state)
        self.board.finish(log.uuid, log.writer)
        log.telling.ended(state, log.failed, log.mask)
        if loaded is None and state == states.SUCCESS:
            self._engines.give_back(self.registry.get(detail.name), engine)
        outcome = Outcome(log.uuid, state, results=results)
        if log.failed:
            outcome.failed_task, outcome.failure = log.failed
        return outcome

    def _prepare(self, log: journal.FlowLog,
                 detail: models.FlowDetail,
                 loaded: loading.Loaded | None) -> engine_module.Engine:
        flow_type = self.registry.get(detail.name, log.version)
        writer = backend.JournalBackend(log)
        # The tasks of a flow that goes on are prepared for that.
        engine = (self._engines.take(flow_type, detail, writer)
                  if loaded is None else engine_module.Engine(
                      flow_type.factory(), detail, writer))
        engine.compile()
        log.tasks = {atom.name: atom for atom in engine.atoms}
        for atom in engine.atoms:
            if isinstance(atom, ssm_task.Task):
                atom.wait = log.ownership.wait
            if isinstance(atom, ssm_task.Hook):
                atom.mask = log.mask
        log.choosers = engine.choosers
        engine.prepare()
        engine.validate()
        return engine


def sql_board(db: database.Database,
              serializer: serialization.Serializer) -> boards.Board:
    """The board that needs no other service: the database's own."""
    return jobboard.SQLJobBoard(
        'nova_ssm', {'database': db, 'serializer': serializer})


#: Raised by Runner.resume when somebody else was faster.
Unclaimable = taskflow_exc.UnclaimableJob
