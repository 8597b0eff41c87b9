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

from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import failures
from nova_ssm.engine import glances
from nova_ssm.engine import jobboard
from nova_ssm.engine import looping
from nova_ssm.engine import masking
from nova_ssm.engine import orders
from nova_ssm.engine import ownership
from nova_ssm.engine import runner as runner_module
from nova_ssm.engine import transfers
from nova_ssm.engine import troubles
from nova_ssm.engine import worker

LOG = logging.getLogger(__name__)

#: How long a flow that cannot be resumed is left alone, in seconds.
_SOONEST, _LATEST = 10.0, 600.0
#: How long a flow that was to go on elsewhere is left to the others, likewise.
_POLITE = 5.0


class Recovery(looping.Loop):
    """Resumes the flows of dead workers.

    :param interval: seconds between two looks
    :param concurrency: how many flows are resumed side by side; one that
        only waits does not count
    :param on_death: told the id of each worker that is found dead; may be
        told of the same one by several processes
    """

    def __init__(self, runner: runner_module.Runner, host: str,
                 interval: float = 1.0, concurrency: int = 4,
                 on_death: Callable[[str], None] | None = None) -> None:
        super().__init__('ssm-recovery')
        self._runner = runner
        self._interval = interval
        self._on_death = on_death
        self._slots = threading.Semaphore(concurrency)
        self._watch = worker.Watch(host)
        self._living: frozenset[str] = frozenset()
        #: How often our lease had run out, and until when the others may
        #: need to renew theirs.
        self._lapses: int | None = None
        self._patient_until = 0.0
        #: When flows that broke, or cannot be read, may be tried again, and
        #: how long to wait when they cannot once more.
        self._later: dict[str, tuple[float, float]] = {}
        #: Flows that were not to be taken at the last look.
        self._waiting: frozenset[str] = frozenset()

    def take_leave(self) -> None:
        """Let others look after whom this worker does not answer any more.

        A compute that was calling it when it stopped is no better off than
        one that was calling it when it died.
        """
        if self._on_death is not None:
            self._on_death(self._runner.worker.id)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except exception.BoardUnusable as exc:
                LOG.debug('No look while the board is away: %s', exc)
            except Exception as exc:  # noqa: BLE001 - try again, and say so
                self._be_patient()
                LOG.warning('Looking for flows without an owner failed, '
                            'trying again: %s',
                            database.first_line(exc))
            self._stop.wait(self._interval)

    def look(self) -> int:
        """Take what is free, as far as there are hands.

        :returns: how many flows were taken
        """
        # Asking for it registers it: its flows are not taken for orphans.
        me = self._runner.worker
        LOG.debug('%s looks for flows without an owner', me.id)
        self._runner.release_again()
        seen = glances.glance(self._runner.db, self._living, self._waiting)
        workers, self._living = seen.workers, seen.living
        self._see_lapse(me, workers)
        wanted = self._wanted(workers) if seen.wanted else {}
        self._let_go(me, wanted)
        ordered = self._pass_on_orders() if seen.ordered else {}
        self._forget()
        begins_again = self._see_waiting(ordered)
        dead = self._dead(me, workers)
        try:
            self._bury(dead)
        finally:
            # Who cannot be buried now does not keep the others waiting.
            taken = 0
            if (seen.free or begins_again or dead or
                    not self._runner.board.in_journal):
                taken = self._take_free(me, workers, wanted, ordered)
        return taken

    def _see_waiting(self, ordered: dict[str, orders.Order]) -> bool:
        """Know what is not to be taken now.

        :returns: whether anything may be taken that was not to be before
        """
        before = self._waiting
        paused = {uuid for uuid, order in ordered.items()
                  if order.verb == orders.PAUSE}
        killed = {uuid for uuid, order in ordered.items()
                  if order.verb == orders.KILL}
        self._waiting = frozenset(paused | {
            uuid for uuid in list(self._later)
            if uuid not in killed and not self._due(uuid)})
        return not before <= self._waiting

    # -- who is dead ------------------------------------------------------

    def _see_lapse(self, me: worker.Worker,
                   workers: list[worker.Registered]) -> None:
        """Do not take others for dead when it was us who were away.

        When the database was away, or its clock was set, the leases of all
        have run out: whoever lives renews its own.
        """
        if not any(one.id == me.id and not one.expired for one in workers):
            me.renew()
        if self._lapses not in (None, me.lapses):
            self._be_patient()
        self._lapses = me.lapses

    def _be_patient(self) -> None:
        # A lease is renewed each third of its time, and when the database is
        # away it is tried at least every two seconds.
        self._patient_until = time.monotonic() + max(
            3.0, 1.0 + self._runner.lease / 3)

    @property
    def _is_patient(self) -> bool:
        return time.monotonic() < self._patient_until

    def _dead(self, me: worker.Worker, workers: list[worker.Registered]
              ) -> list[tuple[worker.Registered, bool]]:
        """The dead workers, and whether the process of each is gone."""
        gone = {one.id for one in self._watch.gone(workers)}
        silent = {one.id for one in self._watch.silent(workers)} - {me.id}
        if self._is_patient:
            silent = set()
        return [(one, one.id in gone) for one in workers
                if one.id in gone or one.id in silent]

    def _bury(self, dead: list[tuple[worker.Registered, bool]]) -> None:
        for one, gone in dead:
            LOG.info('Worker %s is gone, its flows are free', one.id)
            # Told first: who dies in between lets another one tell.
            if self._on_death is not None:
                self._on_death(one.id)
            if gone:
                self._runner.board.evict(one.id)
            worker.bury(self._runner.db, one, gone=gone)

    # -- what is wanted elsewhere -----------------------------------------

    def _wanted(self, workers: list[worker.Registered]
                ) -> dict[str, tuple[str | None, set[str]]]:
        """Of each flow that is to be moved: where to, and who may take it."""
        wanted = {}
        for uuid, asked in transfers.pending(self._runner.db).items():
            fit = {one.id for one in workers if not one.expired and
                   (asked.target is None or one.is_on(asked.target))}
            if fit:
                wanted[uuid] = (asked.target, fit)
            else:
                LOG.warning('Flow %s was to go on at %s, which is gone: '
                            'anybody may go on with it', uuid, asked.target)
                transfers.done(self._runner.db, uuid)
        return wanted

    def _let_go(self, me: worker.Worker,
                wanted: dict[str, tuple[str | None, set[str]]]) -> None:
        """Let flows stop that others have, or are to have."""
        held = self._runner.held()
        if not held:
            return
        for uuid in held.keys() - ownership.of_worker(self._runner.db, me.id):
            held[uuid].let_go('it is not owned by worker %s any more' % me.id)
        for uuid in held.keys() & wanted.keys():
            target, fit = wanted[uuid]
            if target is None:
                # The others go first; if none does, it goes on here.
                self._later[uuid] = (time.monotonic() + _POLITE, _SOONEST)
                transfers.done(self._runner.db, uuid)
            elif me.id in fit:
                transfers.done(self._runner.db, uuid)
                continue
            held[uuid].let_go('it is to go on at %s'
                              % (target or 'another worker'))

    # -- what is ordered --------------------------------------------------

    def _pass_on_orders(self) -> dict[str, orders.Order]:
        """Let the flows that run here know what people want of them."""
        held, ordered = self._runner.held(), {}
        for uuid, order in orders.pending(self._runner.db).items():
            if order.over is not None:
                orders.settle(self._runner.db, order)
                continue
            ordered[uuid] = order
            if uuid in held:
                held[uuid].order(order.verb)
        return ordered

    # -- what is free -----------------------------------------------------

    def _take_free(self, me: worker.Worker, workers: list[worker.Registered],
                   wanted: dict[str, tuple[str | None, set[str]]],
                   ordered: dict[str, orders.Order]) -> int:
        taken = 0
        known = {one.id for one in workers} if self._is_patient else set()
        for job in self._runner.board.free_jobs(me.id):
            if self._stop.is_set():
                break
            if job.uuid in wanted and me.id not in wanted[job.uuid][1]:
                continue
            order = ordered.get(job.uuid)
            if order is not None and order.verb == orders.PAUSE:
                continue
            # To give one up, nobody needs to be able to read it.
            kill = order is not None and order.verb == orders.KILL
            if job.row.owner not in known and (kill or self._due(job.uuid)):
                if not self._slots.acquire(blocking=False):
                    break
                if self._take(job, anyway=kill):
                    taken += 1
                    if job.uuid in wanted:
                        transfers.done(self._runner.db, job.uuid)
        return taken

    def _due(self, uuid: str) -> bool:
        return self._later.get(uuid, (0, 0))[0] <= time.monotonic()

    def _can_read(self, job: jobboard.SQLJob) -> bool:
        """Whether to claim a flow; if not, say why where people see it."""
        runner = self._runner
        reason = (runner.registry.why_not(job.name, job.row.version) or
                  runner.unreadable(job.uuid))
        if reason is None:
            return True
        first = job.uuid not in self._later
        delay = self._put_off(job.uuid)
        (LOG.warning if first else LOG.debug)(
            'Flow %s (%s %s) has no owner, but this conductor cannot run it, '
            'it is left to another one; looking again in %d seconds: %s',
            job.uuid, job.name, job.row.version, delay, reason)
        self._tell(job, reason)
        return False

    def _put_off(self, uuid: str) -> float:
        """Leave a flow alone for a while, longer each time."""
        delay = self._later.get(uuid, (0, _SOONEST))[1]
        self._later[uuid] = (time.monotonic() + delay,
                             min(2 * delay, _LATEST))
        return delay

    def _forget(self) -> None:
        """Remember no flow that was not free for long: it may be over."""
        now = time.monotonic()
        # Flows are resumed beside this: others come and go meanwhile.
        for uuid, (due, _delay) in list(self._later.items()):
            if due + _LATEST < now:
                self._later.pop(uuid, None)

    def _tell(self, job: jobboard.SQLJob, reason: object) -> None:
        """Write down why this host cannot go on with a flow."""
        trouble = troubles.text(self._runner.worker.host, reason)
        if troubles.same(trouble, job.row.trouble):
            return
        try:
            troubles.tell(self._runner.db, job.uuid, trouble)
        except Exception as exc:  # noqa: BLE001 - the log has it, too
            LOG.warning('It could not be written down why flow %s is left '
                        'alone: %s', job.uuid, exc)

    def _take(self, job: jobboard.SQLJob, anyway: bool = False) -> bool:
        """Resume a flow in a thread that gives its slot back.

        :param anyway: whether or not it can be read
        """
        me = self._runner.worker.id
        slot = _Slot(self._slots)
        try:
            if not anyway and not self._can_read(job):
                slot.give_back()
                return False
            next_seq = self._runner.board.claim(job, me)
        except runner_module.Unclaimable:
            slot.give_back()
            return False
        except BaseException:
            slot.give_back()
            raise
        LOG.info('Resuming flow %s (%s) of %s', job.uuid, job.name,
                 job.row.owner or 'nobody')
        try:
            threading.Thread(target=self._resume, args=(job, next_seq, slot),
                             name='ssm-resume-%s' % job.uuid,
                             daemon=True).start()
        except BaseException:
            self._runner.release(job.uuid, me)
            slot.give_back()
            raise
        return True

    def _resume(self, job: jobboard.SQLJob, next_seq: int,
                slot: '_Slot') -> None:
        try:
            outcome = self._runner.resume_claimed(
                job.uuid, job.name, next_seq, at_rest=slot.give_back)
            LOG.info('Resumed flow %s (%s): %s', job.uuid, job.name,
                     outcome.state)
            self._later.pop(job.uuid, None)
        except BaseException as exc:  # noqa: BLE001 - the end of this thread
            # The runner has let go of it: others may try it meanwhile.
            delay = self._put_off(job.uuid)
            LOG.error('Flow %s (%s) cannot be resumed here, it stays as it '
                      'is; trying again in %d seconds: %s',
                      job.uuid, job.name, delay,
                      masking.masked(failures.format_traceback(exc)))
            self._tell(job, '%s: %s' % (type(exc).__name__, exc))
        finally:
            slot.give_back()


class _Slot:
    """A place among the flows that are being resumed, given back once.

    A flow that begins to wait gives it back for good. It may wait for as
    long as a compute is down, and so may all flows that have a place.
    """

    def __init__(self, slots: threading.Semaphore) -> None:
        self._slots: threading.Semaphore | None = slots

    def give_back(self) -> None:
        """To be called by the thread that resumes the flow."""
        if self._slots is not None:
            slots, self._slots = self._slots, None
            slots.release()
