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

"""A flow is moved to another worker by hand."""

import threading
import time

import pytest

from nova_ssm.engine import exception
from nova_ssm.engine import recovery
from nova_ssm.engine import runner
from nova_ssm.engine import transfers
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.engine import test_stopping

Do, until, flows = helpers.Do, test_stopping.until, test_stopping.flows


@pytest.fixture
def world(world):
    world.up = False
    return world


@pytest.fixture
def recover(process, world):
    """Makes processes with a recovery that a test lets look."""
    made = []

    def make(host):
        one = process(flows(world), host=host)
        made.append(recovery.Recovery(one.runner, host, interval=0.2))
        made[-1].process, made[-1].me = one, one.runner.worker.id
        return made[-1]

    yield make
    world.up = True
    for one in made:
        one.stop()
        until(lambda one=one: not one._runner.held())


@pytest.fixture
def running(recover, world):
    """A flow that waits in its second step, and who runs it."""
    one = recover('one')
    outcome = []
    thread = threading.Thread(
        target=lambda: outcome.append(one.process.run()))
    thread.start()
    until(lambda: 'wait w' in world.calls)
    [uuid] = one._runner.held()
    yield uuid, one, outcome
    world.up = True
    thread.join(30)
    assert not thread.is_alive()


def owner(url, uuid):
    return helpers.state_of(url, uuid)[1]


@pytest.mark.parametrize('by', ('worker', 'host'))
def test_it_goes_on_where_it_is_wanted_and_only_there(
        running, recover, world, db, url, by):
    uuid, one, outcome = running
    third, other = recover('third'), recover('other')
    assert transfers.ask(db, uuid, other.me if by == 'worker' else
                         'other') == one.me
    assert other.look() == 0        # it is still run by its owner
    one.look()
    until(lambda: outcome)
    assert outcome[0].state == runner.LOST
    assert owner(url, uuid) is None
    assert [one.look(), third.look(), other.look()] == [0, 0, 1]
    assert owner(url, uuid) == other.me
    assert transfers.pending(db) == {}
    world.up = True
    until(lambda: helpers.state_of(url, uuid)[0] == 'SUCCESS')
    assert world.effects == ['a', 'w', 'c']
    assert world.doubled == []


def test_it_goes_on_with_anybody_else(running, recover, db, url):
    uuid, one, outcome = running
    other = recover('other')
    assert transfers.ask(db, uuid) == one.me
    one.look()
    until(lambda: outcome)
    assert one.look() == 0          # the others go first
    assert other.look() == 1
    assert owner(url, uuid) == other.me


def test_it_goes_on_where_it_was_if_nobody_else_takes_it(
        running, recover, db, url, monkeypatch):
    monkeypatch.setattr(recovery, '_POLITE', 0.5)
    uuid, one, outcome = running
    recover('other')                # is busy
    transfers.ask(db, uuid)
    one.look()
    until(lambda: outcome)
    until(lambda: one.look() == 1 or owner(url, uuid))
    assert owner(url, uuid) == one.me
    assert transfers.pending(db) == {}


def test_who_is_to_have_it_dies_before_it_lets_go(running, recover, db, url):
    uuid, one, outcome = running
    other = recover('other')
    transfers.ask(db, uuid, 'other')
    other._runner.close()
    one.look()
    assert transfers.pending(db) == {}
    assert not outcome and owner(url, uuid) == one.me


def test_who_is_to_have_it_dies_after_that(running, recover, db, url, caplog):
    uuid, one, outcome = running
    other, third = recover('other'), recover('third')
    transfers.ask(db, uuid, 'other')
    one.look()
    until(lambda: outcome)
    assert third.look() == 0
    other._runner.close()
    assert third.look() == 1
    assert 'which is gone' in caplog.text


def test_what_another_one_took_in_between_is_let_go_of_again(
        running, recover, db, url):
    """It had looked before it was asked for."""
    uuid, one, outcome = running
    third, other = recover('third'), recover('other')
    one._runner.held()[uuid].let_go('so that it is free')
    until(lambda: outcome)
    assert third.look() == 1
    until(lambda: third._runner.held())
    transfers.ask(db, uuid, 'other')
    third.look()
    until(lambda: owner(url, uuid) is None)
    assert [third.look(), other.look()] == [0, 1]


def test_the_flow_of_a_dead_owner_goes_where_it_is_wanted(
        recover, process, world, db, url):
    dead = process(flows(world), host='dead')
    job = dead.board.post('short')
    dead.board.claim(job, dead.runner.worker.id)
    third, other = recover('third'), recover('other')
    transfers.ask(db, job.uuid, 'other')
    dead.runner.worker.stop()
    assert [third.look(), other.look()] == [0, 1]


def test_the_last_one_that_was_asked_for_counts(running, recover, db):
    uuid, one, outcome = running
    recover('other'), recover('third')
    transfers.ask(db, uuid, 'other')
    transfers.ask(db, uuid, 'third')
    assert [asked.target for asked in transfers.pending(db).values()] == [
        'third']


# -- what cannot be ---------------------------------------------------------

def test_an_unknown_flow(db):
    with pytest.raises(exception.FlowNotFound, match='no flow nonsense'):
        transfers.ask(db, 'nonsense')


def test_a_flow_that_is_over(process, world, db):
    uuid = process(flows(world)).run('short').uuid
    with pytest.raises(exception.NotTransferable, match='over: SUCCESS'):
        transfers.ask(db, uuid)


def test_a_worker_that_is_not_there(running, db):
    uuid, one, outcome = running
    with pytest.raises(exception.NotTransferable) as caught:
        transfers.ask(db, uuid, 'nobody')
    # It names those that are.
    assert one.me in str(caught.value)
    assert transfers.pending(db) == {}


def test_a_worker_that_is_dead(running, recover, db):
    uuid, one, outcome = running
    other = recover('other')
    other._runner.worker.stop()
    with pytest.raises(exception.NotTransferable, match='other lives'):
        transfers.ask(db, uuid, 'other')


@pytest.mark.parametrize('by', ('worker', 'host'))
def test_where_it_is_already(running, db, by):
    uuid, one, outcome = running
    with pytest.raises(exception.NotTransferable, match='already'):
        transfers.ask(db, uuid, one.me if by == 'worker' else 'one')


def test_nobody_else_lives(running, db):
    uuid, one, outcome = running
    with pytest.raises(exception.NotTransferable, match='other than its'):
        transfers.ask(db, uuid)


def test_what_was_asked_for_flows_that_are_over_is_forgotten(
        running, recover, process, world, db):
    uuid, one, outcome = running
    recover('other')
    transfers.ask(db, uuid, 'other')
    world.up = True
    until(lambda: outcome)          # it was faster
    job = one.process.board.post('short')
    time.sleep(0)
    transfers.ask(db, job.uuid, 'other')
    assert list(transfers.pending(db)) == [job.uuid]
