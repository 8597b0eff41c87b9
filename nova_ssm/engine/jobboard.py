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

"""The job board ``sql``: who runs which flow.

A claim is one compare-and-swap update and one row in the journal, in one
transaction: no SELECT FOR UPDATE, so it does on Galera too. The row fences
whoever wrote before. A flow is free when its owner is nobody, or a worker
whose lease has expired on the database's clock.
"""

from collections.abc import Callable, Iterator, Sequence
import itertools
import time
from typing import Any

from oslo_db import exception as db_exc
import sqlalchemy as sa
from taskflow import exceptions as taskflow_exc
from taskflow.jobs import base
from taskflow import states as taskflow_states

from nova_ssm.engine import boards
from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import orphans
from nova_ssm.engine import rows
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.engine import states

_FLOWS = schema.flows.c
#: How many flows are looked up in one statement.
_AT_ONCE = 500


class SQLJob(base.Job):
    """A flow on the board, as it was when it was looked up.

    :ivar live: whether its owner had a lease then
    :ivar posted: its job on another board, if it is on one
    """

    def __init__(self, board: 'SQLJobBoard', row: Any,
                 live: bool = False) -> None:
        super().__init__(board, row.name, uuid=row.uuid,
                         details={'flow_uuid': row.uuid,
                                  'version': row.version,
                                  'subject': row.subject})
        self.row = row
        self.live = live
        self.posted: base.Job | None = None

    @property
    def last_modified(self) -> float:
        return self.row.updated_at

    @property
    def created_on(self) -> float:
        return self.row.created_at

    @property
    def state(self) -> str:
        if self.row.finished_at is not None:
            return taskflow_states.COMPLETE
        if self.board.find_owner(self) is not None:
            return taskflow_states.CLAIMED
        return taskflow_states.UNCLAIMED

    @property
    def priority(self) -> base.JobPriority:
        return base.JobPriority.convert(self.row.priority)


class SQLJobBoard(base.JobBoard, boards.Board):
    """TaskFlow's job board on the journal's own tables.

    :param conf: ``database`` (a :class:`~nova_ssm.engine.database.Database`)
        and ``serializer``
    """

    in_journal = True

    def __init__(self, name: str, conf: dict[str, Any]) -> None:
        super().__init__(name, conf)
        self._db: database.Database = conf['database']
        self._serializer: serialization.Serializer = conf['serializer']
        self._looks = orphans.Looks(self._db)
        self._connected = False

    # -- looking ----------------------------------------------------------

    def iterjobs(self, only_unclaimed: bool = False,
                 ensure_fresh: bool = False) -> Iterator[SQLJob]:
        if only_unclaimed:
            return (SQLJob(self, row) for row in orphans.every(self._db))
        query = sa.select(schema.flows).where(_FLOWS.finished_at.is_(None))
        with self._db.transaction() as connection:
            rows = connection.execute(query.order_by(
                schema.alike(_FLOWS.finished_at), _FLOWS.created_at,
                _FLOWS.uuid)).all()
        return iter([SQLJob(self, row) for row in rows])

    def free_jobs(self, who: str) -> Iterator[SQLJob]:
        """Flows that nobody runs, in the order in which ``who`` tries them.

        Not all of them at once: the next call goes on where this one was
        left.
        """
        return (SQLJob(self, row) for row in self._looks.look(who))

    def look_up(self, uuids: Sequence[str]) -> dict[str, SQLJob]:
        """Those of these flows that there are, over or not, by uuid."""
        found = {}
        for start in range(0, len(uuids), _AT_ONCE):
            query = sa.select(
                schema.flows, (~_is_free()).label('live')).where(
                    _FLOWS.uuid.in_(uuids[start:start + _AT_ONCE]))
            with self._db.transaction() as connection:
                for row in connection.execute(query):
                    found[row.uuid] = SQLJob(self, row, bool(row.live))
        return found

    @property
    def job_count(self) -> int:
        with self._db.transaction() as connection:
            return connection.execute(
                sa.select(sa.func.count()).select_from(schema.flows).where(
                    _FLOWS.finished_at.is_(None))).scalar_one()

    def find_owner(self, job: base.Job) -> str | None:
        with self._db.transaction() as connection:
            return connection.execute(sa.select(_FLOWS.owner).where(
                _FLOWS.uuid == job.uuid, ~_is_free())).scalar()

    def wait(self, timeout: float | None = None) -> Iterator[SQLJob]:
        """Wait until there is a flow that nobody runs.

        :param timeout: in seconds; None waits for ever
        :raises taskflow.exceptions.NotFound: when the time is over
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            jobs = self.iterjobs(only_unclaimed=True)
            if (first := next(jobs, None)) is not None:
                return itertools.chain([first], jobs)
            if deadline is not None and time.monotonic() >= deadline:
                raise taskflow_exc.NotFound('no job came within %s seconds'
                                            % timeout)
            time.sleep(0.2)

    # -- changing ---------------------------------------------------------

    def post(self, name: str, book: Any = None,
             details: dict[str, Any] | None = None,
             priority: base.JobPriority = base.JobPriority.NORMAL) -> SQLJob:
        """Post a flow that anybody may claim.

        :param details: ``request``, a
            :class:`~nova_ssm.engine.journal.FlowRequest`; its other keys
            become the inputs of the flow
        """
        details = dict(details or {})
        request = details.pop('request', None)
        if request is None:
            request = journal.FlowRequest(name=name, store=details)
        self.start(request, owner=None)
        return self.get(request.uuid)

    def start(self, request: journal.FlowRequest,
              owner: str | None) -> None:
        """Post a flow, claimed by ``owner`` in the same transaction.

        :raises NotSerializable: if it is given what cannot be journaled
        :raises oslo_db.exception.DBDuplicateEntry: if it is there already
        """
        tries = itertools.count()
        payload = journal.pack_request(self._serializer, request)

        def work(connection: sa.Connection) -> None:
            next(tries)
            journal.insert_flows(connection, [(request, payload)], owner)

        try:
            self._db.write(work)
        except db_exc.DBDuplicateEntry:
            # Ours, if an earlier try was committed before the connection
            # broke.
            if next(tries) == 1:
                raise

    def get(self, uuid: str) -> SQLJob:
        """:raises taskflow.exceptions.NotFound: if there is no such flow"""
        with self._db.transaction() as connection:
            row = connection.execute(sa.select(schema.flows).where(
                _FLOWS.uuid == uuid)).first()
        if row is None:
            raise taskflow_exc.NotFound('there is no flow %s' % uuid)
        return SQLJob(self, row)

    def claim(self, job: base.Job, who: str, seize: bool = False) -> int:
        """Take a free flow.

        :param seize: take it from its owner, who has lost it on the board
            that decides; not from one that nobody has looked at since
        :returns: the sequence number of the next journal row
        :raises taskflow.exceptions.UnclaimableJob: if it is not free (any
            more), or over
        """
        assert isinstance(job, SQLJob)
        tries = itertools.count()

        def work(connection: sa.Connection) -> int:
            again = next(tries)
            try:
                swapped = self._swap_owner(connection, job, who, seize)
            except db_exc.DBDeadlock:
                if again:
                    raise
                # Others are not to wait for who holds it: nor do we.
                raise taskflow_exc.UnclaimableJob(
                    'flow %s is locked by another transaction'
                    % job.uuid) from None
            if swapped:
                seq = _next_seq(connection, job.uuid)
                rows.insert(connection, rows.build(
                    job.uuid, seq, who, [rows.Entry(states.CLAIM)]))
                return seq + 1
            # The first try was committed before the connection broke.
            if again and self._has_claimed(connection, job, who):
                return _next_seq(connection, job.uuid)
            raise taskflow_exc.UnclaimableJob(
                'flow %s is not free' % job.uuid)

        try:
            return self._db.write(work)
        except db_exc.DBDuplicateEntry as exc:
            raise taskflow_exc.UnclaimableJob(
                'flow %s is being written by its owner' % job.uuid) from exc

    @staticmethod
    def _swap_owner(connection: sa.Connection, job: SQLJob,
                    who: str, seize: bool) -> bool:
        # Never from oneself, when one's lease has run out: another thread
        # of this process is at it.
        return connection.execute(schema.flows.update().where(
            _FLOWS.uuid == job.uuid,
            _FLOWS.generation == job.row.generation,
            sa.or_(_FLOWS.owner.is_(None), _FLOWS.owner != who),
            _FLOWS.finished_at.is_(None),
            sa.true() if seize else _is_free()).values(
                owner=who, generation=job.row.generation + 1,
                state=states.RUNNING, updated_at=schema.now())).rowcount == 1

    @staticmethod
    def _has_claimed(connection: sa.Connection, job: SQLJob,
                     who: str) -> bool:
        return connection.execute(sa.select(_FLOWS.uuid).where(
            _FLOWS.uuid == job.uuid, _FLOWS.owner == who,
            _FLOWS.generation == job.row.generation + 1)).first() is not None

    def abandon(self, job: base.Job, who: str) -> None:
        """Let go of a flow, so that anybody may go on with it.

        :raises taskflow.exceptions.NotFound: if ``who`` does not own it
        """
        self._owned(job.uuid, who, owner=None)

    def release(self, uuid: str, who: str) -> None:
        """Let go of a flow, if ``who`` owns it.

        :raises Exception: at once if the database does not take it
        """
        self._db.write(_update_owned(uuid, who, owner=None),
                       give_up=lambda: True)

    def consume(self, job: base.Job, who: str) -> None:
        """Say that a flow is over.

        The runner does that in the transaction of the last journal row
        (:meth:`nova_ssm.engine.journal.FlowLog.end`).

        :raises taskflow.exceptions.NotFound: if ``who`` does not own it
        """
        self._owned(job.uuid, who, owner=None, state=states.SUCCESS,
                    finished_at=schema.now())

    def trash(self, job: base.Job, who: str) -> None:
        """Give a flow up as failed.

        :raises taskflow.exceptions.NotFound: if ``who`` does not own it
        """
        self._owned(job.uuid, who, owner=None, state=states.FAILURE,
                    finished_at=schema.now())

    def _owned(self, uuid: str, who: str, **values: Any) -> None:
        tries = itertools.count()
        update = _update_owned(uuid, who, **values)

        def work(connection: sa.Connection) -> None:
            again = next(tries)
            # A second try finds it done if the first one was committed
            # before the connection broke.
            if update(connection) != 1 and not again:
                raise taskflow_exc.NotFound(
                    '%s does not own flow %s' % (who, uuid))

        self._db.write(work)

    # -- the rest of the interface ----------------------------------------

    def register_entity(self, entity: Any) -> None:
        """Workers register themselves: see nova_ssm.engine.worker."""

    @property
    def connected(self) -> bool:
        return self._connected

    def connect(self) -> None:
        self._db.check()
        self._connected = True

    def close(self) -> None:
        self._connected = False


def _update_owned(uuid: str, who: str,
                  **values: Any) -> Callable[[sa.Connection], int]:
    return lambda connection: connection.execute(
        schema.flows.update().where(
            _FLOWS.uuid == uuid, _FLOWS.owner == who).values(
                updated_at=schema.now(), **values)).rowcount


def _next_seq(connection: sa.Connection, uuid: str) -> int:
    return 1 + connection.execute(
        sa.select(sa.func.max(schema.journal.c.seq)).where(
            schema.journal.c.flow_uuid == uuid)).scalar_one()


def _is_free() -> sa.ColumnElement[bool]:
    """Nobody owns the flow, or somebody whose lease has expired."""
    workers = schema.workers.c
    return sa.or_(
        _FLOWS.owner.is_(None),
        ~sa.exists().where(workers.id == _FLOWS.owner,
                           workers.expires_at > schema.now()))
