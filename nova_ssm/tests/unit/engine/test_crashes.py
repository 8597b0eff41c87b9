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

"""Flows that are killed anywhere, and resumed."""

import pytest

from nova_ssm.engine import exception
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.engine import task
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

Do, Read = helpers.Do, helpers.Read


# -- killed anywhere -------------------------------------------------------

def kill_everywhere(url, flows, check, again=False):
    """Kill a process at each moment, and let another one go on.

    :param again: kill the second one too, and let a third one go on
    """
    moments = 0
    while True:
        # Two kills are tried at every other moment, to save time.
        moments += 2 if again else 1
        world = helpers.World()
        world.kill_at = moments
        try:
            helpers.Process(url, world, flows(world)).run()
        except helpers.Killed:
            assert world.points == moments
        else:
            assert moments > 5, 'there was hardly a moment to be killed in'
            return
        if again:
            world.kill_at = world.points + 2 + moments % 5
            helpers.expire_leases(url)
            try:
                helpers.Process(url, world, flows(world)).resume_all()
            except helpers.Killed:
                pass
        world.kill_at = None
        helpers.expire_leases(url)
        outcomes = helpers.Process(url, world, flows(world)).resume_all()
        check(world, outcomes)


@pytest.mark.parametrize('again', [False, True])
@pytest.mark.parametrize('flows', [
    examples.simple, examples.branching, examples.retrying, examples.parent,
    examples.near_way, examples.far_way, examples.hopping_once,
    examples.deferring, examples.deferring_twice])
def test_a_killed_flow_is_finished_once(url, flows, again):
    def check(world, outcomes):
        assert set(helpers.state_of(url).values()) == {'SUCCESS'}
        assert world.doubled == []
        assert sorted(world.effects) == whole
        assert len(examples.ways(world)) < 2

    whole = sorted(ends_with(url, flows))
    kill_everywhere(url, flows, check, again)


@pytest.mark.parametrize('again', [False, True])
@pytest.mark.parametrize('flows', [
    examples.failing(examples.simple), examples.failing(examples.branching),
    examples.failing(examples.near_way), examples.failing(examples.far_way),
    examples.failing(examples.deferring)])
def test_a_killed_flow_that_fails_is_undone_wholly(url, flows, again):
    def check(world, outcomes):
        assert set(helpers.state_of(url).values()) <= {'REVERTED'}
        assert world.doubled == []
        assert world.effects == []
        assert len(examples.ways(world)) < 2
        for outcome in outcomes:
            assert outcome.failed_task == 'c'
            failure = outcome.failure
            assert type(failure) is examples.Broken
            assert str(failure) == 'compute is broken'
            assert (failure.host, failure.code) == ('compute', 7)

    kill_everywhere(url, flows, check, again)


def ends_with(url, flows):
    world = helpers.World()
    helpers.Process(url, world, flows(world)).run()
    return world.effects


def test_a_failure_keeps_its_traceback_when_the_flow_is_resumed(
        process, world, url):
    one = process(examples.failing(examples.simple)(world))
    world.failing['undo b'] = helpers.Killed()
    with pytest.raises(helpers.Killed):
        one.db.dead = False
        one.run()
    del world.failing['undo b']
    helpers.expire_leases(url)
    [outcome] = process(examples.failing(examples.simple)(world)).resume_all()
    assert outcome.state == 'REVERTED'
    assert isinstance(outcome.failure.__cause__, exception.RemoteTraceback)
    assert 'self.world.call(' in str(outcome.failure.__cause__)


def test_only_what_began_for_certain_is_recovered_if_it_runs_once(
        process, world, url):
    one = process(examples.simple(world))
    world.kill_at = 4       # before b said that it begins
    with pytest.raises(helpers.Killed):
        one.run()
    helpers.expire_leases(url)
    process(examples.simple(world)).resume_all()
    assert world.effects == ['a', 'b', 'c']
    # Nor has c, since b would have left a row.
    assert 'recover b' not in world.calls
    assert 'recover c' not in world.calls


def test_what_may_have_begun_is_recovered(process, world, url):
    one = process(examples.simple(world))
    world.kill_at = 9       # behind the row of b, before c
    with pytest.raises(helpers.Killed):
        one.run()
    helpers.expire_leases(url)
    process(examples.simple(world)).resume_all()
    assert 'recover c' in world.calls
    assert 'recover a' not in world.calls


def test_the_second_attempt_of_a_task_that_runs_once_is_seen_too(
        process, world, url):
    flows = examples.retrying(world)
    one = process(flows)
    original = world.make

    def make(name):
        original(name)
        if name == 'o' and world.count('do o') == 2:
            one.kill()

    world.make = make
    with pytest.raises(helpers.Killed):
        one.run()
    world.make = original
    helpers.expire_leases(url)
    process(flows).resume_all()
    assert world.doubled == []
    assert 'recover o' in world.calls


def test_what_may_have_begun_is_undone_when_a_look_before_it_fails(
        process, world, url):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), Read('r', world), Do('b', world), Do('c', world))}
    one = process(flows)
    original = world.make

    def make(name):
        original(name)
        if name == 'b':
            one.kill()

    world.make = make
    with pytest.raises(helpers.Killed):
        one.run()
    assert world.effects == ['a', 'b']
    world.failing['read r'] = examples.Broken('gone', code=1)
    helpers.expire_leases(url)
    [outcome] = process(flows).resume_all()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'r')
    assert world.effects == []
    assert 'undo c' not in world.calls


class NeedsRead(Do):
    """Cannot be undone without what was read."""

    def revert(self, r, **kwargs):
        super().revert()


class ReadsTwo(Read):

    default_provides = ('r', 's')

    def __init__(self, name, world):
        task.Task.__init__(self, name=name)
        self.world = world


@pytest.mark.parametrize('reads', [Read, ReadsTwo])
def test_what_cannot_be_undone_for_want_of_its_inputs_stops_nothing(
        process, world, url, reads):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), reads('r', world), NeedsRead('b', world))}
    world.kill_at = 6       # before b
    with pytest.raises(helpers.Killed):
        process(flows).run()
    world.failing['read r'] = examples.Broken('gone', code=1)
    helpers.expire_leases(url)
    [outcome] = process(flows).resume_all()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'r')
    assert 'undo b' not in world.calls


def test_every_task_bears_to_run_twice_and_to_be_undone_twice(world):
    for name in ('a', 'b'):
        made = Do(name, world)
        made.execute()
        made.recover()
        assert world.doubled == []
        made.revert()
        made.revert()
    assert world.effects == []


def test_a_posted_flow_is_run_by_whoever_claims_it(process, world):
    one = process(examples.simple(world))
    one.board.post('flow')
    [outcome] = one.resume_all()
    assert outcome.state == 'SUCCESS'
    assert world.effects == ['a', 'b', 'c']


# -- secrets ---------------------------------------------------------------

@pytest.mark.parametrize('keys', [(), (helpers.KEY,)])
def test_without_its_secret_an_interrupted_flow_reverts(
        process, world, url, keys):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), Read('r', world), examples.UsesPassword('b', world),
        Do('c', world))}
    world.kill_at = 7       # b is made, which nobody wrote down
    with pytest.raises(helpers.Killed):
        process(flows, keys=keys).run(
            password=serialization.Secret('tiger'))
    assert world.effects == ['a', 'b']
    helpers.expire_leases(url)
    [outcome] = process(flows, keys=keys).resume_all()
    if keys:
        assert outcome.state == 'SUCCESS'
        assert world.effects == ['a', 'b', 'c']
        return
    assert outcome.state == 'REVERTED'
    assert isinstance(outcome.failure, exception.SecretUnavailable)
    assert 'encryption_keys was empty' in str(outcome.failure)
    assert world.effects == []


def test_a_flow_that_is_done_needs_its_secret_no_more(process, world, url):
    flows = {'flow': lambda: helpers.linear(Do('a', world))}
    process(flows, keys=()).run(password=serialization.Secret('tiger'))
    # The first releases wrote the end by itself, and may have died before.
    with helpers.shared(url).transaction() as connection:
        connection.execute(schema.journal.delete().where(
            schema.journal.c.kind == 'end'))
        connection.execute(schema.flows.update().values(
            state='RUNNING', owner='dead', finished_at=None))
    [outcome] = process(flows, keys=()).resume_all()
    assert outcome.state == 'SUCCESS'


def test_what_needs_no_secret_any_more_goes_on_without(process, world, url):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), examples.UsesPassword('b', world), Do('c', world))}
    world.kill_at = 7       # behind the row of b
    with pytest.raises(helpers.Killed):
        process(flows, keys=()).run(password=serialization.Secret('tiger'))
    assert world.effects == ['a', 'b']
    helpers.expire_leases(url)
    [outcome] = process(flows, keys=()).resume_all()
    assert outcome.state == 'SUCCESS'
    assert world.effects == ['a', 'b', 'c']


class Gives(Do):
    """Provides a secret."""

    def execute(self, **kwargs):
        super().execute(**kwargs)
        return serialization.Secret('lion')


class Takes(Do):

    def execute(self, given, **kwargs):
        return super().execute()


@pytest.mark.parametrize('keys, ends', [
    ((), 'REVERTED'), ((helpers.KEY,), 'SUCCESS')])
def test_a_secret_that_a_task_gave_may_be_lost_too(
        process, world, url, keys, ends):
    flows = {'flow': lambda: helpers.linear(
        Gives('a', world), Do('b', world),
        Takes('c', world, rebind={'given': 'a'}))}
    world.kill_at = 6       # before b is made
    with pytest.raises(helpers.Killed):
        process(flows, keys=keys).run()
    helpers.expire_leases(url)
    [outcome] = process(flows, keys=keys).resume_all()
    assert outcome.state == ends
    if not keys:
        assert 'task c needs (in a)' in str(outcome.failure)
        assert world.count('do b') == 1, 'nothing is begun'
        assert world.effects == []
