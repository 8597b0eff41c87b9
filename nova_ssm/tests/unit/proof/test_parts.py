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
"""The results of each test bench are counted in the same way."""

import json

import hypothesis
from hypothesis import strategies
import pytest

from nova_ssm.tests.proof import parts


def numbers(part):
    return {(row.operation, row.fault, row.mode):
            (row.tried, row.survived, row.left, row.apart)
            for row in part.rows}


def test_chaos(results):
    part = parts.read(results('chaos'))
    assert numbers(part) == {
        ('build', 'broker', 'stock'): (1, 0, 0, 0),
        ('build', 'broker', 'ssm'): (2, 2, 1, 1),
        # What nobody can be blamed for is not lost from the sum.
        ('not known', 'not known', 'ssm'): (0, 0, 1, 0)}
    assert part.remarks == ('ssm: 1 x a port, deleted',)
    assert part.command == 'tools/chaos.sh --seed 7 --minutes 12'


def test_crash_counts_an_error_without_a_fault_as_not_survived(results):
    part = parts.read(results('crash'))
    (counted,) = numbers(part).values()
    assert counted == (8, 4, 4, 0)


def test_boundaries_say_what_was_not_reached(results):
    part = parts.read(results('boundaries'))
    assert sorted(numbers(part).values()) == [(1, 1, 0, 0), (2, 1, 1, 0)]
    assert part.remarks == ('resize: a/b was not reached',)


def test_the_oracle_counts_what_newly_fails(results):
    part = parts.read(results('oracle'))
    assert sorted(numbers(part).values()) == [(9, 7, 0, 0), (9, 8, 0, 0)]
    assert part.remarks == ('restart: a.b.c fails',)


def test_ownership_counts_tests(results):
    part = parts.read(results('ownership'))
    assert numbers(part) == {
        ('who owns a flow', 'two sleep', 'ssm'): (2, 1, 0, 0)}
    assert part.remarks == ('test_two_sleep[2] fails',)


def test_faults_of_tasks(results):
    part = parts.read(results('faults'))
    assert numbers(part) == {('build', 'a task dies', 'ssm'): (5, 5, 0, 0)}
    assert (part.command, part.date) == ('tools/faults.sh',
                                         '2026-11-22 20:00')


def test_faults_of_stock_nova_say_what_has_not_held(results):
    part = parts.read(results(
        'faults', options={'stock': True}, left=3,
        cases=[{'case': 'build/x', 'held': False}],
        table=[{'variant': 'build', 'fault': 'dies', 'tried': 5,
                'held': 4}]))
    assert numbers(part) == {('build', 'a task dies', 'stock'): (5, 4, 1, 0)}
    assert part.command == 'tools/faults.sh --stock'
    assert part.remarks == ('stock: build/x has not held',
                            'stock: 3 cases were not begun in time')


def test_each_part_says_of_what_and_when(all_results):
    for path in all_results[:-1]:
        part = parts.read(path)
        assert part.date.startswith('2026-11-22 20:')
        assert part.commit in ('abc', 'unknown')


def test_a_part_is_the_same_after_it_was_kept(all_results):
    for path in all_results:
        part = parts.read(path)
        assert parts.Part.of(json.loads(json.dumps(part.plain()))) == part


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"x": 1}', 'null'])
def test_other_files_are_refused_by_name(tmp_path, text):
    path = tmp_path / 'other.json'
    path.write_text(text)
    with pytest.raises(parts.UnknownResults, match='other.json'):
        parts.read(path)


def test_results_that_lack_something_are_refused(results):
    path = results('crash')
    path.write_text('{"rounds": {}}')
    with pytest.raises(parts.UnknownResults, match='older'):
        parts.read(path)


rows = strategies.lists(strategies.builds(
    parts.Row, strategies.sampled_from('ab'), strategies.sampled_from('xy'),
    strategies.sampled_from(parts.MODES), *[strategies.integers(0, 50)] * 4))


@hypothesis.settings(deadline=None)
@hypothesis.given(rows)
def test_adding_loses_nothing(some):
    added = parts.added(some)
    for name in ('tried', 'survived', 'left', 'apart'):
        assert (sum(getattr(row, name) for row in added)
                == sum(getattr(row, name) for row in some))
    keys = [(row.operation, row.fault, row.mode) for row in added]
    assert len(keys) == len(set(keys))
