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

"""Example tasks on a small world, and processes that can be killed."""

import collections
import contextlib
import dataclasses
from typing import Any, ClassVar

from cryptography import fernet
import sqlalchemy as sa
from sqlalchemy import event
from taskflow.patterns import linear_flow

from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.engine import task

KEY = fernet.Fernet.generate_key().decode()


class Killed(BaseException):
    """What a killed process does: nothing any more."""


class World:
    """What the tasks work on: outlives the processes.

    :ivar effects: what is there now
    :ivar doubled: what was made though it was there
    """

    def __init__(self) -> None:
        self.effects: list[str] = []
        self.doubled: list[str] = []
        self.calls: list[str] = []
        self.failing: dict[str, BaseException] = {}
        self.points = 0
        self.kill_at: int | None = None
        self.process: Process | None = None

    def need_life(self) -> None:
        # Tasks beside the one in which it was killed are still called.
        if self.process is not None and self.process.db.dead:
            raise Killed()

    def call(self, what: str) -> None:
        self.need_life()
        self.calls.append(what)
        self.point()
        if what in self.failing:
            raise self.failing[what]

    def point(self) -> None:
        """A moment in which a process may die."""
        self.need_life()
        self.points += 1
        if self.points == self.kill_at:
            assert self.process is not None
            self.process.kill()

    def make(self, name: str) -> None:
        if name in self.effects:
            self.doubled.append(name)
        else:
            self.effects.append(name)
        self.point()

    def unmake(self, name: str) -> None:
        if name in self.effects:
            self.effects.remove(name)
        self.point()

    def count(self, what: str) -> int:
        return self.calls.count(what)


class Do(task.Task):
    """Make something in the world; on recovery only if it is not there."""

    reversion = 'unmake it'

    def __init__(self, name: str, world: World, **kwargs: Any) -> None:
        super().__init__(name=name, provides=name, **kwargs)
        self.world = world

    def execute(self, **kwargs: Any) -> Any:
        self.world.call('do ' + self.name)
        self.world.make(self.name)
        return 'made ' + self.name

    def recover(self, **kwargs: Any) -> Any:
        self.world.call('recover ' + self.name)
        if self.name in self.world.effects:
            return 'made ' + self.name
        return self.execute(**kwargs)

    def revert(self, **kwargs: Any) -> None:
        self.world.call('undo ' + self.name)
        self.world.unmake(self.name)


class Deferred(Do):
    """Its row waits for the next one."""

    deferred = True


class Once(Do):
    """Something that is not to be begun twice unseen."""

    once = True


class Read(task.Task):
    """Look at the world only."""

    effect = False

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name=name, provides=name)
        self.world = world

    def execute(self) -> Any:
        self.world.call('read ' + self.name)
        return 'read ' + self.name


class Spawn(journal.Spawn):
    """Post children of the flow named child."""

    def __init__(self, name: str, world: World, children: int = 2) -> None:
        super().__init__(name=name)
        self.world = world
        self.children = children

    def execute(self) -> list[journal.FlowRequest]:
        self.world.call('spawn ' + self.name)
        return [journal.FlowRequest(name='child-%d' % number, store={})
                for number in range(self.children)]


def linear(*tasks: Any) -> linear_flow.Flow:
    return linear_flow.Flow('flow').add(*tasks)


class MortalDatabase(database.Database):
    """Of a process that may be dead.

    All on one URL share their connections, which takes time to make.
    """

    dead = False
    shared: ClassVar[dict[str, database.Database]] = {}

    @property
    def engine(self) -> sa.Engine:
        return shared(self.url).engine

    @contextlib.contextmanager
    def transaction(self):
        if self.dead:
            raise Killed()
        with super().transaction() as connection:
            yield connection


def shared(url: str) -> database.Database:
    """The database that all processes on it share."""
    if url not in MortalDatabase.shared:
        MortalDatabase.shared[url] = database.Database(
            url, sqlite_synchronous=False)
    return MortalDatabase.shared[url]


class Process:
    """A conductor: an engine of its own on the database of all of them.

    :param flows: factories of flows by name
    """

    def __init__(self, url: str, world: World, flows: dict[str, Any],
                 keys: tuple[str, ...] = (KEY,), lease: float = 60,
                 host: str = 'host', version: str = '1.0',
                 serializer: serialization.Serializer | None = None) -> None:
        self.world = world
        self.db = MortalDatabase(url)
        self.registry = registry.Registry()
        for name, factory in flows.items():
            self.registry.add(registry.FlowType(name, version, factory))
        self.serializer = serializer or serialization.Serializer(
            vault=serialization.Vault(keys))
        self.runner = runner.Runner(
            self.db, self.serializer, self.registry, host, lease=lease,
            renew=False)
        self.rows: list[tuple[str, str | None, str | None]] = []
        self.runner.after_commit = self._after_commit
        world.process = self

    @property
    def board(self):
        return self.runner.board

    def _after_commit(self, uuid, kind, atom, state) -> None:
        self.rows.append((kind, atom, state))
        self.world.point()

    def run(self, name: str = 'flow', **store: Any) -> runner.Outcome:
        return self.runner.run(journal.FlowRequest(name=name, store=store))

    def retype(self, **changes: Any) -> None:
        """Change what its flow types say beside their graphs."""
        for known in self.registry._types.values():
            for key, found in known.items():
                known[key] = dataclasses.replace(found, **changes)

    def kill(self) -> None:
        self.db.dead = True
        raise Killed()

    def resume_all(self) -> list[runner.Outcome]:
        """Resume what is free, until nothing is."""
        outcomes = []
        while jobs := list(self.board.iterjobs(only_unclaimed=True)):
            outcomes += [self.runner.resume(job) for job in jobs]
        return outcomes


def expire_leases(url: str) -> None:
    """Let the lease of every worker run out."""
    with shared(url).transaction() as connection:
        connection.execute(schema.workers.update().values(expires_at=0))


def state_of(url: str, uuid: str | None = None) -> Any:
    """State and owner of a flow, or the states of all of them by name."""
    c = schema.flows.c
    with shared(url).transaction() as connection:
        rows = connection.execute(
            sa.select(c.uuid, c.name, c.state, c.owner)).all()
    if uuid is None:
        return {row.name: row.state for row in rows}
    return next((row.state, row.owner) for row in rows if row.uuid == uuid)


class Statements(collections.Counter):
    """Counts what is said to the database: INSERT, COMMIT and so on."""

    def __init__(self, db: database.Database) -> None:
        super().__init__()
        event.listen(db.engine, 'before_cursor_execute', self._execute)
        event.listen(db.engine, 'commit', self._commit)

    def _execute(self, conn, cursor, statement, *args) -> None:
        self[statement.split(None, 1)[0]] += 1

    def _commit(self, conn) -> None:
        self['COMMIT'] += 1

    def since(self) -> dict[str, int]:
        """What was said since the last time, but for BEGINs."""
        said = {word: number for word, number in self.items()
                if word != 'BEGIN'}
        self.clear()
        return said


class Outage:
    """Lets transactions fail: before, or after they are committed.

    :param errors: what to raise in the transactions to come
    :param after: whether they are committed nevertheless
    """

    def __init__(self, db: database.Database, errors: list[Exception],
                 after: bool = False) -> None:
        self._original = db.transaction
        self._errors = errors
        self._after = after
        db.transaction = self._transaction

    @contextlib.contextmanager
    def _transaction(self):
        error = self._errors.pop(0) if self._errors else None
        if error is not None and not self._after:
            raise error
        with self._original() as connection:
            yield connection
        if error is not None:
            raise error
