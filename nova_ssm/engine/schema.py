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

"""The tables: one row a flow, one row a step, one row a worker.

``ssm_flows`` is what the job board works on and what people look at;
``ssm_journal`` is append-only and the only truth about what a flow has done;
``ssm_workers`` holds one lease a worker process, so that a worker with a
hundred flows renews one row.

Times are seconds since the epoch on the *database's* clock (see :class:`now`):
the clocks of the conductors are never compared with each other.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.ext import compiler
from sqlalchemy.sql import expression
from sqlalchemy.sql import visitors

metadata = sa.MetaData()

#: Results of a task may be large (a request of a thousand servers).
Blob = sa.LargeBinary().with_variant(
    mysql.LONGBLOB(), 'mysql', 'mariadb')
#: Microseconds matter for the order in which people read the journal.
Time = sa.Float(53).with_variant(
    mysql.DOUBLE(asdecimal=False), 'mysql', 'mariadb')

flows = sa.Table(
    'ssm_flows', metadata,
    sa.Column('uuid', sa.String(36), primary_key=True),
    sa.Column('parent_uuid', sa.String(36), nullable=True),
    sa.Column('name', sa.String(64), nullable=False),
    sa.Column('version', sa.String(16), nullable=False),
    sa.Column('state', sa.String(16), nullable=False),
    sa.Column('subject', sa.String(255), nullable=True),
    sa.Column('project_id', sa.String(255), nullable=True),
    sa.Column('user_id', sa.String(255), nullable=True),
    sa.Column('request_id', sa.String(255), nullable=True),
    sa.Column('owner', sa.String(255), nullable=True),
    # Counts the claims: a claim is a compare-and-swap on it.
    sa.Column('generation', sa.Integer, nullable=False, default=0),
    sa.Column('priority', sa.String(16), nullable=False),
    sa.Column('created_at', Time, nullable=False),
    sa.Column('updated_at', Time, nullable=False),
    sa.Column('finished_at', Time, nullable=True),
    sa.Column('failure', sa.Text, nullable=True),
    # Why the last worker that looked at it could not go on with it.
    sa.Column('trouble', sa.Text, nullable=True),
    # Every look walks one of these and reads of the table only what it
    # shows: the flows that are over may be a million.
    #
    # Who runs it: a living owner is skipped as a whole.
    sa.Index('ssm_flows_owner_idx', 'owner', 'finished_at', 'created_at',
             'uuid'),
    # What is not over (finished_at IS NULL), and what is old.
    sa.Index('ssm_flows_finished_idx', 'finished_at', 'created_at', 'uuid'),
    sa.Index('ssm_flows_created_idx', 'created_at', 'uuid'),
    sa.Index('ssm_flows_project_idx', 'project_id', 'created_at', 'uuid'),
    sa.Index('ssm_flows_subject_idx', 'subject', 'created_at', 'uuid'),
    sa.Index('ssm_flows_request_idx', 'request_id', 'created_at', 'uuid'),
    sa.Index('ssm_flows_parent_idx', 'parent_uuid'),
    sa.Index('ssm_flows_name_idx', 'name', 'created_at', 'uuid'),
    sa.Index('ssm_flows_state_idx', 'state', 'created_at', 'uuid'),
    mysql_engine='InnoDB', mysql_charset='utf8mb4',
)

journal = sa.Table(
    'ssm_journal', metadata,
    sa.Column('flow_uuid', sa.String(36), primary_key=True),
    # The fence: a second writer of the flow meets a duplicate key.
    sa.Column('seq', sa.Integer, primary_key=True, autoincrement=False),
    sa.Column('kind', sa.String(16), nullable=False),
    sa.Column('atom', sa.String(255), nullable=True),
    sa.Column('state', sa.String(16), nullable=True),
    sa.Column('writer', sa.String(255), nullable=False),
    sa.Column('created_at', Time, nullable=False),
    sa.Column('payload', Blob, nullable=True),
    mysql_engine='InnoDB', mysql_charset='utf8mb4',
)

workers = sa.Table(
    'ssm_workers', metadata,
    sa.Column('id', sa.String(255), primary_key=True),
    # With the namespace of its pids: see nova_ssm.engine.worker.
    sa.Column('host', sa.String(255), nullable=False),
    sa.Column('pid', sa.Integer, nullable=False),
    # With the pid it names one process, also after the pid was used again.
    sa.Column('process_started', Time, nullable=False),
    sa.Column('started_at', Time, nullable=False),
    sa.Column('expires_at', Time, nullable=False),
    mysql_engine='InnoDB', mysql_charset='utf8mb4',
)

#: Flows that are wanted elsewhere: see nova_ssm.engine.transfers.
transfers = sa.Table(
    'ssm_transfers', metadata,
    sa.Column('flow_uuid', sa.String(36), primary_key=True),
    # A worker or a host; NULL for anybody but the owner.
    sa.Column('target', sa.String(255), nullable=True),
    sa.Column('asked_at', Time, nullable=False),
    mysql_engine='InnoDB', mysql_charset='utf8mb4',
)

#: What people want of flows: see nova_ssm.engine.orders.
orders = sa.Table(
    'ssm_orders', metadata,
    sa.Column('flow_uuid', sa.String(36), primary_key=True),
    sa.Column('verb', sa.String(16), nullable=False),
    sa.Column('asked_by', sa.String(255), nullable=False),
    sa.Column('reason', sa.String(255), nullable=True),
    sa.Column('asked_at', Time, nullable=False),
    sa.Column('answer', sa.Text, nullable=True),
    sa.Column('answered_at', Time, nullable=True),
    # What is not answered: every look asks for it.
    sa.Index('ssm_orders_answered_idx', 'answered_at'),
    mysql_engine='InnoDB', mysql_charset='utf8mb4',
)


class now(expression.ColumnElement):
    """Seconds since the epoch, fractional, on the clock of the database.

    The time at which the statement began: of one that may be another one for
    each row no database looks anything up in an index. Who waits within the
    statement, for a lock, has asked before.
    """

    type = sa.Float(53)
    inherit_cache = True
    # It says the same each time; without this no statement that has it would
    # be compiled once only.
    _traverse_internals: Any = []


@compiler.compiles(now, 'sqlite')
def _now_sqlite(element: now, compiler_: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiler.compiles(now, 'mysql')
@compiler.compiles(now, 'mariadb')
def _now_mysql(element: now, compiler_: Any, **kw: Any) -> str:
    # Of UTC: the local time of the server is set back by an hour once a year.
    # / 1e6 makes a DOUBLE, unlike a DECIMAL one with place for arithmetics
    # with bound parameters.
    return ("(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
            " / 1e6)")


@compiler.compiles(now, 'postgresql')
def _now_postgresql(element: now, compiler_: Any, **kw: Any) -> str:
    # Not now(): that is when the transaction began.
    return 'EXTRACT(EPOCH FROM statement_timestamp())::double precision'


class alike(expression.ColumnElement):
    """To order by: a column by which the rows that are found are all alike.

    PostgreSQL wants it named where it stands in the index whose order is
    asked for, or it may walk another index all along; MariaDB does not see
    that it is constant, and would sort.
    """

    type = sa.Integer()
    inherit_cache = True

    def __init__(self, column: Any) -> None:
        self.column = column
        self.table = None

    _traverse_internals: Any = [
        ('column', visitors.InternalTraversal.dp_clauseelement)]


@compiler.compiles(alike)
def _alike(element: alike, compiler_: Any, **kw: Any) -> str:
    return 'NULL'


@compiler.compiles(alike, 'postgresql')
def _alike_postgresql(element: alike, compiler_: Any, **kw: Any) -> str:
    return compiler_.process(element.column, **kw)
