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

"""Flows with a part that is tried again."""

import pytest
from taskflow.patterns import linear_flow
from taskflow.patterns import unordered_flow
from taskflow import retry

from nova_ssm.engine import queries
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

Do, Once, Read = helpers.Do, helpers.Once, helpers.Read
Broken = examples.Broken

#: The rows of a try that fails, and of one that does not.
_MADE = [('b', 'SUCCESS'), ('o', 'RUNNING'), ('o', 'SUCCESS')]
VAIN = [*_MADE, ('c', 'FAILURE'), ('c', 'REVERTED'), ('o', 'REVERTED'),
        ('b', 'REVERTED')]
GOOD = [*_MADE, ('c', 'SUCCESS')]
AGAIN = ('hosts', 'SUCCESS')


def rows(url, uuid):
    """The tasks and states in the journal of a flow."""
    return [(step.task, step.state)
            for step in queries.steps(helpers.shared(url), uuid)
            if step.kind == 'atom']


def tries(world):
    return [call for call in world.calls if call.startswith('try')]


# -- without an accident ---------------------------------------------------

def test_each_try_knows_the_failures_of_those_before(process, world):
    outcome = process(examples.hopping(world)).run()
    assert outcome.state == 'SUCCESS'
    assert (outcome.failed_task, outcome.failure) == (None, None)
    assert tries(world) == ['try 1', 'try 2', 'try 3']
    assert outcome.results['attempted'] == ['host-0', 'host-1']
    assert outcome.results['b'] == 'host-2'
    assert world.effects == ['a', 'b', 'o', 'c', 'z']


def test_a_try_costs_a_row_beside_those_of_its_tasks_but_not_the_first(
        process, world, url):
    outcome = process(examples.hopping(world)).run()
    assert rows(url, outcome.uuid) == [
        ('a', 'SUCCESS'), *VAIN, AGAIN, *VAIN, AGAIN, *GOOD, ('z', 'SUCCESS')]


def test_a_retry_that_is_not_needed_costs_nothing(process, world, url):
    outcome = process(examples.hopping(world, bad=0)).run()
    assert rows(url, outcome.uuid) == [
        ('a', 'SUCCESS'), *GOOD, ('z', 'SUCCESS')]


def test_the_rows_of_a_retry_are_one_insert_and_one_commit_each(
        process, world, url):
    one = process(examples.hopping(world))
    assert one.runner.worker
    said = helpers.Statements(helpers.shared(url))
    outcome = one.run()
    cost = said.since()
    # And those of the start, with the flow's own row; the end goes along.
    many = len(rows(url, outcome.uuid)) + 1
    assert cost == {'INSERT': many + 1, 'UPDATE': 1, 'COMMIT': many}


def test_a_retry_that_gives_up_reverts_all_with_the_last_failure(
        process, world, url):
    outcome = process(examples.hopping_in_vain(world)).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'c')
    assert outcome.failure.host == 'host-2'
    assert world.effects == []
    assert rows(url, outcome.uuid) == [
        ('a', 'SUCCESS'), *VAIN, AGAIN, *VAIN, AGAIN, *VAIN,
        ('a', 'REVERTED')]
    with pytest.raises(Broken, match='host-2 is broken'):
        outcome.reraise()


def test_what_a_retry_does_not_know_reverts_all_at_once(process, world):
    world.failing['do o'] = LookupError('no network')
    outcome = process(examples.hopping(world)).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'o')
    assert outcome.failure is world.failing['do o']
    assert tries(world) == ['try 1']
    assert world.effects == []


class FailsInSecondTry(Do):

    def execute(self, attempted, **kwargs):
        if attempted:
            raise LookupError('no more hosts')
        return super().execute()


def second_fails(world, name='b', **kwargs):
    """The first try fails in c, the second in a task before or behind it."""
    world.bad = 1
    parts = [examples.Pick('b', world), examples.OnHost('c', world)]
    parts.insert(1 if name == 'm' else 2, FailsInSecondTry(name, world))
    return {'flow': lambda: helpers.linear(
        Tells('a', world), linear_flow.Flow(
            'hops', retry=examples.NextHost('hosts', world)).add(*[
                type(part)(part.name, world) for part in parts]))}


class Tells(Do):
    """Is told of the failures when it is undone."""

    def revert(self, flow_failures, **kwargs):
        super().revert()
        self.world.told = {name: str(failure.exception)
                           for name, failure in flow_failures.items()}


@pytest.mark.parametrize('name', ['m', 'n'])
def test_the_failure_is_that_of_the_try_that_gave_up(process, world, name):
    outcome = process(second_fails(world, name)).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', name)
    assert str(outcome.failure) == 'no more hosts'
    assert world.effects == []


@pytest.mark.parametrize('name', ['m', 'n'])
def test_a_task_is_not_told_of_failures_of_other_tries(
        process, world, name):
    process(second_fails(world, name)).run()
    assert world.told == {name: 'no more hosts'}


class NoMoreHosts(examples.NextHost):
    """Finds when it begins a try that there is nothing to try."""

    def execute(self, history, **kwargs):
        if len(history):
            raise LookupError('no more hosts')
        return super().execute(history)


class Confused(examples.NextHost):

    def on_failure(self, history, **kwargs):
        raise KeyError('what now')


def hopping_with(cls, world, bad=2):
    world.bad = bad
    return {'flow': lambda: helpers.linear(
        Do('a', world), linear_flow.Flow('hops', retry=cls(
            'hosts', world)).add(
                examples.Pick('b', world), examples.OnHost('c', world)))}


def test_a_retry_that_fails_itself_reverts_all(process, world):
    outcome = process(hopping_with(NoMoreHosts, world)).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'hosts')
    assert str(outcome.failure) == 'no more hosts'
    assert world.effects == []


def test_a_retry_that_breaks_over_a_failure_reverts_all(process, world):
    outcome = process(hopping_with(Confused, world)).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'c')
    assert outcome.failure.host == 'host-0'
    assert world.effects == []


def test_a_value_that_cannot_be_journaled_is_the_failure_of_its_retry(
        process, world):
    class Bad(examples.NextHost):
        def execute(self, history, **kwargs):
            return [object()]

    outcome = process(hopping_with(Bad, world)).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'hosts')
    assert world.effects == []


def test_a_retry_in_a_retry_begins_anew_with_each_try(process, world, url):
    """Two tries of the outer one, of two tries of the inner one each."""
    def flows(world):
        inner = linear_flow.Flow('inner', retry=retry.Times(
            2, name='inner-times')).add(Do('b', world), Fails('c', world))
        return helpers.linear(Do('a', world), linear_flow.Flow(
            'outer', retry=retry.Times(2, name='outer-times')).add(
                Do('x', world), inner))

    outcome = process({'flow': lambda: flows(world)}).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'c')
    assert world.effects == []
    assert (world.count('do x'), world.count('do b')) == (2, 4)
    assert [row for row in rows(url, outcome.uuid) if 'times' in row[0]] == [
        ('inner-times', 'SUCCESS'), ('outer-times', 'SUCCESS'),
        ('inner-times', 'SUCCESS')]


class Fails(Do):

    def execute(self, **kwargs):
        super().execute()
        raise Broken('host', code=1)


def test_a_try_that_cannot_be_undone_is_not_followed_by_another(
        process, world, url):
    world.failing['undo o'] = RuntimeError('no')
    outcome = process(examples.hopping(world)).run()
    assert (outcome.state, outcome.failed_task) == ('FAILURE', 'c')
    assert outcome.failure.host == 'host-0'
    assert tries(world) == ['try 1']
    assert world.effects == ['a', 'b', 'o']
    info = queries.flow(helpers.shared(url), outcome.uuid)
    assert info.failure == (
        'c: Broken: host-0 is broken; undoing o: RuntimeError: no')


def test_a_part_beside_a_retry_is_reverted_with_it(process, world):
    world.bad = 9
    outcome = process({'flow': lambda: helpers.linear(
        Do('a', world), unordered_flow.Flow('sides').add(
            Do('x', world), linear_flow.Flow('hops', retry=examples.NextHost(
                'hosts', world)).add(
                    examples.Pick('b', world), examples.OnHost('c', world))),
        Do('z', world))}).run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'c')
    assert world.effects == []
    assert world.count('do x') == 1
