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
"""The command that runs the test benches."""

import json
import subprocess

import pytest

from nova_ssm.tests.proof import main
from nova_ssm.tests.unit.proof import conftest


@pytest.fixture
def state(tmp_path, monkeypatch):
    where = tmp_path / 'state'
    (where / 'cloud/results').mkdir(parents=True)
    (where / 'results/prove').mkdir(parents=True)
    monkeypatch.setenv('NOVA_SSM_STATE', str(where))
    return where


@pytest.fixture
def benches(state, monkeypatch):
    """Stands in for the test benches; a list of what was run."""
    ran = []

    def run(argv, **kwargs):
        ran.append(argv)
        if 'chaos.sh' in argv[0]:
            (state / 'cloud/results/chaos-1.json').write_text(
                json.dumps(conftest.CHAOS))
        return subprocess.CompletedProcess(argv, 1)

    monkeypatch.setattr(main.subprocess, 'run', run)
    return ran


def test_given_results_are_taken_and_nothing_is_run(
        all_results, tmp_path, benches):
    target = tmp_path / 'page'
    status = main.main(['--page', str(target), '--from',
                        *map(str, all_results)])
    # Something of nova_ssm is not well in these.
    assert status == 1
    assert not benches
    assert (target / 'reliability.rst').exists()


def test_what_is_well_ends_with_zero(results, tmp_path):
    assert main.main(['--page', str(tmp_path / 'page'), '--from',
                      str(results('faults'))]) == 0


def test_stock_may_fail(results, tmp_path):
    assert main.main(['--page', str(tmp_path / 'page'), '--from',
                      str(results('crash'))]) == 0


def test_a_wrong_file_ends_with_two_and_changes_nothing(tmp_path, capsys):
    path = tmp_path / 'x.json'
    path.write_text('{}')
    assert main.main(['--page', str(tmp_path / 'page'),
                      '--from', str(path)]) == 2
    assert 'x.json' in capsys.readouterr().err
    assert not (tmp_path / 'page').exists()


def test_the_results_of_a_bench_are_found(state, benches):
    assert main.main(['--only', 'chaos', '--seed', '4']) == 1
    (argv,) = benches
    assert argv[1:] == ['--minutes', '2', '--seed', '4']
    assert 'chaos.sh' in (state / 'results/prove/reliability.rst').read_text()


def test_a_bench_without_results_is_named(state, benches, capsys):
    assert main.main(['--only', 'crash']) == 2
    assert 'crash ended with 1' in capsys.readouterr().err


def test_old_results_are_not_taken_for_new_ones(state, benches, tmp_path):
    old = state / 'cloud/results/crash-1.json'
    old.write_text(json.dumps(conftest.CRASH))
    main.os.utime(old, (1, 1))
    assert main.main(['--only', 'crash']) == 2


def test_the_last_results_are_taken_and_nothing_is_run(state, benches):
    for number, (commit, when) in enumerate((('old', 1), ('new', 9))):
        path = state / f'cloud/results/chaos-{number}.json'
        path.write_text(json.dumps(conftest.CHAOS | {'commit': commit}))
        main.os.utime(path, (when, when))
    main.main(['--last'])
    text = (state / 'results/prove/reliability.rst').read_text()
    assert '     - new\n' in text
    assert '     - old\n' not in text
    assert not benches


def test_without_any_results_there_is_a_page_that_says_so(state, benches):
    assert main.main(['--last']) == 0
    assert 'Not run for this page' in (
        state / 'results/prove/reliability.rst').read_text()


def test_the_long_run_has_all_that_the_quick_one_has():
    assert all(step.long is not None for step in main.STEPS)
    assert any(step.quick is None for step in main.STEPS)
