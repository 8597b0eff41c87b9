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
"""Results as the test benches write them, as small as can be."""

import json

import pytest

CRASH_ROUND = {
    'servers': 4, 'active': 1, 'error': 2, 'faults': {'no host': ['b']},
    'wrong': {'allocation': ['c: on cmp1'], 'event': ['c: open']},
    'left': {'port': ['d']}}

CHAOS = {
    'commit': 'abc', 'date': '2026-11-22 20:00',
    'plan': {'seed': 7, 'minutes': 12.0},
    'modes': {
        'stock': {'findings': {}, 'tries': [
            {'operation': 'build', 'fault': 'broker', 'outcome': 'stuck',
             'server': 'a', 'left': []}]},
        'ssm': {
            'findings': {'a port, deleted': [{'server': 'nobody'}]},
            'tries': [
                {'operation': 'build', 'fault': 'broker', 'outcome': 'error',
                 'server': 'a', 'left': ['a port']},
                {'operation': 'build', 'fault': 'broker', 'outcome': 'done',
                 'server': 'b', 'left': []},
                {'operation': 'build', 'fault': 'broker',
                 'outcome': 'refused', 'server': '', 'left': []}]}}}

CRASH = {'operation': 'resize', 'seed': 3,
         'rounds': {'stock': [CRASH_ROUND, CRASH_ROUND]}}


def _kill(at, outcome, killed=True, **verdict):
    return {'name': 'a/b', 'outcome': outcome,
            'killed': {'host': 'cond1'} if killed else None,
            'step': {'point': {'at': at}},
            'verdict': {'wrong': {}, 'left': {}} | verdict}


BOUNDARIES = {'operations': [{'title': 'resize', 'results': [
    _kill('middle', 'done'), _kill('middle', 'WRONG', left={'port': ['x']}),
    _kill('begun', 'fault'), _kill('done', '', killed=False)]}]}

ORACLE = {
    'title': 'Nova 34', 'problems': [], 'modes': {
        'stock': {'tests': 10, 'skip': 1, 'fail': 2, 'newly_failing': []},
        'restart': {'tests': 10, 'skip': 1, 'fail': 3,
                    'newly_failing': ['a.b.c']}}}

FAULTS = {'when': '2026-11-22T20:00:01+00:00', 'options': {'stock': False},
          'left': 0, 'cases': [{'case': 'build/x', 'held': True}],
          'table': [{'variant': 'build', 'fault': 'dies', 'tried': 5,
                     'held': 5}]}

OWNERSHIP = '''<testsuites><testsuite>
<testcase name="test_two_sleep[1]"/><testcase name="test_two_sleep[2]">
<failure/></testcase><testcase name="test_gone"><skipped/></testcase>
</testsuite></testsuites>'''


@pytest.fixture
def results(tmp_path):
    """Writes the results of a test bench; returns the file."""
    known = {'chaos': CHAOS, 'crash': CRASH, 'boundaries': BOUNDARIES,
             'oracle': ORACLE, 'faults': FAULTS}

    def write(kind, **changes):
        if kind == 'ownership':
            path = tmp_path / 'ownership.xml'
            path.write_text(OWNERSHIP)
        else:
            path = tmp_path / f'{kind}-20261122-201530.json'
            path.write_text(json.dumps(known[kind] | changes))
        return path
    return write


@pytest.fixture
def all_results(results):
    """One file of each test bench."""
    return [results(kind) for kind in (
        'chaos', 'crash', 'boundaries', 'oracle', 'faults', 'ownership')]
