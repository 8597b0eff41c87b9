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
"""The faults of a chaos test.

Each strikes, lasts for the planned time and is healed again by the same
function: whatever happens, what it stopped is started again.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import functools
import time
from typing import Any

import kombu
from kombu import exceptions as kombu_exc
import pymysql

from nova_ssm.tests.cloud import chaos_plan
from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import services
from nova_ssm.tests.cloud import settings
from nova_ssm.tests.cloud import unruly

#: Seconds after which somebody who was killed comes back.
_AWAY = 4.0
_QUEUES = ('conductor', 'scheduler', 'compute',
           *(f'conductor.{name}' for name in settings.CONDUCTORS),
           'scheduler.scheduler',
           *(f'compute.{name}' for name in settings.COMPUTES))
#: A server that a conductor has given to a compute, which has not taken it.
_SENT = ('SELECT 1 FROM placement.allocations JOIN '
         'placement.resource_providers AS provider '
         'ON provider.id = resource_provider_id JOIN nova_cell1.instances '
         'ON instances.uuid = consumer_id WHERE provider.name = %s '
         'AND instances.deleted = 0 AND (host IS NULL OR host != %s) LIMIT 1')
#: A server that a compute works on.
_TAKEN = ('SELECT 1 FROM nova_cell1.instances WHERE deleted = 0 AND host = %s '
          "AND task_state IN ('networking', 'block_device_mapping', "
          "'spawning', 'resize_prep', 'resize_migrating', 'resize_migrated', "
          "'resize_finish', 'migrating') LIMIT 1")


@dataclasses.dataclass(frozen=True)
class Arena:
    """Where a fault strikes."""

    cloud: cloud.Cloud
    slot: chaos_plan.Slot

    def one_of(self, names: Sequence[str]) -> str:
        """Return who is struck."""
        return names[int(self.slot.share * len(names))]

    def wait(self, seconds: float | None = None) -> None:
        """Let the fault last for its time, or for another one."""
        time.sleep(self.slot.seconds if seconds is None else seconds)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault; ``strike`` does and heals it and says what it did."""

    name: str
    about: str
    #: The least and the most seconds that it lasts.
    lasts: tuple[float, float]
    strike: Callable[[Arena], str]


# -- conductors

def _kill(names: tuple[str, ...], arena: Arena) -> str:
    """Kill one of some services; it comes back."""
    name = arena.one_of(names)
    arena.cloud.kill(name)
    arena.wait()
    arena.cloud.start(name, wait=False)
    return f'{name} killed'


def _kill_both(arena: Arena) -> str:
    for name in settings.CONDUCTORS:
        arena.cloud.kill(name)
    arena.wait()
    arena.cloud.start(*settings.CONDUCTORS, wait=False)
    return 'both conductors killed'


def _pause(arena: Arena) -> str:
    name = arena.one_of(settings.CONDUCTORS)
    arena.cloud.pause(name)
    try:
        arena.wait()
    finally:
        arena.cloud.resume(name)
    return f'{name} paused'


def _terminate(arena: Arena) -> str:
    name = arena.one_of(settings.CONDUCTORS)
    arena.cloud.stop(name)
    arena.wait()
    arena.cloud.start(name, wait=False)
    return f'{name} stopped in good order'


# -- the broker

def _restart_broker(arena: Arena) -> str:
    # A broker that is killed; with its queues goes what is in them.
    arena.cloud.kill('rabbitmq')
    arena.wait()
    arena.cloud.start('rabbitmq')
    return 'broker killed and started'


def _each_queue(it: cloud.Cloud, do: Callable[[Any, str], int | None]
                ) -> int:
    """Do something with all queues; return the sum of what that gives."""
    where = it.settings
    url = (f'amqp://openstack:{where.password}@{settings.HOST}:'
           f'{where.port("rabbitmq")}//')
    total = 0
    with kombu.Connection(url, connect_timeout=5) as connection:
        for name in _QUEUES:
            with contextlib.suppress(kombu_exc.OperationalError,
                                     *connection.channel_errors):
                # A queue that is not there closes the channel.
                with connection.channel() as channel:
                    total += do(channel, name) or 0
    return total


def _delete_queues(arena: Arena) -> str:
    """Delete the queues under those who listen, again and again.

    They make them again; what is sent meanwhile goes nowhere.
    """
    limit = time.monotonic() + arena.slot.seconds
    times = 0
    while time.monotonic() < limit:
        _each_queue(arena.cloud, lambda channel, name:
                    channel.queue_delete(name))
        times += 1
        time.sleep(2.5)
    return f'all queues deleted {times} times'


def _empty_queues(arena: Arena) -> str:
    """Empty the queues while no conductor is there to take anything.

    With somebody who listens, a message is never in its queue.
    """
    for name in settings.CONDUCTORS:
        arena.cloud.kill(name)
    arena.wait()
    purged = _each_queue(arena.cloud, lambda channel, name:
                         channel.queue_purge(name))
    arena.cloud.start(*settings.CONDUCTORS, wait=False)
    return f'both conductors killed, {purged} messages lost'


# -- the database

def _stop_database(arena: Arena) -> str:
    arena.cloud.stop('mariadb')
    arena.wait()
    arena.cloud.start('mariadb')
    return f'database away for {arena.slot.seconds:.0f} s'


def _cut_connections(arena: Arena) -> str:
    limit = time.monotonic() + arena.slot.seconds
    killed = 0
    while time.monotonic() < limit:
        with arena.cloud.db.connect() as one, one.cursor() as cursor:
            cursor.execute(
                'SELECT id FROM information_schema.processlist WHERE '
                "id != CONNECTION_ID() AND user NOT IN ('root', "
                "'system user')")
            for row in cursor.fetchall():
                # It may have gone by itself.
                with contextlib.suppress(pymysql.MySQLError):
                    cursor.execute('KILL CONNECTION %s', (row['id'],))
                    killed += 1
        time.sleep(1.5)
    return f'{killed} connections killed'


# -- the other APIs

def _misbehave(name: str, manner: str, arena: Arena) -> str:
    path = arena.cloud.settings.unruly_file(name)
    unruly.give(path, manner, arena.slot.seconds)
    try:
        arena.wait()
    finally:
        unruly.take_back(path)
    return f'{name} {manner} for {arena.slot.seconds:.0f} s'


# -- computes

def _kill_compute_first(arena: Arena) -> str:
    """Kill a compute and let its messages wait for its return."""
    return _kill(settings.COMPUTES, arena)


def _kill_compute_at(query: str, marks: int, arena: Arena) -> str:
    """Kill a compute as soon as a query finds something for it."""
    name = arena.one_of(settings.COMPUTES)
    limit = time.monotonic() + arena.slot.seconds
    hit = False
    with arena.cloud.db.connect() as one, one.cursor() as cursor:
        while not hit and time.monotonic() < limit:
            hit = bool(cursor.execute(query, (name,) * marks))
            time.sleep(0.02)
    arena.cloud.kill(name)
    arena.wait(_AWAY)
    arena.cloud.start(name, wait=False)
    return f'{name} killed ' + ('at work' if hit else 'with nothing to do')


def _all() -> Iterator[Fault]:
    part = functools.partial
    yield Fault('conductor-killed', 'SIGKILL of a conductor', (2, 5),
                part(_kill, settings.CONDUCTORS))
    yield Fault('conductors-killed', 'SIGKILL of both conductors', (2, 5),
                _kill_both)
    # The lease is 10 s.
    yield Fault('conductor-paused', 'SIGSTOP of a conductor for longer than '
                'its lease, then SIGCONT', (14, 22), _pause)
    yield Fault('conductor-stopped', 'SIGTERM of a conductor', (1, 3),
                _terminate)
    yield Fault('broker-restarted', 'RabbitMQ killed, and started again '
                'without its queues', (3, 12), _restart_broker)
    yield Fault('queues-deleted', 'all queues deleted under those who '
                'listen, several times', (8, 12), _delete_queues)
    yield Fault('queues-emptied', 'both conductors killed, and what waits '
                'for them thrown away', (6, 9), _empty_queues)
    yield Fault('database-stopped', 'MariaDB away for 30 s', (30, 30),
                _stop_database)
    yield Fault('connections-killed', 'all connections to MariaDB killed, '
                'several times', (6, 10), _cut_connections)
    for name in services.UNRULY:
        for manner, about in (
                ('500', 'answers 500'), ('503', 'answers 503'),
                (unruly.SLOW, f'answers {unruly.DELAY:.0f} s late'),
                (unruly.SILENT, 'does not answer; half of the requests are '
                 'done')):
            yield Fault(f'{name}-{manner}', f'{name} {about}', (10, 20),
                        part(_misbehave, name, manner))
    yield Fault('compute-dead-before', 'SIGKILL of a compute; what is sent to '
                'it waits', (12, 18), _kill_compute_first)
    yield Fault('compute-dies-while', 'SIGKILL of a compute when a server is '
                'given to it', (20, 20), part(_kill_compute_at, _SENT, 2))
    yield Fault('compute-dies-after', 'SIGKILL of a compute that works on a '
                'server', (20, 20), part(_kill_compute_at, _TAKEN, 1))


FAULTS = {fault.name: fault for fault in _all()}


def heal(it: cloud.Cloud) -> list[str]:
    """Start whatever does not run; return who that was."""
    for name in services.UNRULY:
        unruly.take_back(it.settings.unruly_file(name))
    dead = [name for name in services.ALL if not it.members(name)]
    if dead:
        it.start(*dead)
    return dead
