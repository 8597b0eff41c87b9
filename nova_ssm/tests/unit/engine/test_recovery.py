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

"""Flows that nobody runs are found, and gone on with."""

import subprocess
import sys
import threading
import time

from oslo_db import exception as db_exc
import pytest

from nova_ssm.engine import orders
from nova_ssm.engine import queries
from nova_ssm.engine import recovery
from nova_ssm.engine import schema
from nova_ssm.engine import troubles
from nova_ssm.tests.unit.engine import helpers

Do = helpers.Do


@pytest.fixture
def process(url, world):
    def make(*names, **kwargs):
        return helpers.Process(url, world, {
            name: lambda name=name: helpers.linear(Do(name, world))
            for name in names or ('a', 'b', 'c')}, **kwargs)
    return make


@pytest.fixture
def recover(process):
    """Makes recoveries; waits for what they have begun."""
    made = []

    def make(*names, **kwargs):
        concurrency = kwargs.pop('concurrency', 4)
        one = process(*names, **kwargs)
        made.append(recovery.Recovery(
            one.runner, 'host', interval=0.01, concurrency=concurrency))
        made[-1].process, made[-1].concurrency = one, concurrency
        return made[-1]

    yield make
    for one in made:
        one.stop()
        finish(one)


def finish(recovery_):
    """Wait until none of its threads runs any more."""
    while any(thread.name.startswith('ssm-resume')
              for thread in threading.enumerate()):
        time.sleep(0.005)
    assert recovery_._slots._value == recovery_.concurrency


def post(process_, *names):
    return [process_.board.post(name).uuid for name in names]


def wait_for(url, *names):
    while not all(helpers.state_of(url).get(name) == 'SUCCESS'
                  for name in names):
        time.sleep(0.01)


def test_free_flows_are_taken_and_run(recover, world, url):
    one = recover()
    post(one.process, 'a', 'b')
    assert one.look() == 2
    wait_for(url, 'a', 'b')
    assert sorted(world.effects) == ['a', 'b']
    assert one.look() == 0


def test_it_looks_again_and_again_in_a_thread_of_its_own(recover, url):
    one = recover()
    one.start()
    post(one.process, 'a')
    wait_for(url, 'a')
    post(one.process, 'b')
    wait_for(url, 'b')
    one.stop()
    assert not one._thread.is_alive()


def test_it_looks_on_after_a_look_that_failed(recover, url, caplog):
    one = recover()
    original = one.process.board.free_jobs
    failing = [db_exc.DBConnectionError()] * 2

    def free_jobs(who):
        if failing:
            raise failing.pop()
        return original(who)

    one.process.board.free_jobs = free_jobs
    one.start()
    post(one.process, 'a')
    wait_for(url, 'a')
    assert 'trying again' in caplog.text


def test_flows_of_living_workers_are_left_alone(recover, process):
    other = process()
    job = other.board.get(post(other, 'a')[0])
    other.board.claim(job, other.runner.worker.id)
    assert recover().look() == 0


def test_flows_of_workers_whose_lease_has_run_out_are_taken(
        recover, process, url):
    other = process()
    job = other.board.get(post(other, 'a')[0])
    other.board.claim(job, other.runner.worker.id)
    helpers.expire_leases(url)
    assert recover().look() == 1
    wait_for(url, 'a')


def test_flows_of_a_dead_process_of_this_host_are_taken_at_once(
        recover, process, url):
    """No lease is waited for."""
    other = process(lease=10000)
    dead = subprocess.Popen([sys.executable, '-c', 'input()'],
                            stdin=subprocess.PIPE)
    other.runner.worker.pid = dead.pid
    with other.db.transaction() as connection:
        connection.execute(schema.workers.delete())
    other.runner._worker.renew()
    job = other.board.get(post(other, 'a')[0])
    other.board.claim(job, other.runner._worker.id)
    assert recover().look() == 0
    dead.kill()
    dead.wait()
    assert recover().look() == 1
    wait_for(url, 'a')


def test_its_own_flows_are_not_taken_for_orphans(recover, url):
    one = recover()
    job = one.process.board.get(post(one.process, 'a')[0])
    one.process.board.claim(job, one.process.runner.worker.id)
    helpers.expire_leases(url)
    assert one.look() == 0


@pytest.mark.parametrize('version, name', [('1.1', 'a'), ('1.0', 'z')])
def test_what_it_cannot_run_is_left_to_others_with_one_warning(
        recover, process, url, caplog, version, name):
    newer = process('a', 'z', version=version)
    [uuid] = post(newer, name)
    with newer.db.transaction() as connection:
        connection.execute(schema.flows.update().values(version=version))
    one = recover('a')
    assert [one.look() for _ in range(3)] == [0, 0, 0]
    assert caplog.text.count('cannot run it') == 1
    assert helpers.state_of(url, uuid) == ('PENDING', None)


def damage(one, payload=b'damaged'):
    with one.process.db.transaction() as connection:
        connection.execute(schema.journal.update().values(payload=payload))


def test_an_unreadable_flow_is_released_and_not_tried_in_a_loop(
        recover, url, caplog):
    one = recover()
    [uuid] = post(one.process, 'a')
    damage(one)
    original = one.process.runner.unreadable
    one.process.runner.unreadable = lambda uuid: None
    assert one.look() == 1
    while 'cannot be resumed here' not in caplog.text:
        time.sleep(0.01)
    finish(one)
    one.process.runner.unreadable = original
    assert helpers.state_of(url, uuid) == ('RUNNING', None)
    assert [one.look() for _ in range(3)] == [0, 0, 0]
    assert 'DamagedJournal: flow %s: row 0' % uuid in trouble(one, uuid)
    # Others may.
    other = recover()
    other.process.runner.unreadable = lambda uuid: None
    assert other.look() == 1


def trouble(one, uuid):
    return queries.flow(one.process.db, uuid).trouble


def test_a_damaged_flow_is_not_even_claimed(recover, url, caplog):
    one = recover()
    damaged, _fine = post(one.process, 'a', 'b')
    with one.process.db.transaction() as connection:
        connection.execute(schema.journal.update().where(
            schema.journal.c.flow_uuid == damaged).values(payload=b'damaged'))
    assert one.look() == 1
    wait_for(url, 'b')
    assert helpers.state_of(url, damaged) == ('PENDING', None)
    assert trouble(one, damaged).startswith(
        'host host cannot go on: row 0: a journal payload cannot be read')
    assert caplog.text.count('cannot run it') == 1
    assert queries.flow(one.process.db, damaged).claims == 0


def test_why_a_flow_is_left_alone_is_written_once(
        recover, process, url, monkeypatch):
    newer = process('a', version='1.1')
    [uuid] = post(newer, 'a')
    with newer.db.transaction() as connection:
        connection.execute(schema.flows.update().values(version='1.1'))
    told, tell = [], troubles.tell
    monkeypatch.setattr(troubles, 'tell', lambda db, uuid, text: (
        told.append(text), tell(db, uuid, text)))
    one, other = recover('a'), recover('a')
    # Another one has the same reason, or forgets that it has said so.
    other.process.runner.worker.host = 'other'
    for _time in range(3):
        one.look()
        other.look()
        other._later.clear()
    assert told == [trouble(one, uuid)]
    assert trouble(one, uuid) == (
        'host host cannot go on: version 1.1 of the flow a is not known '
        'here, only 1.0')


def test_who_can_go_on_takes_the_trouble_away(recover, process, url, world):
    newer = recover('a', version='1.1')
    [uuid] = post(newer.process, 'a')
    with newer.process.db.transaction() as connection:
        connection.execute(schema.flows.update().values(version='1.1'))
    recover('a').look()
    assert trouble(newer, uuid)
    seen = []
    world.make = lambda name: seen.append(trouble(newer, uuid))
    assert newer.look() == 1
    wait_for(url, 'a')
    assert seen == [None]


def test_a_trouble_that_cannot_be_written_stops_nobody(
        recover, process, url, caplog, monkeypatch):
    one = recover('a')
    post(process('z'), 'z')
    post(one.process, 'a')

    def tell(*args):
        raise db_exc.DBConnectionError()
    monkeypatch.setattr(troubles, 'tell', tell)
    assert one.look() == 1
    assert 'could not be written down' in caplog.text


def test_a_flow_that_could_not_be_resumed_is_tried_again_later(
        recover, url, world, monkeypatch):
    """What it reads may have been away only."""
    monkeypatch.setattr(recovery, '_SOONEST', 0.05)
    one = recover()
    load, errors = one.process.serializer.decode, [OSError('away')] * 2

    def decode(plain, reading):
        if errors:
            raise errors.pop()
        return load(plain, reading)

    one.process.serializer.decode = decode
    post(one.process, 'a')
    one.start()
    wait_for(url, 'a')
    assert world.effects == ['a']


def test_a_flow_that_ends_its_thread_is_released_and_its_slot_too(
        recover, world, url):
    one = recover(concurrency=1)
    world.failing['do a'] = SystemExit(3)
    [uuid] = post(one.process, 'a')
    one.look()
    while one._slots._value != 1:
        time.sleep(0.01)
    assert helpers.state_of(url, uuid) == ('RUNNING', None)
    post(one.process, 'b')
    assert one.look() == 1
    wait_for(url, 'b')


def test_no_more_flows_are_resumed_at_once_than_it_may(
        recover, world, url):
    one = recover(concurrency=2)
    go, original = threading.Event(), world.make

    def make(name):
        go.wait()
        original(name)

    world.make = make
    post(one.process, 'a', 'b', 'c')
    assert one.look() == 2
    assert one.look() == 0      # and it does not wait for a hand
    go.set()
    # Any two of them: those posted in the same millisecond have no order.
    while list(helpers.state_of(url).values()).count('SUCCESS') < 2:
        time.sleep(0.01)
    while not one.look():
        time.sleep(0.01)
    wait_for(url, 'a', 'b', 'c')


def test_a_stopped_recovery_takes_nothing_more(recover):
    one = recover()
    post(one.process, 'a')
    one.stop()
    assert one.look() == 0


def test_a_flow_that_somebody_else_took_first_costs_no_slot(
        recover, process, url):
    one, other = recover(concurrency=1), process()
    post(one.process, 'a', 'b')
    stale = list(one.process.board.iterjobs())
    other.resume_all()
    one.process.board.iterjobs = lambda **kwargs: iter(stale)
    assert one.look() == 0
    assert one._slots._value == 1


def test_a_thread_that_cannot_be_started_leaves_the_flow_free(
        recover, url, monkeypatch):
    one = recover(concurrency=1)
    [uuid] = post(one.process, 'a')

    class NoThread:
        def __init__(self, **kwargs):
            pass

        def start(self):
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading, 'Thread', NoThread)
        with pytest.raises(RuntimeError):
            one.look()
    assert helpers.state_of(url, uuid) == ('RUNNING', None)
    assert one.look() == 1
    wait_for(url, 'a')


def test_what_could_not_be_released_is_released_by_the_next_look(
        recover, process, url):
    one = recover()
    [uuid] = post(one.process, 'a')
    me = one.process.runner.worker.id
    one.process.board.claim(one.process.board.get(uuid), me)
    release = one.process.board.release

    def away(uuid, who):
        raise db_exc.DBConnectionError()

    one.process.board.release = away
    one.process.runner.release(uuid, me)
    one.process.board.release = release
    assert queries.flow(one.process.db, uuid).owner == me
    assert one.look() == 1
    wait_for(url, 'a')


def test_the_death_of_a_worker_is_told_before_it_is_buried(
        process, url, world):
    dead = process('a', host='other')
    dead.runner.worker.renew()
    helpers.expire_leases(url)
    told = []

    def on_death(worker_id):
        told.append(worker_id)
        if len(told) == 1:
            raise db_exc.DBConnectionError()

    one = process('a')
    recovery_ = recovery.Recovery(one.runner, 'host', on_death=on_death)
    with pytest.raises(db_exc.DBConnectionError):
        recovery_.look()
    recovery_.look()
    assert told == [dead.runner.worker.id] * 2
    recovery_.look()
    assert len(told) == 2


def test_a_death_that_cannot_be_told_keeps_no_flow_waiting(
        process, url, world):
    dead = process('a', host='other')
    dead.runner.worker.renew()
    helpers.expire_leases(url)

    def on_death(worker_id):
        raise RuntimeError('no')

    one = process('a')
    recovery_ = recovery.Recovery(one.runner, 'host', on_death=on_death)
    post(one, 'a')
    with pytest.raises(RuntimeError):
        recovery_.look()
    wait_for(url, 'a')


# -- what a look costs -------------------------------------------------------

def test_a_look_with_nothing_to_do_is_one_statement(recover, process):
    one, other = recover(), process(host='other')
    assert other.runner.worker
    other.board.claim(other.board.get(post(other, 'a')[0]),
                      other.runner.worker.id)
    for _look in range(2):
        one.look()
    said = helpers.Statements(one.process.db)
    assert one.look() == 0
    assert said.since() == {'SELECT': 1, 'COMMIT': 1}


def test_a_look_at_a_flow_that_it_cannot_run_is_one_statement(
        recover, process):
    one = recover('a')
    post(process('b'), 'b')
    for _look in range(2):
        one.look()
    said = helpers.Statements(one.process.db)
    assert one.look() == 0
    assert said.since() == {'SELECT': 1, 'COMMIT': 1}


def test_a_look_at_a_paused_flow_reads_its_order_only(recover, process):
    one = recover()
    [uuid] = post(one.process, 'a')
    orders.give(one.process.db, uuid, orders.PAUSE, 'somebody')
    for _look in range(2):
        one.look()
    said = helpers.Statements(one.process.db)
    assert one.look() == 0
    assert said.since() == {'SELECT': 2, 'COMMIT': 2}


def test_a_paused_flow_goes_on_in_the_look_after_it_may(recover, url):
    one = recover()
    [uuid] = post(one.process, 'a')
    orders.give(one.process.db, uuid, orders.PAUSE, 'somebody')
    assert [one.look(), one.look()] == [0, 0]
    orders.resume(one.process.db, uuid)
    assert one.look() == 1
    wait_for(url, 'a')


def test_what_it_cannot_run_is_killed_in_the_look_after_the_order(
        recover, process, url):
    """Though it would look at it again only later."""
    one = recover('a')
    [uuid] = post(process('b'), 'b')
    assert [one.look(), one.look()] == [0, 0]
    orders.give(one.process.db, uuid, orders.KILL, 'somebody')
    assert one.look() == 1
    finish(one)
    assert helpers.state_of(url, uuid) == ('KILLED', None)


def test_a_flow_that_waits_is_tried_again_when_it_is_time(
        recover, process, url, monkeypatch):
    one = recover('a')
    [uuid] = post(process('b'), 'b')
    assert [one.look(), one.look()] == [0, 0]
    # By now it has learned to.
    one.process.registry.add(process('b').registry.get('b'))
    assert one.look() == 0
    ahead = time.monotonic() + recovery._SOONEST + 1
    monkeypatch.setattr(recovery.time, 'monotonic', lambda: ahead)
    assert one.look() == 1
    wait_for(url, 'b')


def test_a_flow_is_taken_in_the_look_that_finds_its_owner_dead(
        recover, process, url):
    one, other = recover(), process(host='other')
    other.board.claim(other.board.get(post(other, 'a')[0]),
                      other.runner.worker.id)
    one.look()
    assert one.look() == 0
    with other.db.transaction() as connection:
        connection.execute(schema.workers.update().where(
            schema.workers.c.id == other.runner.worker.id).values(
                expires_at=0))
    assert one.look() == 1
    wait_for(url, 'a')


def test_what_was_left_alone_is_forgotten_when_it_is_long_gone(
        recover, monkeypatch):
    one = recover()
    for number in range(5):
        one._put_off('flow-%d' % number)
    one.look()
    assert len(one._later) == 5
    ahead = time.monotonic() + recovery._SOONEST + recovery._LATEST + 1
    monkeypatch.setattr(recovery.time, 'monotonic', lambda: ahead)
    one.look()
    assert one._later == {}


def test_what_is_left_alone_again_and_again_is_not_forgotten(
        recover, process, monkeypatch):
    """Or its warning would come again, and it would be tried too often."""
    one, other = recover('a'), process('b')
    [uuid] = post(other, 'b')
    now = time.monotonic()
    monkeypatch.setattr(recovery.time, 'monotonic', lambda: now)
    one.look()
    for _try in range(12):
        now = one._later[uuid][0] + 1
        one.look()
        assert uuid in one._later
    assert one._later[uuid] == (now + recovery._LATEST, recovery._LATEST)
