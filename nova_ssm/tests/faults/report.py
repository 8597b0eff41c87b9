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
import datetime
import json
import os
from typing import Any

from nova_ssm.tests.faults import bench
from nova_ssm.tests.faults import plan
from nova_ssm.tests import provenance

FILE = 'faults.json'
#: After how many cases it is said that there is progress.
_OFTEN = 50


class Report:
    """Gathers results.

    :param directory: where the file goes
    :param options: that the run was started with
    """

    def __init__(self, directory: str, options: dict[str, Any]) -> None:
        self._path = os.path.join(directory, FILE)
        self._options = options
        self._results: list[bench.Result] = []
        os.makedirs(directory, exist_ok=True)

    def add(self, result: bench.Result) -> None:
        """Take a result; tell of one that has not held at once."""
        result.seen = []
        self._results.append(result)
        if not result.held:
            _say('NOT HELD: tools/faults.sh --case "%s"' % result.case)
            for text in result.findings:
                _say('    ' + text.strip().replace('\n', '\n    ')[-1500:])
        elif not result.struck:
            _say('not struck: %s' % result.case)
        if not len(self._results) % _OFTEN:
            _say('%d cases so far' % len(self._results))

    @property
    def status(self) -> int:
        """0 if all have held, 1 if not, 2 if there was none."""
        if not self._results:
            return 2
        return 0 if all(one.held for one in self._results) else 1

    def finish(self, seconds: float, left: int) -> None:
        """Write the file, and print the table."""
        tried = [one for one in self._results if one.struck]
        held = [one for one in tried if one.held]
        summary = {
            **provenance.stamp(),
            'when': datetime.datetime.now(datetime.UTC).isoformat(
                timespec='seconds'),
            'options': self._options, 'seconds': round(seconds),
            'tried': len(tried), 'held': len(held), 'left': left,
            'table': self.table(),
            'cases': [{'case': one.case, 'held': one.held,
                       'struck': one.struck,
                       'seconds': round(one.seconds, 2),
                       'cpu': round(one.cpu, 2),
                       'findings': one.findings} for one in self._results]}
        with open(self._path, 'w', encoding='utf-8') as file:
            json.dump(summary, file, indent=1)
        print('%-26s %-14s %6s %6s' % ('variant', 'fault', 'tried', 'held'))
        for row in summary['table']:
            print('%-26s %-14s %6d %6d' % (
                row['variant'], row['fault'], row['tried'], row['held']))
        print('%d cases tried, %d held, %d not begun, %d seconds; all of it '
              'in %s' % (len(tried), len(held), left, seconds, self._path))

    def table(self) -> list[dict[str, Any]]:
        """By variant and kind of fault: how many were tried, and held."""
        rows: dict[tuple[str, str], list[int]] = collections.defaultdict(
            lambda: [0, 0])
        for one in self._results:
            if one.struck:
                case = plan.Case.parse(one.case)
                row = rows[case.variant, kind(case)]
                row[0] += 1
                row[1] += one.held
        return [{'variant': variant, 'fault': fault, 'tried': tried,
                 'held': held}
                for (variant, fault), (tried, held) in rows.items()]


def _say(text: str) -> None:
    # A long run is watched, also where its output goes to a file.
    print(text, flush=True)


def kind(case: plan.Case) -> str:
    """The kind of a fault, in words."""
    return ', '.join(
        {'raise': 'fails', 'die': 'dies', 'twice': 'done twice'}[one.what]
        for one in case.faults) or 'none'
