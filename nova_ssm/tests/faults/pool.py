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

"""Processes that run cases, each in a Nova of its own."""

from collections.abc import Callable
import multiprocessing
import os
import threading
from typing import Any

from nova_ssm.tests.faults import bench

#: Seconds that a case may take on a busy machine.
LIMIT = 900

#: Asks for the next case; None if there is none.
Source = Callable[[], Any]


def _work(pipe: Any, workflows: tuple[str, ...]) -> None:
    from nova_ssm.tests.faults import world
    world.in_memory()
    # What Nova's services say is of no interest here.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        _serve(pipe, bench.Bench(workflows))
    finally:
        # Threads of services that hang must not keep us.
        os._exit(0)


def _serve(pipe: Any, one: bench.Bench) -> None:
    from nova_ssm.tests.faults import plan
    while True:
        name = pipe.recv()
        if name is None:
            break
        pipe.send(one.run(plan.Case.parse(name)))
    one.close()


class Pool:
    """Runs cases in a number of processes.

    :param next_case: asked for the name of the next case
    :param done: told each result; called by one thread at a time
    """

    def __init__(self, size: int, workflows: tuple[str, ...],
                 next_case: Source,
                 done: Callable[[bench.Result], None]) -> None:
        self._workflows = workflows
        self._next = next_case
        self._done = done
        self._context = multiprocessing.get_context('spawn')
        self._changed = threading.Condition()
        self._busy = 0
        self._threads = [threading.Thread(target=self._serve)
                         for _number in range(size)]

    def run(self) -> None:
        """Run all cases, those among them that results bring up."""
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()

    def _take(self) -> str | None:
        with self._changed:
            while True:
                name = self._next()
                if name is not None:
                    self._busy += 1
                    return name
                if not self._busy:
                    return None
                self._changed.wait()

    def _give(self, result: bench.Result) -> None:
        with self._changed:
            self._done(result)
            self._busy -= 1
            self._changed.notify_all()

    def _serve(self) -> None:
        process = pipe = None
        while (name := self._take()) is not None:
            if process is None:
                pipe, theirs = self._context.Pipe()
                process = self._context.Process(
                    target=_work, args=(theirs, self._workflows),
                    daemon=True)
                process.start()
                theirs.close()
            result = self._ask(pipe, name)
            if result is None:
                process.kill()
                process.join()
                process = None
                result = bench.Result(name, [
                    'it did not end within %d seconds, or took its process '
                    'with it' % LIMIT])
            self._give(result)
        if process is not None:
            pipe.send(None)
            process.join(30)
            process.kill()

    @staticmethod
    def _ask(pipe: Any, name: str) -> bench.Result | None:
        try:
            pipe.send(name)
            return pipe.recv() if pipe.poll(LIMIT) else None
        except (EOFError, OSError):
            return None
