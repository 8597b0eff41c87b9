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
"""Which conductor has how much of some moves; what a stuck move holds."""

import collections
from collections.abc import Iterable
import dataclasses
import threading
import time

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import journal
from nova_ssm.tests.cloud import moves
from nova_ssm.tests.cloud import settings
from nova_ssm.tests.cloud import traces

#: The first line that a conductor logs for a request, in both modes.
_TAKEN = 'for conductor method'


@dataclasses.dataclass(frozen=True)
class Victim:
    """The conductor to kill."""

    name: str
    #: ``journal``, ``log`` or ``processor time``.
    known_by: str
    #: The requests that no conductor had ended then.
    open: frozenset[str]
    #: How many requests were answered, taken and ended then.
    progress: dict[str, int]


class Work:
    """The requests of one round; threads may add to it."""

    def __init__(self, it: cloud.Cloud, operation: moves.Operation) -> None:
        self._cloud = it
        self._operation = operation
        self._logs = traces.Logs(it, settings.CONDUCTORS)
        self._used = traces.ProcessorTime(it)
        self._moves: list[moves.Move] = []
        #: Set when the API has given its first answer.
        self.answered = threading.Event()
        #: When that was (monotonic clock).
        self.began = time.monotonic()

    def add(self, move: moves.Move) -> None:
        """Note a move that the API has accepted."""
        if not self._moves:
            self.began = move.answered
        self._moves.append(move)
        self.answered.set()

    def _requests(self) -> set[str]:
        return {move.request_id for move in self._moves}

    def _taken(self, name: str) -> set[str]:
        """Return the requests that a conductor has begun with."""
        lines = [line for line in self._logs.lines(name) if _TAKEN in line]
        return {request for request in self._requests()
                if any(request in line for line in lines)}

    def _ended(self) -> set[str]:
        return moves.ended(self._cloud, self._operation, self._requests())

    def count_ended(self) -> int:
        """Return how many requests no conductor works on any more."""
        return len(self._ended())

    def busiest(self, timeout: float) -> Victim:
        """Return the conductor with the most requests that are not ended.

        :param timeout: in seconds; how long to wait for one that has any
        """
        limit = time.monotonic() + timeout
        while True:
            ended = self._ended()
            requests = self._requests()
            taken = {name: self._taken(name) for name in settings.CONDUCTORS}
            has = {name: len(taken[name] - ended) for name in taken}
            if any(has.values()) or time.monotonic() > limit:
                break
            time.sleep(0.01)
        progress = {'answered': len(requests),
                    'taken': len(set().union(*taken.values())),
                    'ended': len(ended)}
        return Victim(*self._choose(requests, has),
                      frozenset(requests - ended), progress)

    def _choose(self, requests: set[str],
                has: dict[str, int]) -> tuple[str, str]:
        if self._cloud.mode == 'ssm' and requests:
            owners = collections.Counter(
                flow.host for request in requests
                for flow in journal.flows(self._cloud, request)
                if not flow.finished and flow.host in settings.CONDUCTORS)
            for name, _ in owners.most_common(1):
                return str(name), 'journal'
        if any(has.values()):
            return max(has, key=lambda name: has[name]), 'log'
        return self._used.busiest(), 'processor time'

    def had(self, victim: Victim) -> set[str]:
        """Return the requests that a killed conductor had not ended."""
        return self._taken(victim.name) & victim.open


def journaled(it: cloud.Cloud, move: moves.Move) -> bool:
    """Tell whether a request reached the journal, if there is one."""
    return it.mode != 'ssm' or bool(journal.flows(it, move.request_id))


def held_by_migrations(it: cloud.Cloud, ids: Iterable[str]) -> list[str]:
    """Return the servers with a migration that holds an allocation."""
    rows = it.db(
        'SELECT DISTINCT instance_uuid FROM nova_cell1.migrations WHERE uuid '
        'IN (SELECT consumer_id FROM placement.allocations)')
    return sorted({row['instance_uuid'] for row in rows} & set(ids))


def sweep(it: cloud.Cloud, ids: Iterable[str]) -> None:
    """Remove what deleted servers left in placement.

    So that each round counts its own leftovers only.
    """
    ours = set(ids)
    rows = it.db(
        'SELECT DISTINCT consumer_id, instance_uuid '
        'FROM placement.allocations LEFT JOIN nova_cell1.migrations '
        'ON migrations.uuid = consumer_id WHERE consumer_id NOT IN '
        '(SELECT uuid FROM nova_cell1.instances WHERE deleted = 0)')
    for row in rows:
        if row['instance_uuid'] is None or row['instance_uuid'] in ours:
            it.client.placement.delete(
                f'/allocations/{row["consumer_id"]}')
