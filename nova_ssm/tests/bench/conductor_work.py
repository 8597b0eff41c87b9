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

"""What is asked of the cloud while its conductors are measured.

Each :class:`Load` does its work through the public API, times each server
from the API's answer until it is where it should be, and cleans up when
nobody measures any more.
"""

from collections.abc import Callable
import dataclasses
import time
from typing import Protocol

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import moves
from nova_ssm.tests.cloud import servers as servers_module
from nova_ssm.tests.cloud import settings

#: Seconds between two looks, and until a server is given up.
_POLL, _PATIENCE = 0.02, 180.0


class Load(Protocol):
    """One kind of work."""

    #: What the table calls it.
    name: str

    def prepare(self) -> None:
        """Do what the work needs, and what is not to be measured."""

    def run(self) -> list[float]:
        """Do the work; return the seconds that each server took."""

    def clean(self) -> None:
        """Leave the cloud as it was."""


class _Watch:
    """Looks at servers in the tables, on one connection."""

    def __init__(self, it: cloud.Cloud) -> None:
        self._connection = it.db.connect()

    def close(self) -> None:
        self._connection.close()

    def wait(self, since: float, ids: frozenset[str],
             vm_state: str = 'active') -> list[float]:
        """Wait until servers are in a state and nothing is done with them.

        :param since: when the API had answered (monotonic clock)
        :returns: the seconds that each of them took
        :raises CloudError: if one fails, or takes too long
        """
        took: dict[str, float] = {}
        marks = ', '.join(['%s'] * len(ids))
        while len(took) < len(ids):
            time.sleep(_POLL)
            with self._connection.cursor() as cursor:
                cursor.execute(
                    'SELECT uuid, vm_state, task_state FROM '
                    f'nova_cell1.instances WHERE uuid IN ({marks})',
                    tuple(ids))
                rows = cursor.fetchall()
            now = time.monotonic() - since
            for row in rows:
                if row['vm_state'] == vm_state and not row['task_state']:
                    took.setdefault(row['uuid'], now)
            if now > _PATIENCE or any(row['vm_state'] == 'error'
                                      for row in rows):
                raise settings.CloudError(
                    f'of {len(ids)} servers {len(took)} are {vm_state} '
                    f'after {now:.0f} s; see tools/cloud.sh logs')
        return list(took.values())


class Builds:
    """Builds servers.

    :param requests: how many requests, one after the other
    :param count: of servers in each
    :param networks: see :meth:`servers.Servers.boot`
    """

    def __init__(self, it: cloud.Cloud, requests: int, count: int,
                 networks: str) -> None:
        self.name = ('build, one by one' if count == 1 else
                     f'build, {count} in a request')
        self._requests = requests
        self._count = count
        self._networks = networks
        self._servers = servers_module.Servers(it)
        self._watch = _Watch(it)
        self._begun: list[servers_module.Request] = []

    def prepare(self) -> None:
        """Nothing: what is needed was made with the cloud."""

    def run(self) -> list[float]:
        """Build them, each request when the one before is done."""
        took = []
        for _number in range(self._requests):
            request = self._servers.boot(self._count, 'bench',
                                         self._networks)
            self._begun.append(request)
            took += self._watch.wait(request.answered, request.ids)
        return took

    def clean(self) -> None:
        """Delete them."""
        self._watch.close()
        for request in self._begun:
            if self._servers.delete(request):
                raise settings.CloudError(
                    'the servers of the benchmark cannot be deleted; see '
                    'tools/cloud.sh logs')


class Moves:
    """Moves servers, one after the other.

    :param operation: one of :data:`moves.OPERATIONS`
    """

    def __init__(self, it: cloud.Cloud, operation: moves.Operation,
                 count: int) -> None:
        self.name = operation.name
        self._count = count
        self._mover = moves.Mover(it, operation)
        self._vm_state = operation.promise[0]
        self._watch = _Watch(it)
        self._servers: list[moves.Server] = []
        self._moved: list[moves.Move] = []

    def prepare(self) -> None:
        """Build the servers to move."""
        self._servers = self._mover.build(self._count)

    def run(self) -> list[float]:
        """Move them."""
        took = []
        for server in self._servers:
            move = self._mover.start(server)
            self._moved.append(move)
            took += self._watch.wait(move.answered, frozenset([server.id]),
                                     self._vm_state)
        return took

    def clean(self) -> None:
        """See that they have moved, and delete them."""
        self._watch.close()
        found = [self._mover.verdict(move) for move in self._moved]
        self._mover.delete(self._servers)
        for verdict in found:
            if verdict.kind != moves.DONE:
                raise settings.CloudError(
                    f'a server was not moved: {verdict.text}')


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How much is done in each round."""

    singles: int = 20
    requests: int = 2
    together: int = 20
    moves: int = 8
    networks: str = 'auto'


def loads(it: cloud.Cloud, sizes: Sizes) -> dict[str, Callable[[], Load]]:
    """What can be measured: name to a maker of the work."""
    return {
        'single': lambda: Builds(it, sizes.singles, 1, sizes.networks),
        'together': lambda: Builds(it, sizes.requests, sizes.together,
                                   sizes.networks),
        'live-migrate': lambda: Moves(
            it, moves.OPERATIONS['live-migrate'], sizes.moves),
        'resize': lambda: Moves(it, moves.OPERATIONS['resize'], sizes.moves),
    }
