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

"""Whether there is anything to be done for flows: most often there is not.

Every worker asks that each second, so it is one statement: who the workers
are, and whether any flow is wanted elsewhere, ordered, or run by nobody. Only
if so is it asked which ones. A flow that is known to wait is no news.
"""

from collections.abc import Collection
import dataclasses

import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import schema
from nova_ssm.engine import worker

_F = schema.flows.c
#: Of how many flows that wait it is said that they are no news.
MOST_WAITING = 200


@dataclasses.dataclass(frozen=True)
class Glance:
    """What was seen at a glance.

    :param workers: all of them, dead or alive
    :param wanted: whether flows are to go on elsewhere
    :param ordered: whether there is an order for some flow
    :param free: whether nobody runs some flow; also True if that is not
        certain
    """

    workers: list[worker.Registered]
    wanted: bool
    free: bool
    ordered: bool = True

    @property
    def living(self) -> frozenset[str]:
        """The workers whose lease has not expired, by id."""
        return frozenset(one.id for one in self.workers if not one.expired)


def glance(db: database.Database, living: Collection[str],
           waiting: Collection[str] = ()) -> Glance:
    """Look what there is to be done.

    :param living: the workers that were alive at the last glance. Their names
        let the database skip what they own; of one that has died since it is
        told that flows may be free.
    :param waiting: flows that nobody runs, but that are not to be run now:
        paused ones, and those that could not be resumed a moment ago
    """
    with db.transaction() as connection:
        rows = connection.execute(_question(living, waiting)).all()
    workers = [worker.Registered(*row[:-3]) for row in rows]
    if not rows:
        return Glance([], True, True)
    *_worker, wanted, ordered, free = rows[0]
    seen = Glance(workers, bool(wanted), bool(free), bool(ordered))
    if seen.free or seen.living.issuperset(living):
        return seen
    return dataclasses.replace(seen, free=True)


def _question(living: Collection[str],
              waiting: Collection[str]) -> sa.Select:
    nobodys = sa.exists().where(
        _F.owner.is_(None), _F.finished_at.is_(None),
        *[_F.uuid.not_in(sorted(waiting)[:MOST_WAITING])] if waiting
        else ())
    # MariaDB makes of NOT IN the ranges between the living.
    dead_ones = sa.exists().where(
        _F.owner.is_not(None), _F.owner.not_in(sorted(living)),
        _F.finished_at.is_(None))
    return sa.select(
        *worker.COLUMNS,
        sa.exists(sa.select(schema.transfers.c.flow_uuid)),
        sa.exists(sa.select(schema.orders.c.flow_uuid).where(
            schema.orders.c.answered_at.is_(None))),
        sa.or_(nobodys, dead_ones))
