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

"""Flows with a part that is tried again, killed in one of the tries."""

import pytest
from taskflow.patterns import linear_flow
from taskflow import retry

from nova_ssm.engine import loading
from nova_ssm.engine import queries
from nova_ssm.engine import task
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.engine import test_crashes
from nova_ssm.tests.unit.engine import test_retries

Do, Read = helpers.Do, helpers.Read
Broken = examples.Broken


def recovered(world):
    return [call for call in world.calls if call.startswith('recover')]


def kill_after(process, call, time=1):
    """Run a flow in a process that dies when something is called again.

    :param call: e.g. 'undo b'
    :param time: the how many-th call of it is the last thing done
    """
    world, original = process.world, process.world.call

    def deadly(what):
        original(what)
        if what == call and world.count(call) == time:
            process.kill()

    world.call = deadly
    try:
        with pytest.raises(helpers.Killed):
            process.run()
    finally:
        del world.call
    return process


def resume(process, url, flows):
    """Let another process go on.

    :returns: how the flow ended
    """
    helpers.expire_leases(url)
    [outcome] = process(flows).resume_all()
    return outcome


@pytest.mark.parametrize('again', [False, True])
def test_killed_anywhere_a_retry_in_vain_leaves_nothing(url, again):
    def flows(world):
        return examples.hopping_in_vain(world, tries=2)

    def check(world, outcomes):
        assert set(helpers.state_of(url).values()) <= {'REVERTED'}
        assert world.effects == []
        assert world.doubled == []
        for outcome in outcomes:
            assert outcome.failed_task == 'c'
            assert outcome.failure.host == 'host-1'

    test_crashes.kill_everywhere(url, flows, check, again)


@pytest.mark.parametrize('time', [1, 2, 3])
@pytest.mark.parametrize('call', ['read r', 'do b', 'do o'])
def test_a_retry_resumes_in_the_try_that_it_died_in(
        process, world, url, call, time):
    kill_after(process(examples.hopping(world)), call, time)
    before = test_retries.tries(world)
    assert before == ['try %d' % (number + 1) for number in range(time)]
    outcome = resume(process, url, examples.hopping(world))
    assert outcome.state == 'SUCCESS'
    assert outcome.results['attempted'] == ['host-0', 'host-1']
    assert world.effects == ['a', 'b', 'o', 'c', 'z']
    # The first may be begun again: it has left no row.
    after = test_retries.tries(world)[len(before):]
    assert after == ['try 1', 'try 2', 'try 3'][
        0 if (time == 1 and call != 'do o') else time:]


@pytest.mark.parametrize('time', [1, 2])
@pytest.mark.parametrize('call', ['undo c', 'undo o', 'undo b'])
def test_a_try_that_was_being_undone_is_undone_and_the_next_one_begins(
        process, world, url, call, time):
    kill_after(process(examples.hopping(world)), call, time)
    outcome = resume(process, url, examples.hopping(world))
    assert outcome.state == 'SUCCESS'
    assert outcome.results['attempted'] == ['host-0', 'host-1']
    assert test_retries.tries(world) == ['try 1', 'try 2', 'try 3']
    assert recovered(world) == []
    assert world.effects == ['a', 'b', 'o', 'c', 'z']
    assert world.doubled == []


def test_only_what_may_have_begun_in_this_try_is_recovered(
        process, world, url):
    kill_after(process(examples.hopping(world)), 'do b', 2)
    resume(process, url, examples.hopping(world))
    assert recovered(world) == ['recover b']


def test_what_ended_in_the_try_before_the_crash_is_not_recovered_in_the_next(
        process, world, url):
    """b was made in this try: in the next one it is begun for certain."""
    kill_after(process(examples.hopping(world)), 'fail on host-1')
    resume(process, url, examples.hopping(world))
    assert recovered(world) == ['recover c']
    assert world.count('do b') == 3


@pytest.mark.parametrize('call', [
    'do b', 'do o', 'fail on host-2', 'undo c', 'undo b', 'undo a'])
def test_a_resumed_retry_gives_up_with_the_last_failure(
        process, world, url, call):
    time = {'undo c': 3, 'undo b': 3, 'do b': 3, 'do o': 3}.get(call, 1)
    kill_after(process(examples.hopping_in_vain(world)), call, time)
    outcome = resume(process, url, examples.hopping_in_vain(world))
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'c')
    assert type(outcome.failure) is Broken
    assert (outcome.failure.host, outcome.failure.code) == ('host-2', 7)
    assert world.effects == []


@pytest.mark.parametrize('name', ['m', 'n'])
@pytest.mark.parametrize('call', ['undo %s', 'undo b', 'undo a'])
def test_a_resumed_flow_has_the_failure_of_the_last_try_too(
        process, world, url, name, call):
    flows = test_retries.second_fails(world, name)
    # In the first try there was nothing to be undone of what failed later,
    # if it is behind.
    time = 1 if call == 'undo a' or (name, call) == ('n', 'undo %s') else 2
    kill_after(process(flows), call.replace('%s', name), time)
    outcome = resume(process, url, flows)
    assert (outcome.state, outcome.failed_task) == ('REVERTED', name)
    assert str(outcome.failure) == 'no more hosts'
    assert world.told == {name: 'no more hosts'}
    assert world.effects == []


def test_what_may_have_begun_in_the_second_try_is_undone_too(
        process, world, url):
    """The look before it fails when the flow is resumed."""
    def flows():
        return {'flow': lambda: helpers.linear(
            Do('a', world), linear_flow.Flow(
                'hops', retry=examples.NextHost('hosts', world)).add(
                    Read('r', world), examples.Pick('b', world),
                    examples.OnHost('c', world)))}

    world.bad = 1
    one = process(flows())
    original = world.make

    def make(name):
        original(name)
        if name == 'b' and world.count('do b') == 2:
            one.kill()

    world.make = make
    with pytest.raises(helpers.Killed):
        one.run()
    world.make = original
    assert world.effects == ['a', 'b']
    world.failing['read r'] = LookupError('gone')
    outcome = resume(process, url, flows())
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'r')
    assert world.effects == []


def test_the_history_of_a_retry_survives_with_its_exceptions(
        process, world, url):
    one = kill_after(process(examples.hopping(world)), 'do b', 3)
    [job] = process({}).board.iterjobs()
    loaded = loading.load(
        helpers.shared(url), one.serializer, job.uuid, 'flow')
    [detail] = [atom for atom in loaded.detail if atom.name == 'hosts']
    history = retry.History(detail.results)
    assert list(history.provided_iter()) == [
        [], ['host-0'], ['host-0', 'host-1']]
    assert [(name, failure.exception.host, failure.exception.code)
            for name, failure in history.outcomes_iter()] == [
        ('c', 'host-0', 7), ('c', 'host-1', 7)]
    assert loaded.failed is None
    assert {name for name, (state, _intention) in loaded.seen.items()
            if state == 'PENDING'} == {'r', 'b', 'o', 'c', 'z'}


def test_a_new_try_takes_nothing_along_of_the_last(process, world, url):
    one = kill_after(process(examples.hopping(world)), 'do b', 2)
    [job] = process({}).board.iterjobs()
    loaded = loading.load(
        helpers.shared(url), one.serializer, job.uuid, 'flow')
    for atom in loaded.detail:
        if atom.state == 'PENDING':
            assert (atom.results, atom.failure) == (None, None)


def test_a_flow_killed_behind_a_revert_that_failed_is_a_case_for_people(
        process, world, url):
    flows = examples.failing(examples.simple)(world)
    one = process(flows)
    world.failing['undo b'] = RuntimeError('no')
    one.runner.after_commit = lambda uuid, kind, atom, state: (
        one.kill() if state == 'REVERT_FAILURE' else None)
    with pytest.raises(helpers.Killed):
        one.run()
    del world.failing['undo b']
    outcome = resume(process, url, flows)
    assert (outcome.state, outcome.failed_task) == ('FAILURE', 'c')
    assert world.effects == ['a', 'b']
    info = queries.flow(helpers.shared(url), outcome.uuid)
    assert info.failure == (
        'c: Broken: compute is broken; undoing b: RuntimeError: no')


class HasNoUndo(task.Task):
    """Leaves no row when it is reverted."""

    def __init__(self, name, world):
        super().__init__(name=name, provides=name)
        self.world = world

    def execute(self):
        self.world.call('do ' + self.name)


@pytest.mark.parametrize('time', [1, 2, 3])
@pytest.mark.parametrize('call', ['do n', 'do b', 'undo b'])
def test_tasks_that_leave_no_row_when_reverted_do_not_confuse_the_resume(
        process, world, url, call, time):
    def flows():
        world.bad = 2
        return {'flow': lambda: helpers.linear(
            linear_flow.Flow('hops', retry=examples.NextHost(
                'hosts', world)).add(
                    HasNoUndo('n', world), examples.Pick('b', world),
                    examples.OnHost('c', world), Read('r', world)))}

    if (call, time) == ('undo b', 3):
        return      # the third try works
    kill_after(process(flows()), call, time)
    outcome = resume(process, url, flows())
    assert outcome.state == 'SUCCESS'
    assert outcome.results['attempted'] == ['host-0', 'host-1']
    assert world.effects == ['b', 'c']
    assert world.doubled == []
