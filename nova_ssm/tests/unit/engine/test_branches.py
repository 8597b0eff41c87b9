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

"""Flows with branches, one of which is taken."""

import pytest
from taskflow.patterns import graph_flow

from nova_ssm.engine import loading
from nova_ssm.engine import queries
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

Do, Once, Read = helpers.Do, helpers.Once, helpers.Read

NEAR = ['a', 'choose', 'near-b', 'near-c', 'b', 'c']
FAR = ['a', 'choose', 'far-b', 'far-o', 'far-c', 'b', 'c']


def rows(url, uuid):
    """The tasks and states in the journal of a flow."""
    return [(step.task, step.state)
            for step in queries.steps(helpers.shared(url), uuid)
            if step.kind == 'atom']


# -- without an accident ---------------------------------------------------

@pytest.mark.parametrize('flows, taken, way', [
    (examples.near_way, NEAR, 'near'), (examples.far_way, FAR, 'far')])
def test_the_branch_that_is_chosen_runs_and_so_does_the_tail(
        process, world, url, flows, taken, way):
    outcome = process(flows(world)).run()
    assert outcome.state == 'SUCCESS'
    assert world.effects == taken
    assert examples.ways(world) <= {way}


@pytest.mark.parametrize('flows, taken', [
    (examples.near_way, NEAR), (examples.far_way, FAR)])
def test_a_branch_that_is_not_taken_costs_nothing(
        process, world, url, flows, taken):
    """One row for each task with an effect, and one that one begins."""
    outcome = process(flows(world)).run()
    assert rows(url, outcome.uuid) == [
        row for name in taken for row in (
            [(name, 'RUNNING')] if name == 'far-o' else []) + [
                (name, 'SUCCESS')]]


@pytest.mark.parametrize('what', [
    'do a', 'do choose', 'read near-r', 'do near-b', 'do near-c', 'do b',
    'do c'])
def test_a_failure_anywhere_undoes_the_branch_that_was_taken(
        process, world, url, what):
    world.failing[what] = examples.Broken('compute', code=7)
    outcome = process(examples.near_way(world)).run()
    assert (outcome.state, outcome.failed_task) == (
        'REVERTED', what.partition(' ')[2])
    assert outcome.failure is world.failing[what]
    assert world.effects == []
    assert 'far' not in examples.ways(world)


class Undecided(examples.Chosen):

    def __call__(self, history):
        raise LookupError('no way')


def test_a_choice_that_breaks_reverts_the_flow(process, world, monkeypatch):
    monkeypatch.setattr(examples, 'Chosen', Undecided)
    outcome = process(examples.near_way(world)).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'choose')
    assert isinstance(outcome.failure, LookupError)
    assert world.effects == []


def test_a_resumed_choice_that_breaks_reverts_the_flow(
        process, world, url, monkeypatch):
    die_in(process(examples.near_way(world)), 'near-b')
    monkeypatch.setattr(examples, 'Chosen', Undecided)
    [outcome] = resume(process, url, examples.near_way(world))
    assert outcome.state == 'REVERTED'
    assert isinstance(outcome.failure, LookupError)
    assert world.effects == []


# -- killed ----------------------------------------------------------------

def die_in(process, name, when='made', time=1):
    """Run a flow in a process that dies in a task.

    :param when: behind its effect ('made') or before it ('called')
    """
    world = process.world
    make, call = world.make, world.call

    def deadly_make(what):
        make(what)
        if when == 'made' and what == name and (
                world.count('do ' + name) == time):
            process.kill()

    def deadly_call(what):
        if (when, what) == ('called', name) and world.count(what) == time - 1:
            process.kill()
        call(what)

    world.make, world.call = deadly_make, deadly_call
    try:
        with pytest.raises(helpers.Killed):
            process.run()
    finally:
        del world.make, world.call
    return process


def resume(process, url, flows):
    helpers.expire_leases(url)
    return process(flows).resume_all()


@pytest.mark.parametrize('flows, taken, way', [
    (examples.near_way, NEAR, 'near'), (examples.far_way, FAR, 'far')])
def test_killed_anywhere_the_other_branch_is_never_touched(
        process, world, url, flows, taken, way):
    for name in taken:
        world.calls.clear()
        world.effects.clear()
        die_in(process(flows(world)), name)
        [outcome] = resume(process, url, flows(world))
        assert outcome.state == 'SUCCESS'
        assert world.effects == taken
        assert world.doubled == []
        assert examples.ways(world) <= {way}
        assert [call for call in world.calls if call.startswith('recover')
                ] == ['recover ' + name]


@pytest.mark.parametrize('what', [
    'read near-r', 'do near-c', 'do b', 'do c'])
@pytest.mark.parametrize('killed', ['near-b', 'near-c', 'b', 'choose'])
def test_killed_and_then_failed_leaves_nothing(
        process, world, url, killed, what):
    die_in(process(examples.near_way(world)), killed)
    world.failing[what] = examples.Broken('compute', code=7)
    outcomes = resume(process, url, examples.near_way(world))
    if outcomes[0].state == 'SUCCESS':
        # It was behind what fails now.
        assert world.effects == NEAR
    else:
        assert outcomes[0].state == 'REVERTED'
        assert outcomes[0].failure is world.failing[what]
        assert world.effects == []
    assert 'far' not in examples.ways(world)


def test_killed_while_it_reverts_the_other_branch_is_not_reverted(
        process, world, url):
    world.failing['do b'] = examples.Broken('compute', code=7)
    die_in(process(examples.near_way(world)), 'undo near-b', when='called')
    [outcome] = resume(process, url, examples.near_way(world))
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'b')
    assert world.effects == []
    assert 'far' not in examples.ways(world)


class ReadsAWay(Read):
    """A choice without an effect, of a world that changes its mind."""

    def execute(self):
        super().execute()
        return self.world.way


def quiet_choice(world):
    def flow():
        whole = graph_flow.Flow('flow')
        choose = ReadsAWay('choose', world)
        near, far, tail = (Do(name, world) for name in ('near', 'far', 'z'))
        whole.add(choose, near, far, tail)
        for branch in (near, far):
            whole.link(choose, branch, decider=examples.Chosen(branch.name),
                       decider_depth='atom')
            whole.link(branch, tail)
        return whole
    return {'flow': flow}


@pytest.mark.parametrize('way', ['near', 'far'])
def test_a_choice_is_made_once_though_it_only_reads(
        process, world, url, way):
    world.way = way
    killed = die_in(process(quiet_choice(world)), way)
    [(uuid, _name)] = [(job.uuid, job.name) for job in _jobs(process)]
    assert rows(url, uuid) == [('choose', 'SUCCESS')]
    assert killed.rows[-1] == ('atom', 'choose', 'SUCCESS')
    world.way = {'near': 'far', 'far': 'near'}[way]
    [outcome] = resume(process, url, quiet_choice(world))
    assert outcome.state == 'SUCCESS'
    assert world.effects == [way, 'z']
    assert world.count('read choose') == 1


def _jobs(process):
    return process({}).board.iterjobs()


class OftenQuiet(Do):
    """Has sometimes no effect, so it may have ended without a row."""

    def had_effect(self, result):
        return False


def quiet_branches(world):
    def flow():
        whole = graph_flow.Flow('flow')
        choose = examples.Choose('choose', world, 'near')
        near, far = OftenQuiet('near', world), Do('far', world)
        tail = Do('z', world)
        whole.add(choose, near, far, tail)
        for branch in (near, far):
            whole.link(choose, branch, decider=examples.Chosen(branch.name),
                       decider_depth='atom')
            whole.link(branch, tail)
        return whole
    return {'flow': flow}


def quiet_between(world):
    def flow():
        whole = graph_flow.Flow('flow')
        choose = examples.Choose('choose', world, 'near')
        between = OftenQuiet('between', world)
        near, far = Do('near', world), Do('far', world)
        whole.add(choose, between, near, far)
        whole.link(choose, between)
        for branch in (near, far):
            whole.link(between, branch)
            whole.link(choose, branch, decider=examples.Chosen(branch.name))
        return whole
    return {'flow': flow}


def test_a_branch_is_not_undone_for_a_failure_before_it_if_it_was_not_taken(
        process, world, url):
    die_in(process(quiet_between(world)), 'near')
    assert world.effects == ['choose', 'between', 'near']
    world.failing['recover between'] = examples.Broken('compute', code=1)
    [outcome] = resume(process, url, quiet_between(world))
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'between')
    assert world.effects == []
    assert 'far' not in examples.ways(world)


def test_behind_a_choice_that_was_not_made_nothing_is_recovered(
        process, world, url):
    world.way = 'near'
    die_in(process(quiet_choice(world)), 'read choose', when='called')
    [outcome] = resume(process, url, quiet_choice(world))
    assert outcome.state == 'SUCCESS'
    assert world.effects == ['near', 'z']
    assert not [call for call in world.calls if call.startswith('recover')]


def test_the_tail_of_a_branch_without_rows_is_recovered(process, world, url):
    """That the other branch is not taken is found out before."""
    killed = die_in(process(quiet_branches(world)), 'z')
    [job] = _jobs(process)
    detail = loading.load(killed.runner.db.__class__(url), killed.serializer,
                          job.uuid, 'flow').detail
    assert {atom.name for atom in detail} == {'_TaskFlow_INJECTOR', 'choose'}
    [outcome] = resume(process, url, quiet_branches(world))
    assert outcome.state == 'SUCCESS'
    assert world.doubled == []
    assert 'recover z' in world.calls
    assert 'far' not in examples.ways(world)


def test_the_tail_of_a_branch_without_rows_is_undone(process, world, url):
    die_in(process(quiet_branches(world)), 'z')
    world.failing['recover near'] = examples.Broken('compute', code=1)
    [outcome] = resume(process, url, quiet_branches(world))
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'near')
    assert world.effects == []
    assert 'far' not in examples.ways(world)
