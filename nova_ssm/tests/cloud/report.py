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
"""Tables of what the crash test found."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import ClassVar
from typing import Protocol

from rich import console
from rich import table


class Round(Protocol):
    """What the tables need to know of a round, whatever was done in it."""

    COLUMNS: ClassVar[dict[str, str]]

    mode: str
    servers: int
    moment: float
    victim: str
    known_by: str
    progress: dict[str, int]
    settled: float | None
    faults: dict[str, list[str]]

    @property
    def missed(self) -> bool:
        """Whether the killed conductor had nothing to do with it."""

    @property
    def failed(self) -> bool:
        """Whether a durable conductor would not have left this."""

    @property
    def found(self) -> dict[str, dict[str, list[str]]]:
        """What is not as it should be, by when it was found."""


def _things(found: dict[str, list[str]]) -> str:
    return ', '.join(f'{len(what)} {name}' for name, what in found.items())


def show_round(out: console.Console, number: int, operation: str,
               result: Round) -> None:
    """Print one round."""
    out.print(
        f'{operation}, {result.mode}, round {number}: {result.victim} killed '
        f'{result.moment:.1f} s after the answer, known by its '
        f'{result.known_by}'
        + (', but it had nothing to do' if result.missed else ''),
        style='bold')
    out.print('  at the kill: ' + ', '.join(
        f'{key} {value}' for key, value in result.progress.items()))
    shown = table.Table()
    for name in result.COLUMNS.values():
        shown.add_column(name, justify='right')
    shown.add_column('settled after')
    shown.add_row(
        *(str(getattr(result, field)) for field in result.COLUMNS),
        'never' if result.settled is None else f'{result.settled:.0f} s')
    out.print(shown)
    for when, found in result.found.items():
        if found:
            out.print(f'  {when}: {_things(found)}')
    for fault, ids in result.faults.items():
        out.print(f'  {len(ids)} x fault: {fault}', markup=False)


def show_all(out: console.Console, operation: str,
             played: Mapping[str, Sequence[Round]],
             took: dict[str, float]) -> None:
    """Print the modes beside each other.

    :param played: the rounds of each mode
    :param took: how many seconds an undisturbed conductor works, by mode
    """
    some = [one for results in played.values() for one in results]
    if not some:
        return
    shown = table.Table(
        title=f'{operation}: the conductor at work is killed; all rounds')
    shown.add_column('')
    for mode in played:
        shown.add_column(mode, justify='right')
    shown.add_row('conductor at work, s',
                  *(f'{took[mode]:.1f}' for mode in played))
    shown.add_row('rounds', *(str(len(r)) for r in played.values()))
    for what in ('servers', *some[0].COLUMNS):
        shown.add_row(some[0].COLUMNS.get(what, what), *(
            str(sum(getattr(one, what) for one in results))
            for results in played.values()))
    for when in some[0].found:
        for kind in sorted({kind for one in some for kind in one.found[when]}):
            shown.add_row(f'{when}: {kind}', *(
                str(sum(len(one.found[when].get(kind, ()))
                        for one in results))
                for results in played.values()))
    shown.add_row('slowest to settle, s', *(
        'never' if any(one.settled is None for one in results)
        else f'{max((one.settled or 0 for one in results), default=0):.0f}'
        for results in played.values()))
    out.print(shown)
