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

"""The lease of a worker process."""

import dataclasses
import os
import subprocess
import sys
import time

from oslo_db import exception as db_exc
import psutil
import pytest
import sqlalchemy as sa

from nova_ssm.engine import schema
from nova_ssm.engine import worker
from nova_ssm.tests.unit.engine import helpers


@pytest.fixture
def make(own_db):
    made = []

    def of(lease=60, host='host'):
        made.append(worker.Worker(own_db, host, lease))
        return made[-1]

    yield of
    for one in made:
        one.stop()


def alive(db):
    """The ids of the workers whose lease has not run out."""
    c = schema.workers.c
    with db.transaction() as connection:
        return set(connection.execute(sa.select(c.id).where(
            c.expires_at > schema.now())).scalars())


def test_a_worker_is_registered_when_it_starts(make, db):
    one = make()
    assert not one.valid
    assert alive(db) == set()
    one.start(renew=False)
    assert one.valid
    assert alive(db) == {one.id}


def test_its_name_tells_host_and_process_and_is_never_used_again(make):
    one, other = make(), make()
    assert one.id.startswith('host:%d:' % os.getpid())
    assert one.id != other.id


def test_a_lease_runs_out_by_itself(make, db):
    one = make(lease=0.05)
    one.start(renew=False)
    while alive(db) or one.valid:
        time.sleep(0.01)


def test_a_started_worker_renews_its_lease(make, db):
    one = make(lease=1.5)
    first = renewed(one, db)
    one.start()
    while renewed(one, db) in (first, None):
        time.sleep(0.01)
    assert one.lapses == 1      # the first time
    assert one.valid


def renewed(one, db):
    with db.transaction() as connection:
        return connection.execute(sa.select(
            schema.workers.c.expires_at).where(
                schema.workers.c.id == one.id)).scalar()


def test_a_stopped_worker_is_gone_at_once(make, db):
    one = make()
    one.start()
    one.stop()
    assert alive(db) == set()
    assert one._thread is not None and not one._thread.is_alive()


def test_a_stopped_worker_with_a_step_under_way_keeps_its_lease(make, db):
    one = make()
    one.start()
    one.stop(idle=False)
    assert alive(db) == {one.id}
    assert one._thread is not None and not one._thread.is_alive()


def test_a_worker_stops_though_the_database_is_away(make, own_db, caplog):
    one = make()
    one.start()
    helpers.Outage(own_db, [db_exc.DBConnectionError()])
    one.stop()
    assert 'could not be given back' in caplog.text


def test_a_lapse_is_counted(make, db, url):
    one = make()
    one.renew()
    lapses = one.lapses
    one.renew()
    assert one.lapses == lapses
    helpers.expire_leases(url)
    one.renew()
    assert one.lapses == lapses + 1
    with db.transaction() as connection:
        connection.execute(schema.workers.delete())
    one.renew()
    assert one.lapses == lapses + 2
    assert alive(db) == {one.id}


def test_a_lease_is_renewed_though_the_database_was_away(make, own_db):
    one = make()
    helpers.Outage(own_db, [db_exc.DBConnectionError()] * 2)
    one.renew()
    assert one.valid


def test_a_lease_that_cannot_be_renewed_is_tried_again(
        make, own_db, caplog):
    one = make(lease=0.6)
    one.start()
    errors = [db_exc.DBDataError('x')]
    helpers.Outage(own_db, errors)
    said = 'could not be renewed, its flows wait'
    # The error is raised in the thread of the lease, which says so later.
    until = time.monotonic() + 30
    while said not in caplog.text and time.monotonic() < until:
        time.sleep(0.01)
    assert said in caplog.text
    while not one.valid:
        time.sleep(0.01)
    assert not errors


# -- neighbours ------------------------------------------------------------

@pytest.fixture
def neighbour():
    """A process of the same host."""
    process = subprocess.Popen([sys.executable, '-c', 'input()'],
                               stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def as_process(one, pid):
    one.pid = pid
    one.renew()
    return one


def gone(db, host='host'):
    """Who is found to be gone by a worker of that host."""
    return [one.id for one in worker.Watch(host).gone(worker.registered(db))]


def silent(db, watch=None):
    return [one.id for one in (watch or worker.Watch('host')).silent(
        worker.registered(db))]


def row_of(one, db):
    [row] = [row for row in worker.registered(db) if row.id == one.id]
    return row


def test_a_killed_neighbour_is_buried(make, db, neighbour):
    one = as_process(make(), neighbour.pid)
    assert gone(db) == []
    neighbour.kill()
    # Before its parent has asked, it is still there as a zombie.
    while psutil.Process(neighbour.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert gone(db) == [one.id]
    worker.bury(db, row_of(one, db), gone=True)
    assert alive(db) == set()


def test_a_silent_worker_of_any_host_is_found(make, db):
    one, other = make(host='one'), make(host='other')
    one.renew()
    other.renew()
    with db.transaction() as connection:
        connection.execute(schema.workers.update().where(
            schema.workers.c.id == one.id).values(expires_at=0))
    assert silent(db) == [one.id]


def test_who_woke_up_in_time_is_not_buried(make, db):
    """It may be at work: its flows must not be free for a moment."""
    one = make()
    one.renew()
    with db.transaction() as connection:
        connection.execute(schema.workers.update().values(expires_at=0))
    found = row_of(one, db)
    assert found.expired
    one.renew()
    worker.bury(db, found, gone=False)
    assert alive(db) == {one.id}


def test_a_silent_worker_is_buried(make, db):
    one = make()
    one.renew()
    worker.bury(db, row_of(one, db), gone=False)
    assert worker.registered(db) == []


def test_who_was_buried_alive_registers_anew(make, db):
    one = make()
    one.renew()
    worker.bury(db, row_of(one, db), gone=True)
    lapses = one.lapses
    one.renew()
    assert alive(db) == {one.id}
    # And asks for each of its flows whether it is still its own.
    assert one.lapses == lapses + 1


def test_a_neighbour_that_was_waited_for_is_gone_too(make, db, neighbour):
    one = as_process(make(), neighbour.pid)
    neighbour.kill()
    neighbour.wait()
    assert gone(db) == [one.id]


def test_a_pid_that_was_used_again_is_another_process(make, db, neighbour):
    one = as_process(make(), neighbour.pid)
    with db.transaction() as connection:
        connection.execute(schema.workers.update().values(
            process_started=schema.workers.c.process_started - 100))
    assert gone(db) == [one.id]


@pytest.mark.parametrize('step', (-7200, 7200))
def test_nobody_is_gone_because_the_clock_of_the_host_was_set(
        make, db, neighbour, monkeypatch, step):
    """The date at which the machine was started is another one then."""
    one = as_process(make(), neighbour.pid)
    booted = psutil.boot_time()
    monkeypatch.setattr(psutil._pslinux, 'boot_time', lambda: booted + step)
    assert psutil.boot_time() == booted + step
    assert gone(db) == []
    neighbour.kill()
    neighbour.wait()
    assert gone(db) == [one.id]


def test_who_lives_elsewhere_is_left_alone(make, db, neighbour):
    as_process(make(host='elsewhere'), neighbour.pid)
    neighbour.kill()
    neighbour.wait()
    assert gone(db) == []


def test_who_lives_in_another_container_is_left_alone(
        make, db, neighbour, monkeypatch):
    """Its pids mean nothing here."""
    with monkeypatch.context() as there:
        there.setattr(worker, '_place', lambda host: host + '/other')
        as_process(make(), neighbour.pid)
    neighbour.kill()
    neighbour.wait()
    assert gone(db) == []


def test_a_process_that_may_not_be_looked_at_is_not_gone(
        make, db, monkeypatch):
    make().renew()

    def process(pid):
        raise psutil.AccessDenied(pid)

    monkeypatch.setattr(psutil, 'Process', process)
    assert gone(db) == []


def test_a_worker_is_known_by_its_name_and_by_that_of_its_host(make, db):
    one = make(host='host')
    one.renew()
    row = row_of(one, db)
    assert row.is_on(one.id) and row.is_on('host')
    assert not row.is_on('hos') and not row.is_on(one.id + '0')


# -- the clock of the database ---------------------------------------------

@pytest.fixture
def clock(monkeypatch):
    """Our own clock, which the database's has nothing to do with."""
    now = [1000.0]
    monkeypatch.setattr(worker, '_clock', lambda: now[0])
    return now


def set_database_clock(db, seconds):
    """As if the database's clock had been set: its times are off by that."""
    with db.transaction() as connection:
        connection.execute(schema.workers.update().values(
            expires_at=schema.workers.c.expires_at - seconds))


def test_a_clock_that_is_set_back_gives_the_dead_no_longer_lease(
        make, db, clock):
    watch, one = worker.Watch('host'), make(lease=10)
    one.renew()
    assert silent(db, watch) == []
    set_database_clock(db, -3600)       # to a time before it was renewed
    clock[0] += 1
    assert silent(db, watch) == []      # it may have been renewed just now
    clock[0] += worker._LONGEST
    assert silent(db, watch) == [one.id]


def test_a_lease_seen_before_the_clock_was_set_back_lasts_as_long_as_then(
        make, db, clock, monkeypatch):
    watch, one = worker.Watch('host'), make(lease=10)
    one.renew()
    [row] = worker.registered(db)
    assert watch.silent([row]) == []
    # The row stays as it is; only what is left of it is another time.
    later = dataclasses.replace(row, left=row.left + 3600)
    clock[0] += 9
    assert watch.silent([later]) == []
    clock[0] += 2
    assert watch.silent([later]) == [later]


def test_who_renews_by_a_clock_that_was_set_back_lives(make, db, clock):
    watch, one = worker.Watch('host'), make(lease=10)
    for _time in range(5):
        one.renew()
        set_database_clock(db, -3600)
        assert silent(db, watch) == []
        clock[0] += 9


def test_a_clock_that_is_set_forward_ends_a_lease_early(make, db, clock):
    """The one who had it asks for its flows when it renews."""
    one = make(lease=10)
    one.renew()
    lapses = one.lapses
    set_database_clock(db, 3600)
    assert silent(db) == [one.id]
    one.renew()
    assert silent(db) == []
    assert one.lapses == lapses + 1
