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
"""The benchmarks, in short, and what they have to say of the engine."""

import pytest

from nova_ssm.tests.bench import builds  # first: it patches

from nova import thread_pool_factory

from nova_ssm.tests.bench import engine
from nova_ssm.tests.bench import engine_report
from nova_ssm.tests.bench import trace


@pytest.fixture(scope='module')
def found():
    """The short form of the benchmark of the engine."""
    return engine_report.data(engine.measure(engine._options(['--quick'])))


def figure(found, peer, tasks):
    [one] = [one for one in found['figures']
             if (one['peer'], one['tasks']) == (peer, tasks)]
    return one


@pytest.mark.parametrize('tasks', [1, 10])
def test_what_a_flow_says_to_the_database(found, tasks):
    # The flow and its first row; a row a task; the last one ends the flow.
    ours = figure(found, 'ours', tasks)
    assert (ours['statements'], ours['commits']) == (
        2 + tasks + 1, 1 + tasks)
    floor = figure(found, 'floor', tasks)
    assert (floor['statements'], floor['commits']) == (tasks, tasks)
    memory = figure(found, 'memory', tasks)
    assert (memory['statements'], memory['commits']) == (0, 0)


def test_what_taskflows_backend_says_is_counted_too(found):
    # The measured reason why this engine exists.
    theirs = figure(found, 'taskflow', 10)
    assert theirs['statements'] > 100 and theirs['commits'] > 40


@pytest.mark.parametrize('tasks', [1, 10])
def test_it_is_several_times_faster_than_taskflows_backend(found, tasks):
    ours = figure(found, 'ours', tasks)
    theirs = figure(found, 'taskflow', tasks)
    assert theirs['ms'] > 3 * ours['ms']
    assert theirs['cpu_ms'] > 2 * ours['cpu_ms']


def test_the_goals_are_told_of(found):
    [_one, ten] = found['goals']
    assert ten['times_faster_than_taskflow'] == (
        figure(found, 'taskflow', 10)['ms'] / figure(found, 'ours', 10)['ms'])
    assert ten['times_faster_than_dbos'] is None


def test_flows_run_at_once_and_failures_are_told_of():
    options = engine._options(
        ['--databases', 'sqlite', '--peers', 'memory', 'ours', '--tasks',
         '10', '--rounds', '1', '--together', '1', '--flows', '4'])
    figures = engine.measure(options)
    assert all(one['flows_per_s'] > 0 for one in figures)


# -- builds beside stock ---------------------------------------------------

@pytest.fixture
def pools():
    """Each test begins with none."""
    yield
    thread_pool_factory.reset_all_executors()


def test_what_a_build_says_to_the_database(tmp_path, pools):
    """Of two servers in a request, each."""
    options = builds._options(
        ['--rounds', '1', '--servers', '2', '--concurrency', '1'])
    bench = builds.Bench(options, str(tmp_path))
    bench.play()
    stock, ours = (
        next(one for one in builds.data(options, bench.found)['figures']
             if one['mode'] == mode)['sql'] for mode in builds.MODES)
    # The request: its start, its hosts, its children with its end. Each
    # child: the start of its cast, and its end.
    assert ours['COMMIT ssm'] == 3 / 2 + 2
    assert 'COMMIT ssm' not in stock
    # One look for both whether they are still wanted.
    assert (stock['SELECT build_requests'],
            ours['SELECT build_requests']) == (1, 1 / 2)
    # What is Nova's own is the same, to the commit.
    for name in ('COMMIT nova_api', 'INSERT instances', 'DELETE '
                 'build_requests', 'INSERT instance_actions'):
        assert stock[name] == ours[name]


# -- the trace -------------------------------------------------------------

@pytest.mark.parametrize('seed', range(3))
def test_the_trace_is_as_busy_as_the_one_that_was_measured(seed):
    counts = trace.make(seed)
    assert (len(counts), sum(counts)) == (3600, 8417)
    assert (max(counts), counts.index(14)) == (14, 2880)
    assert counts == trace.make(seed)
    part = trace.busiest(counts, 60)
    assert len(part) == 60 and max(part) == 14
    assert sum(part) / 60 > sum(counts) / 3600


def test_requests_come_within_their_second():
    due = trace.arrivals([2, 0, 1], times=3)
    assert [int(moment) for moment in due] == [0] * 6 + [2] * 3
    assert due == sorted(due)
