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
"""What became of a chaos test is counted by operation and fault."""

import types

import pytest

from nova_ssm.tests.cloud import chaos_report
from nova_ssm.tests.cloud import chaos_tries
from nova_ssm.tests.cloud import settings


def a_try(**fields):
    values = {'ask': 1, 'operation': 'build', 'fault': 'none', 'at': 1.0,
              'server': 's', 'answer': 202, 'outcome': chaos_tries.DONE}
    return chaos_tries.Try(**values | fields)


def test_what_the_api_refused_was_not_tried():
    cells = chaos_report.count([
        a_try().plain(), a_try(outcome=chaos_tries.REFUSED).plain()])
    cell = cells['build', 'none']
    assert (cell['tried'], cell['done'], cell['refused']) == (1, 1, 1)


def test_each_operation_and_fault_has_a_cell():
    cells = chaos_report.count([
        a_try().plain(), a_try(operation='delete').plain(),
        a_try(fault='placement-500', outcome=chaos_tries.STUCK,
              left=['allocation left']).plain()])
    assert {key: (cell['tried'], cell['stuck'], cell['left'])
            for key, cell in cells.items()} == {
                ('build', 'none'): (1, 0, 0),
                ('delete', 'none'): (1, 0, 0),
                ('build', 'placement-500'): (1, 1, 1)}


@pytest.mark.parametrize('outcome', chaos_tries.OUTCOMES)
def test_a_run_is_bad_if_one_is_stuck_or_worse(outcome):
    result = {'findings': {}, 'tries': [a_try(outcome=outcome).plain()]}
    assert chaos_report.bad(result) == (outcome in chaos_tries.BAD)


def test_a_run_is_bad_if_something_is_left_that_nobody_knows():
    assert chaos_report.bad({'findings': {'a port': [1]}, 'tries': []})


@pytest.mark.parametrize(('answer', 'accepted'), [
    (202, True), (204, True), (500, False), (409, False), (None, False)])
def test_only_a_yes_of_the_api_is_a_promise(answer, accepted):
    assert a_try(answer=answer).accepted == accepted


def test_the_lines_of_the_logs_that_speak_of_a_bad_try_are_kept(tmp_path):
    log = tmp_path / 'log'
    log.mkdir()
    (log / 'cond1.log').write_text('about one\nof req-1\nof others\n')
    (log / 'cmp1.log').write_text('one is built\n')
    it = types.SimpleNamespace(settings=types.SimpleNamespace(log=log))
    kept = chaos_report.keep_logs(
        it, [a_try(server='one', request_id='req-1')], tmp_path / 'kept')
    assert kept == 3
    assert (tmp_path / 'kept/one.log').read_text() == (
        'cmp1: one is built\ncond1: about one\ncond1: of req-1\n')


def test_no_logs_are_kept_of_a_good_run(tmp_path):
    it = types.SimpleNamespace(settings=settings.Settings(tmp_path))
    assert chaos_report.keep_logs(it, [], tmp_path / 'kept') == 0
    assert not (tmp_path / 'kept').exists()


class World:
    """A judge's look at the world, as a test wants it."""

    def __init__(self, outcome):
        self.outcome = outcome

    def __call__(self, one):
        return self.outcome


@pytest.fixture
def judge():
    """Judges a try of which the world shows an outcome."""
    def judged(one, outcome):
        it = types.SimpleNamespace()
        made = chaos_tries.Judge(it)
        made._ways[one.operation] = World(outcome)
        made.judge([one])
        return one.outcome
    return judged


@pytest.mark.parametrize('shown', [chaos_tries.BACK, chaos_tries.SILENT,
                                   chaos_tries.LOST])
def test_who_was_refused_and_is_as_before_was_refused(judge, shown):
    assert judge(a_try(answer=500), shown) == chaos_tries.REFUSED


@pytest.mark.parametrize('shown', [chaos_tries.STUCK, chaos_tries.DONE,
                                   chaos_tries.ODD, chaos_tries.ERROR])
def test_who_was_refused_and_changed_all_the_same_counts(judge, shown):
    assert judge(a_try(answer=None), shown) == shown


def test_an_accepted_server_that_is_nowhere_is_lost(judge):
    assert judge(a_try(server=''), chaos_tries.DONE) == chaos_tries.LOST
