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

"""Which flows nobody runs: every worker asks for them every second.

Whatever the tables hold, a look reads one page of an index. It begins with
the few workers that live and skips what they own; the flows that are over
stand apart, behind ``finished_at``.
"""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import Any
import zlib

import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import schema

_F, _W = schema.flows.c, schema.workers.c

#: How many flows a page has, and how many pages a look.
PAGE, PAGES = 512, 4

#: Where a page ended: owner, time and uuid of its last flow.
Place = tuple[str | None, float, str]


@dataclasses.dataclass
class Page:
    """Flows that nobody runs.

    :param rows: of ``ssm_flows``; the oldest of those that nobody owns, then
        those of each dead owner
    :param live: the workers whose lease has not expired
    :param end: where the next page begins; None if there is none
    """

    rows: list[Any]
    live: list[str]
    end: Place | None

    def share(self, me: str) -> list[Any]:
        """The flows that are for one worker to try before all others.

        Or all of them would claim the same ones, and all but one in vain.
        """
        ranks = sorted({*self.live, me})
        return [row for row in self.rows
                if ranks[zlib.crc32(row.uuid.encode()) % len(ranks)] == me]

    def rest(self, me: str) -> list[Any]:
        """Those that are for others, who may be busy or not able to.

        Shuffled: who has nothing else to do begins somewhere.
        """
        mine = {row.uuid for row in self.share(me)}
        return sorted(
            (row for row in self.rows if row.uuid not in mine),
            key=lambda row: zlib.crc32((me + row.uuid).encode()))


class Looks:
    """One look after the other, each of a few pages.

    A look begins again with what the last one has not come to. So the oldest
    are tried first, but if nobody can run them those behind have their turn.
    """

    def __init__(self, db: database.Database) -> None:
        self._db = db
        self._after: Place | None = None

    def look(self, me: str) -> Iterator[Any]:
        """Rows of ``ssm_flows``, in the order in which ``me`` tries them.

        :param me: the id of a worker
        """
        for _number in range(PAGES):
            found = page(self._db, PAGE, self._after)
            if share := found.share(me):
                yield from share
                # By now others have taken of theirs.
                found = page(self._db, PAGE, self._after)
            yield from found.rest(me)
            # Only when all of it was tried.
            self._after = found.end
            if found.end is None:
                return


def every(db: database.Database) -> Iterator[Any]:
    """All rows of ``ssm_flows`` that nobody runs, read as far as needed."""
    found = page(db, PAGE)
    yield from found.rows
    while found.end is not None:
        found = page(db, PAGE, found.end)
        yield from found.rows


def page(db: database.Database, limit: int,
         after: Place | None = None) -> Page:
    """Look for flows that nobody runs.

    :param limit: how many at the most
    :param after: where the page before this one ended
    """
    with db.transaction() as connection:
        live = list(connection.execute(sa.select(_W.id).where(
            _W.expires_at > schema.now()).order_by(_W.id)).scalars())
        rows: list[Any] = []
        if after is None or after[0] is None:
            rows += connection.execute(_nobodys(after, limit)).all()
            after = None
        if len(rows) < limit:
            rows += connection.execute(
                _dead_ones(live, after, limit - len(rows))).all()
    end = None
    if len(rows) == limit:
        end = (rows[-1].owner, rows[-1].created_at, rows[-1].uuid)
    return Page(rows, live, end)


def _nobodys(after: Place | None, limit: int) -> sa.Select:
    conditions: list[Any] = [_F.owner.is_(None)]
    if after is not None:
        conditions.append(_later(after))
    return _rows(conditions, schema.alike(_F.owner), limit)


def _dead_ones(live: Sequence[str], after: Place | None,
               limit: int) -> sa.Select:
    # MariaDB makes of NOT IN the ranges between the living; PostgreSQL
    # filters them out of the index.
    conditions: list[Any] = [_F.owner.is_not(None), _F.owner.not_in(live)]
    if after is not None:
        conditions += [_F.owner >= after[0],
                       sa.or_(_F.owner > after[0], _later(after))]
    return _rows(conditions, _F.owner, limit)


def _later(after: Place) -> sa.ColumnElement[bool]:
    _owner, created_at, uuid = after
    return sa.and_(_F.created_at >= created_at,
                   sa.or_(_F.created_at > created_at, _F.uuid > uuid))


def _rows(conditions: list[Any], owner: Any, limit: int) -> sa.Select:
    """Choose by the index alone, then read what was chosen."""
    chosen = sa.select(_F.uuid).where(
        *conditions, _F.finished_at.is_(None)).order_by(
            owner, schema.alike(_F.finished_at), _F.created_at, _F.uuid
        ).limit(limit).subquery('chosen')
    return sa.select(schema.flows).join(
        chosen, chosen.c.uuid == _F.uuid).order_by(
            _F.owner, _F.created_at, _F.uuid)
