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

"""Fills the journal's tables with flows, as if they had been run.

By bulk inserts: a million flows take a minute or two.
"""

from collections.abc import Iterator
import dataclasses
import itertools
import random
import time
from typing import Any
import uuid

import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import schema
from nova_ssm.engine import states

#: Flows of this part have all their rows, of the size that a task leaves
#: (1 KB, not to be compressed further); the others only the first and last.
#: A table of a million flows would be 12 GB otherwise.
WHOLE = 0.03
TASKS, SIZE = 8, 1024
PROJECTS = 20
#: Over how many seconds the finished flows have ended.
SPAN = 6 * 86400.0
_CHUNK = 2000


@dataclasses.dataclass
class Filler:
    """Puts flows into a database.

    :param seed: of the random numbers: the same flows each time
    """

    db: database.Database
    seed: int = 1

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._noise = self._random.randbytes(64 * 1024)
        self._count = 0

    def finished(self, number: int) -> None:
        """Flows that are over, since up to a week ago.

        One in a hundred was reverted, one in a thousand is a FAILURE.
        """
        now = time.time()
        self._insert({
            'state': (states.FAILURE if not index % 1000 else
                      states.REVERTED if not index % 100 else
                      states.SUCCESS),
            'created_at': now - 60 - SPAN * (1 - index / number),
            'finished_at': now - 50 - SPAN * (1 - index / number),
        } for index in range(number))

    def unfinished(self, number: int, owners: list[str | None]) -> None:
        """Flows that are not over, owned by these in turn."""
        now = time.time()
        self._insert({
            'state': states.RUNNING, 'finished_at': None,
            'owner': owners[index % len(owners)],
            'created_at': now - 50 + 40 * index / number,
        } for index in range(number))

    def workers(self, number: int, lease: float = 3600) -> list[str]:
        """Workers with a lease; gives their ids."""
        ids = ['host-%d:%d:%08x' % (n // 8, 1000 + n,
                                    self._random.getrandbits(32))
               for n in range(number)]
        with self.db.transaction() as connection:
            connection.execute(schema.workers.insert(), [
                {'id': one, 'host': one.partition(':')[0] + '/1',
                 'pid': 1000, 'process_started': 0, 'started_at': 0,
                 'expires_at': time.time() + lease} for one in ids])
        return ids

    def _insert(self, flows: Iterator[dict[str, Any]]) -> None:
        while chunk := [self._flow(flow) for flow in
                        itertools.islice(flows, _CHUNK)]:
            rows = [row for flow in chunk for row in self._journal(flow)]
            with self.db.transaction() as connection:
                connection.execute(schema.flows.insert(), chunk)
                connection.execute(schema.journal.insert(), rows)

    def _flow(self, flow: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        return {
            'uuid': str(uuid.UUID(int=self._random.getrandbits(128))),
            'parent_uuid': None, 'name': 'build_instance', 'version': '1.0',
            'subject': str(uuid.UUID(int=self._random.getrandbits(128))),
            'project_id': 'project-%d' % (self._count % PROJECTS),
            'user_id': 'user-%d' % (self._count % 1000),
            'request_id': 'req-%s' % uuid.UUID(int=self._count // 5),
            'owner': None, 'generation': 0, 'priority': 'NORMAL',
            'updated_at': flow['created_at'], 'failure': None, **flow}

    def _journal(self, flow: dict[str, Any]) -> Iterator[dict[str, Any]]:
        tasks = TASKS if self._random.random() < WHOLE else 0
        over = flow['finished_at'] is not None
        kinds = [states.START, *[states.ATOM] * tasks,
                 *([states.END] if over else [])]
        for seq, kind in enumerate(kinds):
            size = {states.START: SIZE if tasks else 200,
                    states.ATOM: SIZE, states.END: 0}[kind]
            yield {'flow_uuid': flow['uuid'], 'seq': seq, 'kind': kind,
                   'atom': 'task-%d' % seq if kind == states.ATOM else None,
                   'state': (states.SUCCESS if kind != states.START
                             else None),
                   'writer': 'host:1:1', 'created_at': flow['created_at'],
                   'payload': self._payload(size)}

    def _payload(self, size: int) -> bytes | None:
        if not size:
            return None
        start = self._random.randrange(len(self._noise) - size)
        return self._noise[start:start + size]


def analyze(db: database.Database) -> None:
    """Let the database know how much there is of what."""
    with db.engine.connect() as connection:
        connection = connection.execution_options(
            isolation_level='AUTOCOMMIT')
        if db.engine.dialect.name in ('mysql', 'mariadb'):
            connection.execute(sa.text(
                'ANALYZE TABLE ssm_flows, ssm_journal, ssm_workers'))
        elif db.engine.dialect.name == 'postgresql':
            connection.execute(sa.text('VACUUM ANALYZE'))
        else:
            connection.execute(sa.text('ANALYZE'))
