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

"""Flows on one of TaskFlow's job boards: zookeeper, etcd or redis.

A flow has a job on the board, whose name is the flow's uuid; whoever has
claimed the job runs the flow, and writes that into the journal, which fences
whoever ran it before. The board and the database know nothing of each other,
so a crash between two words to them has to be no matter:

* A flow is posted in the database first, with its owner, then on the board.
  As long as it has no job its owner's lease in the database decides who runs
  it, as on the board ``sql``; so do flows that were posted in a transaction
  of another flow, and those that came while the board was away. Who finds
  such a flow without an owner takes it in the database and posts its job.
* The job is claimed first, then the flow, by a compare-and-swap on what was
  read before. Who dies in between leaves a claim that ends.
* A flow ends in the journal first, then its job is consumed. Who dies in
  between leaves the job of a flow that is over; who finds it consumes it.

A job that nobody claims is left to the owner of its flow for half a lease,
if the owner's lease in the database is good: it may just have been posted, or
the server may have lost the claim, or been away for longer than claims last.
An owner renews its claims three times in a lease, and stops before the next
step of a flow whose claim may have ended. Of several jobs for one flow, which
only trouble can make, those that nobody needs are consumed.
"""

from collections.abc import Iterator
import dataclasses
import heapq
import os
import threading
import zlib

from oslo_log import log as logging
from taskflow import exceptions as taskflow_exc
from taskflow.jobs import base as taskflow_jobs

from nova_ssm.engine import boards
from nova_ssm.engine.coordination import base
from nova_ssm.engine.coordination import connection
from nova_ssm.engine.coordination import holding
from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import jobboard
from nova_ssm.engine import journal
from nova_ssm.engine import serialization

LOG = logging.getLogger(__name__)

#: Of how many flows one look asks whether their owners have claims on them.
_GLANCES = 20


@dataclasses.dataclass(frozen=True)
class Look:
    """When we last asked who has claimed a flow.

    :param unclaimed: since when we know that it is nobody
    """

    at: float
    unclaimed: float | None = None


_NEVER = Look(0.0)


class TaskflowBoard(boards.Board):
    """Keeps the claims of one process on one of TaskFlow's boards.

    :param server: where the board is
    :param lease: how long a claim lasts, in seconds
    """

    def __init__(self, db: database.Database,
                 serializer: serialization.Serializer,
                 server: base.Server, lease: float) -> None:
        self.sql = jobboard.SQLJobBoard(
            'nova_ssm', {'database': db, 'serializer': serializer})
        self._server = server
        self._lease = lease
        self._link = connection.Connection(server, lease)
        self._claims = holding.Claims(self._link, lease)
        self._worker: boards.Owner | None = None
        self._pid: int | None = None
        self._holds: dict[str, holding.Hold] = {}
        #: What is to be given back, and how, as soon as the board is there.
        self._back: dict[str, tuple[holding.Hold, str, str]] = {}
        self._looked: dict[str, Look] = {}
        self._swept = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    # -- the life of a flow -------------------------------------------------

    def start(self, request: journal.FlowRequest,
              owner: str | None) -> None:
        self.sql.start(request, owner)
        if owner is not None:
            self.adopt(request.uuid, owner)
            return
        try:
            self._claims.post(request.uuid, holding.Hold())
        except exception.BoardUnusable as exc:
            # Found by those who look for flows without a job.
            LOG.debug('Flow %s has no job: %s', request.uuid, exc)

    def adopt(self, uuid: str, who: str) -> None:
        self._adopt(uuid, who, holding.Hold())

    def _adopt(self, uuid: str, who: str, hold: holding.Hold) -> None:
        self._holds[uuid] = hold
        try:
            with hold.lock:
                self._secure(uuid, who, hold)
        except exception.BoardUnusable as exc:
            # It runs without, and gets one when the board is back.
            LOG.debug('Flow %s has no job yet: %s', uuid, exc)

    def _secure(self, uuid: str, who: str, hold: holding.Hold) -> bool:
        """Make sure that the flow has a job, and that it is ours.

        :returns: False if somebody else has claimed it
        """
        for _try in range(3):
            asked = holding.clock()
            if not self._claims.find(uuid, hold):
                self._claims.post(uuid, hold)
            try:
                mine = self._claims.claim(hold, who)
            except (taskflow_exc.NotFound, taskflow_exc.UnclaimableJob):
                hold.job = None     # it was gone by then
                continue
            if not mine:
                hold.sure, hold.until = False, 0.0
            elif hold.sure:
                hold.until = asked + self._lease
            return mine
        raise exception.BoardUnusable(
            'the job of flow %s is taken off the board %s again and again'
            % (uuid, self._server))

    def claim(self, job: jobboard.SQLJob, who: str) -> int:
        if job.posted is None:
            seq = self.sql.claim(job, who)
            # There may be one by now, of an owner before us.
            self._adopt(job.uuid, who, holding.Hold(posted=True))
            return seq
        hold = holding.Hold(job=job.posted, posted=True, until=0.0)
        if self._holds.setdefault(job.uuid, hold) is not hold:
            raise taskflow_exc.UnclaimableJob(
                'flow %s is run by this process' % job.uuid)
        try:
            with hold.lock:
                return self._claim(job, who, hold)
        except BaseException:
            self._give_back(job.uuid, who, 'abandon')
            raise

    def _claim(self, job: jobboard.SQLJob, who: str,
               hold: holding.Hold) -> int:
        asked = holding.clock()
        try:
            mine = (self._claims.find(job.uuid, hold) and
                    self._claims.claim(hold, who))
        except taskflow_exc.NotFound:
            mine = False
        if not mine:
            raise taskflow_exc.UnclaimableJob(
                'flow %s is claimed by somebody else' % job.uuid)
        # A good owner has lost its claim, or has it on another job.
        if job.live and self._has_claim(job.uuid, hold):
            self._claims.consume(hold, who)
            raise taskflow_exc.UnclaimableJob(
                'flow %s has another job, which is claimed' % job.uuid)
        seq = self.sql.claim(job, who, seize=True)
        hold.until = asked + self._lease
        if holding.clock() >= hold.until:
            hold.sure, hold.until = False, 0.0
        return seq

    def _has_claim(self, uuid: str, but: holding.Hold) -> bool:
        assert but.job is not None
        return any(self._claims.owner(job) is not None
                   for job in self._claims.jobs_of(uuid)
                   if job.uuid != but.job.uuid)

    def release(self, uuid: str, who: str) -> None:
        self.sql.release(uuid, who)
        self._give_back(uuid, who, 'abandon')

    def finish(self, uuid: str, who: str) -> None:
        self._give_back(uuid, who, 'consume')

    def _give_back(self, uuid: str, who: str, how: str) -> None:
        hold = self._holds.pop(uuid, None)
        if hold is not None and hold.posted:
            self._back[uuid] = (hold, who, how)
            try:
                self._give_back_now(uuid)
            except exception.BoardUnusable as exc:
                LOG.debug('The job of flow %s is left on the board for now: '
                          '%s', uuid, exc)

    def _give_back_now(self, uuid: str) -> None:
        hold, who, how = self._back[uuid]
        with hold.lock:
            if self._claims.find(uuid, hold):
                getattr(self._claims, how)(hold, who)
        self._back.pop(uuid, None)

    # -- claims -------------------------------------------------------------

    def holds(self, uuid: str) -> bool:
        hold = self._holds.get(uuid)
        return hold is not None and holding.clock() < hold.until

    def keep(self, uuid: str, who: str) -> bool:
        hold = self._holds.setdefault(uuid, holding.Hold(posted=True))
        with hold.lock:
            asked = holding.clock()
            if not (self._claims.extend(hold, who) or
                    self._secure(uuid, who, hold)):
                return False
            hold.sure, hold.until = True, asked + self._lease
        return True

    def renew(self) -> None:
        """Let all claims last for their whole time again.

        Not those of a worker that has no lease in the database: it could not
        write what it does, others can.

        :raises BoardUnusable: if the board is away
        """
        worker = self._worker
        if worker is None or not worker.valid:
            return
        for uuid in list(self._back):
            self._give_back_now(uuid)
        for uuid, hold in list(self._holds.items()):
            with hold.lock:
                if self._holds.get(uuid) is hold:
                    self._renew(uuid, worker.id, hold)

    def _renew(self, uuid: str, who: str, hold: holding.Hold) -> None:
        asked = holding.clock()
        if self._claims.extend(hold, who):
            if hold.sure:
                hold.until = asked + self._lease
            return
        if hold.until != float('inf') and hold.job is not None:
            LOG.warning('The claim on flow %s is gone from the job board %s',
                        uuid, self._server)
            hold.sure, hold.until = False, 0.0
        self._secure(uuid, who, hold)

    def attach(self, worker: boards.Owner, renew: bool) -> None:
        self._worker, self._pid = worker, os.getpid()
        self._holds, self._back, self._looked = {}, {}, {}
        self._stop = threading.Event()
        if renew:
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name='ssm-claims',
                daemon=True)
            self._thread.start()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._lease / 3):
            try:
                self.renew()
            except exception.BoardUnusable as exc:
                LOG.debug('Claims are not renewed: %s', exc)
            except Exception:  # noqa: BLE001 - they are tried again
                LOG.exception('Claims could not be renewed')

    def detach(self, idle: bool) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._lease)
            self._thread = None
        # Closing a session frees what it has claimed, at once.
        if idle:
            self._close_link()

    def _close_link(self) -> None:
        """Close it, but do not let a client that hangs keep the process.

        kazoo's was seen to wait for ever after its server had been away. The
        server ends the session of a process that has ended.
        """
        closing = threading.Thread(target=self._link.close,
                                   name='ssm-board-close', daemon=True)
        closing.start()
        closing.join(self._lease)
        if closing.is_alive():
            LOG.warning('The connection to the job board could not be closed '
                        'within %s seconds: what it has claimed is free when '
                        'its session ends', self._lease)

    # -- what nobody runs ---------------------------------------------------

    def free_jobs(self, who: str) -> Iterator[jobboard.SQLJob]:
        jobs = self._strangers(who)
        rows = self.sql.look_up(list(jobs))
        good = []
        # Each worker begins elsewhere, or all would claim the same.
        for uuid in sorted(jobs, key=lambda uuid: zlib.crc32(
                (who + uuid).encode())):
            row = rows.get(uuid)
            if row is None or row.row.finished_at is not None:
                self._claims.retire(jobs[uuid], who)
                continue
            row.posted = jobs[uuid]
            if row.live:
                good.append(row)
            elif self._claims.owner(row.posted) is None:
                yield row
        yield from self._neglected(good)
        if holding.clock() - self._swept > self._lease / 2:
            self._swept = holding.clock()
            yield from self._without_job(who)

    def _strangers(self, who: str) -> dict[str, taskflow_jobs.Job]:
        """The jobs of flows that are not ours, the first one of each."""
        jobs: dict[str, taskflow_jobs.Job] = {}
        for job in self._claims.jobs():
            uuid = holding.flow_of(job)
            hold = self._holds.get(uuid)
            if hold is None:
                jobs.setdefault(uuid, job)
            elif hold.job is not None and hold.job.uuid != job.uuid:
                self._claims.retire(job, who)
        return jobs

    def _neglected(self, good: list[jobboard.SQLJob]
                   ) -> Iterator[jobboard.SQLJob]:
        """Flows the owner of which lives, but has no claim.

        A few are asked for at a time, those first that were not for long.
        """
        known = {job.uuid for job in good}
        self._looked = {uuid: look for uuid, look in self._looked.items()
                        if uuid in known}
        for job in heapq.nsmallest(_GLANCES, good, key=lambda job: (
                self._looked.get(job.uuid, _NEVER).at)):
            now = holding.clock()
            since = self._looked.get(job.uuid, _NEVER).unclaimed
            if self._claims.owner(job.posted) is not None:
                self._looked[job.uuid] = Look(now)
                continue
            # Looked at again before those that are claimed.
            self._looked[job.uuid] = Look(now - self._lease, since or now)
            if since is not None and now - since > self._lease / 2:
                yield job

    def _without_job(self, who: str) -> Iterator[jobboard.SQLJob]:
        free = list(self.sql.free_jobs(who))
        if free:
            posted = {holding.flow_of(job) for job in self._claims.jobs()}
            for job in free:
                if job.uuid not in posted and job.uuid not in self._holds:
                    yield job

    def evict(self, worker_id: str) -> None:
        try:
            freed = self._claims.free(worker_id)
        except exception.BoardUnusable as exc:
            LOG.warning('What worker %s has claimed is free when its claims '
                        'end: %s', worker_id, exc)
        else:
            LOG.debug('%d claims of worker %s ended', freed, worker_id)
        self._swept = 0.0       # it may have had flows without a job too

    def probe(self) -> None:
        link = connection.Connection(self._server, self._lease)
        try:
            with link.use():
                pass
        finally:
            link.close()
