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

"""A process that is being stopped hands its flows over."""

import threading
import time

import pytest

from nova_ssm.engine import ownership
from nova_ssm.engine import recovery
from nova_ssm.engine import runner
from nova_ssm.engine import schema
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

Do = helpers.Do


class Waits(Do):
    """Waits until the world says so, as for a compute that is down."""

    def execute(self, **kwargs):
        self.world.call('do ' + self.name)
        while not self.world.up:
            self.world.calls.append('wait ' + self.name)
            self.wait(0.01)
        self.world.make(self.name)

    def recover(self, **kwargs):
        self.world.call('recover ' + self.name)
        return self.execute(**kwargs)


@pytest.fixture
def world(world):
    world.up = False
    return world


def flows(world):
    return {'flow': lambda: helpers.linear(
                Do('a', world), Waits('w', world), Do('c', world)),
            'short': lambda: helpers.linear(Do('s', world))}


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def background():
    """Runs something in a thread: a request, or a recovery."""
    threads = []

    def start(work):
        outcome = []
        threads.append(threading.Thread(
            target=lambda: outcome.append(work())))
        threads[-1].start()
        return outcome

    yield start
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def workers(url):
    with helpers.shared(url).transaction() as connection:
        return connection.exec_driver_sql(
            'SELECT count(*) FROM ssm_workers').scalar()


# -- what runs --------------------------------------------------------------

def test_a_task_that_waits_stops_there(process, world, url, background):
    one = process(flows(world))
    outcome = background(one.run)
    until(lambda: 'wait w' in world.calls)
    one.runner.suspend()
    until(lambda: outcome)
    assert outcome[0].state == runner.LOST
    assert helpers.state_of(url, outcome[0].uuid) == ('RUNNING', None)
    world.up = True
    [resumed] = process(flows(world)).resume_all()
    assert resumed.state == 'SUCCESS'
    assert 'recover w' in world.calls
    assert world.effects == ['a', 'w', 'c']
    assert world.doubled == []


def test_a_long_wait_ends_at_once(process, world, url, background):
    class Patient(Waits):
        def execute(self, **kwargs):
            self.world.calls.append('wait w')
            self.wait(3600)

    one = process({'flow': lambda: helpers.linear(Patient('w', world))})
    outcome = background(one.run)
    until(lambda: one.runner.held() and 'wait w' in world.calls)
    one.runner.close(patience=30)
    until(lambda: outcome)
    assert outcome[0].state == runner.LOST
    assert workers(url) == 0


def test_closing_hands_over_what_is_resumed_too(process, world, url):
    one = process(flows(world))
    one.board.post('flow')
    recovery_ = recovery.Recovery(one.runner, 'host', interval=0.01)
    recovery_.start()
    until(lambda: 'wait w' in world.calls)
    recovery_.suspend()
    one.runner.suspend()
    until(lambda: helpers.state_of(url)['flow'] == 'RUNNING' and
          not one.runner.held())
    recovery_.stop()
    one.runner.close()
    assert workers(url) == 0
    [job] = one.board.iterjobs()
    assert job.row.owner is None


def test_the_children_of_a_flow_are_handed_over_with_it(process, world, url):
    """None of them begins here, each goes on elsewhere."""
    given = examples.parent(world)
    one = process(given)

    def after_commit(uuid, kind, atom, state):
        if atom == 'spawn':
            one.runner.suspend()

    one.runner.after_commit = after_commit
    outcome = one.run()
    assert [child.state for child in outcome.children] == [runner.LOST] * 2
    for uuid in (outcome.uuid, *(child.uuid for child in outcome.children)):
        assert helpers.state_of(url, uuid)[1] is None
    process(given).resume_all()
    assert set(helpers.state_of(url).values()) == {'SUCCESS'}
    assert world.doubled == []


@pytest.mark.parametrize('at', ('do b', 'undo a'))
def test_what_fails_while_it_is_stopped_is_tried_again_elsewhere(
        process, world, url, at):
    """It may fail since what it needs was shut down before it."""
    given = {'flow': lambda: helpers.linear(Do('a', world), Do('b', world))}
    one = process(given)
    if at == 'undo a':
        world.failing['do b'] = examples.Broken('compute', code=1)
    world.failing[at] = RuntimeError('cannot schedule new futures')
    original = world.call

    def call(what):
        if what == at and world.process is one:
            one.runner.suspend()
        original(what)

    world.call = call
    assert one.run().state == runner.LOST
    del world.failing[at]
    [resumed] = process(given).resume_all()
    assert resumed.state == ('SUCCESS' if at == 'do b' else 'REVERTED')
    assert world.doubled == []
    assert world.effects == (['a', 'b'] if at == 'do b' else [])


# -- what comes -------------------------------------------------------------

def test_a_request_that_comes_late_is_not_lost(process, world, url):
    one = process(flows(world))
    one.runner.suspend()
    outcome = one.run('short')
    assert outcome.state == runner.LOST
    assert helpers.state_of(url, outcome.uuid) == ('PENDING', None)
    assert world.calls == []
    one.runner.close()
    # Even later: Nova still waits for the threads of its RPC server.
    later = one.run('short')
    assert workers(url) == 0
    assert {done.uuid for done in process(flows(world)).resume_all()} == {
        outcome.uuid, later.uuid}


def test_a_request_that_begins_while_it_is_stopped_is_not_lost(
        process, world, url):
    """It is posted with its owner, which is about to go."""
    one = process(flows(world))
    start = one.board.start

    def late(request, owner):
        one.runner.close()
        start(request, owner)

    one.board.start = late
    assert one.run('short').state == runner.LOST
    assert world.calls == []
    [done] = process(flows(world)).resume_all()
    assert done.state == 'SUCCESS'


def test_a_stopped_recovery_takes_nothing_more(process, world):
    one = process(flows(world))
    one.board.post('short')
    recovery_ = recovery.Recovery(one.runner, 'host')
    recovery_.suspend()
    assert recovery_.look() == 0


# -- flows that wait, and others --------------------------------------------

def test_flows_that_wait_keep_no_other_from_being_resumed(
        process, world, url):
    one = process(flows(world))
    recovery_ = recovery.Recovery(one.runner, 'host', concurrency=2)
    for _time in range(8):
        one.board.post('flow')
    world.make = lambda name: None      # the same things eight times
    taken = 0
    while taken < 8:
        taken += recovery_.look()
        time.sleep(0.005)
    until(lambda: world.count('do w') == 8)
    # All of them wait, four times as many as there are places.
    one.board.post('short')
    assert recovery_.look() == 1
    until(lambda: helpers.state_of(url)['short'] == 'SUCCESS')
    assert helpers.state_of(url)['flow'] == 'RUNNING'
    world.up = True
    until(lambda: not one.runner.held())
    assert helpers.state_of(url)['flow'] == 'SUCCESS'
    # Each place was given back, and once.
    until(lambda: recovery_._slots._value == 2)


# -- who was away, and who is dead ------------------------------------------

@pytest.fixture
def two(process, world):
    """A worker that is looked at, and the recovery of another one."""
    other = process(flows(world), host='other', lease=6)
    job = other.board.post('short')
    other.board.claim(job, other.runner.worker.id)
    one = process(flows(world), lease=6)
    recovery_ = recovery.Recovery(one.runner, 'host')
    assert recovery_.look() == 0
    return other, recovery_


def expire(url, one):
    with helpers.shared(url).transaction() as connection:
        connection.execute(schema.workers.update().where(
            schema.workers.c.id == one.runner.worker.id).values(expires_at=0))


def finish(recovery_):
    until(lambda: not recovery_._runner.held() and
          recovery_._slots._value == 4)


def test_who_was_not_away_takes_the_flows_of_the_silent_at_once(two, url):
    other, recovery_ = two
    expire(url, other)
    assert recovery_.look() == 1
    finish(recovery_)


def test_after_an_outage_everybody_may_renew_before_he_is_dead(two, url):
    """The leases of all have run out when the database comes back."""
    other, recovery_ = two
    helpers.expire_leases(url)
    assert recovery_.look() == 0
    other.runner.worker.renew()
    recovery_._patient_until = 0
    assert recovery_.look() == 0
    assert workers(url) == 2


def test_who_does_not_come_back_after_an_outage_is_dead(two, url):
    other, recovery_ = two
    helpers.expire_leases(url)
    assert recovery_.look() == 0
    recovery_._patient_until = 0
    assert recovery_.look() == 1
    finish(recovery_)
    assert workers(url) == 1


def test_a_look_that_failed_may_have_failed_for_all(two, url, monkeypatch):
    other, recovery_ = two

    def away(*question):
        recovery_._stop.set()
        raise OSError('away')

    with monkeypatch.context() as outage:
        outage.setattr(recovery.glances, 'glance', away)
        recovery_._run()
    recovery_._stop.clear()
    expire(url, other)
    assert recovery_.look() == 0
    recovery_._patient_until = 0
    assert recovery_.look() == 1
    finish(recovery_)


def test_what_nobody_owns_is_taken_though_we_were_away(two, url):
    other, recovery_ = two
    helpers.expire_leases(url)
    other.board.post('short')
    assert recovery_.look() == 1
    finish(recovery_)


def test_what_was_taken_is_let_go_of_by_the_next_look(
        process, world, url, background):
    one = process(flows(world))
    recovery_ = recovery.Recovery(one.runner, 'host')
    outcome = background(one.run)
    until(lambda: 'wait w' in world.calls)
    assert recovery_.look() == 0
    [uuid] = ownership.of_worker(one.db, one.runner.worker.id)
    with one.db.transaction() as connection:
        connection.execute(schema.flows.update().values(owner='another'))
    assert ownership.of_worker(one.db, one.runner.worker.id) == set()
    recovery_._stop.set()
    recovery_.look()
    until(lambda: outcome)
    assert outcome[0].state == runner.LOST
    assert helpers.state_of(url, uuid) == ('RUNNING', 'another')
