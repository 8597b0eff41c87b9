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

"""What a run has shown: a table, and a file with all of it."""

import collections
from collections.abc import Iterable
import datetime
import json
import os
from typing import Any

from nova_ssm.tests.faults import bench
from nova_ssm.tests.faults import plan
from nova_ssm.tests import provenance

FILE = 'faults.json'
#: After how many cases all is written, and progress told.
_OFTEN = 10

#: A case in the file.
Entry = dict[str, Any]


class NoResults(Exception):
    """There is no earlier run to go on with."""


def last(directory: str) -> dict[str, Any]:
    """What the last run has written.

    :raises NoResults: if none did
    """
    path = os.path.join(directory, FILE)
    try:
        with open(path, encoding='utf-8') as file:
            results = json.load(file)
        return {**results, 'todo': list(results['todo']),
                'cases': list(results['cases'])}
    except (OSError, ValueError, KeyError) as error:
        raise NoResults('%s cannot be gone on with (%r): run without '
                        '--continue' % (path, error)) from error


class Report:
    """Gathers results, and writes them down as they come.

    :param directory: where the file goes
    :param options: that the run was started with
    :param before: what :func:`last` has read, to go on with it
    """

    def __init__(self, directory: str, options: dict[str, Any],
                 before: dict[str, Any] | None = None) -> None:
        self._path = os.path.join(directory, FILE)
        self._options = options
        self._stamp = provenance.stamp()
        self._before = before['seconds'] if before else 0
        # In the order in which they were run; each counts once.
        self._cases: dict[str, Entry] = {
            one['case']: one for one in (before['cases'] if before else ())}
        self._added = 0
        self._todo: list[str] = []
        os.makedirs(directory, exist_ok=True)

    def add(self, result: bench.Result, seconds: float = 0.0,
            todo: Iterable[str] = ()) -> None:
        """Take a result; tell of one that has not held at once.

        :param seconds: since the run was begun
        :param todo: the cases that have not been begun
        """
        result.seen = []
        self._cases.pop(result.case, None)
        self._cases[result.case] = {
            'case': result.case, 'held': result.held,
            'struck': result.struck, 'seconds': round(result.seconds, 2),
            'cpu': round(result.cpu, 2), 'findings': result.findings,
            'commit': self._stamp['commit']}
        if not result.held:
            _say('NOT HELD: tools/faults.sh --case "%s"' % result.case)
            for text in result.findings:
                _say('    ' + text.strip().replace('\n', '\n    ')[-1500:])
        elif not result.struck:
            _say('not struck: %s' % result.case)
        self._added += 1
        if not self._added % _OFTEN:
            self.write(seconds, todo)
            _say('%d cases so far' % self._added)

    @property
    def status(self) -> int:
        """0 if all have held, 1 if not, 2 if there was none."""
        if not self._cases:
            return 2
        return 0 if all(one['held'] for one in self._cases.values()) else 1

    def write(self, seconds: float, todo: Iterable[str]) -> dict[str, Any]:
        """Write the file: there is always a whole one."""
        todo = list(todo)
        tried = [one for one in self._cases.values() if one['struck']]
        summary = {
            **self._stamp, 'commit': ', '.join(sorted(
                {one['commit'] for one in self._cases.values()})),
            'when': datetime.datetime.now(datetime.UTC).isoformat(
                timespec='seconds'),
            'options': self._options,
            'seconds': round(self._before + seconds),
            'tried': len(tried),
            'held': sum(one['held'] for one in tried), 'left': len(todo),
            'table': self.table(), 'cases': list(self._cases.values()),
            'todo': todo}
        with open(self._path + '.new', 'w', encoding='utf-8') as file:
            json.dump(summary, file, indent=1)
        os.replace(self._path + '.new', self._path)
        return summary

    def finish(self, seconds: float, todo: Iterable[str]) -> None:
        """Write the file, and print the table."""
        summary = self.write(seconds, todo)
        print('%-26s %-14s %6s %6s' % ('variant', 'fault', 'tried', 'held'))
        for row in summary['table']:
            print('%-26s %-14s %6d %6d' % (
                row['variant'], row['fault'], row['tried'], row['held']))
        print('%d cases tried, %d held, %d not begun, %d seconds; all of it '
              'in %s' % (summary['tried'], summary['held'], summary['left'],
                         summary['seconds'], self._path))

    def table(self) -> list[dict[str, Any]]:
        """By variant and kind of fault: how many were tried, and held."""
        rows: dict[tuple[str, str], list[int]] = collections.defaultdict(
            lambda: [0, 0])
        for one in self._cases.values():
            if one['struck']:
                case = plan.Case.parse(one['case'])
                row = rows[case.variant, kind(case)]
                row[0] += 1
                row[1] += one['held']
        return [{'variant': variant, 'fault': fault, 'tried': tried,
                 'held': held}
                for (variant, fault), (tried, held) in sorted(rows.items())]


def _say(text: str) -> None:
    # A long run is watched, also where its output goes to a file.
    print(text, flush=True)


def kind(case: plan.Case) -> str:
    """The kind of a fault, in words."""
    return ', '.join(
        {'raise': 'fails', 'die': 'dies', 'twice': 'done twice'}[one.what]
        for one in case.faults) or 'none'
