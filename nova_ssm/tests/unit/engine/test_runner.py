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

"""Flows that run, fail, are killed anywhere, and are resumed."""

import datetime

from oslo_db import exception as db_exc
import pytest
from taskflow.patterns import linear_flow
from taskflow.patterns import unordered_flow
from taskflow import retry
from taskflow import task as taskflow_task

from nova_ssm.engine import exception
from nova_ssm.engine import queries
from nova_ssm.engine import runner
from nova_ssm.engine import serialization
from nova_ssm.engine import task
from nova_ssm.tests.unit.engine import helpers

Do, Once, Read = helpers.Do, helpers.Once, helpers.Read


class Broken(Exception):
    """What the tasks of these tests raise."""

    def __init__(self, host, *, code):
        super().__init__('%s is broken' % host)
        self.host = host
        self.code = code


def simple(world):
    """A task of each kind."""
    return {'flow': lambda: helpers.linear(
        Do('a', world), Read('r', world), Once('b', world), Read('s', world),
        Do('c', world))}


def branching(world):
    """Tasks side by side, with one after them."""
    return {'flow': lambda: helpers.linear(
        Do('a', world), unordered_flow.Flow('sides').add(
            Do('b', world), Do('c', world), Read('r', world)),
        Do('d', world))}


def retrying(world):
    """A part that is tried three times."""
    return {'flow': lambda: helpers.linear(
        Do('a', world),
        linear_flow.Flow('again', retry=retry.Times(3, name='times')).add(
            Read('r', world), Do('b', world), Once('o', world),
            FailsTwice('c', world)))}


def parent(world):
    return {'flow': lambda: helpers.linear(
                Do('p', world), helpers.Spawn('spawn', world)),
            'child-0': lambda: helpers.linear(Do('k', world)),
            'child-1': lambda: helpers.linear(Do('l', world))}


class FailsTwice(Do):
    """Counts in the world how often it was undone."""

    def execute(self, **kwargs):
        if self.world.count('undo b') < 2:
            raise Broken('compute', code=1)
        return super().execute(**kwargs)


class Unserializable(Do):

    def execute(self, **kwargs):
        super().execute(**kwargs)
        return object()


def failing(flows):
    """The same flows, the last task of which fails."""
    def make(world):
        world.failing['do c'] = Broken('compute', code=7)
        return flows(world)
    return make


@pytest.fixture
def process(url, world):
    def make(flows, **kwargs):
        return helpers.Process(url, world, flows, **kwargs)
    return make


# -- without an accident ---------------------------------------------------

def test_a_flow_runs_its_tasks_in_order_and_gives_their_results(
        process, world, url):
    outcome = process(simple(world)).run()
    assert outcome.state == 'SUCCESS'
    assert world.calls == ['do a', 'read r', 'do b', 'read s', 'do c']
    assert outcome.results['c'] == 'made c'
    assert outcome.results['r'] == 'read r'
    assert helpers.state_of(url, outcome.uuid) == ('SUCCESS', None)


def test_a_failure_undoes_what_was_done_last_thing_first(
        process, world, url):
    outcome = process(failing(simple)(world)).run()
    assert outcome.state == 'REVERTED'
    assert world.calls[-3:] == ['undo c', 'undo b', 'undo a']
    assert world.effects == []
    assert helpers.state_of(url, outcome.uuid) == ('REVERTED', None)


def test_the_failure_is_raised_as_the_task_raised_it(process, world):
    outcome = process(failing(simple)(world)).run()
    assert outcome.failed_task == 'c'
    assert outcome.failure is world.failing['do c']
    with pytest.raises(Broken, match='compute is broken'):
        outcome.reraise()


def test_a_task_that_cannot_be_undone_leaves_a_case_for_people(
        process, world, url):
    one = process(failing(simple)(world))
    world.failing['undo b'] = RuntimeError('no')
    outcome = one.run()
    assert outcome.state == 'FAILURE'
    assert outcome.failed_task == 'c'
    assert world.effects == ['a', 'b']
    info = queries.flow(one.db, outcome.uuid)
    assert info.failure == 'c: Broken: compute is broken'


def test_a_subflow_is_tried_again(process, world):
    outcome = process(retrying(world)).run()
    assert outcome.state == 'SUCCESS'
    assert outcome.failure is None
    assert world.effects == ['a', 'b', 'o', 'c']
    assert world.count('do b') == 3


def test_children_run_after_their_parent(process, world, url):
    outcome = process(parent(world)).run()
    assert [child.state for child in outcome.children] == ['SUCCESS'] * 2
    assert world.effects == ['p', 'k', 'l']
    assert set(helpers.state_of(url).values()) == {'SUCCESS'}


def test_the_failure_of_a_child_leaves_its_sisters_alone(process, world):
    world.failing['do k'] = Broken('compute', code=1)
    outcome = process(parent(world)).run()
    assert [child.state for child in outcome.children] == [
        'REVERTED', 'SUCCESS']
    assert world.effects == ['p', 'l']
    with pytest.raises(Broken):
        outcome.reraise()


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
@pytest.mark.parametrize('flows', [simple, branching, retrying, parent])
def test_a_killed_flow_is_finished_once(url, flows, again):
    def check(world, outcomes):
        assert set(helpers.state_of(url).values()) == {'SUCCESS'}
        assert world.doubled == []
        assert sorted(world.effects) == whole

    whole = sorted(ends_with(url, flows))
    kill_everywhere(url, flows, check, again)


@pytest.mark.parametrize('again', [False, True])
@pytest.mark.parametrize('flows', [failing(simple), failing(branching)])
def test_a_killed_flow_that_fails_is_undone_wholly(url, flows, again):
    def check(world, outcomes):
        assert set(helpers.state_of(url).values()) <= {'REVERTED'}
        assert world.doubled == []
        assert world.effects == []
        for outcome in outcomes:
            assert outcome.failed_task == 'c'
            failure = outcome.failure
            assert type(failure) is Broken
            assert str(failure) == 'compute is broken'
            assert (failure.host, failure.code) == ('compute', 7)

    kill_everywhere(url, flows, check, again)


def ends_with(url, flows):
    world = helpers.World()
    helpers.Process(url, world, flows(world)).run()
    return world.effects


def test_a_failure_keeps_its_traceback_when_the_flow_is_resumed(
        process, world, url):
    one = process(failing(simple)(world))
    world.failing['undo b'] = helpers.Killed()
    with pytest.raises(helpers.Killed):
        one.db.dead = False
        one.run()
    del world.failing['undo b']
    helpers.expire_leases(url)
    [outcome] = process(failing(simple)(world)).resume_all()
    assert outcome.state == 'REVERTED'
    assert isinstance(outcome.failure.__cause__, exception.RemoteTraceback)
    assert 'self.world.call(' in str(outcome.failure.__cause__)


def test_only_what_began_for_certain_is_recovered_if_it_runs_once(
        process, world, url):
    one = process(simple(world))
    world.kill_at = 4       # before b said that it begins
    with pytest.raises(helpers.Killed):
        one.run()
    helpers.expire_leases(url)
    process(simple(world)).resume_all()
    assert 'recover b' not in world.calls
    assert 'recover c' in world.calls


def test_the_second_attempt_of_a_task_that_runs_once_is_seen_too(
        process, world, url):
    flows = retrying(world)
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
    world.failing['read r'] = Broken('gone', code=1)
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
    world.failing['read r'] = Broken('gone', code=1)
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
    one = process(simple(world))
    one.board.post('flow')
    [outcome] = one.resume_all()
    assert outcome.state == 'SUCCESS'
    assert world.effects == ['a', 'b', 'c']


# -- secrets ---------------------------------------------------------------

class UsesPassword(Do):

    def execute(self, password, **kwargs):
        self.world.calls.append('password %s'
                                % serialization.reveal(password))
        return super().execute()


@pytest.mark.parametrize('keys', [(), (helpers.KEY,)])
def test_without_its_secret_an_interrupted_flow_reverts(
        process, world, url, keys):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), Read('r', world), UsesPassword('b', world),
        Do('c', world))}
    world.kill_at = 9       # b is made, which nobody wrote down
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
    world.kill_at = 4       # behind the row of a
    with pytest.raises(helpers.Killed):
        process(flows, keys=()).run(password=serialization.Secret('tiger'))
    helpers.expire_leases(url)
    [outcome] = process(flows, keys=()).resume_all()
    assert outcome.state == 'SUCCESS'


# -- ownership -------------------------------------------------------------

def test_who_was_paused_and_lost_its_flow_does_nothing_more(
        process, world, url):
    """Also if its lease is renewed before it looks."""
    flows = simple(world)
    one = process(flows)
    original = world.make

    def make(name):
        original(name)
        if name == 'a' and one.world.process is one:
            # Here it is paused, and wakes up after this.
            helpers.expire_leases(url)
            process(flows).resume_all()
            one.runner.worker.renew()
            del world.calls[:]

    world.make = make
    outcome = one.run()
    assert outcome.state == runner.LOST
    assert world.calls == []
    assert world.effects == ['a', 'b', 'c']
    assert world.doubled == []
    assert helpers.state_of(url, outcome.uuid) == ('SUCCESS', None)


def test_who_was_paused_between_two_steps_begins_no_other(
        process, world, url):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), Read('r', world), Do('b', world))}
    one = process(flows)
    original = world.call

    def call(what):
        original(what)
        if what == 'read r' and world.process is one:
            helpers.expire_leases(url)
            process(flows).resume_all()
            one.runner.worker.renew()
            del world.calls[:]

    world.call = call
    assert one.run().state == runner.LOST
    assert world.calls == []
    assert world.doubled == []


def test_who_was_paused_goes_on_if_nobody_took_the_flow(process, world, url):
    one = process(simple(world))
    original = world.make

    def make(name):
        original(name)
        helpers.expire_leases(url)
        one.runner.worker._renewed -= 1000

    world.make = make
    assert one.run().state == 'SUCCESS'
    assert world.effects == ['a', 'b', 'c']


def test_a_parent_that_was_taken_away_does_not_take_its_children_with_it(
        process, world, url):
    one = process(parent(world))

    def after_commit(uuid, kind, atom, state):
        if atom == 'spawn':
            job = one.board.get(uuid)
            one.board.abandon(job, one.runner.worker.id)

    one.runner.after_commit = after_commit
    outcome = one.run()
    assert outcome.state == runner.LOST
    assert [child.state for child in outcome.children] == ['SUCCESS'] * 2
    [resumed] = process(parent(world)).resume_all()
    assert resumed.state == 'SUCCESS'
    assert world.doubled == []


def test_a_stopped_runner_hands_its_flows_over_at_their_next_step(
        process, world, url):
    flows = simple(world)
    one = process(flows)
    original = world.make

    def make(name):
        original(name)
        if name == 'a':
            one.runner.worker.suspend()

    world.make = make
    outcome = one.run()
    assert outcome.state == runner.LOST
    assert helpers.state_of(url, outcome.uuid) == ('RUNNING', None)
    one.runner.close()
    process(flows).resume_all()
    assert world.effects == ['a', 'b', 'c']
    assert world.doubled == []
    assert 'recover a' not in world.calls


def test_closing_waits_for_the_step_that_is_under_way(process, world, db):
    one = process(simple(world))
    original = world.make

    def make(name):
        original(name)
        if name == 'a':
            # As if another thread closed it while we are in this step.
            one.runner.close(patience=0)

    world.make = make
    assert one.run().state == runner.LOST
    # The lease is not given back: nobody may take the flow at that moment.
    with db.transaction() as connection:
        assert connection.exec_driver_sql(
            'SELECT count(*) FROM ssm_workers').scalar() == 1


# -- what else may go wrong ------------------------------------------------

def test_a_task_that_ends_with_its_thread_leaves_the_flow_to_others(
        process, world, url):
    one = process(simple(world))
    world.failing['do c'] = SystemExit(1)
    with pytest.raises(SystemExit):
        one.run()
    del world.failing['do c']
    assert world.effects == ['a', 'b']
    [outcome] = process(simple(world)).resume_all()
    assert outcome.state == 'SUCCESS'
    assert world.effects == ['a', 'b', 'c']


def test_a_result_that_cannot_be_journaled_is_the_failure_of_its_task(
        process, world, url):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), Unserializable('b', world), Do('c', world))}
    outcome = process(flows).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'b')
    assert isinstance(outcome.failure, exception.NotSerializable)
    assert world.effects == []
    assert 'do c' not in world.calls


def test_an_unordered_part_is_undone_wholly_if_one_result_is_bad(
        process, world):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), unordered_flow.Flow('sides').add(
            Unserializable('b', world), Do('c', world), Do('d', world)))}
    outcome = process(flows).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'b')
    assert world.effects == []


def test_a_child_that_cannot_be_journaled_is_the_failure_of_its_parent(
        process, world, url):
    class Bad(helpers.Spawn):
        def execute(self):
            children = super().execute()
            children[1].store['x'] = object()
            return children

    flows = {**parent(world), 'flow': lambda: helpers.linear(
        Do('p', world), Bad('spawn', world))}
    outcome = process(flows).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'spawn')
    assert helpers.state_of(url) == {'flow': 'REVERTED'}
    assert world.effects == []


def test_an_input_that_cannot_be_journaled_begins_nothing(process, url):
    with pytest.raises(exception.NotSerializable):
        process({'flow': helpers.linear}).run(x=object())
    assert helpers.state_of(url) == {}


def test_a_graph_that_cannot_run_is_over_at_once(process, world):
    flows = {'flow': lambda: helpers.linear(UsesPassword('b', world))}
    outcome = process(flows).run()
    assert outcome.state == 'REVERTED'
    assert 'password' in str(outcome.failure)
    assert world.calls == []


def test_a_resumed_graph_that_cannot_run_stays_as_it_is(
        process, world, url):
    world.kill_at = 6
    with pytest.raises(helpers.Killed):
        process(simple(world)).run()
    helpers.expire_leases(url)
    other = process({'flow': lambda: helpers.linear(
        UsesPassword('b', world))})
    [job] = other.board.iterjobs(only_unclaimed=True)
    with pytest.raises(Exception, match='password'):
        other.runner.resume(job)
    assert helpers.state_of(url, job.uuid) == ('RUNNING', None)
    [outcome] = process(simple(world)).resume_all()
    assert outcome.state == 'SUCCESS'
    assert world.doubled == []


def test_a_journal_that_refuses_a_row_neither_reverts_nor_ends_the_flow(
        process, world, url):
    one = process(simple(world))
    original = world.make

    def make(name):
        original(name)
        if name == 'b':
            helpers.Outage(one.db, [db_exc.DBDataError('too long')])

    world.make = make
    with pytest.raises(exception.DatabaseUnusable, match='too long'):
        one.run()
    world.make = original
    assert world.effects == ['a', 'b']
    [outcome] = process(simple(world)).resume_all()
    assert outcome.state == 'SUCCESS'
    assert world.doubled == []
    assert world.effects == ['a', 'b', 'c']


def test_what_could_not_be_released_is_released_later(process, world, url):
    one = process(simple(world))
    original = world.make

    def make(name):
        original(name)
        if name == 'b':
            helpers.Outage(one.db, [db_exc.DBDataError('too long')] * 3)

    world.make = make
    with pytest.raises(exception.DatabaseUnusable):
        one.run()
    [uuid] = [info.uuid for info in queries.flows(process({}).db)]
    assert helpers.state_of(url, uuid)[1] is not None
    one.runner.release_again()
    assert helpers.state_of(url, uuid)[1] is not None
    one.runner.release_again()
    assert helpers.state_of(url, uuid) == ('RUNNING', None)


@pytest.mark.parametrize('after', [False, True])
def test_a_database_that_goes_away_at_any_moment_is_waited_for(
        url, after):
    """Also if the connection breaks behind the commit."""
    for moment in range(12):
        world = helpers.World()
        one = helpers.Process(url, world, parent(world))
        assert one.runner.worker
        helpers.Outage(one.db, [None] * moment + [
            db_exc.DBConnectionError()], after)
        outcome = one.run()
        assert [outcome.state] + [child.state for child in outcome.children
                                  ] == ['SUCCESS'] * 3
        assert world.effects == ['p', 'k', 'l']
        assert world.doubled == []


def test_a_failing_child_of_the_machinery_leaves_no_sister_behind(
        process, world, url):
    world.failing['do k'] = SystemExit(1)
    with pytest.raises(SystemExit):
        process(parent(world)).run()
    del world.failing['do k']
    assert len(process(parent(world)).resume_all()) == 2
    assert sorted(world.effects) == ['k', 'l', 'p']
    assert set(helpers.state_of(url).values()) == {'SUCCESS'}


def test_plain_tasks_of_taskflow_do_too(process, world):
    class Plain(taskflow_task.Task):
        def execute(self):
            world.make('plain')
            return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

        def revert(self, result, **kwargs):
            world.unmake('plain')

    world.failing['do c'] = Broken('x', code=1)
    outcome = process({'flow': lambda: helpers.linear(
        Plain(), Do('c', world))}).run()
    assert outcome.state == 'REVERTED'
    assert world.effects == []


def test_an_unknown_flow_is_not_begun(process, url):
    with pytest.raises(exception.UnknownFlow, match='no flow named other'):
        process({}).run('other')
    assert helpers.state_of(url) == {}


def test_each_fork_has_a_worker_of_its_own(process, monkeypatch):
    one = process({})
    here = one.runner.worker
    assert one.runner.worker is here
    here.pid += 1       # what a forked child sees
    assert one.runner.worker is not here


def test_a_task_shows_what_its_reverting_does():
    assert Do.undoes() and not Read.undoes()
    assert not task.Task.undoes()
    assert Do.reversion == 'unmake it'
