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

"""What became of each task of a flow."""

import pytest

from nova_ssm.engine import accounts
from nova_ssm.engine import exception
from nova_ssm.engine import graphs
from nova_ssm.engine import progress
from nova_ssm.engine import queries
from nova_ssm.engine import timeline
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers


@pytest.fixture
def told(db):
    """The accounts of a flow by task: with its graph, or without."""
    def tell(outcome, flow_type=None):
        graph = None
        if flow_type is not None:
            graph = graphs.graph_of(flow_type)
            progress.mark(graph, queries.atoms(db, outcome.uuid),
                          queries.flow(db, outcome.uuid))
        found = accounts.accounts(graph, timeline.read(db, outcome.uuid))
        assert len({one.task for one in found}) == len(found)
        return {one.task: one for one in found}
    return tell


def test_of_what_has_succeeded(process, world, told):
    found = told(process(examples.simple(world)).run())
    assert list(found) == ['a', 'r', 'b', 's', 'c']
    for one in found.values():
        assert (one.state, one.tries) == ('done', 1)
        assert one.seconds() is not None
        assert one.seconds('undo') is None
        assert one.began_at <= one.ended_at
        assert one.worker.startswith('host:')


def test_the_graph_says_what_each_task_is_for(process, world, told):
    flows = examples.simple(world)
    made = process(flows)
    found = told(made.run(), made.runner.registry.get('flow'))
    assert list(found) == ['a', 'r', 'b', 's', 'c']
    assert [one.effect for one in found.values()] == [
        True, False, True, False, True]
    assert found['a'].undone == 'unmake it'
    assert found['a'].does
    assert {one.state for one in found.values()} == {'done'}


@pytest.mark.parametrize('with_graph', (True, False))
def test_of_what_was_reverted(process, world, told, with_graph):
    made = process(examples.failing(examples.simple)(world))
    outcome = made.run()
    found = told(outcome, made.runner.registry.get('flow')
                 if with_graph else None)
    assert found['a'].state == 'reverted'
    assert found['c'].state == 'failed, reverted'
    assert [run.what for run in found['a'].runs] == ['execute', 'undo']
    assert found['a'].tries == 1
    assert found['a'].seconds('undo') is not None


@pytest.mark.parametrize('with_graph', (True, False))
def test_of_what_could_not_be_undone(process, world, told, with_graph):
    world.failing['undo b'] = ValueError('b stays')
    made = process(examples.failing(examples.simple)(world))
    outcome = made.run()
    found = told(outcome, made.runner.registry.get('flow')
                 if with_graph else None)
    assert found['b'].state == 'could not be undone'


def test_each_try_counts(process, world, told):
    made = process(examples.retrying(world))
    outcome = made.run()
    found = told(outcome, made.runner.registry.get('flow'))
    assert (found['b'].tries, found['c'].tries, found['a'].tries) == (3, 3, 1)
    took = [run.seconds for run in found['b'].runs if run.what == 'execute']
    assert len(took) == 3
    assert found['b'].seconds() == pytest.approx(sum(took))
    # The retry itself is one of them.
    assert 3 in [one.tries for one in found.values() if not one.runs]


def test_what_the_journal_does_not_measure_was_within_some_time(
        process, world, told, db):
    outcome = process(examples.simple(world)).run()
    made = timeline.read(db, outcome.uuid)
    made.spans = [timeline.Span(
        span.task, span.what, span.began_at, span.ended_at, span.failed,
        span.exact, span.writer) for span in made.spans]
    for one in accounts.accounts(None, made):
        assert one.seconds() is None
        assert one.within() >= 0


def test_of_one_that_has_not_ended(process, world, db):
    flows = {'flow': lambda: helpers.linear(helpers.Once('o', world))}
    world.kill_at = 2
    with pytest.raises(helpers.Killed):
        process(flows).run()
    [info] = queries.flows(db)
    [one] = accounts.accounts(None, timeline.read(db, info.uuid))
    assert (one.state, one.ended_at) == ('running', None)
    assert (one.seconds(), one.within()) == (None, None)


def test_without_a_journal_there_is_the_graph(process, world):
    made = process(examples.simple(world))
    found = accounts.accounts(
        graphs.graph_of(made.runner.registry.get('flow')), None)
    assert {one.state for one in found} == {'not reached'}
    assert {one.tries for one in found} == {0}
    assert accounts.accounts(None, None) == []


def test_its_data_is_plain(process, world, told):
    found = told(process(examples.simple(world)).run())
    data = found['b'].data()
    assert data['seconds'] == data['runs'][0]['seconds']
    assert (data['state'], data['effect'], data['tries']) == (
        'done', None, 1)


def test_a_damaged_failure_is_said_to_be(process, world, db):
    with pytest.raises(exception.DamagedJournal, match='row 3 .* failed'):
        timeline._failure(
            type('Row', (), {'seq': 3, 'created_at': 0, 'writer': ''}), 'b',
            'execute', {'state': 'FAILURE', 'failure': 'just words'})
