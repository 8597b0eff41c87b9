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

"""One conductor of these tests, in a process of its own.

What its flows do to the world are files in a directory that all share. A
step waits as long as there is a file ``hold``.
"""

import dataclasses
import os
import pathlib
import threading
import time
from typing import Any

from taskflow import exceptions as taskflow_exc
from taskflow.patterns import linear_flow

from nova_ssm.engine import journal
from nova_ssm.engine import recovery
from nova_ssm.engine import registry
from nova_ssm.engine import runner as runner_module
from nova_ssm.engine import task
from nova_ssm.tests.boards import places

STEPS = ('a', 'b', 'c', 'd')


@dataclasses.dataclass(frozen=True)
class World:
    """What is there, and what was done to it, in files."""

    home: pathlib.Path

    def note(self, *words: str) -> None:
        """Add a line to the log; lines of several processes do not mix."""
        line = ' '.join((*words, str(os.getpid()))) + '\n'
        log = os.open(self.home / 'log',
                      os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(log, line.encode())
        finally:
            os.close(log)

    def notes(self, what: str) -> list[list[str]]:
        """The lines of the log that begin with a word, without it."""
        path = self.home / 'log'
        if not path.exists():
            return []
        lines = [line.split() for line in path.read_text().splitlines()]
        return [line[1:] for line in lines if line[0] == what]

    def make(self, key: str, step: str) -> None:
        """Make an effect; note if it was there."""
        try:
            os.close(os.open(self.path(key, step), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            self.note('again', key, step)
        self.note('made', key, step)

    def path(self, key: str, step: str) -> pathlib.Path:
        return self.home / ('effect-%s-%s' % (key, step))

    @property
    def hold(self) -> pathlib.Path:
        return self.home / 'hold'


class Step(task.Task):
    """Make one effect; on recovery only if it is not there."""

    reversion = 'remove it'

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name=name)
        self.world = world

    def execute(self, key: str) -> None:
        self.world.make(key, self.name)

    def recover(self, key: str) -> None:
        if not self.world.path(key, self.name).exists():
            self.execute(key)

    def revert(self, key: str, **kwargs: Any) -> None:
        self.world.path(key, self.name).unlink(missing_ok=True)
        self.world.note('reverted', key, self.name)


class Look(task.Task):
    """Wait for others; of this the journal knows nothing."""

    effect = False

    def __init__(self, world: World) -> None:
        super().__init__(name='look')
        self.world = world

    def execute(self, key: str) -> None:
        self.world.note('looks', key)
        while self.world.hold.exists():
            time.sleep(0.02)


class Spawn(journal.Spawn):
    """Post children that work."""

    def execute(self, key: str) -> list[journal.FlowRequest]:
        return [request('%s.%d' % (key, number)) for number in range(3)]


def request(key: str, name: str = 'work') -> journal.FlowRequest:
    """A flow whose effects are known by a key."""
    return journal.FlowRequest(name=name, store={'key': key}, subject=key)


def flows(world: World) -> registry.Registry:
    """What these conductors can run."""
    def work() -> linear_flow.Flow:
        steps: list[Any] = [Step(name, world) for name in STEPS]
        steps.insert(2, Look(world))
        return linear_flow.Flow('work').add(*steps)

    def parent() -> linear_flow.Flow:
        return linear_flow.Flow('parent').add(Step('p', world), Spawn())

    known = registry.Registry()
    known.add(registry.FlowType('work', '1.0', work))
    known.add(registry.FlowType('parent', '1.0', parent))
    return known


class Node:
    """Does what it is told through a pipe.

    :param recover: whether it takes flows that nobody runs
    """

    def __init__(self, place: places.Place, home: pathlib.Path, host: str,
                 lease: float, recover: bool, pipe: Any) -> None:
        self._world = World(home)
        self._pipe = pipe
        self._sending = threading.Lock()
        self._seen: Any = None
        self.runner = place.runner(
            flows(self._world), host, lease, renew=True)
        self._recovery = recovery.Recovery(
            self.runner, host, interval=0.1, concurrency=8)
        self._say('up', self.runner.worker.id)
        if recover:
            self._recovery.start()

    def serve(self) -> None:
        """Until it is told to stop."""
        while True:
            word, *arguments = self._pipe.recv()
            if word == 'stop':
                break
            threading.Thread(target=getattr(self, '_' + word),
                             args=arguments, daemon=True).start()
        self._recovery.stop()
        self.runner.close()
        self._say('stopped')

    def _say(self, *words: Any) -> None:
        with self._sending:
            self._pipe.send(words)

    def _run(self, key: str, name: str) -> None:
        try:
            outcome = self.runner.run(request(key, name))
        except BaseException as exc:
            self._say('ended', key, repr(exc))
            raise
        self._say('ended', key, outcome.state)

    def _look(self, uuid: str) -> None:
        """See that nobody runs a flow."""
        [self._seen] = [job for job in
                        self.runner.board.free_jobs(self.runner.worker.id)
                        if job.uuid == uuid]
        self._say('sees', uuid)

    def _claim(self, at: float) -> None:
        """Claim what was seen, at a moment that all have agreed on."""
        time.sleep(max(0, at - time.monotonic()))
        try:
            self.runner.board.claim(self._seen, self.runner.worker.id)
        except runner_module.Unclaimable:
            self._say('claimed', False)
        except taskflow_exc.TaskFlowException as exc:
            self._say('claimed', repr(exc))
        else:
            self._say('claimed', True)


def main(*arguments: Any) -> None:
    """What the process does."""
    Node(*arguments).serve()
