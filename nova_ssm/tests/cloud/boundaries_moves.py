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
"""Moves of servers whose conductor is killed at one point."""

from collections.abc import Iterator
import contextlib
import dataclasses
import time
from typing import Any
from typing import ClassVar

from nova_ssm.tests.cloud import boundaries_operations as operations
from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import injection_compute
from nova_ssm.tests.cloud import moves as moves_module
from nova_ssm.tests.cloud import moves_checks
from nova_ssm.tests.cloud import servers as servers_module
from nova_ssm.tests.cloud import settings
from nova_ssm.tests.cloud import traces


class Move:
    """Moves one server, again and again while it is fine.

    :cvar _heeded: the computes whose lost calls excuse what is not well

    :param name: of the operation, if it is not that of the move
    :param busy: hosts that shall be less attractive
    :param disabled: hosts that the scheduler may not use
    :param flows: the flows that it is for
    """

    kills = False
    _heeded: ClassVar[tuple[str, ...]] = settings.COMPUTES

    def __init__(self, it: cloud.Cloud, operation: moves_module.Operation,
                 name: str | None = None, promise: str = operations.DONE,
                 busy: tuple[str, ...] = (), disabled: tuple[str, ...] = (),
                 flows: tuple[str, ...] | None = None) -> None:
        self.name = name or operation.name
        self.promise = promise
        self.flows = flows
        self._cloud = it
        self._stage = operations.Stage(it, busy, disabled)
        self._mover = self._make_mover(it, operation)
        self._server: moves_module.Server | None = None
        self._move: moves_module.Move | None = None
        self._computes: traces.Logs | None = None

    def _make_mover(self, it: cloud.Cloud,
                    operation: moves_module.Operation) -> moves_module.Mover:
        return moves_module.Mover(it, operation)

    @contextlib.contextmanager
    def stage(self) -> Iterator[None]:
        """Prepare the hosts; delete the last server in the end."""
        with self._stage:
            try:
                yield
            finally:
                self._drop()

    def prepare(self) -> None:
        """Have a server to move; remember where the logs end."""
        for _try in range(3):
            if self._server is None:
                self._server = self._mover.build()[0]
            # A conductor was just killed: it may have come to harm since.
            found = self._mover.refresh([self._server])
            if found and found[0].resting:
                self._server = found[0]
                break
            self._drop()
        else:
            raise settings.CloudError('no server can be built to be moved')
        self._computes = traces.Logs(self._cloud, self._heeded)

    def ask(self) -> operations.Asked:
        """Move the server."""
        assert self._server is not None
        self._move = self._mover.start(self._server)
        return operations.Asked(self._server.id, self._move.request_id)

    def judge(self, asked: operations.Asked,
              promise: str) -> operations.Verdict:
        """Wait for its last state, look, confirm it, look again."""
        assert self._move is not None and self._computes is not None
        started = [self._move]
        self._mover.wait(started, operations.PATIENCE)
        wrong = self._look(started)
        # Its flow may have gone on since.
        found = self._mover.verdict(self._move)
        verdict = operations.Verdict(
            self._outcome(found, promise), found.text, found.fault,
            asked.server in self._computes.timed_out(), wrong)
        if verdict.good:
            stuck = self._mover.finish(started)
            verdict.left = self._look(started)
            if stuck:
                verdict.left['not at rest'] = stuck
        if not verdict.good:
            self._drop()
        return verdict

    @staticmethod
    def _outcome(found: moves_module.Verdict, promise: str) -> str:
        if found.kind == moves_module.DONE and promise == operations.DONE:
            return operations.DONE
        if found.kind == moves_module.BACK:
            return operations.FAULT
        return operations.WRONG

    def _look(self, started: list[moves_module.Move]
              ) -> dict[str, list[str]]:
        return moves_checks.by_kind(
            moves_checks.wait(self._cloud, started))

    def _drop(self) -> None:
        """Go on with another server."""
        server, self._server = self._server, None
        if server is not None and self._mover.delete([server]):
            raise settings.CloudError(
                f'server {server.id} cannot be deleted')


class _RefusedMover(moves_module.Mover):
    """Moves servers that their first destination sends back."""

    def build(self, count: int = 1,
              timeout: float = 120) -> list[moves_module.Server]:
        """Build them where they are not refused."""
        servers = servers_module.Servers(self._cloud)
        request = servers.boot(count, self.operation.prefix, 'auto',
                               host=settings.COMPUTES[-1])
        found = servers.wait(request, timeout)
        return list(moves_module.look(
            self._cloud, [server['id'] for server in found]).values())

    def migrations(self, move: moves_module.Move) -> list[dict[str, Any]]:
        """Return the record of the last attempt: each has its own."""
        return super().migrations(move)[-1:]


class RefusedMove(Move):
    """Moves a server that its first destination sends back.

    That one calls the conductor, and gives the server up if it is killed.
    It is what the conductors have to cope with here, and no excuse.
    """

    _heeded = settings.COMPUTES[1:]

    def prepare(self) -> None:
        """Have a server; remember where the logs end, the first's, too."""
        super().prepare()
        self._first = traces.Logs(self._cloud, settings.COMPUTES[:1])

    def judge(self, asked: operations.Asked,
              promise: str) -> operations.Verdict:
        """Wait until the first destination is done with it, then as all."""
        if asked.killed:
            operations.await_that(
                lambda: asked.server in self._first.timed_out())
            # It writes what comes of that, and somebody goes on with it, or
            # looks after it.
            time.sleep(2)
            operations.await_that(lambda: asked.is_over(self._cloud))
            if promise == operations.DONE and self._in_error():
                # Who looks after it waits for both computes, then watches
                # whether the source begins.
                operations.await_that(lambda: not self._in_error(),
                                      2 * operations.PATIENCE)
        if promise == operations.FAULT:
            self._out_of_error(asked.server)
        return super().judge(asked, promise)

    def _in_error(self) -> bool:
        assert self._move is not None
        return self._mover.verdict(self._move).kind == moves_module.ERROR

    def _out_of_error(self, server: str) -> None:
        """Do what an admin does.

        Nova puts a server that no host takes into ERROR, also when nobody
        is killed. Whether all else is as before is seen better behind that.
        """
        assert self._move is not None
        self._mover.wait([self._move], operations.PATIENCE)
        # A conductor that lives has taken it back, and that is answered.
        operations.await_that(self._in_error, 5)
        if self._in_error():
            self._cloud.client.compute.post(
                f'/servers/{server}/action',
                json={'os-resetState': {'state': 'active'}})

    def _make_mover(self, it: cloud.Cloud,
                    operation: moves_module.Operation) -> moves_module.Mover:
        return _RefusedMover(it, operation)


def moves(it: cloud.Cloud) -> dict[str, operations.Operation]:
    """Return the operations that move servers, by name."""
    known = moves_module.OPERATIONS
    first, *others = settings.COMPUTES
    refused = dataclasses.replace(
        known['resize'], prefix=injection_compute.PREFIX + first)
    found = [Move(it, one) for one in known.values()]
    found += [
        Move(it, known['resize'], 'resize-no-host', operations.FAULT,
             disabled=tuple(others)),
        Move(it, known['live-migrate'], 'live-migrate-no-host',
             operations.FAULT, disabled=tuple(others)),
        # The scheduler takes the emptiest host.
        RefusedMove(it, refused, 'resize-reschedule', busy=tuple(others),
                    flows=('reschedule_resize',)),
        RefusedMove(it, refused, 'resize-no-alternate', operations.FAULT,
                    disabled=tuple(others[:-1]),
                    flows=('reschedule_resize',)),
    ]
    return {one.name: one for one in found}
