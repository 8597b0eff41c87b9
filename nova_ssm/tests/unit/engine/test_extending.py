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

"""An operator adds, replaces and moves the tasks of a flow."""

import logging

import pytest
from taskflow.patterns import graph_flow
from taskflow.patterns import linear_flow
from taskflow.patterns import unordered_flow

from nova_ssm.engine import exception
from nova_ssm.engine import extending
from nova_ssm.engine import graphs
from nova_ssm.engine import registry
from nova_ssm.engine import serialization
from nova_ssm.engine import soundness
from nova_ssm.engine import states
from nova_ssm.engine import task
from nova_ssm.tests.unit.engine import helpers


class Take(helpers.Do):
    """Takes what B made, and gives its own name."""

    def execute(self, B) -> str:
        return super().execute()


class Make(helpers.Do):
    """A task of somebody else."""

    def execute(self, **kwargs) -> str:
        return super().execute(**kwargs)


class Tell(task.Hook):
    """Tells somebody."""

    def __init__(self, name, world):
        super().__init__(name=name)
        self.world = world

    def execute(self) -> None:
        self.world.call('tell')


class Note(Tell):
    """Gives something, which a hook must not."""

    default_provides = 'note'

    def execute(self) -> str:
        return 'done'


class Strange(task.Task):
    """Gives what no journal can hold."""

    default_provides = 'strange'

    def execute(self) -> logging.Logger:
        raise NotImplementedError


class Listed(task.Task):
    """Gives a list of them."""

    default_provides = 'listed'

    def execute(self) -> list[dict[str, logging.Logger]] | None:
        raise NotImplementedError


class Silent(task.Task):
    """Does not say what it gives."""

    default_provides = 'silent'

    def execute(self):
        raise NotImplementedError


class Twin(task.Task):
    """Gives what B gives."""

    def execute(self) -> str:
        raise NotImplementedError


class Broken(task.Task):
    """Cannot be made."""

    def __init__(self, name):
        raise OSError('no such CMDB')

    def execute(self):
        raise NotImplementedError


def plain(world):
    """A line, with a line in it, and an end that cannot be undone."""
    return linear_flow.Flow('flow').add(
        helpers.Do('A', world),
        linear_flow.Flow('inner').add(
            helpers.Do('B', world), helpers.Do('C', world)),
        Final('Z', world))


class Final(helpers.Once):
    """The step that cannot be taken back."""

    revert = task.Task.revert


def branches(world):
    """B, and then C or D as A says."""
    flow = graph_flow.Flow('flow')
    nodes = [helpers.Do(name, world) for name in 'ABCD']
    flow.add(*nodes)
    a, b, c, d = nodes
    flow.link(a, b)
    flow.link(b, c, decider=lambda history: True)
    flow.link(b, d, decider=lambda history: False)
    return flow


@pytest.fixture
def world():
    return helpers.World()


@pytest.fixture
def extended(world):
    """Extends a flow by lines, and sees whether it is sound."""
    installed = {
        'Take': lambda name: Take(name, world),
        'Make': lambda name: Make(name, world),
        'Tell': lambda name: Tell(name, world),
        'Note': lambda name: Note(name, world),
        'Strange': lambda name: Strange(name=name),
        'Listed': lambda name: Listed(name=name),
        'Silent': lambda name: Silent(name=name),
        'Twin': lambda name: Twin(name=name, provides='B'),
        'Given': lambda name: Make(name, world),
        'Broken': Broken,
        'Other': lambda name: object()}

    def extend(*lines, factory=plain, version='1.0'):
        flow_type = registry.FlowType('flow', version, lambda: factory(world))
        made = extending.extend(
            flow_type, [extending.parse(line) for line in lines],
            installed.get)
        soundness.check(flow_type, made)
        return made
    return extend


def order(flow_type):
    """The names of the tasks, in the order in which they run."""
    return [atom.name for atom in graphs.graph_of(flow_type).atoms()]


# -- lines -----------------------------------------------------------------

@pytest.mark.parametrize('line, names', [
    ('flow: Make after A', ['A', 'Make', 'B', 'C', 'Z']),
    ('flow: Make before A', ['Make', 'A', 'B', 'C', 'Z']),
    ('flow: Take after B', ['A', 'B', 'Take', 'C', 'Z']),
    ('flow: Make replaces A', ['A', 'B', 'C', 'Z']),
    ('flow: C before A', ['C', 'A', 'B', 'Z']),
    ('flow: A after C', ['B', 'C', 'A', 'Z']),
    ('flow: A before Z', ['B', 'C', 'A', 'Z']),
    ('flow:Tell   after Z', ['A', 'B', 'C', 'Z', 'Tell'])])
def test_a_line_changes_the_order_of_a_line(extended, line, names):
    assert order(extended(line)) == names


def test_changes_are_made_one_after_the_other(extended):
    assert order(extended('flow: Take after B', 'flow: Make before Take',
                          'flow: A after Make')) == [
        'B', 'Make', 'A', 'Take', 'C', 'Z']


def test_what_replaces_a_task_is_known_by_its_name(extended, world):
    made = {one.name: one for one in extending.tasks(
        extended('flow: Make replaces A').factory())}
    assert type(made['A']) is Make
    assert 'Make' not in made


def test_a_task_stands_between_those_of_a_graph(extended):
    made = graphs.graph_of(extended('flow: Make after A', factory=branches))
    assert made.before['B'] == {'A', 'Make'}
    assert made.before['Make'] == {'A'}


def test_what_stands_before_a_branch_belongs_to_it(extended):
    graph = graphs.graph_of(extended('flow: Make before D', factory=branches))
    assert graph.before['D'] == {'A', 'B', 'Make'}
    choices = {atom.name: [one.by for one in atom.choices]
               for atom in graph.atoms()}
    assert choices['Make'] == choices['D'] == ['B']


def test_a_task_on_which_a_choice_hangs_stays(extended):
    for name in 'BC':
        with pytest.raises(exception.BadExtension, match='a choice between'):
            extended('flow: %s before A' % name, factory=branches)
    assert order(extended('flow: A after D', factory=branches)) != list('ABCD')


def test_beside_what_is_in_no_order_nothing_has_a_place(extended):
    def abreast(world):
        return unordered_flow.Flow('flow').add(
            helpers.Do('A', world), helpers.Do('B', world))

    with pytest.raises(exception.BadExtension, match='are in no order'):
        extended('flow: Make after A', factory=abreast)
    assert sorted(order(extended('flow: Make replaces A',
                                 factory=abreast))) == ['A', 'B']


# -- what is refused -------------------------------------------------------

@pytest.mark.parametrize('line, reason', [
    ('Make after A', 'not of the form "FLOW: TASK after'),
    ('flow: Make behind A', 'not of the form "FLOW: TASK after'),
    ('flow: Make after Q', 'has no task Q, only A, B, C, Z'),
    ('flow: Q after A', 'no task Q is installed, and the flow flow has none'),
    ('flow: A after A', 'can only be moved after or before another'),
    ('flow: A replaces B', 'can only be moved after or before another'),
    ('flow: Other after A', 'Other is not a task'),
    ('flow: Broken after A', 'Broken after A: OSError: no such CMDB'),
    ('flow: Take after A', 'task Take needs B, which no task before it'),
    ('flow: Twin before Z', 'B and Twin both provide B'),
    ('flow: Strange after A', r'cannot be journaled \(Logger\)'),
    ('flow: Listed after A', r'cannot be journaled \(Logger\)'),
    ('flow: Silent after A', 'does not say of which type'),
    ('flow: Make after Z', 'Make would come behind Z, which cannot be taken'),
    ('flow: A after Z', 'A would come behind Z, which cannot be taken back'),
    ('flow: Z before B', 'B would come behind Z, which cannot be taken'),
    ('flow: Make replaces Z', 'Z cannot be replaced by one that may begin'),
    ('flow: Note after A', 'must provide nothing'),
    ('flow: Tell replaces A', 'must provide nothing')])
def test_what_a_flow_cannot_live_with_is_refused_with_the_reason(
        extended, line, reason):
    with pytest.raises(exception.BadExtension, match=reason):
        extended(line)


def test_what_gives_the_same_can_take_the_place_of_a_task(extended):
    assert order(extended('flow: Twin replaces B')) == ['A', 'B', 'C', 'Z']


def test_two_tasks_of_a_flow_cannot_have_one_name(extended, world):
    with pytest.raises(exception.BadExtension, match='of that name already'):
        extended('flow: Make after A', 'flow: Make after B')
    with pytest.raises(exception.BadExtension, match='of that name already'):
        extending.extend(
            registry.FlowType('flow', '1.0', lambda: plain(world)),
            [extending.parse('flow: C before B')],
            lambda name: lambda named: Make(named, world))


def test_what_is_needed_by_a_task_behind_it_cannot_be_moved_away(extended):
    with pytest.raises(exception.BadExtension,
                       match='task Take needs B, which no task before'):
        extended('flow: Take after B', 'flow: B after C')


def test_a_task_cannot_give_what_the_flow_is_given(extended):
    def asking(world):
        return linear_flow.Flow('flow').add(
            helpers.Do('A', world, requires=['Given']))

    with pytest.raises(exception.BadExtension, match='which the flow is giv'):
        extended('flow: Given before A', factory=asking)


# -- the version -----------------------------------------------------------

def test_the_version_tells_the_changes(extended):
    versions = [extended(*lines).version for lines in (
        ['flow: Make after A'], ['flow: Make before A'],
        ['flow: Tell after A'], ['flow: Make after A', 'flow: Tell after A'],
        ['flow: Tell after A', 'flow: Make after A'], ['flow: A after B'])]
    assert len(set(versions)) == len(versions)
    assert all(version.startswith('1.0+') and len(version) <= 16
               for version in versions)
    assert extended('flow:  Make   after A').version == versions[0]


def test_the_version_follows_the_revision_of_a_task(extended, monkeypatch):
    before = extended('flow: Make after A').version
    monkeypatch.setattr(Make, 'revision', 2)
    assert extended('flow: Make after A').version != before


def test_a_new_minor_version_of_the_flow_goes_on_with_the_older_one(extended):
    known = registry.Registry()
    known.add(extended('flow: Make after A', version='1.3'))
    older = extended('flow: Make after A', version='1.2').version
    assert known.can_run('flow', older)
    newer = extended('flow: Make after A', version='1.4').version
    assert not known.can_run('flow', newer)


# -- running ---------------------------------------------------------------

@pytest.fixture
def conductor(url, world, extended):
    """Makes conductors that have changed the flow, or have not."""
    def make(*lines):
        process = helpers.Process(url, world, {'flow': lambda: plain(world)})
        if lines:
            process.registry.add(extended(*lines))
        return process
    return make


ADDED = ('flow: Take after B', 'flow: Tell after Z')


def test_what_was_added_is_run_and_its_results_are_there(conductor, world):
    outcome = conductor(*ADDED).run()
    assert outcome.state == states.SUCCESS
    assert world.effects == ['A', 'B', 'Take', 'C', 'Z']
    assert outcome.results['Take'] == 'made Take'
    assert world.count('tell') == 1


def test_what_was_added_is_undone_with_the_others(conductor, world):
    world.failing['do C'] = ValueError('no')
    outcome = conductor(*ADDED).run()
    assert outcome.state == states.REVERTED
    assert world.effects == []
    assert world.count('undo Take') == 1


def test_the_flow_goes_on_without_a_hook_that_fails(conductor, world, caplog):
    world.failing['tell'] = OSError('the CMDB is away')
    outcome = conductor(*ADDED).run()
    assert outcome.state == states.SUCCESS
    assert world.effects == ['A', 'B', 'Take', 'C', 'Z']
    assert 'The hook Tell failed' in caplog.text
    assert 'the CMDB is away' in caplog.text


def test_what_a_hook_says_when_it_fails_has_no_secret(conductor, world,
                                                      caplog):
    world.failing['tell'] = OSError('the CMDB refuses topsecret-password')
    conductor(*ADDED).run(word=serialization.Secret('topsecret-password'))
    assert 'the CMDB refuses' in caplog.text
    assert 'topsecret' not in caplog.text


def crash(conductor, world, at):
    """:returns: whether the process came to that moment"""
    world.kill_at = at
    try:
        conductor.run()
    except helpers.Killed:
        return True
    return False


def test_killed_at_any_moment_another_one_with_the_same_lines_goes_on(
        url, world, conductor):
    at = 0
    while True:
        at += 1
        world.effects.clear()
        world.points = 0
        if not crash(conductor(*ADDED), world, at):
            break
        helpers.expire_leases(url)
        outcomes = conductor(*ADDED).resume_all()
        assert [one.state for one in outcomes] in ([], [states.SUCCESS])
        if outcomes:
            assert world.effects == ['A', 'B', 'Take', 'C', 'Z']
    assert at > 20 and not world.doubled


@pytest.mark.parametrize('began, comes', [
    (ADDED, ()), (ADDED, ADDED[:1]), (ADDED[:1], ADDED)])
def test_a_conductor_with_other_changes_leaves_a_flow_alone(
        url, world, conductor, began, comes):
    assert crash(conductor(*began), world, 6)
    helpers.expire_leases(url)
    other = conductor(*comes)
    job, = other.board.iterjobs(only_unclaimed=True)
    reason = other.registry.why_not(job.name, job.row.version)
    assert reason.startswith('the flow flow was begun with changes by an '
                             'operator that are not the same here: it has '
                             'version ' + job.row.version)
    assert conductor(*began).resume_all()[0].state == states.SUCCESS


def test_what_was_begun_without_changes_is_finished_without_them(
        url, world, conductor):
    assert crash(conductor(), world, 6)
    helpers.expire_leases(url)
    assert [one.state for one in conductor(*ADDED).resume_all()] == [
        states.SUCCESS]
    assert world.effects == ['A', 'B', 'C', 'Z']
    assert conductor(*ADDED).run().state == states.SUCCESS
    assert 'Take' in world.effects
