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
"""One round of the crash test of moves: move, kill, wait, judge, look.

All servers are moved at about the same time, each by a request of its own,
so that both conductors are at work; the one with more of it is killed.
Servers that end well serve in the next round, too.
"""

import concurrent.futures
import dataclasses
import time
from typing import Any
from typing import ClassVar

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import journal
from nova_ssm.tests.cloud import leftovers
from nova_ssm.tests.cloud import moves
from nova_ssm.tests.cloud import moves_checks
from nova_ssm.tests.cloud import moves_work
from nova_ssm.tests.cloud import servers as servers_module
from nova_ssm.tests.cloud import settings
from nova_ssm.tests.cloud import traces

#: Seconds the killed conductor stays away.
DOWNTIME = 3.0
#: Seconds without a change of any server after which those that have not
#: come to an end count as stuck. More than a compute waits for the answer of
#: a dead conductor, and what it does after that; and what is done then about
#: the moves that it has given up.
QUIET = {'stock': 10.0, 'ssm': 40.0}
#: How often a compute may wait for a dead conductor until those that it has
#: put into ERROR have been looked after, some behind each other.
RESTORED = 12


@dataclasses.dataclass
class Round:
    """What became of some moves. Written to the results as it is."""

    #: What the tables show, by the names of the fields.
    COLUMNS: ClassVar[dict[str, str]] = {
        'done': 'done',
        'back': 'back, with a fault',
        'error': 'ERROR',
        'stuck': 'stuck on the way',
        'lost': 'lost',
        'silent': 'back, no fault',
        'odd': 'neither',
        'refused': 'first host refused',
        'unjournaled': 'apart: never journaled',
        'in_flight': 'apart: compute call in flight',
        'bad': 'not well, not apart',
    }

    mode: str
    operation: str
    servers: int
    #: When the conductor was killed, in seconds after the first answer.
    moment: float
    request_ids: list[str] = dataclasses.field(default_factory=list)
    victim: str = ''
    #: How the victim was found.
    known_by: str = ''
    #: Requests that the victim had not ended when it was killed.
    hit: int = 0
    #: All requests at the moment of the kill.
    progress: dict[str, int] = dataclasses.field(default_factory=dict)
    #: Seconds from the kill until all servers had their last state.
    settled: float | None = None
    done: int = 0
    back: int = 0
    error: int = 0
    stuck: int = 0
    lost: int = 0
    silent: int = 0
    odd: int = 0
    #: Servers whose first destination refused.
    refused: int = 0
    #: Not well, and the request never reached the journal.
    unjournaled: int = 0
    #: Not well, and a call of their compute to the dead conductor was in
    #: flight.
    in_flight: int = 0
    #: One line for each fault, with the servers that have it.
    faults: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    #: The verdict of each server that is not well, in words.
    verdicts: dict[str, str] = dataclasses.field(default_factory=dict)
    #: What is wrong in the databases before and after the confirmation.
    wrong: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    #: The same of the servers that are counted apart.
    apart: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    #: What is left in the databases of servers that are deleted.
    left: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @property
    def missed(self) -> bool:
        """Whether the victim had nothing to do."""
        return not self.hit

    @property
    def bad(self) -> int:
        """Servers that are not well, and for no reason counted apart."""
        return (self.servers - self.done - self.back - self.unjournaled
                - self.in_flight)

    @property
    def failed(self) -> bool:
        """Whether a durable conductor would not have left this."""
        return bool(self.bad or self.wrong or self.left)

    @property
    def found(self) -> dict[str, dict[str, list[str]]]:
        """What is not as it should be, by when it was found."""
        return {'wrong': self.wrong, 'wrong, apart': self.apart,
                'left after the deletion': self.left}


#: verdict -> field
_FIELDS = {moves.DONE: 'done', moves.BACK: 'back', moves.ERROR: 'error',
           moves.STUCK: 'stuck', moves.LOST: 'lost', moves.SILENT: 'silent',
           moves.ODD: 'odd'}


class Player:
    """Plays rounds of one operation in one cloud."""

    def __init__(self, it: cloud.Cloud, operation: moves.Operation,
                 count: int) -> None:
        self._cloud = it
        self._mover = moves.Mover(it, operation)
        self._count = count
        self._servers: list[moves.Server] = []

    @property
    def _patience(self) -> float:
        """Seconds from the kill until a server counts as stuck.

        Servers with the same source are migrated one after the other, and
        each may wait for an answer in vain. Where nothing changes for longer
        than such an answer takes, nobody waits that long.
        """
        return (2.0 + self._count) * self._cloud.settings.rpc_timeout + 30

    # -- without a kill

    def undisturbed(self) -> float:
        """Move all servers once; return how long conductors worked, in s.

        Counted from the API's first answer to the last cast.

        :raises CloudError: if a server is not moved, or a check finds
            something: a check that is red now says nothing after a kill
        """
        self._fill()
        work = moves_work.Work(self._cloud, self._mover.operation)
        with self._starting(work) as starting:
            started = self._join(starting)
        while (self._mover.casts_left(started) and
               time.monotonic() < work.began + self._patience):
            time.sleep(0.05)
        took = time.monotonic() - work.began
        verdicts = self._mover.wait(started, self._patience)
        bad = [f'{number}: {verdict}' for number, verdict in verdicts.items()
               if verdict.kind != moves.DONE]
        findings = moves_checks.wait(self._cloud, started)
        bad += self._mover.finish(started)
        findings += moves_checks.wait(self._cloud, started)
        bad += [str(finding) for finding in findings]
        bad += [f'{move.server.id} was refused by {hosts}' for move, hosts in
                ((move, self._mover.refusals(move)) for move in started)
                if len(hosts) != self._mover.operation.refused]
        if bad:
            raise settings.CloudError(
                f'an undisturbed {self._mover.operation.name} failed; see '
                'tools/cloud.sh logs\n' + '\n'.join(bad))
        return took

    def _fill(self) -> None:
        """Have as many servers as wanted, all at rest."""
        self._servers = self._mover.refresh(self._servers)
        missing = self._count - len(self._servers)
        if missing:
            self._servers += self._mover.build(missing)

    def _starting(self, work: moves_work.Work) -> '_Starting':
        return _Starting(self._mover, self._servers, work)

    @staticmethod
    def _join(starting: '_Starting') -> list[moves.Move]:
        return [one.result() for one in starting.running]

    # -- with a kill

    def play(self, moment: float) -> Round:
        """Play one round.

        :param moment: when to kill, in seconds after the API's first answer
        :raises CloudError: if somebody else changed the cloud meanwhile
        """
        it = self._cloud
        it.wait_for(*settings.CONDUCTORS)
        # A heartbeat may still hang from the kill of the last round.
        it.wait_for_computes()
        self._fill()
        before = it.conductors()
        computes = traces.Logs(it, settings.COMPUTES)
        work = moves_work.Work(it, self._mover.operation)
        result = Round(it.mode, self._mover.operation.name, self._count,
                       moment)
        with self._starting(work) as starting:
            killed = self._kill(result, work)
            started = self._join(starting)
        result.request_ids = [move.request_id for move in started]
        time.sleep(max(0.0, killed + DOWNTIME - time.monotonic()))
        it.start(result.victim, wait=False)
        verdicts = self._mover.wait(
            started, killed + self._patience - time.monotonic(),
            it.settings.rpc_timeout + QUIET[it.mode])
        if it.mode == 'ssm':
            verdicts = self._looked_after(started, verdicts)
        if all(one.kind in (*moves.GOOD, moves.ERROR)
               for one in verdicts.values()):
            result.settled = round(time.monotonic() - killed, 1)
        self._check_alone(before, result.victim)
        self._judge(result, started, verdicts, computes)
        return result

    def _looked_after(self, started: list[moves.Move],
                      verdicts: dict[str, moves.Verdict]
                      ) -> dict[str, moves.Verdict]:
        """Wait for those in ERROR that may be given back, and look again.

        Where it takes too long a flow is left that has no end.
        """
        limit = time.monotonic() + RESTORED * self._cloud.settings.rpc_timeout
        while (any(one.kind == moves.ERROR for one in verdicts.values())
               and journal.looks_after(self._cloud)
               and time.monotonic() < limit):
            time.sleep(1)
            verdicts = self._look(started)
        # A flow that ended behind the last look may have done it.
        return self._look(started)

    def _look(self, started: list[moves.Move]) -> dict[str, moves.Verdict]:
        return {move.server.id: self._mover.verdict(move) for move in started}

    def _kill(self, result: Round, work: moves_work.Work) -> float:
        """Kill the conductor at work; return when (monotonic clock)."""
        work.answered.wait(30)
        # Not later than with the last request: a faster round than the
        # undisturbed one would be over.
        while (time.monotonic() < work.began + result.moment
               and work.count_ended() < max(1, self._count - 1)):
            time.sleep(0.05)
        victim = work.busiest(timeout=1)
        result.victim, result.known_by = victim.name, victim.known_by
        result.progress = victim.progress
        self._cloud.kill(victim.name)
        killed = time.monotonic()
        result.moment = round(killed - work.began, 3)
        result.hit = len(work.had(victim))
        return killed

    def _check_alone(self, before: tuple[str, dict[str, int | None]],
                     victim: str) -> None:
        now, living = self._cloud.conductors()
        mode, pids = before
        other = next(name for name in pids if name != victim)
        if now != mode or living[other] != pids[other]:
            raise settings.CloudError(
                f'void: somebody else restarted {other} or changed the mode '
                'during the round; leave the cloud alone')

    def _judge(self, result: Round, started: list[moves.Move],
               verdicts: dict[str, moves.Verdict],
               computes: traces.Logs) -> None:
        """Count the verdicts, look for what is wrong, part with the bad."""
        for verdict in verdicts.values():
            field = _FIELDS[verdict.kind]
            setattr(result, field, getattr(result, field) + 1)
        result.refused = sum(bool(self._mover.refusals(move))
                             for move in started)
        findings = self._confirm(
            [move for move in started if verdicts[move.server.id].good],
            [move for move in started if not verdicts[move.server.id].good])
        apart = self._apart(result, started, verdicts, findings, computes)
        result.wrong = moves_checks.by_kind(
            one for one in findings if one.server not in apart)
        result.apart = moves_checks.by_kind(
            one for one in findings if one.server in apart)
        for number, verdict in verdicts.items():
            if verdict.fault and verdict.kind != moves.DONE:
                result.faults.setdefault(
                    verdict.fault[:160], []).append(number)
            if not verdict.good:
                result.verdicts[number] = f'{verdict.kind}: {verdict.text}'
        marked = {one.server for one in findings}
        left = self._part_with([
            move.server for move in started if move.server.id in marked
            or not verdicts[move.server.id].good])
        for kind, ids in left.items():
            for number in ids:
                where = result.apart if number in apart else result.left
                where.setdefault(kind, []).append(number)

    def _confirm(self, well: list[moves.Move], bad: list[moves.Move]
                 ) -> list[moves_checks.Finding]:
        """Look for what is wrong before and after the confirmation."""
        # The last deeds of what went well may still come.
        findings = moves_checks.wait(self._cloud, well)
        findings += moves_checks.find(self._cloud, bad)
        findings += [moves_checks.Finding(
            'not ACTIVE after the confirmation', number, '')
            for number in self._mover.finish(well)]
        findings += moves_checks.wait(self._cloud, well)
        # What both looks found is one thing.
        return list(dict.fromkeys(findings))

    def _apart(self, result: Round, started: list[moves.Move],
               verdicts: dict[str, moves.Verdict],
               findings: list[moves_checks.Finding],
               computes: traces.Logs) -> set[str]:
        """Count what is counted apart; return the ids of these servers."""
        troubled = {number for number, verdict in verdicts.items()
                    if not verdict.good}
        unjournaled = {move.server.id for move in started
                       if move.server.id in troubled
                       and not moves_work.journaled(self._cloud, move)}
        timed_out = computes.timed_out()
        in_flight = (troubled - unjournaled) & timed_out
        result.unjournaled = len(unjournaled)
        result.in_flight = len(in_flight)
        # A server that ended well may miss a later word of its compute.
        late = {one.server for one in findings} & timed_out
        return unjournaled | in_flight | late

    # -- afterwards

    def _part_with(self, servers: list[moves.Server]
                   ) -> dict[str, list[str]]:
        """Delete servers; return what is left of them, and remove that."""
        gone = {server.id for server in servers}
        if not gone:
            return {}
        self._servers = [server for server in self._servers
                         if server.id not in gone]
        self._mover.delete(servers)
        left = leftovers.wait(
            self._cloud, leftovers.EMPTY,
            servers_module.Request('', '', len(gone), 0.0, frozenset(gone)),
            timeout=10)
        held = moves_work.held_by_migrations(self._cloud, gone)
        if held:
            left['allocation of a migration'] = held
        moves_work.sweep(self._cloud, gone)
        return left

    def close(self) -> dict[str, list[str]]:
        """Delete all servers; return what is left of them."""
        return self._part_with(self._servers)


class _Starting:
    """Starts all moves side by side; use it in a with statement."""

    def __init__(self, mover: moves.Mover, servers: list[moves.Server],
                 work: moves_work.Work) -> None:
        self._pool = concurrent.futures.ThreadPoolExecutor(4)
        self.running = [self._pool.submit(self._start, mover, server, work)
                        for server in servers]

    @staticmethod
    def _start(mover: moves.Mover, server: moves.Server,
               work: moves_work.Work) -> moves.Move:
        move = mover.start(server)
        work.add(move)
        return move

    def __enter__(self) -> '_Starting':
        return self

    def __exit__(self, *_: Any) -> None:
        self._pool.shutdown()

