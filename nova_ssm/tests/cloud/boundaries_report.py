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
"""Tables of what the kills at task boundaries have done."""

import collections
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any

from rich import console
from rich import table

from nova_ssm.engine import registry
from nova_ssm.tests.cloud import boundaries_operations as operations
from nova_ssm.tests.cloud import boundaries_plan as plan
from nova_ssm.tests.cloud import boundaries_rounds as rounds
from nova_ssm.tests.cloud import injection_orders as orders

NOT_REACHED = 'NOT REACHED'
APART = 'apart: compute call in flight'


@dataclasses.dataclass
class Table:
    """All kills of one operation, with one task made to fail or none.

    :param fails: the flow and the task that is made to fail
    :param planned: what an undisturbed run comes by
    :param absent: what the same graphs have beside that
    """

    operation: str
    fails: tuple[str, str] | None
    planned: list[plan.Step] = dataclasses.field(default_factory=list)
    absent: list[orders.Point] = dataclasses.field(default_factory=list)
    results: list[rounds.Result] = dataclasses.field(default_factory=list)

    @property
    def title(self) -> str:
        """Its name, for people."""
        if self.fails is None:
            return self.operation
        return f'{self.operation}, {"/".join(self.fails)} fails'

    @property
    def failed(self) -> bool:
        """Whether a kill went wrong, or was not reached."""
        return any(one.failed for one in self.results)

    def plain(self) -> dict[str, Any]:
        """Return all of it for the results."""
        found = dataclasses.asdict(self) | {'title': self.title}
        for fields, result in zip(found['results'], self.results,
                                  strict=True):
            fields |= {'name': str(result.step.point),
                       'outcome': outcome(result)}
        return found


def passed(files: Iterable[pathlib.Path]) -> set[tuple[str, str]]:
    """Return what has passed in results: titles and names of points."""
    return {(tried['title'], result['name']) for path in files
            for tried in json.loads(path.read_text())['operations']
            for result in tried['results']
            if result['outcome'] in (operations.DONE, operations.FAULT)}


def outcome(result: rounds.Result) -> str:
    """Return what a kill came to, in a word."""
    if result.killed is None:
        return NOT_REACHED
    if result.verdict.excused:
        return APART
    return result.verdict.outcome if result.verdict.good else (
        operations.WRONG.upper())


def _leftovers(result: rounds.Result) -> str:
    return ', '.join(
        f'{len(what)} {name}' for found in (result.verdict.wrong,
                                            result.verdict.left)
        for name, what in found.items()) or 'nothing'


def _successors(result: rounds.Result) -> str:
    if result.resumed_after is None:
        return 'nobody'
    return (', '.join(result.resumed_by)
            + f' after {result.resumed_after:.1f} s')


def show_result(out: console.Console, number: int, count: int,
                result: rounds.Result) -> None:
    """Print one kill."""
    killed = result.killed
    out.print(
        f'{number}/{count} {result.step.point}: '
        + (f'{killed.host} killed {result.killed_after} s after the request'
           if killed else 'nobody came by')
        + f'; {outcome(result)}: {result.verdict.text}; left over: '
        f'{_leftovers(result)}; gone on with by {_successors(result)}; '
        f'{result.seconds:.0f} s',
        markup=False, soft_wrap=True,
        style='bold red' if result.failed else None)
    if result.failed or result.verdict.excused:
        out.print(f'  server {result.server}, request {result.request_id}, '
                  f'fault {result.verdict.fault!r}, wrong '
                  f'{result.verdict.wrong}, left {result.verdict.left}',
                  markup=False, soft_wrap=True)


def show_table(out: console.Console, tried: Table) -> None:
    """Print what one operation came to."""
    shown = table.Table(title=tried.title)
    for name in ('flow', 'task', 'point', 'killed at', 'outcome', 'server',
                 'left over', 'gone on with by'):
        shown.add_column(name)
    for result in tried.results:
        point = result.step.point
        shown.add_row(
            point.flow, point.task,
            str(dataclasses.replace(point, flow='', task='')).lstrip('/'),
            '-' if result.killed is None else f'{result.killed_after} s',
            outcome(result), result.verdict.text, _leftovers(result),
            _successors(result),
            style='bold red' if result.failed else None)
    out.print(shown)
    _show_points(out, 'does not run in this operation', tried.absent)


def _show_points(out: console.Console, title: str,
                 points: list[orders.Point]) -> None:
    """Print points, a line for each task."""
    by_task: dict[tuple[str, str], list[str]] = {}
    for point in points:
        name = dataclasses.replace(point, flow='', task='')
        by_task.setdefault((point.flow, point.task), []).append(
            str(name).lstrip('/'))
    for (flow, task), names in by_task.items():
        out.print(f'  {title}: {flow} {task}: {", ".join(names)}',
                  markup=False, soft_wrap=True)


def show_all(out: console.Console, tables: list[Table]) -> None:
    """Print all operations, and their sums."""
    for tried in tables:
        show_table(out, tried)
    shown = table.Table(title='kills at the points of the task graphs')
    shown.add_column('operation')
    columns = (*plan.KINDS, operations.DONE, operations.FAULT,
               APART, operations.WRONG.upper(), NOT_REACHED)
    for name in ('kills', *columns):
        shown.add_column(name, justify='right')
    for tried in tables:
        # Apart: 'done' is a point, and an outcome.
        points = collections.Counter(
            plan.kind(one.step.point.at) for one in tried.results)
        outcomes = collections.Counter(map(outcome, tried.results))
        shown.add_row(
            tried.title, str(len(tried.results)),
            *(str(points[name]) for name in plan.KINDS),
            *(str(outcomes[name]) for name in columns[len(plan.KINDS):]))
    out.print(shown)


def show_unseen(out: console.Console,
                types: Mapping[str, registry.FlowType],
                tables: list[Table]) -> None:
    """Print the points of all graphs that nothing has come by."""
    seen = {plan.plain(step.point) for tried in tables
            for step in tried.planned}
    for name, flow_type in types.items():
        if all(point.flow != name for point in seen):
            out.print(f'  not run by any of these operations: {name}')
            continue
        _show_points(out, 'not come by in any of these operations',
                     plan.missing(flow_type, seen))


def show_graphs(out: console.Console,
                types: Mapping[str, registry.FlowType]) -> None:
    """Print the points of all graphs."""
    for flow_type in types.values():
        for point in plan.possible(flow_type):
            out.print(str(point), markup=False)
