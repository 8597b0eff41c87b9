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
"""Reads the results of all that proves something, into rows of one shape.

Each test bench writes a file of its own shape. :func:`read` tells them by
what is in them, and returns a :class:`Part`: who was tried, who survived,
and what was left over, by operation, fault and mode.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import json
import pathlib
import re
from typing import Any
from xml.etree import ElementTree

from nova_ssm.tests import provenance

STOCK = 'stock'
SSM = 'ssm'
MODES = (STOCK, SSM)
#: Of what is left over, if nobody can tell.
_UNKNOWN = 'not known'
_DATE = re.compile(r'(\d{4})(\d{2})(\d{2})-(\d{2})(\d{2})\d{2}')


class UnknownResults(Exception):
    """A file that no test bench has written; says which one."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What became of one operation under one fault.

    :param survived: done, or ended with a fault that its user can read
    :param left: with something left over, or tried and not survived
    :param apart: refused by the API itself, which has promised nothing
    """

    operation: str
    fault: str
    mode: str
    tried: int
    survived: int
    left: int
    apart: int = 0


@dataclasses.dataclass(frozen=True)
class Part:
    """The results of one run of one test bench."""

    kind: str
    #: What ran it, without its directories.
    command: str
    commit: str
    date: str
    rows: tuple[Row, ...]
    #: What is not well, in words: only what a reader needs to know.
    remarks: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, plain: dict[str, Any]) -> 'Part':
        """Make it of what JSON has."""
        rows = tuple(Row(**row) for row in plain['rows'])
        return cls(**{**plain, 'rows': rows,
                      'remarks': tuple(plain['remarks'])})


def added(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Add rows of the same operation, fault and mode."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        numbers = sums.setdefault((row.operation, row.fault, row.mode),
                                  [0, 0, 0, 0])
        for place, number in enumerate(
                (row.tried, row.survived, row.left, row.apart)):
            numbers[place] += number
    return tuple(Row(*key, *numbers) for key, numbers in sums.items())


# -- the cloud

def _chaos(results: dict[str, Any]) -> tuple[str, Iterator[Row], list[str]]:
    remarks: list[str] = []

    def rows() -> Iterator[Row]:
        for mode, result in results['modes'].items():
            for one in result['tries']:
                refused = one['outcome'] == 'refused'
                yield Row(
                    one['operation'], one['fault'], mode, not refused,
                    one['outcome'] in ('done', 'back', 'error'),
                    bool(one['left']), refused)
            known = {one['server'] for one in result['tries']}
            nobody = sum(finding['server'] not in known for found
                         in result['findings'].values() for finding in found)
            if nobody:
                yield Row(_UNKNOWN, _UNKNOWN, mode, 0, 0, nobody)
            for what, found in result['findings'].items():
                remarks.append(f'{mode}: {len(found)} x {what}')

    plan = results['plan']
    return (f'tools/chaos.sh --seed {plan["seed"]} --minutes '
            f'{plan["minutes"]:g}', rows(), remarks)


def _crash(results: dict[str, Any]) -> tuple[str, Iterator[Row], list[str]]:
    def rows() -> Iterator[Row]:
        for mode, played in results['rounds'].items():
            for one in played:
                # Who is in ERROR has a fault, or is in none of the lists.
                told = sum(map(len, one['faults'].values()))
                survived = (one.get('active', 0) + one.get('done', 0)
                            + one.get('back', 0) + min(one['error'], told))
                # Each text begins with the id of the server.
                left = {text.partition(':')[0]
                        for found in (one['wrong'], one['left'])
                        for some in found.values() for text in some}
                yield Row(results['operation'], 'conductor killed at a '
                          'random moment', mode, one['servers'], survived,
                          len(left))

    return (f'tools/crash.sh --operation {results["operation"]} --seed '
            f'{results["seed"]}', rows(), [])


_WHERE = {'middle': 'conductor killed in the middle of each task',
          'done': 'conductor killed behind each task, before its row'}
_BOUNDARY = 'conductor killed before and after each task'


def _boundaries(results: dict[str, Any]
                ) -> tuple[str, Iterator[Row], list[str]]:
    remarks: list[str] = []

    def rows() -> Iterator[Row]:
        for tried in results['operations']:
            for one in tried['results']:
                if one['killed'] is None:
                    remarks.append(f'{tried["title"]}: {one["name"]} was '
                                   'not reached')
                    continue
                verdict = one['verdict']
                yield Row(
                    tried['title'],
                    _WHERE.get(one['step']['point']['at'], _BOUNDARY), SSM,
                    1, one['outcome'] in ('done', 'fault'),
                    bool(verdict['wrong'] or verdict['left']))

    return 'tools/boundaries.sh', rows(), remarks


# -- in one process

def _oracle(results: dict[str, Any]) -> tuple[str, Iterator[Row], list[str]]:
    names = {'stock': (STOCK, 'nothing'), 'ssm': (SSM, 'nothing'),
             'restart': (SSM, 'engine thrown away after each task')}
    remarks: list[str] = list(results['problems'])

    def rows() -> Iterator[Row]:
        for name, counts in results['modes'].items():
            mode, fault = names.get(name, (SSM, name))
            failed = (counts['fail'] if mode == STOCK
                      else len(counts['newly_failing']))
            ran = counts['tests'] - counts['skip']
            yield Row(f'the tests of {results["title"]}', fault, mode, ran,
                      ran - failed, 0)
            remarks.extend(f'{name}: {test} fails' for test
                           in counts['newly_failing'])

    return 'tools/oracle.sh --restart', rows(), remarks


def _faults(results: dict[str, Any]) -> tuple[str, Iterator[Row], list[str]]:
    mode = STOCK if results['options'].get('stock') else SSM
    rows = (Row(one['variant'], 'a task ' + one['fault'], mode, one['tried'],
                one['held'], one['tried'] - one['held'])
            for one in results['table'])
    remarks = [f'{mode}: {one["case"]} has not held'
               for one in results['cases'] if not one['held']]
    left = results['left']
    if left:
        remarks.append(f'{mode}: {left} cases were not begun in time')
    return 'tools/faults.sh' + ' --stock' * (mode == STOCK), rows, remarks


def _ownership(path: pathlib.Path
               ) -> tuple[str, Iterator[Row], list[str]]:
    """Read what pytest writes about its tests (``--junitxml``)."""
    # Our own pytest has written it, on this machine.
    root = ElementTree.parse(path).getroot()
    remarks: list[str] = []

    def rows() -> Iterator[Row]:
        for case in root.iter('testcase'):
            if case.find('skipped') is not None:
                continue
            failed = (case.find('failure') is not None
                      or case.find('error') is not None)
            name = case.get('name', '')
            if failed:
                remarks.append(f'{name} fails')
            yield Row('who owns a flow', _words(name), SSM, 1,
                      not failed, 0)

    return 'pytest nova_ssm/tests/ownership', rows(), remarks


def _words(test: str) -> str:
    """Return the name of a test as words, without its parameters."""
    return test.partition('[')[0].removeprefix('test_').replace('_', ' ')


#: A key that only this kind of results has -> its kind, and who reads it.
_KINDS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    'plan': ('chaos', _chaos),
    'rounds': ('crash', _crash),
    'operations': ('boundaries', _boundaries),
    'modes': ('oracle', _oracle),
    'table': ('faults', _faults),
}


def read(path: pathlib.Path) -> Part:
    """Read one file of results.

    :raises UnknownResults: if no test bench has written it
    """
    if path.suffix == '.xml':
        kind, (command, rows, remarks) = 'ownership', _ownership(path)
        results: dict[str, Any] = {}
    else:
        try:
            results = json.loads(path.read_text())
            key = next(key for key in _KINDS if key in results)
        except (ValueError, TypeError, StopIteration) as error:
            raise UnknownResults(
                f'{path}: these are no results of tools/chaos.sh, crash.sh, '
                'boundaries.sh, faults.sh, oracle.sh or of tests/ownership'
            ) from error
        kind, reader = _KINDS[key]
        command, rows, remarks = _shaped(path, reader, results)
    total = added(rows)
    return Part(kind, command, results.get('commit', provenance.UNKNOWN),
                results.get('date') or _date(path, results.get('when', '')),
                total, tuple(remarks))


def _shaped(path: pathlib.Path, reader: Callable[[dict[str, Any]], Any],
            results: dict[str, Any]) -> tuple[str, Iterable[Row], list[str]]:
    try:
        command, rows, remarks = reader(results)
        return command, list(rows), remarks
    except KeyError as error:
        raise UnknownResults(f'{path}: there is no {error} in it; has an '
                             'older release written it?') from error


def _date(path: pathlib.Path, when: str) -> str:
    """Return a date as it is here, or that in a file's or directory's name.

    :param when: in ISO 8601, empty if it is not known
    """
    if when:
        return when[:16].replace('T', ' ')
    found = _DATE.search(path.name) or _DATE.search(path.parent.name)
    if found is None:
        return provenance.UNKNOWN
    return '{}-{}-{} {}:{}'.format(*found.groups())
