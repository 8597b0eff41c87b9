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

"""What the oracle says about its results: tables, differences, JSON."""

import dataclasses

from rich import console as rich_console
from rich import markup
from rich import table as rich_table

from nova_ssm.tests.functional import oracle_pool

PASSED = ('ok', 'xfail', 'skip')
ERROR_LINES = 8  # lines of a traceback that are printed

Answers = dict[str, oracle_pool.Answer]


@dataclasses.dataclass(frozen=True)
class Difference:
    """A test that does not end as on stock Nova.

    :ivar mode: name of the mode in which it differs
    :ivar stock: its status on stock Nova
    :ivar status: its status with the plugins on
    :ivar reason: why it is excepted; empty: it is newly failing
    """

    id: str
    mode: str
    stock: str
    status: str
    error: str
    reason: str = ''


def read_exceptions(path: str) -> dict[str, str]:
    """Read the list of exceptions: test id -> reason.

    :raises ValueError: a line without a reason
    """
    reasons: dict[str, str] = {}
    with open(path, encoding='utf-8') as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith('#'):
                continue
            test_id, _, reason = line.strip().partition(' # ')
            if not reason.strip():
                raise ValueError('%s:%d: write "TEST_ID # REASON"'
                                 % (path, number))
            reasons[test_id.strip()] = reason.strip()
    return reasons


def compare(stock: Answers, ours: Answers, mode: str,
            reasons: dict[str, str]) -> list[Difference]:
    """Return the tests that pass on stock Nova and not with ours.

    A test without a result on stock counts as passing there. One that runs on
    stock and skips itself with ours is a difference as well.
    """
    found = []
    for test_id in sorted(ours):
        answer = ours[test_id]
        before = stock[test_id].status if test_id in stock else 'ok'
        worse = before in PASSED and answer.status == 'fail'
        if worse or (before != 'skip' and answer.status == 'skip'):
            found.append(Difference(
                test_id, mode, before, answer.status, answer.error,
                reasons.get(test_id, '')))
    return found


def unused(ours: Answers, restart: bool) -> str:
    """Tell why the results say nothing about the plugins; empty: they do.

    If functional tests passed and not one of them ran a flow, the plugins
    were not on, whatever the configuration says.

    :param restart: flows should have been loaded again
    """
    ran = any('.functional.' in test_id and answer.status == 'ok'
              for test_id, answer in ours.items())
    if not ran:
        return ''
    if not any(answer.flows for answer in ours.values()):
        return 'no test ran a flow: the plugins were not used'
    if restart and not any(answer.restarts for answer in ours.values()):
        return 'no flow was loaded again: the engine was not restarted'
    return ''


def counts(answers: Answers, seconds: float) -> dict:
    """Summarize the answers of one mode."""
    states: dict[str, int] = {}
    for answer in answers.values():
        for state, number in answer.states.items():
            states[state] = states.get(state, 0) + number
    status = [answer.status for answer in answers.values()]
    return {
        'tests': len(answers),
        'ok': status.count('ok'),
        'skip': status.count('skip'),
        'xfail': status.count('xfail'),
        'fail': status.count('fail'),
        'unstable': sum(answer.unstable for answer in answers.values()),
        'with_flows': sum(1 for a in answers.values() if a.flows),
        'flows': sum(states.values()),
        'flow_states': states,
        'restarts': sum(answer.restarts for answer in answers.values()),
        'seconds': round(seconds, 1),
    }


def print_differences(console: rich_console.Console,
                      differences: list[Difference]) -> None:
    """Print each difference with the last lines of its error."""
    for difference in differences:
        head = 'EXCEPTED' if difference.reason else 'NEWLY FAILING'
        console.print('[bold]%s[/] (%s: %s, stock: %s) %s' % (
            head, difference.mode, difference.status, difference.stock,
            markup.escape(difference.id)), soft_wrap=True)
        if difference.reason:
            console.print('    reason: ' + markup.escape(difference.reason),
                          soft_wrap=True)
            continue
        for line in difference.error.rstrip().splitlines()[-ERROR_LINES:]:
            console.print('    ' + line, markup=False, highlight=False,
                          soft_wrap=True)


def print_remarks(console: rich_console.Console, mode: str,
                  answers: Answers) -> None:
    """Name the tests that fail on stock Nova, and those that are unstable.

    The former judge nothing, the latter may.
    """
    for test_id in sorted(answers):
        answer = answers[test_id]
        last = (answer.error.strip().splitlines() or [''])[-1]
        if answer.unstable:
            console.print('UNSTABLE (%s: passed when run again) %s: %s' % (
                mode, test_id, last), markup=False, soft_wrap=True)
        elif answer.status == 'fail' and mode == 'stock':
            console.print('FAILS ON STOCK %s: %s' % (test_id, last),
                          markup=False, soft_wrap=True)


def print_summary(console: rich_console.Console, summary: dict) -> None:
    """Print the closing table, one line a mode."""
    table = rich_table.Table(title=summary['title'])
    columns = ('tests', 'ok', 'skip', 'xfail', 'fail', 'unstable',
               'newly failing', 'excepted', 'ran flows', 'flows', 'restarts',
               'seconds')
    table.add_column('mode')
    for column in columns:
        table.add_column(column, justify='right')
    for mode, row in summary['modes'].items():
        values = {**row, 'newly failing': len(row['newly_failing']),
                  'excepted': len(row['excepted']),
                  'ran flows': row['with_flows']}
        if mode == 'stock':
            values.update(dict.fromkeys(
                ('newly failing', 'excepted', 'ran flows', 'flows',
                 'restarts'), '-'))
        table.add_row(mode, *(str(values[column]) for column in columns))
    console.print(table)
