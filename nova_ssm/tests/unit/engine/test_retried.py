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

"""Flows that have failed are tried again, when people have mended it."""

import pytest

from nova_ssm.engine import exception
from nova_ssm.engine import orders
from nova_ssm.engine import purge
from nova_ssm.engine import queries
from nova_ssm.engine import recovery
from nova_ssm.engine import retries
from nova_ssm.engine import schema
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.engine import test_stopping


def stuck(world, at='a', flows=examples.branching):
    """A flow that fails, one task of which cannot be undone."""
    made = examples.failing(flows)(world)
    world.failing['undo ' + at] = ValueError('placement is away')
    return made


# -- what could not be undone -------------------------------------------------

@pytest.mark.parametrize('at', ['a', 'b', 'c'])
@pytest.mark.parametrize('flows', [examples.branching, examples.simple])
def test_it_is_undone_from_where_that_failed(process, world, db, url, at,
                                             flows):
    one = process(stuck(world, at, flows))
    outcome = one.run()
    assert outcome.state == 'FAILURE'
    assert world.effects
    del world.failing['undo ' + at]
    before = list(world.calls)
    assert retries.retry(db, outcome.uuid, 'ann') == 'FAILURE'
    [again] = one.resume_all()
    assert (again.state, world.effects) == ('REVERTED', [])
    # It is the failure of the flow, not that of undoing it.
    assert type(again.failure) is examples.Broken
    assert queries.flow(db, outcome.uuid).failure.startswith('c: Broken')
    # Nothing is done again.
    assert not any(call.startswith('do') for call in
                   world.calls[len(before):])


def test_it_may_fail_again_and_be_tried_again(process, world, db):
    one = process(stuck(world))
    uuid = one.run().uuid
    for _try in range(2):
        retries.retry(db, uuid, 'ann')
        [again] = one.resume_all()
        assert again.state == 'FAILURE'
        assert 'undoing a: ValueError: placement is away' in (
            queries.flow(db, uuid).failure)
    del world.failing['undo a']
    retries.retry(db, uuid, 'ann')
    [again] = one.resume_all()
    assert (again.state, world.effects) == ('REVERTED', [])


def test_who_undoes_it_again_may_die_at_each_moment(url):
    moment = 0
    while True:
        moment += 1
        world = helpers.World()
        one = helpers.Process(url, world, stuck(world, 'a'))
        uuid = one.run().uuid
        del world.failing['undo a']
        retries.retry(one.db, uuid, 'ann')
        world.kill_at = world.points + moment
        try:
            one.resume_all()
        except helpers.Killed:
            pass
        else:
            break
        world.kill_at = None
        helpers.expire_leases(url)
        helpers.Process(url, world, examples.failing(examples.branching)(
            world)).resume_all()
        assert helpers.state_of(url, uuid)[0] == 'REVERTED'
        assert world.effects == []
    assert moment > 3


# -- what was reverted --------------------------------------------------------

def test_it_is_begun_again_with_what_it_was_given(process, world, db):
    one = process(examples.failing(examples.branching)(world))
    uuid = one.run(number=7).uuid
    del world.failing['do c']
    given = []
    one.retype(again=given.append)
    retries.retry(db, uuid, 'ann')
    [again] = one.resume_all()
    assert again.state == 'SUCCESS'
    assert sorted(world.effects) == ['a', 'b', 'c', 'd']
    assert [inputs['number'] for inputs in given] == [7]
    assert queries.flow(db, uuid).failure is None


def test_who_begins_it_again_may_die_at_each_moment(url):
    moment = 0
    while True:
        moment += 1
        world = helpers.World()
        one = helpers.Process(
            url, world, examples.failing(examples.simple)(world))
        uuid = one.run().uuid
        del world.failing['do c']
        one.retype(again=lambda given: None)
        retries.retry(one.db, uuid, 'ann')
        world.kill_at = world.points + moment
        try:
            one.resume_all()
        except helpers.Killed:
            pass
        else:
            break
        world.kill_at = None
        helpers.expire_leases(url)
        other = helpers.Process(url, world, examples.simple(world))
        other.retype(again=lambda given: None)
        other.resume_all()
        assert helpers.state_of(url, uuid)[0] == 'SUCCESS'
        assert world.effects == ['a', 'b', 'c']
        assert world.doubled == []
    assert moment > 5


def test_it_is_given_what_is_new_each_time(process, world, db):
    """Of a name that was used up, say; the same for all who go on with it."""
    seen = []
    one = process(examples.failing(examples.simple)(world))
    uuid = one.run(number=7).uuid
    one.retype(again=lambda given: seen.append(given['number']),
               renewed=lambda given, number: {
                   'number': given['number'] + 10 * number})
    for _try in range(3):
        retries.retry(db, uuid, 'ann')
        [outcome] = one.resume_all()
        assert outcome.state == 'REVERTED'
    assert seen == [17, 27, 37]


def test_who_goes_on_with_it_is_given_the_same(url):
    world = helpers.World()
    one = helpers.Process(url, world, examples.failing(examples.simple)(world))
    uuid = one.run(number=7).uuid
    del world.failing['do c']
    seen = []

    def renewed(given, number):
        seen.append((given['number'], number))
        return {'number': 8}

    one.retype(again=lambda given: None, renewed=renewed)
    retries.retry(one.db, uuid, 'ann')
    world.kill_at = world.points + 6
    with pytest.raises(helpers.Killed):
        one.resume_all()
    world.kill_at = None
    helpers.expire_leases(url)
    other = helpers.Process(url, world, examples.simple(world))
    other.retype(again=lambda given: None, renewed=renewed)
    [outcome] = other.resume_all()
    assert outcome.state == 'SUCCESS'
    assert outcome.results['number'] == 8
    assert seen == [(7, 1), (7, 1)]


def test_what_is_undone_further_is_not_given_anything_new(process, world, db):
    one = process(stuck(world))
    uuid = one.run(number=7).uuid
    del world.failing['undo a']
    asked = []
    one.retype(renewed=lambda given, number: asked.append(number) or {})
    retries.retry(db, uuid, 'ann')
    one.resume_all()
    assert asked == []


def test_it_is_reverted_at_once_if_the_world_has_changed(process, world, db):
    def again(given):
        raise ValueError('the server was deleted')

    one = process(examples.failing(examples.simple)(world))
    uuid = one.run().uuid
    one.retype(again=again)
    retries.retry(db, uuid, 'ann')
    before = list(world.calls)
    [outcome] = one.resume_all()
    assert (outcome.state, world.calls) == ('REVERTED', before)
    assert 'the server was deleted' in queries.flow(db, uuid).failure


def test_it_is_reverted_at_once_if_it_cannot_be_begun_again(
        process, world, db):
    one = process(examples.failing(examples.simple)(world))
    uuid = one.run().uuid
    retries.retry(db, uuid, 'ann')
    [outcome] = one.resume_all()
    assert outcome.state == 'REVERTED'
    assert 'but by a new request' in queries.flow(db, uuid).failure


def test_it_may_be_cancelled_before_it_has_begun_again(process, world, db):
    one = process(examples.failing(examples.simple)(world))
    uuid = one.run().uuid
    one.retype(again=lambda given: None)
    retries.retry(db, uuid, 'ann')
    # What is said of an order before is no order.
    assert not orders.of(db, uuid).open
    orders.give(db, uuid, orders.CANCEL, 'bob')
    [outcome] = one.resume_all()
    assert (outcome.state, world.effects) == ('REVERTED', [])
    assert isinstance(outcome.failure, exception.FlowCancelled)


# -- what is not tried again --------------------------------------------------

def refusal(db, uuid, *args):
    with pytest.raises(exception.NotSteerable) as caught:
        retries.retry(db, uuid, 'ann', *args)
    return str(caught.value)


def test_what_has_succeeded(process, world, db):
    uuid = process(examples.simple(world)).run().uuid
    assert 'it has succeeded' in refusal(db, uuid)


def test_what_is_under_way(process, world, db):
    one = process(examples.simple(world))
    job = one.board.post('flow')
    assert 'tried again by itself' in refusal(db, job.uuid)
    one.board.claim(job, one.runner.worker.id)
    assert 'it is not over' in refusal(db, job.uuid)


def test_what_was_given_up(process, world, db):
    one = process(examples.simple(world))
    job = one.board.post('flow')
    orders.give(db, job.uuid, orders.KILL, 'ann')
    one.resume_all()
    assert 'it was given up' in refusal(db, job.uuid)


def test_what_is_not_there(db):
    with pytest.raises(exception.FlowNotFound):
        retries.retry(db, 'none', 'ann')


def test_what_another_flow_works_on_now(process, world, db):
    one = process(stuck(world))
    uuid, other = one.run().uuid, one.board.post('flow').uuid
    with db.transaction() as connection:
        connection.execute(schema.flows.update().values(subject='server'))
    assert other in refusal(db, uuid)


def test_what_cannot_be_begun_again(process, world, db):
    uuid = process(examples.failing(examples.simple)(world)).run().uuid
    assert refusal(
        db, uuid, lambda name, version: '%s %s does not' % (name, version)
    ).endswith('cannot be tried again: flow 1.0 does not')
    assert helpers.state_of(db.url, uuid)[0] == 'REVERTED'


def test_two_try_it_at_once(process, world, db):
    one = process(stuck(world))
    uuid = one.run().uuid
    retries.retry(db, uuid, 'ann')
    assert 'it is not over' in refusal(db, uuid)


def test_what_is_tried_again_is_not_purged(process, world, db):
    """It was old enough a moment ago."""
    one = process(stuck(world))
    uuid = one.run().uuid
    purging = purge.batches(db, purge.Ages(-10, -10))
    original = purge._with_parents

    def meanwhile(db, rows):
        retries.retry(db, uuid, 'ann')
        return original(db, rows)

    purge._with_parents = meanwhile
    try:
        assert sum(purging) == 0
    finally:
        purge._with_parents = original
    assert len(queries.steps(db, uuid)) > 3
    del world.failing['undo a']
    look = recovery.Recovery(one.runner, 'host')
    assert look.look() == 1
    test_stopping.until(
        lambda: helpers.state_of(db.url, uuid)[0] == 'REVERTED')
