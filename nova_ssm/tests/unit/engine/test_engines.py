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

"""Engines that run one flow after the other."""

import gc
import threading
import weakref

import pytest
from taskflow import exceptions as taskflow_exc
from taskflow.patterns import graph_flow
from taskflow.persistence.backends import impl_memory
from taskflow.utils import persistence_utils

from nova_ssm.engine import engine
from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm.engine import registry
from nova_ssm.engine import task
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

Do, Read = helpers.Do, helpers.Read
SUCCESS, REVERTED = 'SUCCESS', 'REVERTED'


class Count(task.Task):
    """Give one more than what it was given."""

    def execute(self, number):
        return number + 1


class Counting:
    """A type of flow that counts how often its graph is made."""

    def __init__(self, make):
        self.made = 0
        self._make = make

    def __call__(self):
        self.made += 1
        return self._make()


@pytest.fixture
def counted(process):
    """A process with one type of flow, and how often its graph was made."""
    counting = Counting(lambda: helpers.linear(
        Count('one', provides='first'),
        Count('two', provides='second', rebind={'number': 'first'})))
    return process({'flow': counting}), counting


def run(one, **store):
    return one.run(**store)


def test_a_graph_is_made_once_for_flows_that_follow_each_other(counted):
    one, counting = counted
    for _time in range(3):
        assert run(one, number=1).state == SUCCESS
    assert counting.made == 1


def test_a_flow_knows_nothing_of_the_one_before(counted):
    one, _counting = counted
    results = [run(one, number=number).results for number in (1, 10)]
    assert [found['second'] for found in results] == [3, 12]
    assert [found['number'] for found in results] == [1, 10]


def test_each_flow_is_journaled_as_its_own(counted, url):
    one, _counting = counted
    for number in (1, 2):
        outcome = run(one, number=number)
        assert helpers.state_of(url, outcome.uuid) == (SUCCESS, None)
        assert sorted(queries.atoms(one.db, outcome.uuid)) == ['one', 'two']


def test_a_graph_is_asked_again_if_it_is_given_something_else(counted):
    one, _counting = counted
    assert run(one, number=1).state == SUCCESS
    lacking = run(one, other=1)
    assert lacking.state == REVERTED
    assert isinstance(lacking.failure, taskflow_exc.MissingDependencies)
    # The failure is its own only.
    assert run(one, number=5).results['second'] == 7


def test_what_has_failed_is_not_used_again(process, world):
    counting = Counting(examples.simple(world)['flow'])
    one = process({'flow': counting})
    world.failing['do b'] = examples.Broken('compute', code=1)
    assert one.run().state == REVERTED
    del world.failing['do b']
    assert one.run().state == SUCCESS
    assert one.run().state == SUCCESS
    assert counting.made == 2


def test_a_flow_after_one_that_succeeded_can_be_undone(process, world):
    one = process(examples.simple(world))
    assert one.run().state == SUCCESS
    world.calls.clear()
    world.failing['do c'] = examples.Broken('compute', code=1)
    assert one.run().state == REVERTED
    assert world.calls == ['do a', 'read r', 'do b', 'read s', 'do c',
                           'undo c', 'undo b', 'undo a']


def test_what_is_resumed_has_a_graph_of_its_own(process, world):
    counting = Counting(examples.simple(world)['flow'])
    world.failing['do c'] = SystemExit(1)
    with pytest.raises(SystemExit):
        process({'flow': counting}).run()
    del world.failing['do c']
    other = process({'flow': counting})
    made = counting.made
    [resumed] = other.resume_all()
    assert resumed.state == SUCCESS
    other.run()
    assert counting.made == made + 2, 'it was prepared for a recovery'


def test_no_two_flows_have_the_same_engine_at_once(process):
    together = threading.Barrier(4, timeout=60)
    seen = []

    class Meet(task.Task):
        def execute(self):
            seen.append(self)
            together.wait()

    one = process({'flow': lambda: helpers.linear(Meet('meet'))})
    for _turn in range(2):
        seen.clear()
        threads = [threading.Thread(target=one.run) for _number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(map(id, seen))) == 4


def test_only_some_engines_are_kept():
    flow_type = registry.FlowType(
        'flow', '1.0', lambda: helpers.linear(Count('one')))
    engines = engine.Engines(spare=2)
    for _number in range(5):
        engines.give_back(flow_type, engine.Engine(
            flow_type.factory(), None, None))
    assert len(engines._spare[flow_type]) == 2


class Given:
    """What a flow is given, and nobody else has."""


def test_an_engine_keeps_nothing_of_a_flow_that_is_over():
    """It may be a secret, or large."""
    flow_type = registry.FlowType(
        'flow', '1.0', lambda: helpers.linear(Count('one')))
    engines = engine.Engines()
    given, backend = Given(), impl_memory.MemoryBackend({'deep_copy': False})
    known = weakref.ref(given)
    detail = journal.new_detail('uuid', 'flow', {'number': given})
    backend.get_connection().update_flow_details(detail, ignore_missing=True)
    made = engines.take(flow_type, detail, backend)
    made.compile()
    made.prepare()
    engines.give_back(flow_type, made)
    del given, backend, detail
    gc.collect()
    assert known() is None
    assert engines._spare[flow_type].pop() is made


def test_progress_that_a_task_reports_is_seen_and_not_journaled(
        process, world):
    seen = []

    class Slow(Do):
        def execute(self):
            self.update_progress(0.5)
            return super().execute()

    def make():
        slow = Slow('a', world)
        slow.notifier.register(
            'update_progress',
            lambda event, details: seen.append(details['progress']))
        return helpers.linear(slow)

    one = process({'flow': make})
    assert one.runner.worker.valid
    statements = helpers.Statements(one.db)
    statements.since()
    assert one.run().state == SUCCESS
    assert seen == [0.0, 0.5, 1.0]
    # One to start, one for the task, one to end.
    assert statements.since()['COMMIT'] <= 3


# -- what is ready ---------------------------------------------------------

def asked_by(flow, monkeypatch, *before):
    """Which tasks are asked whether they are ready, when one has ended.

    :param before: have ended before
    """
    backend = impl_memory.MemoryBackend()
    _book, detail = persistence_utils.temporary_flow_detail(backend)
    detail.add(*journal.new_detail('flow', 'flow', {}))
    one = engine.Engine(flow, detail, backend)
    one.compile()
    one.prepare()
    for name in before:
        one.storage.save(name, None)
    asked = []
    ask = engine.Selector._get_maybe_ready_for_execute

    def maybe_ready(self, atom):
        asked.append(atom.name)
        return ask(self, atom)

    monkeypatch.setattr(engine.Selector, '_get_maybe_ready_for_execute',
                        maybe_ready)
    one.run()
    assert {one.state(atom.name) for atom in one.atoms} == {SUCCESS}
    # At the start, and at the end, all of them are.
    return asked[len(one.atoms):-len(one.atoms)]


class Nothing(task.Task):
    """Do nothing."""

    def execute(self):
        pass


def test_only_the_next_task_is_asked_whether_it_is_ready(monkeypatch):
    names = [str(number) for number in range(10)]
    asked = asked_by(helpers.linear(*map(Nothing, names)), monkeypatch)
    assert asked == names[1:]


def test_tasks_behind_one_that_has_ended_are_asked_too(monkeypatch):
    asked = asked_by(helpers.linear(*map(Nothing, 'abcd')), monkeypatch,
                     'b', 'c')
    assert asked == ['b', 'c', 'd']


def test_each_way_is_gone_to_its_next_task(monkeypatch):
    flow = graph_flow.Flow('flow')
    a, b, c, d, e = map(Nothing, 'abcde')
    flow.add(a, b, c, d, e)
    for before, after in ((a, b), (b, c), (a, d), (c, e), (d, e)):
        flow.link(before, after)
    asked = asked_by(flow, monkeypatch)
    assert sorted(asked) == ['b', 'c', 'd', 'e', 'e']
