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

"""Throws the engine away after every task, and loads the flow again.

What a conductor that died after each single task would come to, without the
waiting: the journal's rows are all that the next task has to go on. Used by
the oracle (``tools/oracle.sh --restart``) on Nova's own tests.
"""

from typing import Any

import sqlalchemy as sa

from nova_ssm.engine import journal
from nova_ssm.engine import loading
from nova_ssm.engine import runner
from nova_ssm.engine import schema
from nova_ssm.engine import states
from nova_ssm import runtime
from nova_ssm.tasks import allocations


class Restart(BaseException):
    """The end of one engine."""


def no_threads() -> None:
    """Keep recovery and lease threads out of Nova's tests.

    The tests fail on threads that outlive them, and nobody dies in them.
    """
    runtime.Runtime.start = lambda self, on_death=None: None
    original = runner.Runner.__init__

    def init(self, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **{**kwargs, 'renew': False})

    runner.Runner.__init__ = init


def install() -> None:
    """Restart every flow, from now on, after every row of its journal."""
    # No scheduler is at work for a dead conductor here.
    allocations.await_quiet = lambda manager, context, uuids, settle: None
    make_log, execute = runner.Runner._log, runner.Runner._execute

    def _log(self, uuid: str, next_seq: int) -> journal.FlowLog:
        log = make_log(self, uuid, next_seq)
        log._after_commit = _die
        return log

    def _execute(self, log, detail, loaded=None) -> runner.Outcome:
        # Nothing that the request left in memory is used at all.
        while True:
            log, loaded = _reload(self, log, detail.name)
            detail = loaded.detail
            try:
                outcome = execute(self, log, detail, loaded)
            except Restart:
                continue
            outcome.children = [
                self.resume_claimed(uuid, name, 1)
                for uuid, name in _children(self, log.uuid)]
            return outcome

    runner.Runner._log = _log
    runner.Runner._execute = _execute


def _die(uuid: str, kind: str, atom: str | None, state: str | None) -> None:
    # A task that has only begun has not been left by anybody.
    if kind == states.ATOM and state != 'RUNNING':
        raise Restart()


def _reload(self, log: journal.FlowLog, name: str) -> tuple[
        journal.FlowLog, loading.Loaded]:
    with self.db.transaction() as connection:
        last = connection.execute(
            sa.select(sa.func.max(schema.journal.c.seq)).where(
                schema.journal.c.flow_uuid == log.uuid)).scalar_one()
    loaded = loading.load(self.db, self._serializer, log.uuid, name)
    log = self._log(log.uuid, last + 1)
    log.started, log.failed, log.seen = (
        loaded.started, loaded.failed, loaded.seen)
    return log, loaded


def _children(self, uuid: str) -> list[Any]:
    with self.db.transaction() as connection:
        return list(connection.execute(sa.select(
            schema.flows.c.uuid, schema.flows.c.name).where(
                schema.flows.c.parent_uuid == uuid,
                schema.flows.c.finished_at.is_(None))))
