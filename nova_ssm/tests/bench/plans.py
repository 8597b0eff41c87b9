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

"""How a database goes about a statement: its plan, and what it really read.

MariaDB and PostgreSQL are let do it, and tell how many rows of what they have
touched; what it changes is rolled back. SQLite tells only how it would.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import re
from typing import Any

from sqlalchemy import event

from nova_ssm.engine import database

#: The tables that grow.
_LARGE = ('ssm_flows', 'ssm_journal')


@dataclasses.dataclass(frozen=True)
class Step:
    """How one table is read.

    :param how: 'scan' for all of a table, 'index' for an index from its end
        on, 'range' for a part of an index
    :param index: its name
    :param covering: whether the table itself is left alone
    :param rows: how many were read; None if that is not known
    """

    table: str
    how: str
    index: str | None = None
    covering: bool = False
    rows: float | None = None

    def __str__(self) -> str:
        if self.how == 'scan':
            return 'ALL of %s' % self.table
        name = self.index or '?'
        if name in ('PRIMARY', '%s_pkey' % self.table,
                    'sqlite_autoindex_%s_1' % self.table):
            name = self.table.removeprefix('ssm_') + ' by key'
        return name.removeprefix('ssm_flows_') + (
            ' (index only)' if self.covering else '')


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a statement is gone about.

    :param sorted_rows: how many rows were sorted at once; None if that is
        not known
    """

    statement: str
    steps: list[Step]
    sorted_rows: float | None = 0

    def troubles(self, most: float) -> list[str]:
        """Why it takes longer the more flows there are.

        :param most: how many rows may be read of a table, or sorted
        """
        steps = [step for step in self.steps if step.table in _LARGE]
        found = ['%s, all of it' % step.table for step in steps
                 if step.how == 'scan']
        found += ['%s, %d rows of it' % (step, step.rows or 0)
                  for step in steps if (step.rows or 0) > most]
        if (self.sorted_rows or 0) > most:
            found.append('%d rows are sorted' % (self.sorted_rows or 0))
        return found

    @property
    def rows(self) -> float:
        """How many rows of the large tables were read."""
        return sum(step.rows or 0 for step in self.steps
                   if step.table in _LARGE)

    def __str__(self) -> str:
        return ', '.join(dict.fromkeys(
            str(step) for step in self.steps if step.table in _LARGE))


@contextlib.contextmanager
def recording(db: database.Database) -> Iterator[list[tuple[str, Any]]]:
    """What is said to a database: (statement, parameters)."""
    said: list[tuple[str, Any]] = []

    def listen(conn: Any, cursor: Any, statement: str, parameters: Any,
               context: Any, executemany: bool) -> None:
        if statement.split(None, 1)[0] in (
                'SELECT', 'UPDATE', 'DELETE') and 'ssm_' in statement:
            said.append((statement, parameters))

    engine = db.engine
    event.listen(engine, 'before_cursor_execute', listen)
    try:
        yield said
    finally:
        event.remove(engine, 'before_cursor_execute', listen)


def explain(db: database.Database, statement: str, parameters: Any) -> Plan:
    """Let a statement be done for trial, and see how."""
    words, read = _KINDS[db.engine.dialect.name]
    with db.engine.connect() as connection:
        try:
            rows = connection.exec_driver_sql(
                '%s %s' % (words, statement), parameters).all()
        finally:
            connection.rollback()
    return read(statement, rows)


def _table(statement: str, alias: str) -> str:
    """The table that a name stands for in a statement."""
    found = re.search(r'(ssm_\w+) AS [`"]?%s\b' % re.escape(alias), statement)
    return found.group(1) if found else alias


# -- MariaDB -----------------------------------------------------------------

def _mariadb(statement: str, rows: Any) -> Plan:
    steps: list[Step] = []
    sorting = _walk_mariadb(json.loads(rows[0][0]), statement, steps)
    return Plan(statement, steps, sorting)


def _walk_mariadb(node: Any, statement: str, steps: list[Step]) -> float:
    """Collect the steps; returns how many rows were sorted."""
    if isinstance(node, list):
        return max([_walk_mariadb(one, statement, steps) for one in node],
                   default=0)
    if not isinstance(node, dict):
        return 0
    name, before = node.get('table_name', '<'), len(steps)
    if not name.startswith('<') and 'access_type' in node:
        steps.append(Step(
            _table(statement, name),
            {'ALL': 'scan', 'index': 'index'}.get(
                node['access_type'], 'range'),
            node.get('key'), node.get('using_index', False),
            (node.get('r_rows') or 0) * (node.get('r_loops') or 0)))
    sorting = 0.0
    for key, child in node.items():
        sorting = max(sorting, _walk_mariadb(child, statement, steps))
        if key in ('filesort', 'read_sorted_file'):
            sorting = max(sorting, *(
                step.rows or 0 for step in steps[before:]), 0)
    return sorting


# -- PostgreSQL --------------------------------------------------------------

def _postgresql(statement: str, rows: Any) -> Plan:
    steps: list[Step] = []
    sorting = _walk_postgresql(rows[0][0][0]['Plan'], steps)
    return Plan(statement, steps, sorting)


def _walk_postgresql(node: dict[str, Any], steps: list[Step]) -> float:
    """Collect the steps; returns how many rows were sorted."""
    sorting = 0.0
    children = node.get('Plans', ())
    if node['Node Type'] == 'Sort':
        sorting = children[0]['Actual Rows']
    if node['Node Type'].endswith('Scan') and (
            'Relation Name' in node or 'Index Name' in node):
        steps.append(_scan(node))
    for child in children:
        sorting = max(sorting, _walk_postgresql(child, steps))
    return sorting


def _scan(node: dict[str, Any]) -> Step:
    index = node.get('Index Name')
    read = (node['Actual Rows'] + node.get('Rows Removed by Filter', 0) +
            node.get('Rows Removed by Index Recheck', 0))
    # A bitmap's index does not say of which table it is.
    table = node.get('Relation Name') or '_'.join(
        (index or '').split('_')[:2])
    how = 'range'
    if index is None:
        how = 'range' if node['Node Type'] == 'Bitmap Heap Scan' else 'scan'
    elif 'Index Cond' not in node:
        how = 'index'
    return Step(table, how, index or 'bitmap',
                node['Node Type'] == 'Index Only Scan',
                read * node['Actual Loops'])


# -- SQLite ------------------------------------------------------------------

def _sqlite(statement: str, rows: Any) -> Plan:
    steps = []
    for row in rows:
        found = re.match(r'(SCAN|SEARCH) (\w+)(?: USING (COVERING )?INDEX '
                         r'(\w+)| USING (INTEGER PRIMARY KEY))?',
                         row.detail)
        if found is None or found.group(2) in ('chosen', 'anon_1'):
            continue
        verb, name, covering, index, _primary = found.groups()
        how = ('range' if verb == 'SEARCH' else
               'index' if index else 'scan')
        steps.append(Step(_table(statement, name), how, index,
                          bool(covering)))
    # It does not say how many; which part of a statement sorts neither.
    return Plan(statement, steps, None if any(
        'TEMP B-TREE FOR ORDER BY' in row.detail for row in rows) else 0)


_KINDS: dict[str, tuple[str, Any]] = {
    'mysql': ('ANALYZE FORMAT=JSON', _mariadb),
    'postgresql': ('EXPLAIN (ANALYZE, FORMAT JSON)', _postgresql),
    'sqlite': ('EXPLAIN QUERY PLAN', _sqlite)}
