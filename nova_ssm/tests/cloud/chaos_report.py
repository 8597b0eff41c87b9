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
"""Counts what became of a chaos test, by operation and fault."""

import collections
from collections.abc import Iterable
import pathlib
from typing import Any

from rich import console
from rich import table

from nova_ssm.tests.cloud import chaos_plan
from nova_ssm.tests.cloud import chaos_tries as tries_module
from nova_ssm.tests.cloud import cloud

#: What is counted in each cell, and how it is called.
COLUMNS = {
    'tried': 'tried',
    tries_module.DONE: 'done',
    tries_module.BACK: 'back, fault',
    tries_module.ERROR: 'ERROR, fault',
    tries_module.STUCK: 'stuck',
    tries_module.LOST: 'lost',
    tries_module.SILENT: 'no fault',
    tries_module.ODD: 'odd',
    'left': 'left over',
    tries_module.REFUSED: 'apart: refused',
}
#: Columns that should be empty.
_BAD = (*tries_module.BAD, 'left')


def count(tries: Iterable[dict[str, Any]]
          ) -> dict[tuple[str, str], collections.Counter[str]]:
    """Count tries by operation and fault; each server is a try.

    What the API has refused was never accepted, and is not tried.
    """
    cells: dict[tuple[str, str], collections.Counter[str]] = {}
    for one in tries:
        cell = cells.setdefault((one['operation'], one['fault']),
                                collections.Counter())
        cell[one['outcome']] += 1
        cell['tried'] += one['outcome'] != tries_module.REFUSED
        cell['left'] += bool(one['left'])
    return cells


def show(out: console.Console, mode: str, result: dict[str, Any]) -> None:
    """Print the table of one mode."""
    cells = count(result['tries'])
    shown = table.Table(title=f'chaos, {mode}')
    shown.add_column('fault')
    shown.add_column('operation')
    for name in COLUMNS.values():
        shown.add_column(name, justify='right')
    total: collections.Counter[str] = collections.Counter()
    before = None
    for (operation, fault), cell in sorted(cells.items(), key=_order):
        total.update(cell)
        bad = any(cell[name] for name in _BAD)
        shown.add_row('' if fault == before else fault, operation,
                      *_numbers(cell), style='bold' if bad else None)
        before = fault
    shown.add_section()
    shown.add_row('all', '', *_numbers(total))
    out.print(shown)
    out.print(f'{result["skipped"]} requests found no server that was free, '
              'and one was built instead')
    for kind, found in sorted(result['findings'].items()):
        out.print(f'  {len(found)} x {kind}', markup=False)
    for one in result['dead']:
        out.print(f'  {one}', markup=False)


def _numbers(cell: collections.Counter[str]) -> list[str]:
    return [str(cell[name] or '') for name in COLUMNS]


def _order(item: tuple[tuple[str, str], Any]) -> tuple[str, int]:
    (operation, fault), _ = item
    return fault, chaos_plan.OPERATIONS.index(operation)


def bad(result: dict[str, Any]) -> bool:
    """Tell whether anything is stuck, lost, odd or left over."""
    return bool(result['findings']) or any(
        one['outcome'] in tries_module.BAD for one in result['tries'])


def keep_logs(it: cloud.Cloud, tries: Iterable[tries_module.Try],
              target: pathlib.Path) -> int:
    """Keep the lines of the logs that speak of tries that went wrong.

    :returns: how many lines were kept
    """
    files = {one.server: f'{one.server}.log' for one in tries if one.server}
    files |= {one.request_id: f'{one.server or one.request_id}.log'
              for one in tries if one.request_id}
    if not files:
        return 0
    target.mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = collections.defaultdict(list)
    for path in sorted(it.settings.log.glob('*.log')):
        with open(path, errors='replace') as stream:
            for line in stream:
                for file in {files[part] for part in files if part in line}:
                    lines[file].append(f'{path.stem}: {line}')
    for file, some in lines.items():
        (target / file).write_text(''.join(some))
    return sum(map(len, lines.values()))
