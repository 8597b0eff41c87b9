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
"""One round of the crash test: build, kill, wait, count, clean up."""

import dataclasses
import time
from typing import Any
from typing import ClassVar

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import journal
from nova_ssm.tests.cloud import leftovers
from nova_ssm.tests.cloud import servers
from nova_ssm.tests.cloud import settings
from nova_ssm.tests.cloud import traces

#: Seconds the killed conductor stays away.
DOWNTIME = 3.0
#: Seconds from the kill until a server counts as stuck.
PATIENCE = 120.0


@dataclasses.dataclass
class Round:
    """What became of one request. Written to the results as it is."""

    #: What the tables show, by the names of the fields.
    COLUMNS: ClassVar[dict[str, str]] = {
        'active': 'ACTIVE',
        'error': 'ERROR',
        'stuck': 'stuck in BUILD',
        'lost': 'lost',
        'doubled': 'built twice',
        'unjournaled': 'apart: never journaled',
        'in_flight': 'apart: compute call in flight',
        'bad': 'not ACTIVE, not apart',
    }

    mode: str
    servers: int
    #: When the conductor was killed, in seconds after the API's answer.
    moment: float
    request_id: str = ''
    victim: str = ''
    #: How the victim was found.
    known_by: str = ''
    #: Whether the other conductor, alive all the time, had the request.
    missed: bool = False
    #: Databases at the moment of the kill: table -> rows of this request.
    progress: dict[str, int] = dataclasses.field(default_factory=dict)
    #: Seconds from the kill until all servers had their last state.
    settled: float | None = None
    active: int = 0
    error: int = 0
    #: In BUILD or another state on the way.
    stuck: int = 0
    #: Accepted by the API, and nowhere to be found.
    lost: int = 0
    #: Servers with two guests.
    doubled: int = 0
    #: Not ACTIVE, and the request never reached the journal: the message
    #: was acknowledged, and the conductor died before its first write.
    unjournaled: int = 0
    #: Not ACTIVE, and a call of their compute to the dead conductor was in
    #: flight.
    in_flight: int = 0
    #: One line for each fault, with the servers that have it.
    faults: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    #: What is wrong in the databases while the servers are there.
    wrong: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    #: What is left in the databases when they are deleted.
    left: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @property
    def bad(self) -> int:
        """Servers that are not ACTIVE, and for no reason counted apart."""
        return (self.error + self.stuck + self.lost
                - self.unjournaled - self.in_flight)

    @property
    def failed(self) -> bool:
        """Whether a durable conductor would not have left this."""
        return bool(self.bad or self.doubled or self.wrong or self.left)

    @property
    def found(self) -> dict[str, dict[str, list[str]]]:
        """What is not as it should be, by when it was found."""
        return {'wrong': self.wrong, 'left after the deletion': self.left}


class Player:
    """Plays rounds in one cloud."""

    def __init__(self, it: cloud.Cloud, count: int, networks: str) -> None:
        self._cloud = it
        self._servers = servers.Servers(it)
        self._count = count
        self._networks = networks

    def undisturbed(self) -> float:
        """Build and delete once; return how long a conductor worked, in s.

        Its last deed but the cast is to delete the last build request.

        :raises CloudError: if not all servers become ACTIVE
        """
        request = self._boot()
        while (self._progress(request)['build_requests'] and
               time.monotonic() < request.answered + PATIENCE):
            time.sleep(0.05)
        took = time.monotonic() - request.answered
        found = self._servers.wait(request, PATIENCE)
        if [server['status'] for server in found] != (
                ['ACTIVE'] * self._count):
            raise settings.CloudError(
                'an undisturbed build failed; see tools/cloud.sh logs')
        self._servers.delete(request)
        return took

    def play(self, moment: float) -> Round:
        """Play one round.

        :param moment: when to kill, in seconds after the API's answer
        :raises CloudError: if somebody else changed the cloud meanwhile
        """
        it = self._cloud
        it.wait_for(*settings.CONDUCTORS)
        # A heartbeat may still hang from the kill of the last round.
        it.wait_for_computes()
        mode, pids = it.conductors()
        conductors = traces.Logs(it, settings.CONDUCTORS)
        computes = traces.Logs(it, settings.COMPUTES)
        used = traces.ProcessorTime(it)
        request = self._boot()
        result = Round(it.mode, self._count, moment, request.request_id)
        time.sleep(max(0.0, request.answered + moment - time.monotonic()))
        result.victim, result.known_by = traces.worker(
            it, request.request_id, conductors, used)
        result.progress = self._progress(request)
        it.kill(result.victim)
        killed = time.monotonic()
        result.moment = round(killed - request.answered, 3)
        time.sleep(DOWNTIME)
        it.start(result.victim, wait=False)
        found = self._servers.wait(
            request, killed + PATIENCE - time.monotonic())
        self._check_alone(mode, pids, result.victim)
        self._count_servers(result, found, computes, conductors)
        if result.active + result.error == self._count:
            result.settled = round(time.monotonic() - killed, 1)
        result.wrong = leftovers.wait(it, leftovers.AT_REST, request,
                                      timeout=10)
        self._servers.delete(request)
        result.left = leftovers.wait(it, leftovers.EMPTY, request)
        return result

    def close(self) -> dict[str, list[str]]:
        """Clean up. Nothing to do: each round deletes its servers."""
        return {}

    def _check_alone(self, mode: str, pids: dict[str, int | None],
                     victim: str) -> None:
        now, living = self._cloud.conductors()
        other = next(name for name in pids if name != victim)
        if now != mode or living[other] != pids[other]:
            raise settings.CloudError(
                f'void: somebody else restarted {other} or changed the mode '
                'during the round; leave the cloud alone')

    def _boot(self) -> servers.Request:
        return self._servers.boot(self._count, 'crash', self._networks)

    def _progress(self, request: servers.Request) -> dict[str, int]:
        row = self._cloud.db(
            'SELECT (SELECT COUNT(*) FROM nova_api.build_requests '
            'WHERE instance LIKE %s) AS build_requests, '
            'COUNT(*) AS instances, '
            'COALESCE(SUM(host IS NOT NULL), 0) AS with_host, '
            "COALESCE(SUM(vm_state = 'active'), 0) AS active "
            'FROM nova_cell1.instances WHERE deleted = 0 '
            'AND display_name LIKE %s', f'%{request.name}%',
            f'{request.name}%')[0]
        return {name: int(value) for name, value in row.items()}

    def _count_servers(self, result: Round, found: list[dict[str, Any]],
                       computes: traces.Logs,
                       conductors: traces.Logs) -> None:
        states = {server['id']: server['status'] for server in found}
        result.active = sum(s == 'ACTIVE' for s in states.values())
        result.error = sum(s == 'ERROR' for s in states.values())
        result.stuck = len(states) - result.active - result.error
        result.lost = self._count - len(states)
        guests = self._servers.guests()
        result.doubled = sum(number in guests and guests[number].living > 1
                             for number in states)
        troubled = {number for number, state in states.items()
                    if state != 'ACTIVE'}
        known = (journal.flows(self._cloud, result.request_id)
                 if result.mode == 'ssm' else [])
        if result.mode == 'ssm' and not known:
            result.unjournaled = len(troubled) + result.lost
        else:
            result.in_flight = len(troubled & computes.timed_out())
        for server in found:
            if server['id'] in troubled and 'fault' in server:
                result.faults.setdefault(
                    server['fault']['message'][:160], []).append(server['id'])
        hosts = {journal.first_writer(self._cloud, flow.uuid)
                 for flow in known[:1]} - {None} or conductors.taken(
                     result.request_id)
        result.missed = bool(hosts) and result.victim not in hosts

