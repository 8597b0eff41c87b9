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

"""Where the calls of a conductor are caught: in libraries, not in our code.

So a task that is written tomorrow is watched too.
"""

import functools
import inspect
from typing import Any

import fixtures
from nova.scheduler.client import report
from oslo_messaging import transport
import sqlalchemy as sa
from sqlalchemy.engine import base as sa_base
from taskflow.engines.action_engine import executor

from nova_ssm.engine import recovery
from nova_ssm.engine import runner
from nova_ssm.tests.faults import calls

_CHANGES = ('create', 'update', 'delete', 'activate', 'attachment',
            'terminate', 'initialize', 'roll', 'begin', 'reserve',
            'migrate', 'copy')
_READS = ('attachment_get', 'attachment_get_all')


class Hooks(fixtures.Fixture):
    """Has all calls of conductors told to :mod:`calls`.

    To be used when the fixtures of Nova that stand in for other services are
    in use.

    :param services: what stands in for neutron, cinder and glance, by name
    :param process_of: the conductor that a runner belongs to
    """

    def __init__(self, services: dict[str, Any], process_of: Any) -> None:
        super().__init__()
        self._services = services
        self._process_of = process_of

    def _setUp(self) -> None:
        self._patch(sa_base.Connection, '_commit_impl', _commit)
        sa.event.listen(sa.Engine, 'before_cursor_execute', _mark)
        self.addCleanup(sa.event.remove, sa.Engine,
                        'before_cursor_execute', _mark)
        for verb in ('get', 'put', 'post', 'delete'):
            self._patch(report.SchedulerReportClient, verb,
                        functools.partial(_placement, verb))
        self._patch(transport.Transport, '_send', _send)
        self._patch(executor, '_execute_task', _execute)
        self._patch(executor, '_revert_task', _revert)
        self._patch(runner.Runner, '_run_graph', self._run_graph)
        self._patch(recovery.Recovery, '_resume', self._resume)
        for kind, service in self._services.items():
            for name in dir(service):
                if (name.startswith(_CHANGES) and name not in _READS and
                        callable(getattr(service, name))):
                    self._patch(service, name,
                                functools.partial(_other, kind, name))

    def _patch(self, owner: Any, name: str, new: Any) -> None:
        """Put a function in the place of another, which it is given."""
        original = getattr(owner, name)

        def patched(*args: Any, **kwargs: Any) -> Any:
            return new(original, *args, **kwargs)

        # A mock in a class is not told whose method it is.
        self.useFixture(fixtures.MockPatchObject(
            owner, name, staticmethod(patched)
            if hasattr(original, 'side_effect') else patched))

    def _run_graph(self, original: Any, this: Any, log: Any, detail: Any,
                   loaded: Any) -> Any:
        with calls.in_flow(self._process_of(this), detail.name):
            return original(this, log, detail, loaded)

    def _resume(self, original: Any, this: Any, job: Any, *args: Any) -> Any:
        with calls.scope(self._process_of(this._runner), 'resume'):
            try:
                return original(this, job, *args)
            except calls.Death:
                return None


# -- databases --------------------------------------------------------------

def _mark(connection: sa.Connection, cursor: Any, statement: str,
          *rest: Any) -> None:
    """Remember that a transaction has written, and what first."""
    if statement.lstrip()[:6].upper() in ('INSERT', 'UPDATE', 'DELETE'):
        words = statement.replace('"', '').split()
        table = words[2 if words[0].upper() != 'UPDATE' else 1]
        connection.info.setdefault('written', '%s %s' % (
            words[0].lower(), table))


def _commit(original: Any, this: sa.Connection) -> Any:
    written = this.info.pop('written', None)
    if written is None:
        return original(this)
    kind = 'journal' if ' ssm_' in written else 'sql'
    try:
        return calls.leave(kind, written, lambda: original(this))
    except BaseException:
        # SQLAlchemy takes it for rolled back: who uses the connection next
        # would have a database that is locked.
        this.connection.dbapi_connection.rollback()
        raise


# -- other services ---------------------------------------------------------

def _placement(verb: str, original: Any, this: Any, url: str, *args: Any,
               **kwargs: Any) -> Any:
    def call() -> Any:
        return original(this, url, *args, **kwargs)

    if verb == 'get':
        return calls.look(call)
    return calls.leave('placement', '%s %s' % (
        verb, url.split('?')[0].strip('/').split('/')[0]), call)


def _other(kind: str, name: str, original: Any, *args: Any,
           **kwargs: Any) -> Any:
    return calls.leave(kind, name, lambda: original(*args, **kwargs))


def _send(original: Any, this: Any, target: Any, ctxt: Any, message: Any,
          *args: Any, **kwargs: Any) -> Any:
    return calls.leave(
        'call' if kwargs.get('wait_for_reply') else 'cast',
        message.get('method', ''),
        lambda: original(this, target, ctxt, message, *args, **kwargs))


# -- tasks --------------------------------------------------------------------

class _Doer:
    """A task as the engine sees it, with what goes wrong around it."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def execute(self, **kwargs: Any) -> Any:
        # What takes nothing does nothing: it is there to be reverted.
        idle = len(inspect.signature(type(self._task).execute).parameters) < 2
        with calls.at(self._task.name, 'execute', idle) as spot:
            calls.strike(spot, 'before')
            result = self._task.execute(**kwargs)
            if calls.doubled(spot):
                again = getattr(self._task, 'recover', self._task.execute)
                result = again(**kwargs)
            calls.strike(spot, 'after')
            return result

    def revert(self, **kwargs: Any) -> Any:
        with calls.at(self._task.name, 'revert') as spot:
            calls.strike(spot, 'before')
            result = self._task.revert(**kwargs)
            if calls.doubled(spot):
                result = self._task.revert(**kwargs)
            calls.strike(spot, 'after')
            return result


def _execute(original: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
    return original(_Doer(task), *args, **kwargs)


def _revert(original: Any, task: Any, *args: Any, **kwargs: Any) -> Any:
    return original(_Doer(task), *args, **kwargs)
