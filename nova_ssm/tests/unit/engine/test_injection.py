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

"""The cloud's injector: it comes by each point of a graph, and kills once."""

import dataclasses
import signal

import pytest

from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.tests.cloud import boundaries_plan as plan
from nova_ssm.tests.cloud import injection
from nova_ssm.tests.cloud import injection_orders as orders
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

Point = orders.Point
BOUNDARY, MIDDLE, DONE = orders.BOUNDARY, orders.MIDDLE, orders.DONE
EXECUTE, REVERT = orders.EXECUTE, orders.REVERT


@pytest.fixture
def files(tmp_path):
    return orders.Orders(tmp_path)


@pytest.fixture
def injector(files, monkeypatch):
    """Hung onto the engine, and onto the example tasks, for one test."""
    for cls, names in (
            (runner.Runner, ('__init__', 'run', '_run_graph', '_prepare')),
            (journal.FlowLog, ('note',)),
            (database.Database, ('transaction',)),
            (helpers.Do, ('execute', 'recover', 'revert')),
            (helpers.Read, ('execute',)),
            (examples.FailsTwice, ('execute', 'recover'))):
        for name in names:
            if name in vars(cls):
                monkeypatch.setattr(cls, name, vars(cls)[name])
    made = injection.Injector(files)
    injection._watch_engine(made)
    return made


@pytest.fixture
def start(injector, process, world, monkeypatch):
    """Start a process of which the signal kills no more than it."""
    def make(flows):
        made = process(flows)
        made.runner.after_commit = injector.committed
        make_effect = world.make

        def make_and_tell(name):
            make_effect(name)
            injector.changed('make ' + name)
        monkeypatch.setattr(world, 'make', make_and_tell)

        def kill(group, number):
            assert number == signal.SIGKILL
            made.kill()
        monkeypatch.setattr(injection.os, 'killpg', kill)
        return made
    return make


def points(files):
    """What was come by: task, phase and where."""
    return [(passed.point.task, passed.point.phase, passed.point.at)
            for passed in files.trace()]


def graph(flows):
    return registry.FlowType('flow', '1.0', flows['flow'])


def test_it_comes_by_each_point_of_a_graph(start, files, world):
    flows = examples.simple(world)
    start(flows).run()
    seen = {plan.plain(passed.point) for passed in files.trace()}
    missed = plan.missing(graph(flows), seen)
    assert missed and {point.phase for point in missed} == {REVERT}


def test_the_points_come_in_the_order_of_time(start, files, world):
    start({'flow': lambda: helpers.linear(helpers.Once('a', world))}).run()
    assert points(files) == [
        ('', '', orders.START), ('a', EXECUTE, orders.BEGUN),
        ('a', EXECUTE, MIDDLE), ('a', EXECUTE, DONE),
        ('a', EXECUTE, BOUNDARY), ('', '', orders.END)]


def test_a_task_without_a_row_has_a_boundary(start, files, world):
    start({'flow': lambda: helpers.linear(
        helpers.Read('r', world), helpers.Do('a', world))}).run()
    states = {passed.point.task: passed.state for passed in files.trace()
              if passed.point.at == BOUNDARY}
    assert states == {'r': None, 'a': 'SUCCESS'}


def test_the_way_back_has_its_points(start, files, world):
    flows = examples.simple(world)
    made = start(flows)
    files.fail_in('flow', 'c')
    assert made.run().failed_task == 'c'
    back = [point for point in points(files) if point[1] == REVERT]
    assert [point[2] for point in back] == [MIDDLE, DONE, BOUNDARY] * 3
    assert [point[0] for point in back[::3]] == ['c', 'b', 'a']
    assert world.effects == []


def test_what_must_not_be_done_twice_fails_undone(start, files, world):
    made = start(examples.simple(world))
    files.fail_in('flow', 'b')
    made.run()
    assert (world.count('do a'), world.count('do b')) == (1, 0)


def test_a_retry_comes_by_again(start, files, world):
    start(examples.retrying(world)).run()
    turns = [passed.point.turn for passed in files.trace()
             if (passed.point.task, passed.point.phase, passed.point.at) ==
             ('b', EXECUTE, BOUNDARY)]
    assert turns == [1, 2, 3]


@pytest.mark.parametrize('at', [orders.BEGUN, MIDDLE, DONE, BOUNDARY])
def test_it_kills_there_and_once(start, files, world, at):
    made = start(examples.simple(world))
    point = Point('flow', 'b', EXECUTE, at, 1, int(at == MIDDLE))
    files.kill_at(point, 'token')
    with pytest.raises(helpers.Killed):
        made.run()
    last = list(files.trace())[-1]
    assert (last.point, last.killed) == (point, 'token')
    assert not files.pending
    assert ('b' in world.effects) == (at != orders.BEGUN)
    # Another one, to which the order is none any more.
    start(examples.simple(world)).run()
    assert list(files.trace())[-1].point.at == orders.END


def test_an_order_for_another_server_is_left_alone(start, files, world):
    made = start(examples.simple(world))
    files.kill_at(Point('flow', 'b', EXECUTE, DONE), 'token', 'another')
    assert made.run().failure is None
    assert files.pending


def test_only_one_takes_an_order(files):
    point = Point('flow', 'b', EXECUTE, DONE)
    files.kill_at(point, 'token')
    assert [files.take(point, None), files.take(point, None)] == [
        'token', None]


def test_the_trace_can_be_read_from_a_place_on(start, files, world):
    made = start(examples.simple(world))
    made.run()
    since = files.end_of_trace()
    assert list(files.trace(since)) == []
    made.run()
    assert len(list(files.trace(since))) * 2 == len(list(files.trace()))


def test_steps_are_each_moment_once(start, files, world):
    """A task that changes nothing has no end beside its middle."""
    start(examples.simple(world)).run()
    steps = plan.steps(files.trace())
    by_task = {}
    for step in steps:
        by_task.setdefault(step.point.task, []).append(step.point.at)
    assert by_task['r'] == [MIDDLE, BOUNDARY]
    assert by_task['a'] == [MIDDLE, DONE, BOUNDARY]
    assert len(steps) == len(set(steps))


def test_only_the_first_change_of_a_task_counts_unless_told(files):
    for change in (1, 2, 3):
        files.write(orders.Passed(
            Point('flow', 'a', EXECUTE, MIDDLE, 1, change), 0.0, '', 0,
            'uuid', None))
    trace = list(files.trace())
    assert [len(plan.steps(trace, every)) for every in (False, True)] == [
        1, 3]


def test_a_step_that_ends_otherwise_is_another_one():
    point = Point('flow', 'a', EXECUTE, BOUNDARY)
    passed = orders.Passed(point, 0.0, '', 0, 'uuid', None, 'SUCCESS')
    failed = dataclasses.replace(passed, state='FAILURE')
    assert plan.steps([passed]) != plan.steps([failed])


def test_what_fails_is_the_cast_that_ran(start, files, world):
    flows = examples.simple(world)
    start(flows).run()
    assert plan.failing(graph(flows), plan.steps(files.trace())) == 'b'


def test_each_task_of_each_plugin_has_its_points():
    types = plan.flow_types()
    assert {'build_instance', 'resize', 'live_migrate'} <= types.keys()
    for flow_type in types.values():
        tasks = {point.task for point in plan.possible(flow_type)} - {''}
        assert tasks == {atom.name for atom in plan.atoms(flow_type)}
