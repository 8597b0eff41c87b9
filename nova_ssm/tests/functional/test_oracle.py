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

"""The oracle must not let anything pass that it has not seen pass."""

import json
import pathlib
import textwrap

import pytest

from nova_ssm.tests.functional import oracle
from nova_ssm.tests.functional import oracle_pool
from nova_ssm.tests.functional import oracle_report

STOCK = oracle_pool.Mode('stock')
PACKAGE = 'judged.tests.cases.Cases.'
CASES = '''
    import os
    import time
    import unittest


    class Cases(unittest.TestCase):
        def test_hangs(self):
            time.sleep(600)

        def test_kills_its_process(self):
            os._exit(7)

        def test_exits(self):
            raise SystemExit(3)

        def test_passes(self):
            print('to the log, not among the answers')

        def test_fails(self):
            self.fail('the reason')

        def test_skips(self):
            self.skipTest('not here')

        def test_passes_the_second_time(self):
            with open(os.environ['JUDGED_COUNT'], 'a+') as count:
                count.write('x')
                self.assertGreater(count.tell(), 1, 'the first time')

        @unittest.expectedFailure
        def test_passes_unexpectedly(self):
            pass
'''


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """A pool of one worker that can import tests of our own."""
    package = tmp_path / 'judged' / 'tests'
    package.mkdir(parents=True)
    (tmp_path / 'judged' / '__init__.py').touch()
    (package / '__init__.py').touch()
    (package / 'cases.py').write_text(textwrap.dedent(CASES))
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    monkeypatch.setenv('JUDGED_COUNT', str(tmp_path / 'count'))
    return oracle_pool.Pool(STOCK, 1, str(tmp_path), timeout=5)


def _run(pool, *names):
    answers = pool.run([PACKAGE + name for name in names], lambda answer: None)
    return {test_id.removeprefix(PACKAGE): answer
            for test_id, answer in answers.items()}


def test_the_status_of_each_test(pool):
    answers = _run(pool, 'test_passes', 'test_fails', 'test_skips',
                   'test_passes_unexpectedly', 'test_is_not_there',
                   'test_exits')
    assert {name: answer.status for name, answer in answers.items()} == {
        'test_passes': 'ok', 'test_fails': 'fail', 'test_skips': 'skip',
        'test_passes_unexpectedly': 'fail', 'test_is_not_there': 'fail',
        'test_exits': 'fail'}
    assert 'the reason' in answers['test_fails'].error
    assert 'no such test' in answers['test_is_not_there'].error


def test_a_test_that_takes_its_worker_down_fails_alone(pool):
    answers = _run(pool, 'test_kills_its_process', 'test_hangs',
                   'test_passes')
    assert answers['test_kills_its_process'].status == 'fail'
    assert 'status 7' in answers['test_kills_its_process'].error
    assert answers['test_hangs'].status == 'fail'
    assert 'killed' in answers['test_hangs'].error
    log = answers['test_hangs'].error.split()[-1]
    assert 'time.sleep(600)' in pathlib.Path(log).read_text()
    assert answers['test_passes'].status == 'ok'


def test_a_worker_that_does_not_start_is_an_error_of_the_run(tmp_path):
    pool = oracle_pool.Pool(STOCK, 1, str(tmp_path), timeout=5)
    with pytest.raises(RuntimeError, match='ended with status'):
        pool.run(['no.such.package.Cases.test'], lambda answer: None)


def _answers(**status):
    return {name: oracle_pool.Answer(name, value)
            for name, value in status.items()}


def test_what_passes_on_stock_must_pass_with_ours():
    stock = _answers(a='ok', b='ok', c='fail', d='skip', e='xfail')
    ours = _answers(a='ok', b='fail', c='fail', d='fail', e='skip', new='fail')
    found = oracle_report.compare(stock, ours, 'ssm', {'b': 'known'})
    assert [(d.id, d.reason) for d in found] == [
        ('b', 'known'), ('d', ''), ('e', ''), ('new', '')]


@pytest.mark.parametrize('flows, restarts, restart, problem', [
    (0, 0, False, 'not used'),
    (1, 0, False, ''),
    (1, 0, True, 'not restarted'),
    (1, 1, True, ''),
])
def test_a_run_that_says_nothing_is_found_out(flows, restarts, restart,
                                              problem):
    name = 'nova.tests.functional.test_x.T.test_y'
    answer = oracle_pool.Answer(name, 'ok', flows=flows, restarts=restarts)
    found = oracle_report.unused({name: answer}, restart)
    assert problem in found
    assert bool(problem) == bool(found)


def test_an_exception_needs_a_reason(tmp_path):
    path = tmp_path / 'exceptions.txt'
    path.write_text('# why\n\na.b.c # because\n')
    assert oracle_report.read_exceptions(str(path)) == {'a.b.c': 'because'}
    path.write_text('a.b.c\n')
    with pytest.raises(ValueError, match='exceptions.txt:1'):
        oracle_report.read_exceptions(str(path))


def test_a_sample_is_spaced_evenly(tmp_path):
    path = tmp_path / 'list.txt'
    ids = [PACKAGE + 'test_%d' % number for number in range(100)]
    path.write_text('# comment\n' + '\n'.join(ids))
    assert oracle.read_list(str(path), 4) == ids[::25]
    assert oracle.read_list(str(path), None) == ids
    path.write_text('2026-01-01 not a test')
    with pytest.raises(ValueError, match='not the id of a test'):
        oracle.read_list(str(path), None)


def test_the_exit_status_and_the_kept_results(tmp_path, pool, capsys):
    path = tmp_path / 'list.txt'
    path.write_text(PACKAGE + 'test_passes\n' + PACKAGE + 'test_fails\n')
    status = oracle.main([
        '--stock-only', '--results', str(tmp_path / 'results'), '-f', 'json',
        '--workers', '1', str(path)])
    assert status == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary['modes']['stock']['ok'] == 1
    assert summary['modes']['stock']['fail'] == 1
    kept = oracle.Kept(str(tmp_path / 'results')).load()
    assert kept[PACKAGE + 'test_fails'].status == 'fail'


def test_what_fails_on_stock_is_run_again(tmp_path, pool, capsys):
    path = tmp_path / 'list.txt'
    path.write_text(PACKAGE + 'test_passes_the_second_time\n'
                    + PACKAGE + 'test_fails\n')
    oracle.main(['--stock-only', '--results', str(tmp_path / 'results'),
                 str(path)])
    kept = oracle.Kept(str(tmp_path / 'results')).load()
    assert kept[PACKAGE + 'test_passes_the_second_time'].unstable
    assert kept[PACKAGE + 'test_passes_the_second_time'].status == 'ok'
    assert kept[PACKAGE + 'test_fails'].status == 'fail'
    out = capsys.readouterr().out
    assert 'UNSTABLE' in out
    assert 'the first time' in out
