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

"""Finding the tests that run flows takes hours: it must be able to go on."""

import json

from nova.conductor import manager as nova_manager
import pytest

from nova_ssm import manager
from nova_ssm.tests.functional import oracle
from nova_ssm.tests.functional import oracle_find
from nova_ssm.tests.functional import oracle_pool
from nova_ssm.tests.functional import oracle_worker

NAME = 'nova.tests.functional.test_it.Case.test_%s'


class Tests:
    """Nova's tests, in the place of those that take minutes.

    :ivar ran: what was run, as (mode, name)
    """

    def __init__(self, monkeypatch):
        self.names = [NAME % letter for letter in 'abcd']
        self.failing = {'stock': set(), 'restart': set()}
        self.idle = set()
        self.ran = []
        self.interrupt_after = None
        tests = self

        class Pool:
            def __init__(self, mode, workers, directory, timeout):
                self.mode = mode

            def run(self, names, done):
                return {name: tests.run(self.mode, name, done)
                        for name in names}

        monkeypatch.setattr(oracle_pool, 'Pool', Pool)
        monkeypatch.setattr(oracle_find, 'candidates',
                            lambda: list(self.names))

    def run(self, mode, name, done):
        if len(self.ran) == self.interrupt_after:
            raise KeyboardInterrupt()
        self.ran.append((mode.name, name))
        flows = bool(mode.workflows) and name not in self.idle
        answer = oracle_pool.Answer(
            name, 'fail' if name in self.failing[mode.name] else 'ok',
            flows=flows, restarts=3 * flows,
            states={'SUCCESS': 1} if flows else {})
        done(answer)
        return answer

    def restarted(self):
        return [name for mode, name in self.ran if mode == 'restart']


@pytest.fixture
def tests(monkeypatch):
    return Tests(monkeypatch)


@pytest.fixture
def find(tmp_path, capsys):
    """Runs it; gives the exit status, the list, and what it says."""
    def find(*args):
        path = tmp_path / 'all.txt'
        status = oracle_find.main([
            '--results', str(tmp_path / 'results'), '--write', str(path),
            '--workers', '1', *args])
        listed = path.read_text().splitlines() if path.exists() else []
        return (status, [line for line in listed if line[:1] != '#'],
                capsys.readouterr().out)
    return find


def test_lists_what_ran_flows(tests, find):
    tests.idle = {NAME % 'b'}
    status, listed, said = find()
    assert (status, listed) == (0, [NAME % 'a', NAME % 'c', NAME % 'd'])
    assert 'run: 4, of which ran flows: 3' in said


def test_asks_stock_nova_about_what_fails_only(tests, find):
    tests.failing['restart'] = {NAME % 'a', NAME % 'c'}
    tests.failing['stock'] = {NAME % 'c'}
    status, listed, said = find()
    assert status == 1
    assert {name for mode, name in tests.ran if mode == 'stock'} == {
        NAME % 'a', NAME % 'c'}
    assert 'newly failing: 1, excepted: 0' in said
    assert NAME % 'a' in said and len(listed) == 4


def test_an_exception_does_not_count(tests, find, tmp_path):
    tests.failing['restart'] = {NAME % 'a'}
    path = tmp_path / 'exceptions.txt'
    path.write_text(NAME % 'a' + ' # a reason\n')
    status, _listed, said = find('--exceptions', str(path))
    assert status == 0
    assert 'newly failing: 0, excepted: 1' in said


def test_goes_on_where_it_was_ended(tests, find):
    tests.interrupt_after = 2
    status, listed, _said = find()
    assert listed == [NAME % 'a', NAME % 'b']
    tests.interrupt_after = None
    status, listed, _said = find()
    assert (status, len(listed)) == (0, 4)
    assert tests.restarted() == tests.names


def test_what_failed_is_run_again_and_first(tests, find):
    tests.failing['restart'] = {NAME % 'c'}
    tests.names.pop()
    assert find()[0] == 1
    tests.failing['restart'] = set()
    tests.names.append(NAME % 'e')
    assert find()[0] == 0
    assert tests.restarted()[3:] == [NAME % 'c', NAME % 'e']


def test_begins_afresh_if_told_so(tests, find):
    find()
    find('--afresh')
    assert tests.restarted() == tests.names * 2


def test_ends_when_its_time_is_over(tests, find):
    status, listed, _said = find('--seconds', '0')
    assert listed == [NAME % 'a']


def test_half_a_line_of_who_was_killed_is_forgotten(tests, find, tmp_path):
    find()
    [kept] = (tmp_path / 'results').glob('restart-nova-*.jsonl')
    lines = kept.read_text()
    kept.write_text(lines[:-20])
    assert len(find()[1]) == 4
    assert tests.restarted() == [*tests.names, tests.names[-1]]
    assert [json.loads(line)['id'] for line in
            kept.read_text().splitlines()] == tests.names


def test_what_was_found_elsewhere_stays_until_it_is_run(tests, find,
                                                        tmp_path):
    (tmp_path / 'all.txt').write_text(
        '# found\n' + NAME % 'c' + '\n' + NAME % 'z' + '\n')
    tests.idle = {NAME % 'c'}
    _status, listed, _said = find()
    assert listed == [NAME % letter for letter in 'abdz']


def test_a_list_is_judged_and_not_written_over(tests, find, tmp_path):
    path = tmp_path / 'some.txt'
    path.write_text(NAME % 'b' + '\n')
    status = oracle_find.main(['--results', str(tmp_path / 'results'),
                               '--workers', '1', str(path)])
    assert (status, tests.restarted()) == (0, [NAME % 'b'])
    assert path.read_text() == NAME % 'b' + '\n'


def test_tests_that_run_nothing_of_ours_say_nothing(tests, find):
    tests.idle = set(tests.names)
    status, listed, said = find()
    assert (status, listed) == (1, [])
    assert 'not used' in said


def test_all_is_the_list_that_was_found():
    assert oracle_find.parse(['--results', 'x', 'all']).list == (
        oracle.ALL_LIST)
    assert oracle.parse(['--results', 'x', 'all']).list == oracle.ALL_LIST


def test_those_that_create_servers_come_first(monkeypatch):
    said = json.dumps([[NAME % 'b', False], [NAME % 'a', True],
                       [NAME % 'c', True]])
    monkeypatch.setattr(
        oracle_find.subprocess, 'run',
        lambda *args, **kwargs: type('Done', (), {'stdout': said}))
    first = oracle_find.candidates()
    assert first[-1] == NAME % 'b' and len(first) == 3
    assert first == oracle_find.candidates()


def test_a_stub_in_the_place_of_novas_method_is_called(monkeypatch):
    ours, theirs = manager.ComputeTaskManager, nova_manager.ComputeTaskManager
    monkeypatch.setattr(ours, '_workflow', ours._workflow)
    oracle_worker.heed_stubs()
    one = object.__new__(ours)
    one._workflows = {'_live_migrate': type('Workflow', (), {
        'takes': lambda self, *args, **kwargs: True,
        '_live_migrate': lambda self: 'ours'})()}
    assert one._workflow('_live_migrate')() == 'ours'
    monkeypatch.setattr(theirs, '_live_migrate', lambda self: 'a stub')
    assert one._workflow('_live_migrate')() == 'a stub'
