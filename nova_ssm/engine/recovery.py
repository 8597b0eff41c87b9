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

"""Looks for flows that nobody runs, and goes on with them.

In every worker: there is no service to deploy, and none to fail.
"""

from collections.abc import Callable
import threading
import time

from oslo_log import log as logging

from nova_ssm.engine import jobboard
from nova_ssm.engine import runner as runner_module
from nova_ssm.engine import worker

LOG = logging.getLogger(__name__)

#: How long a flow that cannot be resumed is left alone, in seconds.
_SOONEST, _LATEST = 10.0, 600.0


class Recovery:
    """Resumes the flows of dead workers.

    :param interval: seconds between two looks
    :param concurrency: how many flows are resumed side by side
    :param on_death: told the id of each worker that is found dead; may be
        told of the same one by several processes
    """

    def __init__(self, runner: runner_module.Runner, host: str,
                 interval: float = 1.0, concurrency: int = 4,
                 on_death: Callable[[str], None] | None = None) -> None:
        self._runner = runner
        self._host = host
        self._interval = interval
        self._on_death = on_death
        self._slots = threading.Semaphore(concurrency)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        #: Flows of a name or version that this process does not know.
        self._foreign: set[str] = set()
        #: When flows that broke may be tried again, and how long to wait
        #: when they break once more.
        self._later: dict[str, tuple[float, float]] = {}

    def start(self) -> None:
        """Look from now on, in a thread of its own."""
        self._thread = threading.Thread(
            target=self._run, name='ssm-recovery', daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more. What is being resumed goes on."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception as exc:  # noqa: BLE001 - try again, and say so
                LOG.warning('Looking for flows without an owner failed, '
                            'trying again: %s', exc)
            if self._stop.wait(self._interval):
                return

    def look(self) -> int:
        """Take what is free, as far as there are hands.

        :returns: how many flows were taken
        """
        # Asking for it registers it: its flows are not taken for orphans.
        LOG.debug('%s looks for flows without an owner',
                  self._runner.worker.id)
        self._runner.release_again()
        try:
            self._bury_the_dead()
        finally:
            # Who cannot be buried now does not keep the others waiting.
            taken = self._take_free()
        return taken

    def _take_free(self) -> int:
        taken = 0
        for job in self._runner.board.free_jobs(self._runner.worker.id):
            if self._stop.is_set():
                break
            if self._can_run(job) and self._due(job.uuid):
                if not self._slots.acquire(blocking=False):
                    break
                taken += self._take(job)
        return taken

    def _bury_the_dead(self) -> None:
        db = self._runner.db
        gone = set(worker.dead_neighbours(db, self._host))
        silent = set(worker.expired(db)) - {self._runner.worker.id}
        for one in sorted(gone | silent):
            LOG.info('Worker %s is gone, its flows are free', one)
            # Told first: who dies in between lets another one tell.
            if self._on_death is not None:
                self._on_death(one)
            if one in gone:
                self._runner.board.evict(one)
            worker.bury(db, one, gone=one in gone)

    def _due(self, uuid: str) -> bool:
        return self._later.get(uuid, (0, 0))[0] <= time.monotonic()

    def _can_run(self, job: jobboard.SQLJob) -> bool:
        if job.uuid in self._foreign:
            return False
        if self._runner.registry.can_run(job.name, job.row.version):
            return True
        self._foreign.add(job.uuid)
        LOG.warning('Flow %s (%s %s) has no owner, but this conductor '
                    'cannot run it: it is left to another one',
                    job.uuid, job.name, job.row.version)
        return False

    def _take(self, job: jobboard.SQLJob) -> bool:
        """Resume a flow in a thread that gives its slot back."""
        me = self._runner.worker.id
        try:
            next_seq = self._runner.board.claim(job, me)
        except runner_module.Unclaimable:
            self._slots.release()
            return False
        except BaseException:
            self._slots.release()
            raise
        LOG.info('Resuming flow %s (%s) of %s', job.uuid, job.name,
                 job.row.owner or 'nobody')
        try:
            threading.Thread(target=self._resume, args=(job, next_seq),
                             name='ssm-resume-%s' % job.uuid,
                             daemon=True).start()
        except BaseException:
            self._runner.release(job.uuid, me)
            self._slots.release()
            raise
        return True

    def _resume(self, job: jobboard.SQLJob, next_seq: int) -> None:
        try:
            outcome = self._runner.resume_claimed(
                job.uuid, job.name, next_seq)
            LOG.info('Resumed flow %s (%s): %s', job.uuid, job.name,
                     outcome.state)
            self._later.pop(job.uuid, None)
        except BaseException:  # noqa: BLE001 - the end of this thread only
            # The runner has let go of it: others may try it meanwhile.
            delay = self._later.get(job.uuid, (0, _SOONEST))[1]
            self._later[job.uuid] = (time.monotonic() + delay,
                                     min(2 * delay, _LATEST))
            LOG.exception('Flow %s (%s) cannot be resumed here, it stays as '
                          'it is; trying again in %d seconds',
                          job.uuid, job.name, delay)
        finally:
            self._slots.release()
