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

from rich import console
from rich import table

from nova_ssm.tests.cloud import rounds

#: field -> what it is called, in the order of the columns
COLUMNS = {
    'active': 'ACTIVE',
    'error': 'ERROR',
    'stuck': 'stuck in BUILD',
    'lost': 'lost',
    'doubled': 'built twice',
    'unjournaled': 'apart: never journaled',
    'in_flight': 'apart: compute call in flight',
    'bad': 'not ACTIVE, not apart',
}


def _things(found: dict[str, list[str]]) -> str:
    return ', '.join(f'{len(what)} {name}' for name, what in found.items())


def show_round(out: console.Console, number: int,
               result: rounds.Round) -> None:
    """Print one round."""
    out.print(
        f'{result.mode}, round {number}: {result.victim} killed '
        f'{result.moment:.1f} s after the answer, known by its '
        f'{result.known_by}'
        + (', but the other one had the request' if result.missed else ''),
        style='bold')
    out.print('  at the kill: ' + ', '.join(
        f'{key} {value}' for key, value in result.progress.items()))
    shown = table.Table()
    for name in COLUMNS.values():
        shown.add_column(name, justify='right')
    shown.add_column('settled after')
    shown.add_row(
        *(str(getattr(result, field)) for field in COLUMNS),
        'never' if result.settled is None else f'{result.settled:.0f} s')
    out.print(shown)
    for when, found in (('wrong', result.wrong),
                        ('left after the deletion', result.left)):
        if found:
            out.print(f'  {when}: {_things(found)}')
    for fault, ids in result.faults.items():
        out.print(f'  {len(ids)} x fault: {fault}', markup=False)


def show_all(out: console.Console,
             played: dict[str, list[rounds.Round]],
             builds: dict[str, float]) -> None:
    """Print the modes beside each other.

    :param played: the rounds of each mode
    :param builds: how many seconds an undisturbed conductor works, by mode
    """
    shown = table.Table(title='The conductor at work is killed; all rounds')
    shown.add_column('')
    for mode in played:
        shown.add_column(mode, justify='right')
    shown.add_row('conductor at work, s',
                  *(f'{builds[mode]:.1f}' for mode in played))
    shown.add_row('rounds', *(str(len(r)) for r in played.values()))
    for what in ('servers', *COLUMNS):
        shown.add_row(COLUMNS.get(what, what), *(
            str(sum(getattr(one, what) for one in results))
            for results in played.values()))
    kinds = sorted({kind for results in played.values() for one in results
                    for kind in (*one.wrong, *one.left)})
    for kind in kinds:
        shown.add_row(f'{kind}: in the end / after the deletion', *(
            '{} / {}'.format(*(sum(len(getattr(one, where).get(kind, ()))
                                   for one in results)
                               for where in ('wrong', 'left')))
            for results in played.values()))
    shown.add_row('slowest to settle, s', *(
        'never' if any(one.settled is None for one in results)
        else f'{max(one.settled or 0 for one in results):.0f}'
        for results in played.values()))
    out.print(shown)
