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

"""Removes what is over and old, little by little.

One worker at a time does it, the one that has lived longest: nobody is asked
for leave, and if two of them should be at it, one finds nothing to remove. A
batch is one short transaction: flows go with all their rows or not at all.
"""

from collections.abc import Callable, Iterator
import dataclasses
import itertools
import random
import time
from typing import Any

from oslo_db import exception as db_exc
from oslo_log import log as logging
import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import looping
from nova_ssm.engine import schema
from nova_ssm.engine import states

LOG = logging.getLogger(__name__)

_F, _J, _W = schema.flows.c, schema.journal.c, schema.workers.c

#: How many flows go in one transaction.
BATCH = 100
#: Seconds after which a row of the journal without a flow is nobody's: a flow
#: has been there since its first row.
STRAY = 3600.0
#: Seconds between two looks for such rows, which walk over the whole index.
SWEEP = 86400.0


@dataclasses.dataclass(frozen=True)
class Ages:
    """For how long flows are kept after their end, in seconds.

    :param finished: those that succeeded or were reverted; None for ever
    :param failed: those in FAILURE or KILLED, which are cases for people;
        None for ever
    """

    finished: float | None
    failed: float | None

    def conditions(self) -> list[Any]:
        """What is to go: each by a range of the index."""
        found = []
        people = sorted(states.FOR_PEOPLE)
        for age, condition in (
                (self.finished, _F.state.not_in(people)),
                (self.failed, _F.state.in_(people))):
            if age is not None:
                found.append(sa.and_(
                    _F.finished_at <= schema.now() - age, condition))
        return found


def count(db: database.Database, ages: Ages) -> dict[str, int]:
    """How many flows are old enough to go, by their state."""
    counts: dict[str, int] = {}
    for condition in ages.conditions():
        with db.reading() as connection:
            for state, number in connection.execute(sa.select(
                    _F.state, sa.func.count()).where(
                        condition).group_by(_F.state)):
                counts[state] = counts.get(state, 0) + number
    return counts


def batches(db: database.Database, ages: Ages,
            size: int = BATCH) -> Iterator[int]:
    """Remove what is old enough, as far as the caller goes on.

    A child goes with its parent or after it: what is there of a request
    tells of all of it.

    :returns: how many flows went with each batch
    :raises DatabaseUnusable: if the database does not take one at the fifth
        try
    """
    for condition in ages.conditions():
        after: Any = None
        while rows := _old(db, condition, after, size):
            after = rows[-1]
            chosen = _with_parents(db, rows)
            yield _remove(db, chosen) if chosen else 0


def _old(db: database.Database, condition: Any, after: Any,
         size: int) -> list[Any]:
    query = sa.select(_F.uuid, _F.parent_uuid, _F.finished_at,
                      _F.created_at).where(condition)
    if after is not None:
        # What had to stay is not looked at again.
        query = query.where(_F.finished_at >= after.finished_at, sa.or_(
            _F.finished_at > after.finished_at,
            _F.created_at > after.created_at,
            sa.and_(_F.created_at == after.created_at,
                    _F.uuid > after.uuid)))
    with db.reading() as connection:
        return list(connection.execute(query.order_by(
            _F.finished_at, _F.created_at, _F.uuid).limit(size)))


def _with_parents(db: database.Database, rows: list[Any]) -> list[str]:
    """Those whose parent is gone, or goes with them."""
    parents = {row.parent_uuid for row in rows if row.parent_uuid}
    with db.reading() as connection:
        there = set(connection.execute(sa.select(_F.uuid).where(
            _F.uuid.in_(parents))).scalars()) if parents else set()
    going = {row.uuid for row in rows}
    while staying := {row.uuid for row in rows if row.uuid in going and
                      row.parent_uuid in there - going}:
        going -= staying
    return sorted(going)


def _remove(db: database.Database, uuids: list[str]) -> int:
    def work(connection: sa.Connection) -> int:
        # First, and with a lock on each: what somebody has had go on again
        # meanwhile stays, and what goes here cannot go on any more.
        going = connection.execute(schema.flows.delete().where(
            _F.uuid.in_(uuids), _F.finished_at.is_not(None))).rowcount
        gone = uuids
        if going != len(uuids):
            there = set(connection.execute(sa.select(_F.uuid).where(
                _F.uuid.in_(uuids))).scalars())
            gone = [uuid for uuid in uuids if uuid not in there]
        connection.execute(schema.journal.delete().where(
            _J.flow_uuid.in_(gone)))
        connection.execute(schema.orders.delete().where(
            schema.orders.c.flow_uuid.in_(gone)))
        return going

    return _write(db, work)


def strays(db: database.Database, size: int = BATCH) -> Iterator[int]:
    """Remove rows of the journal that belong to no flow.

    A worker that was stopped for longer than its flow was kept writes one
    when it wakes up; and a database may have been restored in part.

    :param size: how many flows are looked at in one go
    :returns: how many rows went with each batch
    :raises DatabaseUnusable: as batches
    """
    after = ''
    while page := _written(db, after, size):
        after = page[-1]
        with db.reading() as connection:
            there = set(connection.execute(sa.select(_F.uuid).where(
                _F.uuid.in_(page))).scalars())
        gone = [uuid for uuid in page if uuid not in there]
        yield _remove_rows(db, gone) if gone else 0


def _written(db: database.Database, after: str, size: int) -> list[str]:
    with db.reading() as connection:
        return list(connection.execute(
            sa.select(_J.flow_uuid).distinct().where(
                _J.flow_uuid > after).order_by(
                    _J.flow_uuid).limit(size)).scalars())


def _remove_rows(db: database.Database, uuids: list[str]) -> int:
    # A flow that is being begun may not have been there when we looked.
    return _write(db, lambda connection: connection.execute(
        schema.journal.delete().where(
            _J.flow_uuid.in_(uuids),
            _J.created_at <= schema.now() - STRAY)).rowcount)


def _write(db: database.Database,
           work: Callable[[sa.Connection], int]) -> int:
    tries = itertools.count(1)
    try:
        return db.write(work, give_up=lambda: next(tries) >= 5)
    except (db_exc.DBError, sa.exc.SQLAlchemyError) as exc:
        raise exception.DatabaseUnusable(
            'old flows cannot be removed from the journal database %s: %s'
            % (db.safe_url, database.first_line(exc))) from exc


class Purger(looping.Loop):
    """Lets one worker after the other see to it that the old goes.

    :param worker_id: of this process; asked each time, since it registers
        when it is first needed
    :param interval: seconds between two rounds
    """

    def __init__(self, db: database.Database, worker_id: Callable[[], str],
                 ages: Ages, interval: float = 60) -> None:
        super().__init__('ssm-purge')
        self._db = db
        self._worker_id = worker_id
        self._ages = ages
        self._interval = interval
        self._swept: float | None = None

    def _run(self) -> None:
        # Not all of them at once after a restart.
        while not self._stop.wait(self._interval * random.uniform(0.5, 1)):
            try:
                self.round()
            except Exception as exc:  # noqa: BLE001 - try again, and say so
                LOG.warning('Removing old flows failed, trying again in %d '
                            'seconds: %s', self._interval,
                            database.first_line(exc))

    def round(self) -> int:
        """Remove what is old, if it is this worker's turn.

        :returns: how many flows were removed
        """
        if eldest(self._db) != self._worker_id():
            return 0
        removed = self._take_time(batches(self._db, self._ages))
        if removed:
            LOG.info('Removed %d flows that were over for long enough',
                     removed)
        if self._swept is None or time.monotonic() > self._swept + SWEEP:
            rows = self._take_time(strays(self._db))
            self._swept = time.monotonic()
            if rows:
                LOG.info('Removed %d rows of the journal that belonged to no '
                         'flow', rows)
        return removed

    def _take_time(self, work: Iterator[int]) -> int:
        """Do it in half of the time, to let the others have the rest."""
        removed, began = 0, time.monotonic()
        for number in work:
            removed += number
            if self._stop.wait(time.monotonic() - began):
                break
            began = time.monotonic()
        return removed


def eldest(db: database.Database) -> str | None:
    """The worker that has lived longest."""
    with db.transaction() as connection:
        return connection.execute(sa.select(_W.id).where(
            _W.expires_at > schema.now()).order_by(
                _W.started_at, _W.id).limit(1)).scalar()
