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

"""How an audit reads: the cells, the API database, and the journal."""

from collections.abc import (
    Callable, Collection, Iterable, Iterator, Sequence)
import datetime
import itertools
from typing import Any, TypeVar

from nova import context as nova_context
from nova import objects
from oslo_db import exception as db_exc
from oslo_log import log as logging
from oslo_utils import timeutils
import sqlalchemy as sa

from nova_ssm.audit import services
from nova_ssm.engine import database
from nova_ssm.engine import queries

LOG = logging.getLogger(__name__)
T = TypeVar('T')

#: Rows that are read at a time.
BATCH = 500

#: What a cell database raises that cannot be read now.
AWAY = (db_exc.DBError, db_exc.CantStartEngineError, sa.exc.SQLAlchemyError)

#: For how long the conductors look at what has ended, by themselves. Nearly
#: all servers are in no task, and nearly all migrations are over: only an
#: index of their dates finds those that matter.
RECENT = datetime.timedelta(hours=1)
#: For how long they ask other services about it.
LATELY = datetime.timedelta(minutes=10)

#: The flows of an audit do not own what they look at.
REPAIRS = 'repair_'


class Survey:
    """One look at the cloud.

    :param db: the journal's database
    :param age: seconds for which nobody may have touched what is stuck
    :param report: the client of placement; made when it is first needed
    :param thorough: ask also what no index helps with
    :ivar unseen: the cells that could not be read: what is not found there
        may be there
    :ivar silent: the services that could not be asked
    """

    def __init__(self, db: database.Database, age: float,
                 report: Callable[[], Any],
                 say: Callable[[str], None] = LOG.debug,
                 thorough: bool = False) -> None:
        self.db = db
        self.age = age
        self.thorough = thorough
        self.say = say
        self.context = nova_context.get_admin_context()
        self.unseen: dict[str, str] = {}
        self.silent: dict[str, str] = {}
        self._report = report
        self._cells: list[objects.CellMapping] | None = None

    @property
    def report(self) -> Any:
        """Nova's client of placement."""
        return self._report()

    @property
    def cells(self) -> list[objects.CellMapping]:
        """All cells, cell0 too."""
        if self._cells is None:
            self._cells = list(objects.CellMappingList.get_all(self.context))
        return self._cells

    @property
    def complete(self) -> bool:
        """Whether every cell could be read until now."""
        return not self.unseen

    def in_cells(self, work: Callable[[Any, Any], Iterator[T]],
                 cells: Collection[Any] | None = None) -> Iterator[T]:
        """Do something in each cell that can be read.

        :param work: called with the context of the cell, and the cell
        """
        for cell in self.cells if cells is None else cells:
            if cell.uuid in self.unseen:
                continue
            try:
                with nova_context.target_cell(self.context, cell) as cctxt:
                    yield from work(cctxt, cell)
            except AWAY as exc:
                self.unseen[cell.uuid] = '%s: %s' % (type(exc).__name__, exc)
                self.say('cell %s cannot be read, it is left out: %s'
                         % (cell.name or cell.uuid, exc))

    def ask(self, service: str, work: Callable[[], Iterable[T]]) -> list[T]:
        """Ask another service, if it can be asked; nothing if not."""
        if service in self.silent:
            return []
        try:
            return list(work())
        except services.AWAY as exc:
            self.silent[service] = '%s: %s' % (type(exc).__name__, exc)
            self.say('%s cannot be asked, what it has is left out: %s'
                     % (service, exc))
            return []

    @property
    def gaps(self) -> list[str]:
        """What was not seen, in words."""
        return ['%s: %s' % one for one in
                (*self.unseen.items(), *self.silent.items())]

    def find(self, filters: dict[str, Any],
             read_deleted: bool = False) -> Iterator[Any]:
        """The records of servers in all cells, as (record, cell)."""
        def work(context: Any, cell: Any) -> Iterator[Any]:
            if read_deleted:
                context = context.elevated(read_deleted='yes')
            marker = None
            while True:
                rows = objects.InstanceList.get_by_filters(
                    context, dict(filters), expected_attrs=[], limit=BATCH,
                    marker=marker, sort_keys=['uuid'], sort_dirs=['asc'])
                yield from ((row, cell) for row in rows)
                if len(rows) < BATCH:
                    return
                marker = rows[-1].uuid
        return self.in_cells(work)

    def records(self, uuids: Collection[str],
                deleted: bool = True) -> dict[str, list[Any]]:
        """Of each server its records in all cells, as (record, cell)."""
        found: dict[str, list[Any]] = {}
        for some in batched(uuids):
            filters: dict[str, Any] = {'uuid': list(some)}
            if not deleted:
                filters |= {'deleted': False, 'soft_deleted': True}
            for record, cell in self.find(filters, read_deleted=deleted):
                found.setdefault(record.uuid, []).append((record, cell))
        return found

    def lately(self, since: datetime.timedelta = RECENT) -> dict[str, Any]:
        """The filter of rows that were written lately; of all for people."""
        return {} if self.thorough else {
            'changes-since': timeutils.utcnow() - since}

    def migrations(self, statuses: Collection[str], deleted: bool = False,
                   **filters: Any) -> Iterator[tuple[Any, Any]]:
        """The migration records in some statuses, as (migration, cell).

        :param deleted: also those that were deleted, with their servers
        :param filters: of Nova's for migrations
        """
        def work(context: Any, cell: Any) -> Iterator[tuple[Any, Any]]:
            if deleted:
                context = context.elevated(read_deleted='yes')
            # Nova adds to the filters that it is given.
            for migration in objects.MigrationList.get_by_filters(
                    context, {'status': list(statuses), **filters}):
                yield migration, cell
        return self.in_cells(work)

    def owned(self, uuids: Collection[str]) -> set[str]:
        """Those that a flow works on."""
        found: set[str] = set()
        for some in batched(uuids):
            found |= queries.subjects_unfinished(self.db, some, REPAIRS)
        return found

    def is_old(self, row: Any) -> bool:
        """Whether nobody has touched a row for long enough."""
        since = touched(row)
        return since is None or since <= now() - self.age


def batched(values: Collection[T]) -> Iterator[Sequence[T]]:
    """Values in handfuls that a query takes."""
    iterator = iter(sorted(values))     # type: ignore[type-var]
    while some := list(itertools.islice(iterator, BATCH)):
        yield some


def touched(row: Any) -> float | None:
    """When a row was written last, in seconds since the epoch."""
    written = [when for when in (row.created_at, row.updated_at) if when]
    return seconds(max(written)) if written else None


def seconds(when: datetime.datetime) -> float:
    """A date of Nova's, which may have no zone, in seconds since the epoch."""
    return timeutils.normalize_time(when).replace(
        tzinfo=datetime.UTC).timestamp()


def now() -> float:
    """Now, on the clock that Nova's services write their rows with."""
    return seconds(timeutils.utcnow())
