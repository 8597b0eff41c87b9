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

"""The lease of one worker process: proof that its flows are being run.

A worker renews one row; whoever finds it expired, on the database's clock,
may take its flows. The worker itself trusts the lease only as long as its
own monotonic clock says that it cannot have expired: so one that was stopped
for longer stops before its next step.
"""

import dataclasses
import os
import threading
import time
from typing import Any
import uuid

from oslo_log import log as logging
import psutil
import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import schema

LOG = logging.getLogger(__name__)

#: Seconds that the end of a lease may be away and still be believed.
_LONGEST = 900.0


class Worker:
    """One process that runs flows.

    :param host: the service's host name
    :param lease: seconds after which a silent worker counts as dead
    """

    def __init__(self, db: database.Database, host: str,
                 lease: float) -> None:
        self.host = host
        self.lease = lease
        self.pid = os.getpid()
        self.id = '%s:%d:%s' % (host, self.pid, uuid.uuid4().hex[:8])
        #: How often the lease had run out when it was renewed. Whoever
        #: relies on having had it all the time compares two values of it.
        self.lapses = 0
        self.suspended = threading.Event()
        self._db = db
        self._renewed = -lease
        self._renewing = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, renew: bool = True) -> None:
        """Register, and renew the lease from now on.

        :param renew: False leaves the renewing to the caller
        """
        self.renew()
        if renew:
            self._thread = threading.Thread(
                target=self._run, name='ssm-lease', daemon=True)
            self._thread.start()

    def suspend(self) -> None:
        """Let the flows of this worker begin no further step."""
        self.suspended.set()

    def stop(self, idle: bool = True) -> None:
        """Stop renewing, and say that this worker is gone.

        :param idle: False if a step may still be under way: then nothing is
            said, and the others wait until the lease has run out
        """
        self.suspend()
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self.lease)
        if not idle:
            return
        try:
            self._db.write(lambda c: c.execute(schema.workers.delete().where(
                schema.workers.c.id == self.id)), give_up=lambda: True)
        except Exception as exc:  # noqa: BLE001 - the lease runs out anyway
            LOG.warning('The lease of worker %s could not be given back, the '
                        'others wait until it has run out: %s', self.id,
                        database.first_line(exc))

    def _run(self) -> None:
        while not self._stop.wait(self.lease / 3):
            try:
                self.renew()
            except Exception as exc:  # noqa: BLE001 - try again, and say so
                LOG.warning('The lease of this worker could not be renewed, '
                            'its flows wait: %s', database.first_line(exc))

    def renew(self) -> None:
        """Make the lease last for its whole time again."""
        def work(connection: sa.Connection) -> tuple[float, bool]:
            asked = _clock()
            return asked, self._extend(connection)

        with self._renewing:
            asked, kept = self._db.write(work, give_up=self._stop.is_set)
            if not kept:
                self.lapses += 1
            self._renewed = asked

    def _extend(self, connection: sa.Connection) -> bool:
        """Write the new end of the lease.

        :returns: whether the lease had not run out before
        """
        expires: Any = schema.now() + self.lease
        mine = schema.workers.c.id == self.id
        update = schema.workers.update().values(expires_at=expires)
        if connection.execute(update.where(
                mine, schema.workers.c.expires_at > schema.now())).rowcount:
            return True
        if not connection.execute(update.where(mine)).rowcount:
            connection.execute(schema.workers.insert().values(
                id=self.id, host=_place(self.host), pid=self.pid,
                process_started=_started(self.pid),
                started_at=schema.now(), expires_at=expires))
        return False

    @property
    def valid(self) -> bool:
        """Whether the lease cannot have expired yet."""
        return _clock() - self._renewed < self.lease


def _clock() -> float:
    """Seconds that nobody sets back, and that go on in a suspended machine."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _place(host: str) -> str:
    """Where a pid means the same process: containers have their own."""
    # The first release wrote another time there, and no colon.
    return '%s/pid:%d' % (host, os.stat('/proc/self/ns/pid').st_ino)


def _started(pid: int) -> float:
    """When a process was started, in seconds since its machine was.

    The date would be another one for who asks after the machine's clock was
    set: all neighbours would seem to be gone.
    """
    while True:
        booted = psutil.boot_time()
        started = psutil.Process(pid).create_time() - booted
        if psutil.boot_time() == booted:
            return started


@dataclasses.dataclass(frozen=True)
class Registered:
    """A worker as the database knows it.

    :param expires_at: the end of its lease, on the database's clock
    :param left: seconds until then
    """

    id: str
    host: str
    pid: int
    process_started: float
    expires_at: float
    left: float

    @property
    def expired(self) -> bool:
        return self.left <= 0

    def is_on(self, target: str) -> bool:
        """Whether a name is this worker's, or that of its host."""
        return target in (self.id, self.host.rpartition('/')[0])


_W = schema.workers.c
#: What is asked of a worker: the fields of Registered, in their order.
COLUMNS = (_W.id, _W.host, _W.pid, _W.process_started, _W.expires_at,
           (_W.expires_at - schema.now()).label('left'))


def registered(db: database.Database) -> list[Registered]:
    """All workers, dead or alive."""
    with db.transaction() as connection:
        rows = connection.execute(sa.select(*COLUMNS)).all()
    return [Registered(*row) for row in rows]


class Watch:
    """Tells which workers are dead.

    :param host: whose processes can be looked at
    """

    def __init__(self, host: str) -> None:
        self._place = _place(host)
        #: Of each worker the end of its lease, and when that is by our clock.
        self._ends: dict[str, tuple[float, float]] = {}

    def gone(self, workers: list[Registered]) -> list[Registered]:
        """Those of this host whose process is not there any more.

        So a restart on the same host need not wait for a lease to expire.
        """
        return [one for one in workers if one.host == self._place and
                not _is_running(one.pid, one.process_started)]

    def silent(self, workers: list[Registered]) -> list[Registered]:
        """Those whose lease has run out.

        On the database's clock, or on ours, counted from when we first saw
        that lease: the database's may have been set back, or be that of
        another machine after a failover, and a lease that ended in seconds
        would last for an hour then.
        """
        now = _clock()
        self._ends = {one.id: self._end(one, now) for one in workers}
        return [one for one in workers
                if one.expired or self._ends[one.id][1] <= now]

    def _end(self, one: Registered, now: float) -> tuple[float, float]:
        before = self._ends.get(one.id)
        if before is not None and before[0] == one.expires_at:
            return before
        return one.expires_at, now + min(one.left, _LONGEST)


def bury(db: database.Database, dead: Registered, gone: bool) -> None:
    """Remove a dead worker: its flows are free.

    :param gone: whether its process is known to be gone. If not, it may have
        renewed its lease since it was looked at, and be at work: then it
        stays. One that is silent for longer registers anew.
    """
    c = schema.workers.c
    query = schema.workers.delete().where(c.id == dead.id)
    if not gone:
        query = query.where(c.expires_at.between(
            dead.expires_at - 0.001, dead.expires_at + 0.001))
    db.write(lambda connection: connection.execute(query))


def _is_running(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        return (abs(_started(pid) - started) < 0.5 and
                process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True     # somebody's, so perhaps that worker's
