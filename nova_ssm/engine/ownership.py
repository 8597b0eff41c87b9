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

"""Whether a flow is still this process's, asked before each of its steps.

A flow is let go of at the boundary between two steps: when the process is
stopped, when somebody else has it, when it is wanted elsewhere, and when
there is an order for it.
"""

from collections.abc import Callable
import threading

import sqlalchemy as sa

from nova_ssm.engine import boards
from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import orders
from nova_ssm.engine import schema
from nova_ssm.engine import worker as worker_module


class Ownership:
    """One flow in the hands of one worker.

    :param uuid: of the flow
    :ivar lapses: how often the worker's lease had run out when the flow was
        ours for certain; None if that is to be asked
    :ivar at_rest: called when a task begins to wait
    """

    def __init__(self, db: database.Database, uuid: str,
                 worker: worker_module.Worker,
                 board: boards.Board) -> None:
        self.uuid = uuid
        self.worker = worker
        self.lapses: int | None = None
        self.at_rest: Callable[[], None] = _nothing
        self._db = db
        self._board = board
        self._reason: str | None = None
        self._wake = threading.Event()
        self._ordering = threading.Lock()
        self._order: str | None = None
        self._obeyed: str | None = None
        self._reverting = False

    def let_go(self, reason: str) -> None:
        """Begin no further step of this flow.

        :param reason: for the log
        """
        self._reason = reason
        self._wake.set()

    def order(self, verb: str) -> None:
        """Obey an order at the next step, or where a task waits.

        A flow that is being undone is cancelled already.
        """
        with self._ordering:
            if verb in (self._order, self._obeyed):
                return
            self._order = verb
            if verb != orders.CANCEL or not self._reverting:
                self._wake.set()

    def obey(self, verb: str | None) -> None:
        """The flow goes on, with this order known."""
        with self._ordering:
            self._order, self._obeyed = None, verb
            self._reverting = False
            if self._reason is None:
                self._wake.clear()

    def turn(self, reverting: bool) -> None:
        """The next step does something, or undoes something."""
        if reverting == self._reverting:
            return
        with self._ordering:
            self._reverting = reverting
            if reverting and self._order == orders.CANCEL and (
                    self._reason is None):
                self._wake.clear()

    def check(self) -> None:
        """Begin no step without a lease that has lasted all the time.

        An expired lease is no harm if nobody has claimed the flow since. Who
        did would meet our next row, but the effect comes before the row.

        :raises FlowSuspended: if the flow is to go on elsewhere, or to obey
        :raises FlowLost: if it has another owner
        :raises JournalBroken: if that cannot be found out
        """
        self._check_wanted()
        if not (self.worker.valid and self.worker.lapses == self.lapses and
                self._board.holds(self.uuid)):
            self._ask()

    def _check_wanted(self) -> None:
        if self.worker.suspended.is_set():
            raise exception.FlowSuspended(
                'flow %s is suspended: worker %s is being stopped'
                % (self.uuid, self.worker.id))
        if self._reason is not None:
            raise exception.FlowSuspended(
                'flow %s is suspended: %s' % (self.uuid, self._reason))
        if self._order is not None and not (
                self._reverting and self._order == orders.CANCEL):
            raise exception.FlowOrdered(
                'there is the order to %s flow %s'
                % (self._order, self.uuid))

    def wait(self, seconds: float) -> None:
        """Wait in the middle of a task, which may end here.

        :raises FlowLost: as :meth:`check`, as soon as there is a reason
        """
        self.at_rest()
        self._wake.wait(seconds)
        self.check()

    def wake(self) -> None:
        """End the waiting: the worker is suspended."""
        self._wake.set()

    def _keep_claim(self) -> None:
        while not self._board.holds(self.uuid):
            try:
                if not self._board.keep(self.uuid, self.worker.id):
                    raise exception.FlowLost(
                        'flow %s was claimed by another worker' % self.uuid)
            except exception.BoardUnusable:
                self._wake.wait(0.5)
                self._check_wanted()

    def _ask(self) -> None:
        self._keep_claim()
        try:
            if not self.worker.valid:
                self.worker.renew()
            lapses = self.worker.lapses
            owner = self._db.write(
                self._owner, give_up=self.worker.suspended.is_set)
        except Exception as exc:
            raise exception.JournalBroken(
                'whether flow %s is still ours cannot be found out: %s'
                % (self.uuid, database.first_line(exc))) from exc
        if owner != self.worker.id:
            raise exception.FlowLost(
                'flow %s was taken over while worker %s was silent for longer '
                'than its lease' % (self.uuid, self.worker.id))
        self.lapses = lapses

    def _owner(self, connection: sa.Connection) -> str | None:
        return connection.execute(
            sa.select(schema.flows.c.owner).where(
                schema.flows.c.uuid == self.uuid)).scalar()


def of_worker(db: database.Database, worker_id: str) -> set[str]:
    """The unfinished flows that a worker owns, by uuid."""
    c = schema.flows.c
    with db.transaction() as connection:
        return set(connection.execute(sa.select(c.uuid).where(
            c.owner == worker_id, c.finished_at.is_(None))).scalars())


def _nothing() -> None:
    """What a flow in the thread of its request frees when it waits."""
