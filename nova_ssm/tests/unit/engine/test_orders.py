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

"""Flows are had wait, go on, undone, or given up: at each moment."""

import pytest
import sqlalchemy as sa

from nova_ssm.engine import exception
from nova_ssm.engine import orders
from nova_ssm.engine import purge
from nova_ssm.engine import queries
from nova_ssm.engine import recovery
from nova_ssm.engine import runner
from nova_ssm.engine import schema
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.engine import test_stopping

until = test_stopping.until

FLOWS = [examples.simple, examples.branching, examples.retrying,
         examples.near_way, examples.far_way, examples.hopping_once]


class Steered(helpers.World):
    """In which an order is given at one moment, and delivered at once.

    :ivar order_at: the moment
    :ivar given: whether it was given before the flow was over
    """

    verb = orders.CANCEL
    order_at = None
    given = None

    def point(self):
        super().point()
        if self.points == self.order_at:
            self.order()

    def tries(self):
        return sum(call.startswith('fail on') for call in self.calls)

    def order(self):
        held = self.process.runner.held()
        if not held:
            return
        self.before = self.tries()
        [uuid] = held
        try:
            orders.give(self.process.db, uuid, self.verb, 'ann', 'no room')
        except exception.NotSteerable as exc:
            assert 'is over' in str(exc)
            self.given = False
        else:
            self.given = True
            held[uuid].order(self.verb)


def at_each_moment(url, flows, verb, check, kill=None, start=1):
    """Give an order at each moment of a run.

    :param kill: kill the process so many moments later, let another go on
    """
    moment = start
    while True:
        world = Steered()
        world.verb, world.order_at = verb, moment
        world.kill_at = None if kill is None else moment + kill
        one = helpers.Process(url, world, flows(world))
        try:
            outcomes = [one.run()]
        except helpers.Killed:
            world.kill_at = None
            helpers.expire_leases(url)
            outcomes = helpers.Process(url, world, flows(world)).resume_all()
        if world.points < moment:
            assert moment > 5
            return
        if world.given and outcomes:
            check(world, outcomes[-1])
        else:
            assert world.doubled == []
        forget(url)
        moment += 1 if kill is None else 3


def forget(url):
    with helpers.shared(url).transaction() as connection:
        for table in (schema.flows, schema.journal, schema.orders):
            connection.execute(table.delete())




# -- cancel -----------------------------------------------------------------

def undone_or_too_late(url, ends):
    seen = set()

    def check(world, outcome):
        assert world.doubled == []
        assert outcome.state in ('REVERTED', 'SUCCESS')
        assert set(helpers.state_of(url).values()) == {outcome.state}
        seen.add(outcome.state)
        if outcome.state == 'SUCCESS':
            assert sorted(world.effects) == ends
        else:
            assert world.effects == []
            # A try that had failed before is not forgotten.
            assert isinstance(outcome.failure, (exception.FlowCancelled,
                                                examples.Broken))
            if type(outcome.failure) is exception.FlowCancelled:
                check.told = str(outcome.failure)
    check.seen = seen
    return check


def ends_with(url, flows):
    world = helpers.World()
    helpers.Process(url, world, flows(world)).run()
    forget(url)
    return sorted(world.effects)


@pytest.mark.parametrize('flows', FLOWS)
def test_a_flow_is_cancelled_at_each_moment_and_leaves_nothing(url, flows):
    check = undone_or_too_late(url, ends_with(url, flows))
    at_each_moment(url, flows, orders.CANCEL, check)
    assert 'REVERTED' in check.seen
    assert check.told == 'cancelled by an operator: no room'


@pytest.mark.parametrize('kill', [1, 2, 4])
@pytest.mark.parametrize('flows', [examples.simple, examples.branching,
                                   examples.hopping_once])
def test_what_a_dead_owner_was_to_undo_is_undone_by_who_takes_it(
        url, flows, kill):
    check = undone_or_too_late(url, ends_with(url, flows))
    at_each_moment(url, flows, orders.CANCEL, check, kill)
    assert 'REVERTED' in check.seen


def test_the_caller_is_told_that_it_was_cancelled(url):
    world = Steered()
    world.order_at = 2
    outcome = helpers.Process(url, world, examples.simple(world)).run()
    with pytest.raises(exception.FlowCancelled, match='no room'):
        outcome.reraise()


def test_the_type_of_a_flow_says_what_its_callers_are_told(url):
    world = Steered()
    world.order_at = 2
    one = helpers.Process(url, world, examples.simple(world))
    one.retype(cancelled=LookupError)
    outcome = one.run()
    assert repr(outcome.failure) == (
        "LookupError('cancelled by an operator: no room')")


def test_nothing_is_given_up_whose_step_without_return_has_begun(url):
    """Order it while that step is under way, and behind it."""
    answers = set()
    for moment in range(1, 12):
        world = Steered()
        world.order_at = moment
        outcome = helpers.Process(url, world, examples.simple(world)).run()
        order = orders.of(helpers.shared(url), outcome.uuid)
        if 'do b' in world.calls and order is not None and (
                outcome.state == 'SUCCESS'):
            assert world.effects == ['a', 'b', 'c']
            answers.add(order.answer)
    assert ('it cannot be cancelled any more: task b has begun, behind which '
            'there is no way back') in answers


def test_a_flow_is_undone_that_fails_by_itself_when_it_is_cancelled(url):
    def check(world, outcome):
        assert outcome.state == 'REVERTED'
        assert world.effects == []

    at_each_moment(url, examples.failing(examples.branching), orders.CANCEL,
                   check)


def test_a_flow_that_tries_other_hosts_tries_no_more(url):
    """But for the one that it is at."""
    def check(world, outcome):
        assert outcome.state == 'REVERTED'
        assert world.effects == []
        order = orders.of(helpers.shared(url), outcome.uuid)
        if 'no way back' in (order.answer or ''):
            return
        assert world.tries() - world.before <= 1
        left.add(4 - world.tries())

    left = set()
    at_each_moment(url, lambda world: examples.hopping_in_vain(world, 4),
                   orders.CANCEL, check)
    assert left > {1, 2, 3}


def test_a_flow_that_nobody_has_begun_is_undone_all_the_same(
        process, world, db, url):
    one = process(examples.simple(world))
    job = one.board.post('flow')
    orders.give(db, job.uuid, orders.CANCEL, 'ann')
    [outcome] = one.resume_all()
    assert (outcome.state, world.effects) == ('REVERTED', [])
    assert world.count('do a') == 0


# -- pause ------------------------------------------------------------------

@pytest.mark.parametrize('flows', [
    examples.simple, examples.far_way, examples.hopping_once,
    examples.failing(examples.branching)])
def test_a_flow_waits_at_each_moment_and_goes_on_from_there(url, flows):
    world = helpers.World()
    state = helpers.Process(url, world, flows(world)).run().state
    ends = sorted(world.effects)
    forget(url)

    def check(world, outcome):
        if outcome.state == runner.LOST:
            before = list(world.calls)
            orders.resume(helpers.shared(url), outcome.uuid)
            [outcome] = helpers.Process(
                url, world, flows(world)).resume_all()
            assert len(world.calls) >= len(before)
        assert outcome.state == state
        assert sorted(world.effects) == ends
        assert world.doubled == []

    at_each_moment(url, flows, orders.PAUSE, check)


def test_nobody_takes_a_flow_that_is_to_wait(process, world, db, url):
    one = process(examples.simple(world))
    job = one.board.post('flow')
    orders.give(db, job.uuid, orders.PAUSE, 'ann')
    look = recovery.Recovery(one.runner, 'host')
    assert look.look() == 0
    orders.resume(db, job.uuid)
    assert look.look() == 1


def test_who_takes_it_before_the_order_comes_lets_go_again(
        process, world, db, url):
    one = process(examples.simple(world))
    job = one.board.post('flow')
    next_seq = one.board.claim(job, one.runner.worker.id)
    orders.give(db, job.uuid, orders.PAUSE, 'ann')
    outcome = one.runner.resume_claimed(job.uuid, 'flow', next_seq)
    assert outcome.state == runner.LOST
    assert helpers.state_of(url, job.uuid) == ('RUNNING', None)
    assert world.calls == []


# -- kill -------------------------------------------------------------------

def test_a_flow_is_given_up_at_each_moment_and_nothing_is_undone(url):
    def check(world, outcome):
        if outcome.state == 'SUCCESS':
            return      # it came too late
        assert outcome.state == 'KILLED'
        with pytest.raises(exception.FlowKilled, match='ann: no room'):
            outcome.reraise()
        assert not any(call.startswith('undo') for call in world.calls)
        left = queries.flow(helpers.shared(url), outcome.uuid).failure
        for name in world.effects[:-1]:
            assert name in left.rpartition('not undone')[2]

    at_each_moment(url, examples.simple, orders.KILL, check)


def test_a_flow_is_given_up_that_cannot_be_read(process, world, db, url):
    one = process(examples.simple(world))
    job = one.board.post('flow')
    with db.transaction() as connection:
        connection.execute(schema.journal.update().values(
            payload=b'nonsense'))
    look = recovery.Recovery(one.runner, 'host')
    assert look.look() == 0             # nobody can take it
    orders.give(db, job.uuid, orders.KILL, 'ann')
    assert look.look() == 1
    until(lambda: helpers.state_of(url, job.uuid)[0] == 'KILLED')


def test_a_flow_is_given_up_that_nobody_knows(process, world, db, url):
    one = process(examples.simple(world))
    job = one.board.post('flow')
    with db.transaction() as connection:
        connection.execute(schema.flows.update().values(name='strange'))
    look = recovery.Recovery(one.runner, 'host')
    assert look.look() == 0
    orders.give(db, job.uuid, orders.KILL, 'ann')
    look.look()
    until(lambda: helpers.state_of(url, job.uuid)[0] == 'KILLED')


# -- several of them --------------------------------------------------------

def test_an_order_follows_to_the_children_that_were_posted_meanwhile(
        process, world, db, url):
    """The parent has ended before it came to see the order."""
    one = process(examples.parent(world))
    job = one.board.post('flow')
    orders.give(db, job.uuid, orders.CANCEL, 'ann')
    with db.transaction() as connection:
        connection.execute(schema.flows.update().values(
            state='SUCCESS', finished_at=1))
    child = one.board.post('child-0')
    with db.transaction() as connection:
        connection.execute(schema.flows.update().where(
            schema.flows.c.uuid == child.uuid).values(parent_uuid=job.uuid))
    look = recovery.Recovery(one.runner, 'host', concurrency=0)
    look.look()
    assert orders.of(db, job.uuid).answer == 'the flow has ended: SUCCESS'
    assert orders.pending(db)[child.uuid].verb == orders.CANCEL


def test_an_order_for_a_parent_that_is_over_is_one_for_its_children(
        process, world, db):
    one = process(examples.parent(world))
    parent, child = one.board.post('flow'), one.board.post('child-0')
    with db.transaction() as connection:
        connection.execute(schema.flows.update().where(
            schema.flows.c.uuid == child.uuid).values(
                parent_uuid=parent.uuid))
        connection.execute(schema.flows.update().where(
            schema.flows.c.uuid == parent.uuid).values(
                state='SUCCESS', finished_at=1))
    assert orders.give(db, parent.uuid, orders.PAUSE, 'ann') == [child.uuid]
    assert orders.resume(db, parent.uuid) == [child.uuid]
    assert orders.pending(db) == {}


@pytest.mark.parametrize('first,second,taken', [
    ('pause', 'pause', 'has this order already, of ann'),
    ('pause', 'cancel', None), ('pause', 'kill', None),
    ('cancel', 'pause', 'is to be cancelled, as ordered by ann'),
    ('cancel', 'cancel', 'has this order already, of ann'),
    ('cancel', 'kill', None),
    ('kill', 'pause', 'is to be killed'), ('kill', 'cancel', 'be killed'),
    ('kill', 'kill', 'has this order already, of ann')])
def test_which_order_replaces_which(process, world, db, first, second, taken):
    uuid = process(examples.simple(world)).board.post('flow').uuid
    orders.give(db, uuid, first, 'ann')
    if taken is None:
        orders.give(db, uuid, second, 'bob')
        assert orders.of(db, uuid).verb == second
        return
    with pytest.raises(exception.NotSteerable, match=taken):
        orders.give(db, uuid, second, 'bob')
    assert orders.of(db, uuid).verb == first


def test_two_that_come_at_once(process, world, db, own_db):
    uuid = process(examples.simple(world)).board.post('flow').uuid
    original = orders._put

    def put(connection, *args):
        # The other one's is there before it is ours to say so.
        connection.execute(schema.orders.insert().values(
            flow_uuid=uuid, verb='pause', asked_by='bob', asked_at=1))
        connection.execute(schema.orders.insert().values(
            flow_uuid=uuid, verb='pause', asked_by='ann', asked_at=1))

    orders._put = put
    try:
        with pytest.raises(exception.NotSteerable, match='at the same time'):
            orders.give(own_db, uuid, 'cancel', 'ann')
    finally:
        orders._put = original


@pytest.mark.parametrize('verb', ['pause', 'cancel', 'kill'])
def test_what_is_over_obeys_nobody(process, world, db, verb):
    uuid = process(examples.simple(world)).run().uuid
    with pytest.raises(exception.NotSteerable, match='is over: SUCCESS'):
        orders.give(db, uuid, verb, 'ann')
    with pytest.raises(exception.NotSteerable, match='is over: SUCCESS'):
        orders.resume(db, uuid)


def test_what_is_not_there(db):
    for give in (lambda: orders.give(db, 'none', 'kill', 'ann'),
                 lambda: orders.resume(db, 'none')):
        with pytest.raises(exception.FlowNotFound):
            give()


def test_who_is_not_to_wait_is_not_let_go_on(process, world, db):
    uuid = process(examples.simple(world)).board.post('flow').uuid
    with pytest.raises(exception.NotSteerable, match='was not paused$'):
        orders.resume(db, uuid)
    orders.give(db, uuid, 'cancel', 'ann')
    with pytest.raises(exception.NotSteerable, match='order to cancel it'):
        orders.resume(db, uuid)


def test_an_order_goes_with_its_flow_when_that_is_purged(process, world, db):
    one = process(examples.simple(world))
    uuid = one.board.post('flow').uuid
    orders.give(db, uuid, 'cancel', 'ann')
    one.resume_all()
    assert sum(purge.batches(db, purge.Ages(-10, -10))) == 1
    with db.transaction() as connection:
        assert connection.execute(sa.select(
            sa.func.count()).select_from(schema.orders)).scalar() == 0
