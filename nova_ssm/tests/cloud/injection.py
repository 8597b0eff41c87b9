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
"""nova-conductor, which kills itself where a test tells it to.

``python -m nova_ssm.tests.cloud.injection ARGUMENTS`` is nova-conductor with
the same arguments. Before it starts, it hangs itself onto

* the engine: which flow runs, and which rows of its journal are committed,
* the tasks, and the retries, of each flow that runs,
* what changes something outside of the process: commits of SQLAlchemy, but
  not those of the journal, HTTP requests of keystoneauth, messages of
  oslo.messaging.

See injection_orders for what it is told, and what it tells.
"""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import os
import pathlib
import signal
import sys
import threading
import time
from typing import Any

from nova_ssm.tests.cloud import injection_orders as orders

_READ_ONLY = frozenset(('GET', 'HEAD', 'OPTIONS'))


@dataclasses.dataclass
class _Flow:
    """The flow that a thread runs."""

    uuid: str
    name: str
    subject: str | None
    resumed: bool
    #: How often each task was begun, by name and phase.
    turns: dict[tuple[str, str], int] = dataclasses.field(
        default_factory=dict)


@dataclasses.dataclass
class _Run:
    """The task that a thread runs."""

    task: str
    phase: str
    changes: int = 0


class Injector:
    """Knows what each thread is about, and carries out the orders."""

    def __init__(self, files: orders.Orders) -> None:
        self.host = ''
        self._orders = files
        self._local = threading.local()

    # -- where a thread is

    @property
    def _flow(self) -> _Flow | None:
        return getattr(self._local, 'flow', None)

    @property
    def _run(self) -> _Run | None:
        return getattr(self._local, 'run', None)

    @contextlib.contextmanager
    def in_flow(self, uuid: str, name: str, subject: str | None,
                resumed: bool = False) -> Iterator[None]:
        """This thread works on a flow."""
        before = self._flow
        self._local.flow = _Flow(uuid, name, subject, resumed)
        try:
            yield
        finally:
            self._local.flow = before

    @contextlib.contextmanager
    def outermost(self, what: str) -> Iterator[bool]:
        """Tell whether this is not inside of another call of the kind."""
        depth = getattr(self._local, what, 0)
        setattr(self._local, what, depth + 1)
        try:
            yield not depth
        finally:
            setattr(self._local, what, depth)

    def is_within(self, what: str) -> bool:
        """Whether this thread is in a call of the kind."""
        return bool(getattr(self._local, what, 0))

    @contextlib.contextmanager
    def in_task(self, task: str, phase: str) -> Iterator[bool]:
        """This thread executes, or reverts, a task.

        :yields: False if that is a part of a task's work already: of one
            that calls itself, or its parent
        """
        flow = self._flow
        if flow is None or self._run is not None:
            yield False
            return
        flow.turns[task, phase] = flow.turns.get((task, phase), 0) + 1
        run = self._local.run = _Run(task, phase)
        try:
            yield True
        except Exception:
            self._returned(run)
            raise
        else:
            self._returned(run)
        finally:
            self._local.run = None

    def _returned(self, run: _Run) -> None:
        self._local.run = None
        if not run.changes:
            self._pass(orders.MIDDLE, run.task, run.phase)
        self._pass(orders.DONE, run.task, run.phase)

    def fails(self, task: str) -> bool:
        """Whether a task is to fail now."""
        return (self._flow is not None and
                self._orders.fails(self._flow.name, task))

    # -- what happens there

    def changed(self, what: str) -> None:
        """Something outside of the process has been changed."""
        run = self._run
        if run is not None:
            run.changes += 1
            self._pass(orders.MIDDLE, run.task, run.phase,
                       change=run.changes, what=what)

    def committed(self, uuid: str, kind: str, task: str | None,
                  state: str | None) -> None:
        """A row of the journal is written."""
        flow = self._flow
        if flow is None or flow.uuid != uuid:
            return
        if kind in (orders.START, orders.END):
            self._pass(kind, '', '', state=state)
        elif task is not None and state == 'RUNNING':
            self._pass(orders.BEGUN, task, orders.EXECUTE, state=state)
        elif task is not None:
            self._pass(orders.BOUNDARY, task, _phase(state), state=state)

    def ended(self, task: str, state: str) -> None:
        """A task has ended in a way that leaves no row of its own."""
        if self._flow and (task, _phase(state)) in self._flow.turns:
            self._pass(orders.BOUNDARY, task, _phase(state))

    def _pass(self, at: str, task: str, phase: str, change: int = 0,
              state: str | None = None, what: str = '') -> None:
        flow = self._flow
        assert flow is not None
        turn = flow.turns.get((task, phase), 0)
        if at == orders.BEGUN or not task:
            turn += 1
        point = orders.Point(flow.name, task, phase, at, turn, change)
        token = self._orders.take(point, flow.subject)
        self._orders.write(orders.Passed(
            point, time.time(), self.host, os.getpid(), flow.uuid,
            flow.subject, state, what, flow.resumed, token))
        if token is not None:
            os.killpg(os.getpgrp(), signal.SIGKILL)
            time.sleep(60)      # for the kernel to do it


def _phase(state: str | None) -> str:
    return orders.REVERT if state in (
        'REVERTED', 'REVERT_FAILURE') else orders.EXECUTE


# -- onto what it is hung


def _watch_engine(injector: Injector) -> None:
    from nova.conf import CONF
    from nova_ssm.engine import database
    from nova_ssm.engine import journal
    from nova_ssm.engine import runner

    original_init = runner.Runner.__init__
    original_run = runner.Runner.run
    original_graph = runner.Runner._run_graph
    original_prepare = runner.Runner._prepare
    original_note = journal.FlowLog.note
    original_transaction = database.Database.transaction

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original_init(self, *args, **kwargs)
        injector.host = CONF.host
        self.after_commit = injector.committed

    def run(self: Any, request: Any) -> Any:
        with injector.in_flow(request.uuid, request.name, request.subject):
            return original_run(self, request)

    def run_graph(self: Any, log: Any, detail: Any, loaded: Any) -> Any:
        with injector.in_flow(log.uuid, detail.name,
                              _subject(self.db, log.uuid),
                              resumed=loaded is not None):
            return original_graph(self, log, detail, loaded)

    def prepare(self: Any, log: Any, detail: Any, loaded: Any) -> Any:
        made = original_prepare(self, log, detail, loaded)
        for atom in log.tasks.values():
            _watch_task(injector, type(atom))
        return made

    def note(self: Any, detail: Any) -> None:
        rows, before = self._seq, self.seen.get(detail.name)
        original_note(self, detail)
        after = self.seen.get(detail.name)
        if rows == self._seq and after and after[0] == detail.state and (
                before is None or before[0] != detail.state) and (
                detail.state in journal._ENDED):
            injector.ended(detail.name, detail.state)

    @contextlib.contextmanager
    def transaction(self: Any) -> Iterator[Any]:
        with injector.outermost('journal'), original_transaction(self) as it:
            yield it

    runner.Runner.__init__ = init
    runner.Runner.run = run
    runner.Runner._run_graph = run_graph
    runner.Runner._prepare = prepare
    journal.FlowLog.note = note
    database.Database.transaction = transaction


def _subject(db: Any, uuid: str) -> str | None:
    import sqlalchemy as sa

    from nova_ssm.engine import schema
    return db.write(lambda connection: connection.execute(
        sa.select(schema.flows.c.subject).where(
            schema.flows.c.uuid == uuid)).scalar())


def _watch_task(injector: Injector, cls: type) -> None:
    """Watch what a class of tasks does, once.

    The class and not the task: the engine replaces methods of the task.
    """
    from taskflow import atom
    from taskflow import retry

    from nova_ssm.engine import task as ssm_task
    for one in cls.__mro__:
        if one in (ssm_task.Task, retry.Retry, atom.Atom):
            break
        for name in ('execute', 'recover', 'revert'):
            method = vars(one).get(name)
            if method is not None and not hasattr(method, 'watched'):
                setattr(one, name, _watched(injector, method))


def _watched(injector: Injector, method: Callable) -> Callable:
    from nova import exception
    phase = (orders.REVERT if method.__name__ == 'revert'
             else orders.EXECUTE)

    @functools.wraps(method)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        with injector.in_task(self.name, phase) as outermost:
            fails = (outermost and phase == orders.EXECUTE and
                     injector.fails(self.name))
            # What must not be done twice cannot be undone either.
            if not (fails and getattr(self, 'once', False)):
                result = method(self, *args, **kwargs)
            if fails:
                # Of all operations one that users are told of.
                raise exception.MigrationPreCheckError(
                    reason='task %s was told to fail' % self.name)
            return result

    watched.watched = True
    return watched


def _watch_changes(injector: Injector) -> None:
    from keystoneauth1 import session
    from oslo_messaging import transport
    from sqlalchemy.engine import default

    original_commit = default.DefaultDialect.do_commit
    original_request = session.Session.request
    original_send = transport.Transport._send

    def do_commit(self: Any, connection: Any) -> None:
        original_commit(self, connection)
        if not injector.is_within('journal'):
            injector.changed('commit')

    def request(self: Any, url: str, method: str, *args: Any,
                **kwargs: Any) -> Any:
        # It may ask for a token first.
        with injector.outermost('request') as outermost:
            answer = original_request(self, url, method, *args, **kwargs)
        if (outermost and method not in _READ_ONLY and
                not url.endswith('/auth/tokens')):
            injector.changed(f'{method} {url.partition("?")[0]}')
        return answer

    def send(self: Any, target: Any, context: Any, message: Any,
             *args: Any, **kwargs: Any) -> Any:
        answer = original_send(self, target, context, message, *args,
                               **kwargs)
        injector.changed(f'message {message.get("method")}')
        return answer

    default.DefaultDialect.do_commit = do_commit
    session.Session.request = request
    transport.Transport._send = send


def main() -> None:
    """Run nova-conductor.

    :raises SystemExit: if it would not be alone in its process group
    """
    if os.getpgrp() != os.getpid():
        sys.exit('injection: only for the leader of a process group: the '
                 'whole group is killed')
    # Before anything else of Nova: it decides about eventlet.
    from nova.cmd import conductor
    injector = Injector(orders.Orders(
        pathlib.Path(os.environ[orders.VARIABLE])))
    _watch_engine(injector)
    _watch_changes(injector)
    sys.argv[0] = 'nova-conductor'
    conductor.main()


if __name__ == '__main__':
    main()
