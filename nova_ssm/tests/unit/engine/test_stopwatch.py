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

"""How long tasks take, told by the states that TaskFlow reports."""

import itertools

from hypothesis import given
from hypothesis import strategies
import pytest

from nova_ssm.engine import stopwatch

STATES = (*stopwatch.BEGINS, *stopwatch.ENDS, 'PENDING', 'IGNORE')


@pytest.fixture(autouse=True)
def seconds(monkeypatch):
    """A clock that goes on by a second at each look."""
    monkeypatch.setattr(stopwatch.time, 'monotonic',
                        itertools.count(0.0).__next__)


def noted(*states):
    watch = stopwatch.Stopwatch()
    for state in states:
        watch.note('a', state)
    return watch


@pytest.mark.parametrize('end', ('SUCCESS', 'FAILURE'))
def test_what_was_executed(end):
    watch = noted('RUNNING', end)
    assert watch.seconds('a', end) == 1
    assert watch.lap('a').what == 'execute'


@pytest.mark.parametrize('end', ('REVERTED', 'REVERT_FAILURE'))
def test_what_was_undone_is_not_what_was_executed(end):
    watch = noted('RUNNING', 'SUCCESS', 'REVERTING', end)
    assert watch.seconds('a', end) == 1
    assert watch.seconds('a', 'SUCCESS') is None


def test_what_has_not_ended_has_no_seconds():
    watch = noted('RUNNING')
    assert watch.seconds('a', 'SUCCESS') is None
    assert watch.lap('a').seconds is None


def test_its_progress_does_not_begin_it_anew():
    assert noted('RUNNING', 'RUNNING', 'SUCCESS').seconds('a', 'SUCCESS') == 1


def test_another_intention_does_not_end_it_anew():
    assert noted('RUNNING', 'SUCCESS', 'SUCCESS').seconds('a', 'SUCCESS') == 1


def test_each_try_is_measured_by_itself():
    watch = noted('RUNNING', 'FAILURE', 'REVERTING', 'REVERTED', 'PENDING',
                  'RUNNING')
    assert watch.lap('a').seconds is None
    watch.note('a', 'SUCCESS')
    assert watch.seconds('a', 'SUCCESS') == 1


def test_what_another_process_has_begun_is_not_known():
    watch = noted('SUCCESS', 'REVERTED')
    assert watch.lap('a') is None
    assert watch.seconds('a', 'SUCCESS') is None


@given(strategies.lists(strategies.sampled_from(STATES), max_size=12))
def test_whatever_is_reported_no_time_is_made_up(states):
    watch = noted(*states)
    for state in STATES:
        seconds = watch.seconds('a', state)
        if seconds is not None:
            assert seconds > 0
            what = stopwatch.ENDS[state]
            for known in (stopwatch.BEGINS, stopwatch.ENDS):
                assert {one for one in known if known[one] == what} & set(
                    states)
