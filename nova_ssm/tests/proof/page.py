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
"""Writes doc/source/reliability.rst from the results that are kept by it."""

from collections.abc import Iterable
from collections.abc import Iterator
import hashlib
import json
import pathlib

from nova_ssm.tests.proof import parts as parts_module

ROOT = pathlib.Path(__file__).resolve().parents[3]
#: Where the page is, and the results it is made of, in ``reliability``.
SOURCE = ROOT / 'doc/source'

_HEAD = '''\
===========
Reliability
===========

.. note::

   ``tools/prove.sh`` has made this page of the results in
   ``doc/source/reliability``. Do not edit it: a test compares the two.

*Tried* are operations that the API has accepted, one for each server;
*survived* are those that were done, or ended with a fault that the user can
read, and left the server in no task. *Left over* are those of which something
was found afterwards that should not be there: in the tables of all cells and
of the API, in placement, in neutron, in the hypervisors, in the journal. What
the API has refused while something was broken was promised to nobody, and is
counted apart. A dash: not tried.

'''
_TITLES = {
    'chaos': 'Everything broken, under load',
    'crash': 'The conductor at work killed at a random moment',
    'boundaries': 'The conductor killed at each task of each flow',
    'faults': 'Each task fails, or dies, in each way',
    'oracle': "Nova's own tests",
    'ownership': 'Who owns a flow',
}
_NOTES = {
    'chaos': 'Requests are attributed to the fault in whose time they were '
             'sent. ``delete`` and ``confirm`` are no work of a conductor: '
             'the API gives them to the compute.',
    'crash': 'The other conductor lives; the killed one is back after 3 '
             'seconds.',
}


def _name(part: parts_module.Part) -> str:
    digits = ''.join(letter for letter in part.date if letter.isdigit())
    # Runs of one minute differ in what they tried.
    tried = hashlib.sha256(part.command.encode()).hexdigest()[:6]
    return f'{part.kind}-{digits or part.date}-{tried}.json'


def keep(parts: Iterable[parts_module.Part],
         source: pathlib.Path = SOURCE) -> None:
    """Keep parts for the page, in place of all others of their kinds.

    :param source: the directory of the page
    """
    parts = list(parts)
    directory = source / 'reliability'
    directory.mkdir(parents=True, exist_ok=True)
    for kind in {part.kind for part in parts}:
        for path in directory.glob(f'{kind}-*.json'):
            path.unlink()
    for part in parts:
        (directory / _name(part)).write_text(
            json.dumps(part.plain(), indent=1) + '\n')


def kept(source: pathlib.Path = SOURCE) -> list[parts_module.Part]:
    """Return the parts that the page is made of."""
    found = [parts_module.Part.of(json.loads(path.read_text()))
             for path in sorted((source / 'reliability').glob('*.json'))]
    order = list(_TITLES)
    return sorted(found, key=lambda part: (
        order.index(part.kind), part.date, part.command))


def render(parts: Iterable[parts_module.Part]) -> str:
    """Return the text of the page."""
    parts = list(parts)
    return _HEAD + '\n'.join([
        *_in_all(parts), *_runs(parts),
        *(line for kind in _TITLES for line in _section(
            kind, [part for part in parts if part.kind == kind]))])


def _table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = ['.. list-table::', '   :header-rows: 1', '']
    for row in (header, *rows):
        lines += [('   * - ' if number == 0 else '     - ') + cell
                  for number, cell in enumerate(row)]
    return [*lines, '']


def _heading(text: str) -> list[str]:
    return [text, '=' * len(text), '']


def _sum(rows: Iterable[parts_module.Row], mode: str) -> list[str]:
    """Return what was tried, survived and left over in a mode."""
    mine = [row for row in rows if row.mode == mode]
    if not mine:
        return ['-'] * 3
    return [str(sum(getattr(row, name) for row in mine))
            for name in ('tried', 'survived', 'left')]


def _both(rows: Iterable[parts_module.Row]) -> list[str]:
    rows = list(rows)
    return _sum(rows, parts_module.STOCK) + _sum(rows, parts_module.SSM)


_MODES = ['stock: tried', 'survived', 'left over',
          'nova_ssm: tried', 'survived', 'left over']


def _in_all(parts: list[parts_module.Part]) -> Iterator[str]:
    yield from _heading('In all')
    yield from _table(['', *_MODES], (
        [title, *_both(row for part in parts if part.kind == kind
                       for row in part.rows)]
        for kind, title in _TITLES.items()
        if any(part.kind == kind for part in parts)))
    missing = [title for kind, title in _TITLES.items()
               if not any(part.kind == kind for part in parts)]
    if missing:
        yield 'Not run for this page: ' + '; '.join(missing) + '.'
        yield ''


def _runs(parts: list[parts_module.Part]) -> Iterator[str]:
    yield from _heading('The runs')
    yield 'A commit with a ``+`` had changes that were not committed.'
    yield ''
    yield from _table(['run', 'commit', 'date (UTC)'], (
        [f'``{part.command}``', part.commit, part.date] for part in parts))


def _section(kind: str, parts: list[parts_module.Part]) -> Iterator[str]:
    if not parts:
        return
    yield from _heading(_TITLES[kind])
    if kind in _NOTES:
        yield from (_NOTES[kind], '')
    rows = parts_module.added(row for part in parts for row in part.rows)
    apart = any(row.apart for row in rows)
    header = ['fault', 'operation', *_MODES]
    if apart:
        header += ['refused: stock', 'nova_ssm']
    yield from _table(header, (
        [fault, operation, *_both(some),
         *(_refused(some) if apart else ())]
        for (fault, operation), some in _cells(rows).items()))
    remarks = [remark for part in parts for remark in part.remarks]
    if remarks:
        yield 'What was found:'
        yield ''
        yield from (f'* {remark}' for remark in remarks)
        yield ''


def _cells(rows: Iterable[parts_module.Row]
           ) -> dict[tuple[str, str], list[parts_module.Row]]:
    cells: dict[tuple[str, str], list[parts_module.Row]] = {}
    for row in sorted(rows, key=lambda row: (row.fault, row.operation)):
        cells.setdefault((row.fault, row.operation), []).append(row)
    return cells


def _refused(rows: list[parts_module.Row]) -> list[str]:
    return [str(sum(row.apart for row in rows if row.mode == mode))
            for mode in parts_module.MODES]


def write(source: pathlib.Path = SOURCE) -> pathlib.Path:
    """Make the page anew of what is kept; return where it is."""
    path = source / 'reliability.rst'
    path.write_text(render(kept(source)))
    return path
