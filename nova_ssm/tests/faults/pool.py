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
import shutil
import signal
import sys
import tempfile
import threading
from typing import Any

from nova_ssm.tests.faults import bench

#: Seconds that a case may take on a busy machine.
LIMIT = 900
#: Of the directories that processes have.
PREFIX = 'nova-ssm-faults-'

#: Asks for the next case; None if there is none.
Source = Callable[[], Any]


def serve(pipe: Any, workflows: tuple[str, ...], files: str) -> None:
    """Run what is asked for, until nothing more is. Does not return.

    :param files: the directory for all temporary files
    """
    tempfile.tempdir = files
    # Who ends a whole run ends each of its processes.
    signal.signal(signal.SIGTERM, lambda *_args: sys.exit(1))
    # What Nova's services say is of no interest here.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        _answer(pipe, bench.Bench(workflows))
    finally:
        # Whoever started us may be gone.
        shutil.rmtree(files, ignore_errors=True)
        # Threads of services that hang must not keep us.
        os._exit(0)


def _directory() -> str:
    """A new directory, in memory where that is possible."""
    memory = ('/dev/shm' if 'TMPDIR' not in os.environ and
              os.path.isdir('/dev/shm') else None)
    return tempfile.mkdtemp(prefix=PREFIX, dir=memory)


class _Worker:
    """A process, with a directory of its own for all its files."""

    def __init__(self, context: Any, work: Callable[..., None],
                 workflows: tuple[str, ...]) -> None:
        self._files = _directory()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=work, args=(theirs, workflows, self._files), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, name: str) -> bench.Result | None:
        """Have a case run; None if that did not come to an end."""
        try:
            self._pipe.send(name)
            return self._pipe.recv() if self._pipe.poll(LIMIT) else None
        except (EOFError, OSError):
            return None

    def stop(self) -> None:
        """Let it clear its Nova away, and go."""
        try:
            self._pipe.send(None)
            self._process.join(30)
        except OSError:
            pass    # it has gone already
        self.kill()

    def kill(self) -> None:
        """Let nothing of it be left."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
        shutil.rmtree(self._files, ignore_errors=True)


def _answer(pipe: Any, one: bench.Bench) -> None:
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
    :param work: what a process does, as :func:`serve`
    """

    def __init__(self, size: int, workflows: tuple[str, ...],
                 next_case: Source,
                 done: Callable[[bench.Result], None],
                 work: Callable[..., None] = serve) -> None:
        self._work = work
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
        worker = None
        try:
            while (name := self._take()) is not None:
                worker = worker or _Worker(
                    self._context, self._work, self._workflows)
                result = worker.ask(name)
                if result is None:
                    worker.kill()
                    worker = None
                    result = bench.Result(name, [
                        'it did not end within %d seconds, or took its '
                        'process with it' % LIMIT])
                self._give(result)
        finally:
            if worker is not None:
                worker.stop()
