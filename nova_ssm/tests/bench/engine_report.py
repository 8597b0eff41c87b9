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
"""What ``tools/bench.sh engine`` has measured, as figures and as a table."""

from collections.abc import Sequence
import os
import platform
import statistics
from typing import Any

from rich import console
from rich import table

TITLES = {
    'memory': 'TaskFlow in memory', 'floor': 'one INSERT and COMMIT a task',
    'ours': 'nova_ssm', 'dbos': 'DBOS Transact',
    'taskflow': "TaskFlow's SQLAlchemy backend"}

#: What the engine is to reach.
LEAST_TIMES_FASTER = 10.0
MOST_FLOORS = 1.5

Key = tuple[str, str, int]


class Found:
    """Collects what was measured."""

    def __init__(self) -> None:
        self._clock: dict[Key, list[float]] = {}
        self._cpu: dict[Key, list[float]] = {}
        self._said: dict[Key, tuple[int, int]] = {}
        self._together: dict[Key, list[float]] = {}
        self._failed: dict[Key, str] = {}

    def add(self, database: str, peer: str, what: str, args: Sequence[int],
            answer: Any) -> None:
        """Take in an answer of a peer."""
        key = (database, peer, args[0])
        if what == 'time':
            self._clock.setdefault(key, []).append(answer[0])
            self._cpu.setdefault(key, []).append(answer[1])
        elif what == 'count':
            self._said[key] = answer
        else:
            self._together.setdefault(key, []).append(args[1] / answer)

    def fail(self, database: str, peer: str, what: str, tasks: int,
             why: str) -> None:
        """Take in that a peer could not do it."""
        self._failed[database, peer, tasks] = '%s: %s' % (what, why)

    def figures(self) -> list[dict[str, Any]]:
        """Per database, peer and number of tasks: times in ms a flow."""
        figures = []
        for key, clock in self._clock.items():
            statements, commits = self._said[key]
            figures.append({
                'database': key[0], 'peer': key[1], 'tasks': key[2],
                'ms': 1000 * statistics.median(clock),
                'ms_all': [1000 * one for one in clock],
                'cpu_ms': 1000 * statistics.median(self._cpu[key]),
                'statements': statements, 'commits': commits,
                'flows_per_s': statistics.median(self._together[key])
                if key in self._together else None,
                'failed': self._failed.get(key)})
        return figures


def data(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures with what they say of the goals, and the machine."""
    return {
        'machine': {'cores': os.cpu_count(), 'python':
                    platform.python_version(),
                    'load': os.getloadavg()[0]},
        'figures': figures, 'goals': goals(figures)}


def goals(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How far the engine is, per database and number of tasks."""
    by_key = {(one['database'], one['peer'], one['tasks']): one
              for one in figures}
    found = []
    for one in figures:
        if one['peer'] != 'ours':
            continue
        place = (one['database'], one['tasks'])
        other = {name: by_key.get((place[0], name, place[1]), {}).get('ms')
                 for name in TITLES}
        ours = one['ms']
        found.append({
            'database': place[0], 'tasks': place[1],
            'times_faster_than_taskflow': _over(other['taskflow'], ours),
            'times_faster_than_dbos': _over(other['dbos'], ours),
            'floors_on_top_of_memory': _over(
                ours - other['memory'], other['floor'])
            if other['memory'] is not None else None})
    return found


def _over(value: float | None, by: float | None) -> float | None:
    return None if value is None or not by else value / by


# -- for people ------------------------------------------------------------

def show(found: dict[str, Any], out: console.Console) -> None:
    """Print one table of figures for each database, and one of the goals."""
    figures = found['figures']
    for database in dict.fromkeys(one['database'] for one in figures):
        out.print(_figures(database, [
            one for one in figures if one['database'] == database]))
    out.print(_goals(found['goals']))
    for one in figures:
        if one['failed']:
            out.print('%s on %s: %s' % (TITLES[one['peer']], one['database'],
                                        one['failed']), markup=False)


def _figures(database: str, figures: list[dict[str, Any]]) -> table.Table:
    sizes = sorted({one['tasks'] for one in figures})
    together = any(one['flows_per_s'] for one in figures)
    shown = table.Table(title='%s: ms a flow (ms of processor), '
                        'statements/commits' % database)
    for title in ('', *('%d tasks' % size for size in sizes),
                  *(['at once, flows/s'] if together else [])):
        shown.add_column(title, justify='right' if title else 'left')
    for peer, title in TITLES.items():
        mine = {one['tasks']: one for one in figures if one['peer'] == peer}
        if not mine:
            continue
        cells = [title]
        for size in sizes:
            one = mine[size]
            cells.append('%.1f (%.1f) %d/%d' % (
                one['ms'], one['cpu_ms'], one['statements'], one['commits']))
        if together:
            cells.append(_at_once(mine))
        shown.add_row(*cells)
    return shown


def _at_once(mine: dict[int, dict[str, Any]]) -> str:
    for one in mine.values():
        if one['flows_per_s']:
            return '%.1f' % one['flows_per_s']
        if one['failed']:
            return 'failed'
    return ''


def _goals(found: list[dict[str, Any]]) -> table.Table:
    shown = table.Table(title='nova_ssm beside the others')
    for title in ('database', 'tasks', "TaskFlow's backend takes",
                  'DBOS takes', 'on top of memory'):
        shown.add_column(title, justify='right')
    for one in found:
        floors = one['floors_on_top_of_memory']
        shown.add_row(
            one['database'], str(one['tasks']),
            _times(one['times_faster_than_taskflow'], LEAST_TIMES_FASTER),
            _times(one['times_faster_than_dbos'], 1),
            '-' if floors is None else '%.2f floors%s' % (
                floors, '' if floors <= MOST_FLOORS else ' [bold](> %s)'
                % MOST_FLOORS))
    return shown


def _times(value: float | None, least: float) -> str:
    if value is None:
        return '-'
    return '%.1f x%s' % (value, '' if value >= least else
                         ' [bold](< %g)' % least)
