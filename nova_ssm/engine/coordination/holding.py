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

"""The claims of this process on one of TaskFlow's boards."""

import dataclasses
import math
import threading
import time
from typing import Any

from taskflow import exceptions as taskflow_exc
from taskflow.jobs import base as taskflow_jobs

from nova_ssm.engine.coordination import base
from nova_ssm.engine.coordination import connection


def clock() -> float:
    """Seconds that go on while a machine, or this process, is stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclasses.dataclass
class Hold:
    """What we know of our claim on one flow.

    :param job: the flow's job, None if it has to be looked for
    :param client: the client that the job is of
    :param posted: whether there may be a job
    :param until: up to when nobody else can have the flow. Without a job
        that is as long as the worker has its lease in the database.
    :param sure: False after the claim was gone: the flow may have been taken
        in between, and only its row says so
    """

    job: taskflow_jobs.Job | None = None
    client: base.Client | None = None
    posted: bool = False
    until: float = math.inf
    sure: bool = True
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)


def flow_of(job: taskflow_jobs.Job) -> str:
    """The uuid of the flow that a job is about."""
    return job.details.get('flow_uuid') or job.name


class Claims:
    """Makes, keeps and gives back claims; one board operation a method.

    All of it raises BoardUnusable when the server is away.

    :param lease: how long a claim lasts, in seconds
    """

    def __init__(self, link: connection.Connection, lease: float) -> None:
        self._link = link
        self.lease = lease

    def jobs(self) -> list[taskflow_jobs.Job]:
        """What is on the board now, in the order in which it was posted."""
        with self._link.use() as (client, board):
            return sorted(client.jobs(board), key=lambda job: job.sequence)

    def jobs_of(self, uuid: str) -> list[taskflow_jobs.Job]:
        """The jobs of one flow; more than one only after some trouble."""
        return [job for job in self.jobs() if flow_of(job) == uuid]

    def post(self, uuid: str, hold: Hold) -> None:
        """Post the job of a flow."""
        hold.posted = True
        # A job that is new is left to the owner of the flow for a while.
        hold.until = min(hold.until, clock() + self.lease / 2)
        with self._link.use() as (client, board):
            hold.job = board.post(uuid, details={'flow_uuid': uuid})
            hold.client = client

    def find(self, uuid: str, hold: Hold) -> bool:
        """Look for the job of a flow.

        :returns: whether there is one
        """
        with self._link.use() as (client, board):
            if hold.job is not None and hold.client is client:
                return True
            hold.job = None
            if not hold.posted:
                return False
            found = self.jobs_of(uuid)
            if found:
                hold.job, hold.client = found[0], client
            return bool(found)

    def claim(self, hold: Hold, worker: str) -> bool:
        """Claim the job that was found or posted.

        :returns: False if somebody else has it
        :raises taskflow.exceptions.NotFound: if it is gone
        """
        with self._link.use() as (client, board):
            who = client.name(worker)
            try:
                board.claim(hold.job, who, **client.terms())
            except taskflow_exc.UnclaimableJob:
                owner = client.owner(board, hold.job)
                if owner is None:
                    # etcd says so of a job that is gone, too.
                    raise taskflow_exc.NotFound(
                        'the job is not there any more') from None
                if owner.partition(' ')[0] != worker:
                    return False
                if owner != who:
                    # Our own claim, of a session that is about to end.
                    board.abandon(hold.job, owner)
                    board.claim(hold.job, who, **client.terms())
        return True

    def extend(self, hold: Hold, worker: str) -> bool:
        """Let the claim last for its whole time again.

        :returns: False if we do not have it
        """
        with self._link.use() as (client, board):
            if hold.job is None or hold.client is not client:
                return False
            client.extend(board, hold.job)
            return client.owner(board, hold.job) == client.name(worker)

    def owner(self, job: taskflow_jobs.Job) -> str | None:
        """The worker that has claimed a job."""
        with self._link.use() as (client, board):
            owner = client.owner(board, job)
        return owner and owner.partition(' ')[0]

    def abandon(self, hold: Hold, worker: str) -> None:
        """Free the job, if it is ours."""
        self._give_up(hold, worker, 'abandon')

    def consume(self, hold: Hold, worker: str) -> None:
        """Take the job off the board, if it is ours."""
        self._give_up(hold, worker, 'consume')

    def _give_up(self, hold: Hold, worker: str, how: str) -> None:
        try:
            with self._link.use() as (client, board):
                getattr(board, how)(hold.job, client.name(worker))
        except taskflow_exc.NotFound:
            return          # it is not ours any more, or not there

    def free(self, worker: str) -> int:
        """Abandon all that another worker has claimed, which is dead.

        :returns: how many jobs that were
        """
        freed = 0
        for job in self.jobs():
            try:
                with self._link.use() as (client, board):
                    owner = client.owner(board, job)
                    if owner and owner.partition(' ')[0] == worker:
                        board.abandon(job, owner)
                        freed += 1
            except taskflow_exc.NotFound:
                continue    # it is over, or free already
        return freed

    def retire(self, job: Any, worker: str) -> None:
        """Take a job off the board that is of no use to anybody."""
        hold = Hold(job=job)
        try:
            if self.claim(hold, worker):
                self.consume(hold, worker)
        except (taskflow_exc.NotFound, taskflow_exc.UnclaimableJob):
            return          # somebody else does it
