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

"""What the engine asks of a job board, whatever kind it is.

The journal, with its (flow, sequence) fence, and the flow's row are the only
truth about a flow, on every board. A board decides one thing: who runs a
flow, and thereby how a dead owner is noticed.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol, TYPE_CHECKING

if TYPE_CHECKING:
    from nova_ssm.engine import journal


class Owner(Protocol):
    """The worker whose flows a board keeps: see nova_ssm.engine.worker."""

    id: str
    lease: float

    @property
    def valid(self) -> bool:
        """Whether its lease in the database lasts for certain."""


class Board:
    """Who runs which flow.

    A board that keeps its claims in the journal's database, as ``sql`` does,
    needs only the first four: its claims last as long as the worker's lease.

    :cvar in_journal: whether it keeps them there: then the journal's database
        tells by itself whether nobody runs some flow
    """

    in_journal: ClassVar[bool] = False

    def start(self, request: 'journal.FlowRequest',
              owner: str | None) -> None:
        """Post a flow, claimed by ``owner`` from the first moment.

        :raises NotSerializable: if it is given what cannot be journaled
        :raises oslo_db.exception.DBDuplicateEntry: if it is there already
        """
        raise NotImplementedError

    def free_jobs(self, who: str) -> Iterator[Any]:
        """Flows that nobody runs, in the order in which ``who`` tries them.

        Not all of them at once: the next call goes on where this one was
        left.

        :raises BoardUnusable: if the board is away
        """
        raise NotImplementedError

    def claim(self, job: Any, who: str) -> int:
        """Take a flow that nobody runs.

        :returns: the sequence number of the next journal row
        :raises taskflow.exceptions.UnclaimableJob: if somebody was faster
        :raises BoardUnusable: if the board is away
        """
        raise NotImplementedError

    def release(self, uuid: str, who: str) -> None:
        """Let go of a flow, if ``who`` owns it: others go on with it.

        :raises Exception: at once if the database does not take it
        """
        raise NotImplementedError

    def adopt(self, uuid: str, who: str) -> None:
        """Claim a flow that was posted in a transaction of ours, owned."""

    def finish(self, uuid: str, who: str) -> None:
        """Take a flow off the board whose end is in the journal."""

    def holds(self, uuid: str) -> bool:
        """Whether nobody else can have claimed a flow of ours by now.

        As far as the board goes: the worker's lease is another matter.
        """
        return True

    def keep(self, uuid: str, who: str) -> bool:
        """Make sure of the claim on a flow of ours that may have been lost.

        Who owns the flow is to be looked up afterwards.

        :returns: False if somebody else has claimed it
        :raises BoardUnusable: if that cannot be found out
        """
        return True

    def evict(self, worker_id: str) -> None:
        """Free what a worker has claimed whose process is gone for sure."""

    def attach(self, worker: Owner, renew: bool) -> None:
        """Keep the claims of this process's worker from now on.

        :param renew: False leaves the renewing to the caller
        """

    def detach(self, idle: bool) -> None:
        """Keep them no longer.

        :param idle: False if a step may still be under way: then claims end
            with their time
        """

    def probe(self) -> None:
        """Make sure that the board can be used; keeps nothing open.

        :raises BoardUnusable: with what to do about it
        """


#: Makes the board of a runner, from its database and serializer.
Factory = Callable[..., Board]
