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

"""Conductors in processes: started, killed, stopped, and looked at."""

import collections
import multiprocessing
import os
import signal
import time
from typing import Any

import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import schema
from nova_ssm.engine import states
from nova_ssm.tests.boards import node

_CONTEXT = multiprocessing.get_context('forkserver')
#: How long anything may take, in seconds: only to end a test that fails.
LIMIT = 120


def until(what: Any, say: Any = None) -> Any:
    """Wait until something is true, and return it."""
    limit = time.monotonic() + LIMIT
    while not (found := what()):
        assert time.monotonic() < limit, say() if say else 'it never was'
        time.sleep(0.02)
    return found


class Process:
    """One conductor, seen from the test."""

    def __init__(self, *arguments: Any) -> None:
        _CONTEXT.set_forkserver_preload([node.__name__])
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=node.main, args=(*arguments, theirs), daemon=True)
        self._process.start()
        theirs.close()
        #: What it has said, by the first word.
        self.said: dict[str, list[tuple]] = collections.defaultdict(list)
        self.id = self.hear('up')[0]

    def tell(self, *words: Any) -> None:
        self._pipe.send(words)

    def run(self, *keys: str, name: str = 'work') -> None:
        """Let it begin flows, side by side."""
        for key in keys:
            self.tell('run', key, name)

    def hear(self, word: str) -> tuple:
        """The next time it says something."""
        limit = time.monotonic() + LIMIT
        while not self.said[word]:
            assert self._pipe.poll(limit - time.monotonic()), (
                '%s is not said' % word)
            first, *others = self._pipe.recv()
            self.said[first].append(tuple(others))
        return self.said[word].pop(0)

    def ended(self, number: int) -> dict[str, str]:
        """How that many flows ended that it was told to run."""
        return dict(self.hear('ended') for _ in range(number))

    def signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._process.join()

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """Let it go in peace."""
        if self._process.is_alive():
            self.tell('stop')
            self.hear('stopped')
            self._process.join()

    def remove(self) -> None:
        if self._process.is_alive():
            self.thaw()
            self.kill()


class Scene:
    """A place, its world, and the conductors in it."""

    def __init__(self, place: Any, home: Any, lease: float) -> None:
        self.place = place
        self.world = node.World(home)
        self.lease = lease
        self.db = database.Database(place.url)
        self._made: list[Process] = []

    def node(self, host: str, recover: bool = True,
             lease: float | None = None, place: Any = None) -> Process:
        """Start a conductor."""
        one = Process(place or self.place, self.world.home, host,
                      lease or self.lease, recover)
        self._made.append(one)
        return one

    def close(self) -> None:
        for one in self._made:
            one.remove()
        self.db.close()

    def hold(self) -> None:
        """Let each flow wait in its middle."""
        self.world.hold.touch()

    def go_on(self) -> None:
        self.world.hold.unlink()

    def wait_held(self, *keys: str) -> None:
        """Wait until these flows wait in their middle."""
        until(lambda: {line[0] for line in self.world.notes('looks')}
              >= set(keys))

    # -- what has become of the flows -------------------------------------

    def rows(self) -> dict[str, Any]:
        """The row of each flow, by its key."""
        with self.db.transaction() as connection:
            return {row.subject: row for row in
                    connection.execute(sa.select(schema.flows))}

    def kinds(self, key: str) -> list[str]:
        """The kinds of the rows in the journal of a flow."""
        c = schema.journal.c
        with self.db.transaction() as connection:
            return list(connection.execute(sa.select(c.kind).where(
                c.flow_uuid == self.rows()[key].uuid).order_by(
                    c.seq)).scalars())

    def wait_over(self, *keys: str) -> None:
        """Wait until these flows, or all, are over."""
        until(lambda: all(
            row.finished_at is not None
            for key, row in self.rows().items() if not keys or key in keys),
            lambda: {key: (row.state, row.owner)
                     for key, row in self.rows().items()
                     if row.finished_at is None})

    def assert_each_done_once(self, *keys: str) -> None:
        """Each of these flows, and no other, has had its effects once."""
        made = collections.Counter(
            (key, step) for key, step, _pid in self.world.notes('made'))
        assert made == collections.Counter(
            (key, step) for key in keys for step in node.STEPS)
        assert not self.world.notes('reverted')
        rows = self.rows()
        assert {key: rows[key].state for key in keys} == dict.fromkeys(
            keys, states.SUCCESS)
