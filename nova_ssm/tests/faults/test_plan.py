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

"""Cases have names, faults strike once, and what was seen makes cases."""

import pytest

from nova_ssm.tests.faults import agenda
from nova_ssm.tests.faults import bench
from nova_ssm.tests.faults import calls
from nova_ssm.tests.faults import cases
from nova_ssm.tests.faults import plan
from nova_ssm.tests.faults import report

MAP = plan.Spot('build_instance', 'MapInstance', 'execute')
UNMAP = plan.Spot('build_instance', 'MapInstance', 'revert')
ROWS = plan.Spot('build_instance', '-', 'journal')


@pytest.mark.parametrize('name', [
    'build/',
    'build/build_instance.MapInstance.execute:die-before',
    'build-many/build_instance.MapInstance.execute:raise-after@2#3',
    'build/a.B.execute:raise-after+a.-.journal:die-before@1'])
def test_a_case_is_read_back_from_its_name(name):
    assert str(plan.Case.parse(name)) == name


@pytest.mark.parametrize('name', [
    'build/a', 'build/a.B:die-before', 'build/a.B.execute:explode-before'])
def test_other_names_are_refused(name):
    with pytest.raises(plan.BadCase):
        plan.Case.parse(name)


def _plan(*names):
    return plan.Plan(tuple(plan.Fault.parse(one) for one in names))


def test_a_fault_strikes_once_and_only_where_it_is_due():
    it = _plan('build_instance.MapInstance.execute:die-after#2')
    first = it.enter('build_instance', 'MapInstance', 'execute')
    assert it.strikes(first, 0, 'after', 'die') is None
    second = it.enter('build_instance', 'MapInstance', 'execute')
    assert it.strikes(second, 0, 'before', 'die') is None
    assert it.strikes(second, 0, 'after', 'raise') is None
    assert it.missed
    assert it.strikes(second, 0, 'after', 'die') == 'die'
    assert it.strikes(second, 0, 'after', 'die') is None
    assert not it.missed


def test_the_second_fault_waits_for_the_first():
    it = _plan('build_instance.MapInstance.execute:raise-after',
               'build_instance.MapInstance.revert:die-before')
    undo = it.enter('build_instance', 'MapInstance', 'revert')
    assert it.strikes(undo, 0, 'before', 'die') is None
    do = it.enter('build_instance', 'MapInstance', 'execute')
    assert it.strikes(do, 0, 'after', 'raise') == 'raise'
    assert it.strikes(undo, 0, 'before', 'die') == 'die'


def test_each_task_and_each_of_its_calls_is_an_occasion():
    seen = [plan.Seen(ROWS), plan.Seen(MAP), plan.Seen(MAP, 1, 'sql', 'x'),
            plan.Seen(ROWS, 1, 'journal', 'y')]
    found = [str(case) for case in cases.first('build', seen)]
    assert len(found) == 5 + 4 + 4
    assert len(set(found)) == len(found)
    assert 'build/build_instance.MapInstance.execute:twice-after' in found
    assert 'build/build_instance.MapInstance.execute:die-after@1' in found
    assert 'build/build_instance.-.journal:die-before@1' in found


def test_a_task_that_only_waits_to_be_undone_cannot_fail():
    found = [str(case) for case in cases.first(
        'build', [plan.Seen(MAP, idle=True)])]
    assert len(found) == 3
    assert not any('raise' in name for name in found)


def test_what_is_undone_is_an_occasion_for_more():
    case = plan.Case.parse(
        'build/build_instance.CreateArqs.execute:raise-after')
    seen = [plan.Seen(MAP), plan.Seen(UNMAP, stage=1),
            plan.Seen(UNMAP, 1, 'sql', 'x', stage=1),
            plan.Seen(ROWS, 7, 'journal', 'y', stage=1)]
    found = [str(one) for one in cases.second(case, seen)]
    assert found == ['%s+build_instance.MapInstance.revert:%s' % (case, what)
                     for what in ('die-before', 'die-after', 'twice-after',
                                  'die-before@1', 'die-after@1')]


def test_what_a_dead_conductor_had_begun_is_an_occasion_for_more():
    case = plan.Case.parse(
        'build/build_instance.MapInstance.execute:die-before@1')
    again = plan.Spot('build_instance', 'MapInstance', 'execute', 2)
    other = plan.Spot('build_instance', 'CreateArqs', 'execute')
    seen = [plan.Seen(again, 1, 'sql', 'x', stage=1),
            plan.Seen(other, 1, 'sql', 'x', stage=1)]
    found = [str(one) for one in cases.second(case, seen)]
    assert found == ['%s+build_instance.MapInstance.execute:%s' % (case, what)
                     for what in ('die-before@1#2', 'die-after@1#2')]


def _seen(flow, tasks):
    return [plan.Seen(plan.Spot(flow, 'T%d' % number, 'execute'))
            for number in range(tasks)]


def _walk(todo, seen):
    names = []
    while (name := todo.next()) is not None:
        names.append(name)
        todo.learn(bench.Result(name, seen=seen if name.endswith('/')
                                else []))
    return names


def test_all_cases_of_a_variant_are_run():
    names = _walk(agenda.Agenda(['build']), _seen('a', 4))
    assert len(names) == 1 + 5 * 4


def test_a_sample_has_cases_of_each_flow_and_a_seed():
    seen = _seen('large', 40) + _seen('small', 2)
    names = _walk(agenda.Agenda(['build'], size=10, seed=7), seen)
    assert len(names) == 1 + 10
    assert sum('/small.' in name for name in names) == 5
    assert names == _walk(agenda.Agenda(['build'], size=10, seed=7), seen)
    assert names != _walk(agenda.Agenda(['build'], size=10, seed=8), seen)


def test_one_flow_can_be_chosen():
    names = _walk(agenda.Agenda(['build'], flow='b'),
                  _seen('a', 3) + _seen('b', 1))
    assert len(names) == 1 + 5


class _Manager:
    pass


def test_who_is_dead_does_nothing_more():
    done = []
    process = calls.Process(_Manager(), _plan('-.-.work:die-after@2'))
    with pytest.raises(calls.Death):
        with calls.scope(process, 'work'):
            try:
                for number in range(5):
                    calls.leave('sql', 'x', lambda n=number: done.append(n))
            finally:
                calls.leave('sql', 'cleanup', lambda: done.append('no'))
    assert done == [0, 1]


def test_what_others_do_for_a_conductor_is_not_its_doing():
    process = calls.Process(_Manager(), _plan('-.-.work:die-before@2'))
    done = []

    def serve():
        calls.leave('sql', 'theirs', lambda: done.append('theirs'))
        return 'answer'

    with calls.scope(process, 'work'):
        assert calls.leave('placement', 'put', serve) == 'answer'
    assert done == ['theirs']
    assert [one.kind for one in process.plan.seen if one.call] == [
        'placement']


@pytest.mark.parametrize('kind', sorted(calls.FAILURES))
def test_each_service_fails_in_its_own_way(kind):
    process = calls.Process(_Manager(), _plan('-.-.work:raise-before@1'))
    with pytest.raises(type(calls.FAILURES[kind]())):
        with calls.scope(process, 'work'):
            calls.leave(kind, 'x', pytest.fail)


def test_a_report_counts_what_was_tried_and_what_has_held(tmp_path, capsys):
    it = report.Report(str(tmp_path), {})
    assert it.status == 2
    it.add(bench.Result('build/'))
    assert it.status == 0
    it.add(bench.Result('build/a.B.execute:die-after', ['one is left']))
    it.add(bench.Result('build/a.B.execute:raise-after', struck=False))
    it.finish(1, 0)
    assert it.status == 1
    assert it.table() == [
        {'variant': 'build', 'fault': 'none', 'tried': 1, 'held': 1},
        {'variant': 'build', 'fault': 'dies', 'tried': 1, 'held': 0}]
    said = capsys.readouterr().out
    assert '--case "build/a.B.execute:die-after"' in said
    assert '2 cases tried, 1 held' in said
