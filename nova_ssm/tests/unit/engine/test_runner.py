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

"""Flows that run, fail, and meet what may go wrong."""

import datetime
import threading

from oslo_db import exception as db_exc
import pytest
from taskflow.patterns import unordered_flow
from taskflow import task as taskflow_task

from nova_ssm.engine import exception
from nova_ssm.engine import queries
from nova_ssm.engine import runner
from nova_ssm.engine import task
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

Do, Read = helpers.Do, helpers.Read


# -- without an accident ---------------------------------------------------

def test_a_flow_runs_its_tasks_in_order_and_gives_their_results(
        process, world, url):
    outcome = process(examples.simple(world)).run()
    assert outcome.state == 'SUCCESS'
    assert world.calls == ['do a', 'read r', 'do b', 'read s', 'do c']
    assert outcome.results['c'] == 'made c'
    assert outcome.results['r'] == 'read r'
    assert helpers.state_of(url, outcome.uuid) == ('SUCCESS', None)


def test_a_failure_undoes_what_was_done_last_thing_first(
        process, world, url):
    outcome = process(examples.failing(examples.simple)(world)).run()
    assert outcome.state == 'REVERTED'
    assert world.calls[-3:] == ['undo c', 'undo b', 'undo a']
    assert world.effects == []
    assert helpers.state_of(url, outcome.uuid) == ('REVERTED', None)


def test_the_failure_is_raised_as_the_task_raised_it(process, world):
    outcome = process(examples.failing(examples.simple)(world)).run()
    assert outcome.failed_task == 'c'
    assert outcome.failure is world.failing['do c']
    with pytest.raises(examples.Broken, match='compute is broken'):
        outcome.reraise()


def test_a_task_that_cannot_be_undone_leaves_a_case_for_people(
        process, world, url):
    one = process(examples.failing(examples.simple)(world))
    world.failing['undo b'] = RuntimeError('no')
    outcome = one.run()
    assert outcome.state == 'FAILURE'
    assert outcome.failed_task == 'c'
    assert world.effects == ['a', 'b']
    info = queries.flow(one.db, outcome.uuid)
    assert info.failure == (
        'c: Broken: compute is broken; undoing b: RuntimeError: no')


def test_a_subflow_is_tried_again(process, world):
    outcome = process(examples.retrying(world)).run()
    assert outcome.state == 'SUCCESS'
    assert outcome.failure is None
    assert world.effects == ['a', 'b', 'o', 'c']
    assert world.count('do b') == 3


def test_children_run_after_their_parent(process, world, url):
    outcome = process(examples.parent(world)).run()
    assert [child.state for child in outcome.children] == ['SUCCESS'] * 2
    assert world.effects == ['p', 'k', 'l']
    assert set(helpers.state_of(url).values()) == {'SUCCESS'}


def test_the_failure_of_a_child_leaves_its_sisters_alone(process, world):
    world.failing['do k'] = examples.Broken('compute', code=1)
    outcome = process(examples.parent(world)).run()
    assert [child.state for child in outcome.children] == [
        'REVERTED', 'SUCCESS']
    assert world.effects == ['p', 'l']
    with pytest.raises(examples.Broken):
        outcome.reraise()


# -- what else may go wrong ------------------------------------------------

def test_a_flow_in_another_thread_is_handed_over_when_the_runner_closes(
        process, world, url):
    flows, begun, outcomes = examples.simple(world), threading.Event(), []
    one = process(flows)
    worker, original = one.runner.worker, world.make

    def make(name):
        original(name)
        if name == 'a':
            begun.set()
            assert worker.suspended.wait(60)

    world.make = make
    thread = threading.Thread(target=lambda: outcomes.append(one.run()))
    thread.start()
    assert begun.wait(60)
    one.runner.close(patience=60)
    thread.join()
    assert [outcome.state for outcome in outcomes] == [runner.LOST]
    # Nobody has to wait for a lease.
    [resumed] = process(flows).resume_all()
    assert resumed.state == 'SUCCESS'
    assert world.doubled == []


def test_a_task_that_ends_with_its_thread_leaves_the_flow_to_others(
        process, world, url):
    one = process(examples.simple(world))
    world.failing['do c'] = SystemExit(1)
    with pytest.raises(SystemExit):
        one.run()
    del world.failing['do c']
    assert world.effects == ['a', 'b']
    [outcome] = process(examples.simple(world)).resume_all()
    assert outcome.state == 'SUCCESS'
    assert world.effects == ['a', 'b', 'c']


def test_a_result_that_cannot_be_journaled_is_the_failure_of_its_task(
        process, world, url):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), examples.Unserializable('b', world), Do('c', world))}
    outcome = process(flows).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'b')
    assert isinstance(outcome.failure, exception.NotSerializable)
    assert world.effects == []
    assert 'do c' not in world.calls


def test_an_unordered_part_is_undone_wholly_if_one_result_is_bad(
        process, world):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), unordered_flow.Flow('sides').add(
            examples.Unserializable('b', world), Do('c', world),
            Do('d', world)))}
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

    flows = {**examples.parent(world), 'flow': lambda: helpers.linear(
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
    flows = {'flow': lambda: helpers.linear(examples.UsesPassword('b', world))}
    outcome = process(flows).run()
    assert outcome.state == 'REVERTED'
    assert 'password' in str(outcome.failure)
    assert world.calls == []


def test_a_resumed_graph_that_cannot_run_stays_as_it_is(
        process, world, url):
    world.kill_at = 6
    with pytest.raises(helpers.Killed):
        process(examples.simple(world)).run()
    helpers.expire_leases(url)
    other = process({'flow': lambda: helpers.linear(
        examples.UsesPassword('b', world))})
    [job] = other.board.iterjobs(only_unclaimed=True)
    with pytest.raises(Exception, match='password'):
        other.runner.resume(job)
    assert helpers.state_of(url, job.uuid) == ('RUNNING', None)
    [outcome] = process(examples.simple(world)).resume_all()
    assert outcome.state == 'SUCCESS'
    assert world.doubled == []


def test_a_journal_that_refuses_a_row_neither_reverts_nor_ends_the_flow(
        process, world, url):
    one = process(examples.simple(world))
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
    [outcome] = process(examples.simple(world)).resume_all()
    assert outcome.state == 'SUCCESS'
    assert world.doubled == []
    assert world.effects == ['a', 'b', 'c']


def test_what_could_not_be_released_is_released_later(process, world, url):
    one = process(examples.simple(world))
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
        one = helpers.Process(url, world, examples.parent(world))
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
        process(examples.parent(world)).run()
    del world.failing['do k']
    assert len(process(examples.parent(world)).resume_all()) == 2
    assert sorted(world.effects) == ['k', 'l', 'p']
    assert set(helpers.state_of(url).values()) == {'SUCCESS'}


def test_plain_tasks_of_taskflow_do_too(process, world):
    class Plain(taskflow_task.Task):
        def execute(self):
            world.make('plain')
            return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

        def revert(self, result, **kwargs):
            world.unmake('plain')

    world.failing['do c'] = examples.Broken('x', code=1)
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
