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
    assert len(names) == len(set(names)) == 1 + 5 * 4


def test_cases_of_all_variants_come_mixed():
    names = _walk(agenda.Agenda(['build', 'resize', 'migrate'], seed=3),
                  _seen('a', 20))
    third = [name.partition('/')[0] for name in names[3:103]]
    assert all(third.count(one) > 20 for one in ('build', 'resize',
                                                 'migrate'))
    assert names == _walk(
        agenda.Agenda(['build', 'resize', 'migrate'], seed=3), _seen('a', 20))


def test_a_sample_has_cases_of_each_flow_and_a_seed():
    seen = _seen('large', 40) + _seen('small', 2)
    names = _walk(agenda.Agenda(['build'], size=11, seed=7), seen)
    assert len(names) == 11
    assert sum('/small.' in name for name in names) == 5
    assert names == _walk(agenda.Agenda(['build'], size=11, seed=7), seen)
    assert names != _walk(agenda.Agenda(['build'], size=11, seed=8), seen)


def test_a_sample_takes_no_more_than_its_size():
    todo = agenda.Agenda(list('abcdefghijkl'), size=20)
    names = _walk(todo, _seen('one', 9) + _seen('two', 9))
    assert len(names) == 20
    assert sum(name.endswith('/') for name in names) == 5
    assert todo.todo == []


def test_one_flow_can_be_chosen():
    names = _walk(agenda.Agenda(['build'], flow='b'),
                  _seen('a', 3) + _seen('b', 1))
    assert len(names) == 1 + 5


def _undone(*calls):
    return [plan.Seen(UNMAP, call, 'sql' if call else '', stage=1)
            for call in calls]


def _bring_up(todo, *names, seen):
    """What cases bring up that is new."""
    found = []
    for name in names:
        before = set(todo.todo)
        todo._running.append(name)
        todo.learn(bench.Result(name, seen=seen))
        found.append(len(set(todo.todo) - before))
    return found


def test_the_same_is_undone_once_for_all_that_fails_behind_it():
    todo = agenda.Agenda(['build'])
    assert _bring_up(
        todo, 'build/build_instance.CreateArqs.execute:raise-after',
        'build/build_instance.CreateArqs.execute:raise-before',
        'build/build_instance.CreateTags.execute:raise-before',
        seen=_undone(0, 1)) == [5, 0, 0]


def test_what_is_undone_of_a_task_depends_on_how_far_it_came():
    todo = agenda.Agenda(['build'])
    assert _bring_up(
        todo, 'build/build_instance.MapInstance.execute:raise-before',
        'build/build_instance.MapInstance.execute:raise-after@1',
        seen=_undone(0, 1)) == [5, 5]


# -- going on with an earlier run -------------------------------------------

def _part(number):
    """Run so many cases; what is left, and the names of those that were."""
    todo, names = agenda.Agenda(['build', 'resize']), []
    while len(names) < number:
        names.append(todo.next())
        todo.learn(bench.Result(names[-1], seen=_seen('a', 4)))
    return names, todo.todo


def test_a_run_is_gone_on_with():
    done, left = _part(15)
    todo = agenda.Agenda(['build', 'resize'])
    todo.resume(done[:-1], [done[-1], *left])
    again = _walk(todo, _seen('a', 4))
    # Those that nothing disturbs, and one that has not held.
    assert set(again) & set(done) == {'build/', 'resize/', done[-1]}
    assert len(again) == len(set(again))
    assert set(again) | set(done) == set(_walk(
        agenda.Agenda(['build', 'resize']), _seen('a', 4)))


def test_a_task_that_is_new_since_then_is_tried():
    done, left = _part(15)
    todo = agenda.Agenda(['build', 'resize'])
    todo.resume(done, left)
    again = _walk(todo, _seen('a', 5))
    assert sum('T4' in name for name in again) == 2 * 5


def test_a_case_that_was_not_ended_is_left():
    todo = agenda.Agenda(['build'])
    assert todo.next() == 'build/'
    assert todo.todo == ['build/']


def test_cases_that_are_run_alone_leave_the_others():
    done, left = _part(15)
    todo = agenda.Agenda(['build', 'resize'])
    todo.resume(done, left)
    todo.only([left[3]])
    assert _walk(todo, []) == [left[3]]
    assert set(todo.todo) == {'build/', 'resize/', *left} - {left[3]}


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


def _results():
    return [bench.Result('build/'),
            bench.Result('build/a.B.execute:die-after', ['one is left']),
            bench.Result('build/a.B.execute:raise-after', struck=False)]


def test_a_report_counts_what_was_tried_and_what_has_held(tmp_path, capsys):
    it = report.Report(str(tmp_path), {})
    assert it.status == 2
    for number, result in enumerate(_results()):
        it.add(result)
        assert it.status == min(number, 1)
    it.finish(1, ['build/left'])
    assert it.table() == [
        {'variant': 'build', 'fault': 'dies', 'tried': 1, 'held': 0},
        {'variant': 'build', 'fault': 'none', 'tried': 1, 'held': 1}]
    said = capsys.readouterr().out
    assert '--case "build/a.B.execute:die-after"' in said
    assert '2 cases tried, 1 held, 1 not begun' in said


def test_a_report_is_written_while_the_run_goes_on(tmp_path):
    it = report.Report(str(tmp_path), {'seed': 3})
    for number in range(10):
        with pytest.raises(report.NoResults):
            report.last(str(tmp_path))
        it.add(bench.Result('build/a.B%d.execute:die-after' % number),
               number, ['build/left'])
    found = report.last(str(tmp_path))
    assert len(found['cases']) == found['held'] == 10
    assert found['todo'] == ['build/left']
    assert found['seconds'] == 9
    assert [path.name for path in tmp_path.iterdir()] == [report.FILE]


def test_a_report_goes_on_with_an_earlier_one(tmp_path, monkeypatch):
    monkeypatch.setattr(report.provenance, 'commit', lambda: 'old')
    first = report.Report(str(tmp_path), {'seed': 3})
    for result in _results():
        first.add(result)
    first.finish(10, [])
    monkeypatch.setattr(report.provenance, 'commit', lambda: 'new')
    second = report.Report(str(tmp_path), {'seed': 3},
                           report.last(str(tmp_path)))
    second.add(bench.Result('build/a.B.execute:die-after'))
    second.finish(5, [])
    assert second.status == 0
    found = report.last(str(tmp_path))
    assert (found['tried'], found['held'], found['seconds']) == (2, 2, 15)
    assert found['commit'] == 'new, old'
    assert [(one['case'], one['commit']) for one in found['cases']] == [
        ('build/', 'old'), ('build/a.B.execute:raise-after', 'old'),
        ('build/a.B.execute:die-after', 'new')]


def test_what_is_no_report_is_not_gone_on_with(tmp_path):
    (tmp_path / report.FILE).write_text('{"cases": 5}')
    with pytest.raises(report.NoResults):
        report.last(str(tmp_path))
