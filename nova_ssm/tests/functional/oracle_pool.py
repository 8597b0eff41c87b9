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

"""Processes that run Nova's tests from a shared queue."""

from collections.abc import Callable
import contextlib
import dataclasses
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time

WORKER = 'nova_ssm.tests.functional.oracle_worker'
START_TIMEOUT = 300  # seconds for a worker to import Nova's tests
REPORT_TIMEOUT = 3  # seconds for one that hangs to write where it is


@dataclasses.dataclass(frozen=True)
class Mode:
    """A way of running the tests.

    :ivar name: ``stock``, ``ssm`` or ``restart``
    :ivar workflows: value of ``[ssm] workflows``; empty: stock Nova
    :ivar restart: load each flow again from the journal after every task
    """

    name: str
    workflows: str = ''
    restart: bool = False


@dataclasses.dataclass
class Answer:
    """What became of one test.

    :ivar status: ``ok``, ``skip``, ``xfail`` or ``fail``
    :ivar error: the end of the traceback, or why the test was skipped
    :ivar seconds: how long it took
    :ivar flows: how many flows it ran
    :ivar states: how many flows by the state they ended in
    :ivar restarts: how often a flow was loaded from the journal
    :ivar unstable: it failed first, with ``error``, and passed when it was
        run again alone
    """

    id: str
    status: str
    error: str = ''
    seconds: float = 0.0
    flows: int = 0
    restarts: int = 0
    states: dict[str, int] = dataclasses.field(default_factory=dict)
    unstable: bool = False


class WorkerDied(Exception):
    """The worker process ended, or did not answer in time."""


class Worker:
    """One worker process; it is started when it is first needed.

    :param mode: how it runs the tests
    :param package: package of tests that it imports first
    :param log: file that takes its standard error
    """

    def __init__(self, mode: Mode, package: str, log: str) -> None:
        self.mode = mode
        self.package = package
        self.log = log
        self.process: subprocess.Popen | None = None

    def ask(self, test_id: str, timeout: float) -> Answer:
        """Run a test.

        :param timeout: seconds, after which the process is killed
        :raises WorkerDied: it ended or hung; the next call starts another
        """
        if self.process is None:
            self.start()
        try:
            self.process.stdin.write(test_id + '\n')
            self.process.stdin.flush()
        except BrokenPipeError as exc:
            self.stop()
            raise WorkerDied(
                'the worker process ended between two tests') from exc
        return Answer(**self._read(timeout))

    def stop(self) -> int | None:
        """End the process and what it started; return its exit status."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        process.stdin.close()
        try:
            process.wait(timeout=0 if process.poll() is None else 5)
        except subprocess.TimeoutExpired:
            # It runs in a session of its own: nothing else is in the group.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()
        return process.returncode

    def start(self) -> None:
        """Start the process.

        :raises WorkerDied: it does not get ready
        """
        command = [sys.executable, '-W', 'ignore', '-m', WORKER,
                   '--package', self.package]
        if self.mode.workflows:
            command += ['--workflows', self.mode.workflows]
        if self.mode.restart:
            command.append('--restart')
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, start_new_session=True)
        self._read(START_TIMEOUT)

    def _read(self, timeout: float) -> dict:
        stdout = self.process.stdout
        ready, _, _ = select.select([stdout], [], [], timeout)
        line = stdout.readline() if ready else ''
        if line.endswith('\n'):
            return json.loads(line)
        # An ended process is reaped here, a hanging one is killed.
        if ready:
            # If it only closed its output and lives on, stop() kills it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=10)
        else:
            self.process.send_signal(signal.SIGUSR2)
            time.sleep(REPORT_TIMEOUT)
        status = self.stop()
        if ready:
            raise WorkerDied('the worker process ended with status %s; its '
                             'output is in %s' % (status, self.log))
        raise WorkerDied('no answer within %d seconds: killed; what its '
                         'threads did is in %s' % (timeout, self.log))


class Pool:
    """Runs tests in several workers.

    :param mode: how the tests are run
    :param workers: number of processes
    :param directory: where their output goes
    :param timeout: seconds that a test may take
    """

    def __init__(self, mode: Mode, workers: int, directory: str,
                 timeout: float) -> None:
        self.mode = mode
        self.workers = workers
        self.directory = directory
        self.timeout = timeout
        self._answers: queue.Queue = queue.Queue()
        self._stop = threading.Event()

    def run(self, test_ids: list[str],
            done: Callable[[Answer], None]) -> dict[str, Answer]:
        """Run the tests, return the answers by test id.

        :param done: is called with every answer as it comes
        :raises RuntimeError: a worker could not be started at all
        """
        todo: queue.SimpleQueue = queue.SimpleQueue()
        for test_id in test_ids:
            todo.put(test_id)
        threads = [threading.Thread(target=self._work, args=(todo, number))
                   for number in range(min(self.workers, len(test_ids)))]
        for thread in threads:
            thread.start()
        results: dict[str, Answer] = {}
        try:
            while len(results) < len(test_ids):
                answer = self._answers.get()
                if isinstance(answer, Exception):
                    raise RuntimeError(
                        'cannot run tests: %s' % answer) from answer
                results[answer.id] = answer
                done(answer)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        return results

    def _work(self, todo: queue.SimpleQueue, number: int) -> None:
        log = os.path.join(self.directory,
                           '%s-worker-%d.log' % (self.mode.name, number))
        workers: dict[str, Worker] = {}
        try:
            while not self._stop.is_set():
                try:
                    test_id = todo.get_nowait()
                except queue.Empty:
                    return
                # Unit and functional tests set the process up differently.
                package = '.'.join(test_id.split('.')[:3])
                worker = workers.setdefault(
                    package, Worker(self.mode, package, log))
                self._answers.put(self._ask(worker, test_id))
        except Exception as exc:  # handed to run(), which raises it
            self._answers.put(exc)
        finally:
            for worker in workers.values():
                worker.stop()

    def _ask(self, worker: Worker, test_id: str) -> Answer:
        if worker.process is None:
            # Not the test's fault if this fails, so not its result either.
            worker.start()
        start = time.monotonic()
        try:
            return worker.ask(test_id, self.timeout)
        except WorkerDied as exc:
            return Answer(test_id, 'fail', str(exc),
                          round(time.monotonic() - start, 2))
