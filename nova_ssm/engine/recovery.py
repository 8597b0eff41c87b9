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

import threading

from oslo_log import log as logging

from nova_ssm.engine import jobboard
from nova_ssm.engine import runner as runner_module
from nova_ssm.engine import worker

LOG = logging.getLogger(__name__)


class Recovery:
    """Resumes the flows of dead workers.

    :param interval: seconds between two looks
    :param concurrency: how many flows are resumed side by side
    """

    def __init__(self, runner: runner_module.Runner, host: str,
                 interval: float = 1.0, concurrency: int = 4) -> None:
        self._runner = runner
        self._host = host
        self._interval = interval
        self._slots = threading.Semaphore(concurrency)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._unreadable: set[str] = set()

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
            except Exception as exc:
                LOG.warning('Looking for flows without an owner failed, '
                            'trying again: %s', exc)
            if self._stop.wait(self._interval):
                return

    def look(self) -> int:
        """Take what is free, as far as there are hands.

        :returns: how many flows were taken
        """
        # Registers this worker, so that its flows are not taken for orphans.
        self._runner.worker
        for dead in worker.bury_dead_neighbours(
                self._runner.db, self._host):
            LOG.info('Worker %s is gone, its flows are free', dead)
        taken = 0
        for job in self._runner.board.iterjobs(only_unclaimed=True):
            if self._stop.is_set():
                break
            if self._readable(job):
                taken += self._take(job)
        return taken

    def _readable(self, job: jobboard.SQLJob) -> bool:
        if job.uuid in self._unreadable:
            return False
        if self._runner.registry.can_run(job.name, job.row.version):
            return True
        self._unreadable.add(job.uuid)
        LOG.warning('Flow %s (%s %s) has no owner, but this conductor '
                    'cannot run it: it is left to another one',
                    job.uuid, job.name, job.row.version)
        return False

    def _take(self, job: jobboard.SQLJob) -> bool:
        self._slots.acquire()
        try:
            next_seq = self._runner.board.claim(job, self._runner.worker.id)
        except runner_module.Unclaimable:
            self._slots.release()
            return False
        except BaseException:
            self._slots.release()
            raise
        LOG.info('Resuming flow %s (%s) of %s', job.uuid, job.name,
                 job.row.owner or 'nobody')
        threading.Thread(target=self._resume, args=(job, next_seq),
                         name='ssm-resume-%s' % job.uuid,
                         daemon=True).start()
        return True

    def _resume(self, job: jobboard.SQLJob, next_seq: int) -> None:
        try:
            outcome = self._runner.resume_claimed(
                job.uuid, job.name, next_seq)
            LOG.info('Resumed flow %s (%s): %s', job.uuid, job.name,
                     outcome.state)
        except Exception:
            # Not tried again here before a restart; another conductor may
            # be able to.
            self._unreadable.add(job.uuid)
            LOG.exception('Resuming flow %s (%s) failed', job.uuid, job.name)
            self._runner.board.abandon(job, self._runner.worker.id)
        finally:
            self._slots.release()
