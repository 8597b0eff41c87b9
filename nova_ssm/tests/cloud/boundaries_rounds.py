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
"""One round: an operation whose conductor is killed at one point."""

import dataclasses
import time
import uuid

from nova_ssm.tests.cloud import boundaries_operations as operations
from nova_ssm.tests.cloud import boundaries_plan as plan
from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import injection_orders as orders
from nova_ssm.tests.cloud import settings

#: Seconds until a point counts as not reached.
_PATIENCE = 100.0
_POLL = 0.1


@dataclasses.dataclass
class Result:
    """What became of one kill. Written to the results as it is."""

    step: plan.Step
    server: str
    request_id: str
    verdict: operations.Verdict
    #: The line of the trace that was the conductor's last, None if none
    #: came by the point.
    killed: orders.Passed | None
    #: Seconds from the request to the kill, and to the end of the round.
    killed_after: float | None
    seconds: float
    #: The conductors that went on with its flows.
    resumed_by: list[str]
    #: Seconds from the kill to the first task after it.
    resumed_after: float | None

    @property
    def failed(self) -> bool:
        """Whether it was not tested, or went wrong."""
        return self.killed is None or not (
            self.verdict.good or self.verdict.excused)


class Player:
    """Plays rounds in one cloud."""

    def __init__(self, it: cloud.Cloud, files: orders.Orders) -> None:
        self._cloud = it
        self._orders = files

    def undisturbed(self, operation: operations.Operation, promise: str,
                    fails: tuple[str, str] | None
                    ) -> tuple[operations.Verdict, list[orders.Passed]]:
        """Do it once with nobody killed.

        :param fails: a flow and a task of it that is made to fail
        :returns: the verdict, and what the conductors came by for this
            server
        """
        operation.prepare()
        since = self._orders.end_of_trace()
        try:
            if fails:
                self._orders.fail_in(*fails)
            asked = operation.ask()
            verdict = operation.judge(asked, promise)
        finally:
            self._orders.clear()
        return verdict, [passed for passed in self._orders.trace(since)
                         if passed.subject == asked.subject]

    def play(self, operation: operations.Operation, step: plan.Step,
             promise: str, fails: tuple[str, str] | None) -> Result:
        """Do it once with the conductor killed at one point.

        :raises CloudError: if the API refuses, or no conductor comes up
        """
        operation.prepare()
        self._cloud.start(*settings.CONDUCTORS)
        since = self._orders.end_of_trace()
        token = uuid.uuid4().hex[:8]
        try:
            if fails:
                self._orders.fail_in(*fails)
            self._orders.kill_at(step.point, token)
            began, asked_at = time.monotonic(), time.time()
            asked = operation.ask()
            self._await_kill(asked)
            killed = next((one for one in self._orders.trace(since)
                           if one.killed == token), None)
            if killed is not None:
                self._revive(killed.host)
            verdict = operation.judge(
                dataclasses.replace(asked, killed=killed is not None),
                promise)
        finally:
            self._orders.clear()
        later = [one for one in self._orders.trace(since)
                 if one.resumed and one.subject == asked.subject]
        return Result(
            step, asked.server, asked.request_id, verdict, killed,
            round(killed.time - asked_at, 2) if killed else None,
            round(time.monotonic() - began, 1),
            sorted({one.host for one in later}),
            round(later[0].time - killed.time, 1) if killed and later
            else None)

    def _await_kill(self, asked: operations.Asked) -> None:
        """Wait until the order is carried out, or cannot be any more."""
        limit = time.monotonic() + _PATIENCE
        while self._orders.pending and time.monotonic() < limit:
            if asked.is_over(self._cloud):
                # What comes after the end takes no time, or does not come:
                # a compute may send its server back, though, and has much
                # to do on a machine that others work on, too.
                limit = min(limit, time.monotonic() + 30)
            time.sleep(_POLL)

    def _revive(self, name: str) -> None:
        """Start a conductor that has killed itself."""
        limit = time.monotonic() + 10
        while self._cloud.members(name):
            if time.monotonic() > limit:
                raise settings.CloudError(f'{name} was killed, and lives')
            time.sleep(_POLL)
        self._cloud.start(name, wait=False)
