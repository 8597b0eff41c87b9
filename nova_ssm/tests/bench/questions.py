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

"""What is asked of the tables again and again, each by the engine's code."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
from typing import Any
import uuid

import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import glances
from nova_ssm.engine import jobboard
from nova_ssm.engine import loading
from nova_ssm.engine import orders
from nova_ssm.engine import orphans
from nova_ssm.engine import purge
from nova_ssm.engine import queries
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.tests.bench import filling

_F, _W = schema.flows.c, schema.workers.c


@dataclasses.dataclass
class Tables:
    """Filled tables, and some of what is in them."""

    db: database.Database

    def __post_init__(self) -> None:
        self.board = jobboard.SQLJobBoard('bench', {
            'database': self.db, 'serializer': serialization.Serializer()})
        with self.db.transaction() as connection:
            # Of the newest flows that are over: they are not purged here.
            self.sample = connection.execute(sa.select(schema.flows).where(
                _F.finished_at.is_not(None)).order_by(
                    _F.created_at.desc()).limit(1)).one()
        self.seconds = filling.SPAN

    @contextlib.contextmanager
    def nobody_lives(self) -> Iterator[None]:
        """All leases have run out."""
        self._expire(-7200)
        try:
            yield
        finally:
            self._expire(7200)

    def _expire(self, seconds: float) -> None:
        with self.db.transaction() as connection:
            connection.execute(schema.workers.update().values(
                expires_at=_W.expires_at + seconds))

    # -- what is asked -----------------------------------------------------

    def glance(self) -> Any:
        with self.db.transaction() as connection:
            living = connection.execute(sa.select(_W.id)).scalars().all()
        return glances.glance(self.db, living)

    def glance_past(self) -> Any:
        """While all that nobody runs is known to wait."""
        with self.db.transaction() as connection:
            living = connection.execute(sa.select(_W.id)).scalars().all()
        return glances.glance(self.db, living, [
            str(uuid.uuid4()) for _number in range(glances.MOST_WAITING)])

    def look(self) -> Any:
        return orphans.page(self.db, orphans.PAGE)

    def next_page(self) -> Any:
        first = orphans.page(self.db, orphans.PAGE)
        return orphans.page(self.db, orphans.PAGE, first.end)

    def claim(self) -> None:
        job = next(self.board.free_jobs('bench'))
        self.board.claim(job, 'bench')
        self.board.abandon(job, 'bench')


    def load(self) -> None:
        loading._rows(self.db, self.sample.uuid)

    def show(self) -> None:
        queries.flow(self.db, self.sample.uuid)
        queries.steps(self.db, self.sample.uuid)

    def list_all(self) -> None:
        queries.flows(self.db)

    def list_further(self) -> None:
        queries.flows(self.db, marker=self.sample.uuid)

    def list_unfinished(self) -> None:
        queries.flows(self.db, unfinished=True)

    def list_server(self) -> None:
        queries.flows(self.db, subject=self.sample.subject)

    def list_request(self) -> None:
        queries.flows(self.db, request_id=self.sample.request_id)

    def list_project(self) -> None:
        queries.flows(self.db, project_id=self.sample.project_id)

    def list_project_unfinished(self) -> None:
        queries.flows(self.db, project_id=self.sample.project_id,
                      unfinished=True)

    def list_operation(self) -> None:
        queries.flows(self.db, name=self.sample.name)

    def list_state(self) -> None:
        queries.flows(self.db, state='SUCCESS')

    def list_failed(self) -> None:
        queries.flows(self.db, failed=True)

    def list_owner(self) -> None:
        queries.flows(self.db, owner=next(iter(queries.living(self.db))))

    def list_old(self) -> None:
        queries.flows(self.db, older=self.seconds * 0.7)

    def list_orders(self) -> None:
        orders.pending(self.db)

    def count(self) -> int:
        return self.board.job_count

    def look_after(self) -> None:
        lately = queries.clock(self.db) - 140
        queries.has_flows(self.db, ['build_instance'], lately)
        queries.subjects_finished(self.db, ['build_instance'], lately)

    def eldest(self) -> None:
        purge.eldest(self.db)

    def purge(self) -> None:
        """A batch of ten of the oldest."""
        next(purge.batches(self.db, purge.Ages(self.seconds * 0.7, None),
                           size=10))


#: What is asked, and whether all workers are dead then.
OPERATIONS: dict[str, tuple[Callable[[Tables], Any], bool]] = {
    'is there anything to be done': (Tables.glance, False),
    '  but for 200 that wait': (Tables.glance_past, False),
    'look for orphans: none': (Tables.look, False),
    'look for orphans: 10,000': (Tables.look, True),
    '  the next 512 of them': (Tables.next_page, True),
    'look, claim one, let go': (Tables.claim, True),
    'who may purge': (Tables.eldest, False),
    'count the unfinished': (Tables.count, False),
    'what has ended lately': (Tables.look_after, False),
    'load one flow': (Tables.load, False),
    'flow show': (Tables.show, False),
    'flow list': (Tables.list_all, False),
    'flow list --marker': (Tables.list_further, False),
    'flow list --unfinished': (Tables.list_unfinished, False),
    'flow list --server': (Tables.list_server, False),
    'flow list --request': (Tables.list_request, False),
    'flow list --project': (Tables.list_project, False),
    'flow list --project --unfinished': (
        Tables.list_project_unfinished, False),
    'flow list --operation': (Tables.list_operation, False),
    'flow list --state': (Tables.list_state, False),
    'flow list --failed': (Tables.list_failed, False),
    'flow list --owner': (Tables.list_owner, False),
    'flow list --older': (Tables.list_old, False),
    'what is ordered': (Tables.list_orders, False),
    'purge ten flows': (Tables.purge, False),
}
