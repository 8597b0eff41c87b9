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
"""What is done with a server while its conductor is killed, and the verdict.

An operation is asked for with one server, so that what is found afterwards
has one cause.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import time
from typing import Any
from typing import Protocol
from typing import Self
from typing import TypeVar

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import leftovers
from nova_ssm.tests.cloud import servers
from nova_ssm.tests.cloud import settings
from nova_ssm.tests.cloud import traces

#: Seconds until a server counts as stuck.
PATIENCE = 90.0

T = TypeVar('T')

DONE, FAULT, WRONG = 'done', 'fault', 'wrong'


@dataclasses.dataclass
class Verdict:
    """What became of one server.

    :param outcome: ``done``: what the operation promises; ``fault``: as it
        was before, or in ERROR if it is new, with a fault; ``wrong``
    :param text: the state of the server
    :param fault: the message of its fault
    :param in_flight: whether a call of its compute to the dead conductor
        was in flight: then whatever the compute makes of that is its own
    :param wrong: what was found in the databases with the server at rest
    :param left: what was found when it had been tidied up
    """

    outcome: str
    text: str
    fault: str | None = None
    in_flight: bool = False
    wrong: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    left: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether nobody has to look after it."""
        return self.outcome != WRONG and not self.wrong and not self.left

    @property
    def excused(self) -> bool:
        """Whether it is not good, but not for reasons of the conductor."""
        return not self.good and self.in_flight


@dataclasses.dataclass(frozen=True)
class Asked:
    """One request that the API has accepted, for one server.

    :param worker: the dead process of a conductor that is looked after, if
        that is what the conductors are watched at
    :param killed: whether a conductor was killed at it
    """

    server: str
    request_id: str
    worker: str | None = None
    killed: bool = False

    @property
    def subject(self) -> str:
        """What the flows that are watched work on."""
        return self.worker or self.server

    def is_over(self, it: cloud.Cloud) -> bool:
        """Whether there are such flows, and all of them have ended."""
        column, value = ('subject', self.worker) if self.worker else (
            'request_id', self.request_id)
        row = it.db(
            'SELECT COUNT(*) AS flows, COUNT(finished_at) AS ended '
            f'FROM nova_cell1.ssm_flows WHERE {column} = %s', value)[0]
        return row['flows'] > 0 and row['flows'] == row['ended']


def await_that(ask: Callable[[], T], patience: float = PATIENCE) -> T:
    """Ask until the answer is a yes.

    :param patience: in seconds
    :returns: the last answer, which is a no if the time is over
    """
    limit = time.monotonic() + patience
    while not (answer := ask()) and time.monotonic() < limit:
        time.sleep(0.2)
    return answer


class Operation(Protocol):
    """One way to keep a conductor busy with one server."""

    name: str
    #: The flows that it is for, None for all that it comes by.
    flows: tuple[str, ...] | None
    #: What it comes to when nobody disturbs it: DONE or FAULT.
    promise: str
    #: Whether it kills a conductor itself. What a compute was asking that
    #: one gets no answer: it gives the server back, with a fault.
    kills: bool

    def stage(self) -> contextlib.AbstractContextManager[Any]:
        """What it needs around all of its requests."""

    def prepare(self) -> None:
        """Get ready for the next request."""

    def ask(self) -> Asked:
        """Ask for it. Raises CloudError if the API refuses."""

    def judge(self, asked: Asked, promise: str) -> Verdict:
        """Wait until it is over, look, and tidy up.

        :param promise: what it comes to this time
        """


class Stage(contextlib.ExitStack):
    """Makes hosts less attractive, or takes them away, as long as it lasts.

    :param busy: hosts that get a server
    :param disabled: hosts that the scheduler may not use
    """

    def __init__(self, it: cloud.Cloud, busy: tuple[str, ...],
                 disabled: tuple[str, ...]) -> None:
        super().__init__()
        self._cloud = it
        self._busy = busy
        self._disabled = disabled

    def __enter__(self) -> Self:
        try:
            self._enter()
        except BaseException:
            self.close()
            raise
        return self

    def _enter(self) -> None:
        there = servers.Servers(self._cloud)
        for host in self._busy:
            filler = there.boot(host=host)
            self.callback(there.delete, filler)
            there.wait(filler, PATIENCE)
        for host in self._disabled:
            self._cloud.set_compute(host, enabled=False)
            self.callback(self._cloud.set_compute, host, enabled=True)


class Build:
    """Boots a server, and deletes it."""

    kills = False

    def __init__(self, it: cloud.Cloud, name: str = 'build',
                 promise: str = DONE, flows: tuple[str, ...] | None = None,
                 prefix: str = 'boundary', flavor: str = 'm1.nano',
                 busy: tuple[str, ...] = (),
                 disabled: tuple[str, ...] = ()) -> None:
        self.name = name
        self.promise = promise
        self.flows = flows
        self._cloud = it
        self._servers = servers.Servers(it)
        self._prefix = prefix
        self._flavor = flavor
        self._stage = Stage(it, busy, disabled)
        self._request: servers.Request | None = None
        self._computes: traces.Logs | None = None

    def stage(self) -> contextlib.AbstractContextManager[Any]:
        """Prepare the hosts."""
        return self._stage

    def prepare(self) -> None:
        """Remember where the logs end."""
        self._computes = traces.Logs(self._cloud, settings.COMPUTES)

    def ask(self) -> Asked:
        """Boot a server."""
        request = self._request = self._servers.boot(
            1, self._prefix, 'auto', self._flavor)
        if len(request.ids) != 1:
            raise settings.CloudError(
                f'the request for {request.name} made {len(request.ids)} '
                'servers')
        return Asked(next(iter(request.ids)), request.request_id)

    def judge(self, asked: Asked, promise: str) -> Verdict:
        """Wait for its last state, look for leftovers, delete it, too."""
        request = self._request
        assert request is not None
        self._servers.wait(request, PATIENCE)
        wrong = leftovers.wait(
            self._cloud, leftovers.AT_REST, request, timeout=PATIENCE)
        # Its flow may have gone on since.
        verdict = self._verdict(asked, self._servers.show(request), promise)
        verdict.wrong = wrong
        stuck = self._servers.delete(request)
        verdict.left = leftovers.wait(self._cloud, leftovers.EMPTY, request)
        if stuck:
            verdict.left['cannot be deleted'] = stuck
        return verdict

    def _verdict(self, asked: Asked, found: list[dict],
                 promise: str) -> Verdict:
        if len(found) != 1:
            return Verdict(WRONG, f'{len(found)} servers instead of one')
        status = found[0]['status']
        fault = found[0].get('fault', {}).get('message')
        guest = self._servers.guests().get(asked.server)
        living = guest.living if guest else 0
        outcome = WRONG
        if (status, living, promise) == ('ACTIVE', 1, DONE):
            outcome = DONE
        elif (status, living, promise) == ('ERROR', 0, FAULT) and fault:
            outcome = FAULT
        assert self._computes is not None
        return Verdict(outcome, f'{status}, {living} guests', fault,
                       asked.server in self._computes.timed_out())


def builds(it: cloud.Cloud) -> dict[str, Operation]:
    """Return the operations that build servers, by name."""
    first, *others = settings.COMPUTES
    parent, again = 'schedule_and_build_instances', 'reschedule_instance'
    found: list[Operation] = [
        Build(it),
        Build(it, 'build-no-host', FAULT, (parent,),
              flavor='m1.impossible'),
        # The scheduler takes the emptiest host.
        Build(it, 'build-reschedule', DONE, (again,),
              prefix=f'fail-on-{first}', busy=tuple(others)),
        Build(it, 'build-no-alternate', FAULT, (again,),
              prefix=f'fail-on-{first}', disabled=tuple(others)),
    ]
    return {one.name: one for one in found}


class Abandoned:
    """Looks after what a dead conductor left, behind another operation.

    The conductor is killed when its part of that operation is over, and the
    computes are at work.
    """

    promise = DONE
    kills = True

    def __init__(self, it: cloud.Cloud, inner: Operation,
                 flow: str) -> None:
        self.name = f'{inner.name}-abandoned'
        self.flows: tuple[str, ...] | None = (flow,)
        self._cloud = it
        self._inner = inner

    def stage(self) -> contextlib.AbstractContextManager[Any]:
        """As the other operation."""
        return self._inner.stage()

    def prepare(self) -> None:
        """As the other operation."""
        self._inner.prepare()

    def ask(self) -> Asked:
        """Do it, and kill a conductor."""
        asked = self._inner.ask()
        self._await(asked)
        victim = settings.CONDUCTORS[0]
        worker = self._worker(victim)
        self._cloud.kill(victim)
        self._cloud.start(victim, wait=False)
        return dataclasses.replace(asked, worker=worker)

    def _worker(self, conductor: str) -> str:
        """What a conductor is called in the journal, when it is so again.

        It may have been killed a moment ago, and not have begun to look.
        """
        found = await_that(lambda: self._cloud.db(
            'SELECT id FROM nova_cell1.ssm_workers WHERE host LIKE %s '
            'ORDER BY expires_at DESC LIMIT 1', f'{conductor}/%'))
        if not found:
            raise settings.CloudError(
                f'{conductor} does not register: see tools/cloud.sh logs')
        return found[0]['id']

    def judge(self, asked: Asked, promise: str) -> Verdict:
        """Wait until it is looked after, then as the other operation."""
        over = self._await(asked)
        verdict = self._inner.judge(asked, promise)
        if not over:
            verdict.wrong['not looked after'] = [asked.subject]
        return verdict

    def _await(self, asked: Asked) -> bool:
        return await_that(lambda: asked.is_over(self._cloud))
