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
"""Runners of one and the same flow, each in its own way.

The flow is a row of tasks, each of which has an effect and gives a result of
some hundred bytes: about what a task of a build of a server journals.
"""

import contextlib
import os
from typing import Any

from oslo_utils import uuidutils
import sqlalchemy as sa
from taskflow import engines
from taskflow.patterns import linear_flow
from taskflow.persistence import backends
from taskflow.persistence import models
from taskflow import task as taskflow_task

from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.engine import task as ssm_task

#: How many random bytes, in hex, the result of a task has, which no
#: compression takes away; and how much text beside.
_RANDOM, _TEXT = 100, 200


def result_of(number: int) -> dict[str, Any]:
    """What a task gives."""
    return {'number': number, 'random': os.urandom(_RANDOM).hex(),
            'text': 'a' * _TEXT}


class Step(taskflow_task.Task):
    """A task of TaskFlow."""

    def __init__(self, number: int) -> None:
        super().__init__(name='task-%d' % number,
                         provides='result-%d' % number)
        self.number = number

    def execute(self) -> dict[str, Any]:
        return result_of(self.number)

    def revert(self, *args: Any, **kwargs: Any) -> None:
        """It could be undone."""


class DurableStep(Step, ssm_task.Task):
    """A task of ours."""


def flow_of(tasks: int, cls: type[Step] = Step) -> linear_flow.Flow:
    """A flow of so many tasks."""
    return linear_flow.Flow('flow-%d' % tasks).add(
        *(cls(number) for number in range(tasks)))


class Peer:
    """One way to run the flow.

    :param url: an SQLAlchemy URL of an empty database of its own
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, tasks: int) -> None:
        """Run a flow of so many tasks to its end.

        :raises AssertionError: if it did not come to its end
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the database."""


class Ours(Peer):
    """The engine of nova_ssm."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        database.upgrade(url)
        flows = registry.Registry()
        self._db = database.Database(url)
        self._flows = flows
        self._runner = runner.Runner(
            self._db, serialization.Serializer(), flows, 'bench')

    def run(self, tasks: int) -> None:
        name = 'flow-%d' % tasks
        self._flows.add(registry.FlowType(
            name, '1.0', _FACTORIES.setdefault(
                tasks, lambda: flow_of(tasks, DurableStep))))
        outcome = self._runner.run(journal.FlowRequest(
            name=name, store={'name': name}))
        assert outcome.state == 'SUCCESS', outcome

    def close(self) -> None:
        self._runner.close()


_FACTORIES: dict[int, Any] = {}


class Memory(Peer):
    """TaskFlow in memory: nothing is durable."""

    def run(self, tasks: int) -> None:
        engine = engines.load(flow_of(tasks), engine='serial',
                              store={'name': 'flow'})
        engine.run()
        assert engine.storage.get_flow_state() == 'SUCCESS'


class TaskFlowSQL(Peer):
    """TaskFlow with the persistence backend that it ships for databases."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._backend = backends.fetch({'connection': url})
        with contextlib.closing(self._backend.get_connection()) as connection:
            connection.upgrade()

    def run(self, tasks: int) -> None:
        # As its own examples and its conductor do it: a book, in it the flow,
        # and with it how its graph is made again.
        book = models.LogBook('book')
        detail = models.FlowDetail('flow', uuidutils.generate_uuid())
        book.add(detail)
        with contextlib.closing(self._backend.get_connection()) as connection:
            connection.save_logbook(book)
        engines.save_factory_details(
            detail, flow_of, [tasks], {}, backend=self._backend)
        engine = engines.load(
            flow_of(tasks), book=book, flow_detail=detail,
            backend=self._backend, engine='serial', store={'name': 'flow'})
        engine.run()
        assert engine.storage.get_flow_state() == 'SUCCESS'

    def close(self) -> None:
        self._backend.close()


class Floor(Peer):
    """One INSERT and one COMMIT a task, and nothing else."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        # The same kind of file, on SQLite.
        database.upgrade(url)
        self._db = database.Database(url)
        self._table = schema.journal.to_metadata(
            sa.MetaData(), name='bench_floor')
        with self._db.transaction() as connection:
            self._table.create(connection)
        self._serializer = serialization.Serializer()

    def run(self, tasks: int) -> None:
        uuid = uuidutils.generate_uuid()
        for number in range(tasks):
            # Of the size that ours writes.
            payload = self._serializer.compress(
                {'task': {'state': 'SUCCESS', 'results': result_of(number)}})
            with self._db.transaction() as connection:
                connection.execute(self._table.insert().values(
                    flow_uuid=uuid, seq=number, kind='atom',
                    atom='task-%d' % number, state='SUCCESS', writer='bench',
                    created_at=schema.now(), payload=payload))

    def close(self) -> None:
        self._db.close()


class DBOS(Peer):
    """DBOS Transact: a workflow of so many steps."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        import dbos     # in the environment of the benchmark only
        self._dbos = dbos.DBOS(config={
            'name': 'bench', 'log_level': 'ERROR',
            # It brings its own driver.
            'system_database_url': url.replace('+psycopg2', '')})

        @dbos.DBOS.step()
        def step(number: int) -> dict[str, Any]:
            return result_of(number)

        @dbos.DBOS.workflow()
        def workflow(tasks: int) -> str:
            for number in range(tasks):
                step(number)
            return 'SUCCESS'

        self._workflow = workflow
        dbos.DBOS.launch()

    def run(self, tasks: int) -> None:
        assert self._workflow(tasks) == 'SUCCESS'

    def close(self) -> None:
        self._dbos.destroy()


PEERS: dict[str, type[Peer]] = {
    'memory': Memory, 'floor': Floor, 'ours': Ours, 'dbos': DBOS,
    'taskflow': TaskFlowSQL}
