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
    # What cannot go on here finds its way to the top by finished_at IS NULL.
    sa.Index('ssm_flows_finished_owner_idx', 'finished_at', 'owner'),
    sa.Index('ssm_flows_parent_idx', 'parent_uuid'),
    sa.Index('ssm_flows_subject_idx', 'subject'),
    sa.Index('ssm_flows_request_idx', 'request_id'),
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


class now(expression.ColumnElement):
    """Seconds since the epoch, fractional, on the clock of the database."""

    type = sa.Float(53)
    inherit_cache = True


@compiler.compiles(now, 'sqlite')
def _now_sqlite(element: now, compiler_: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiler.compiles(now, 'mysql')
@compiler.compiles(now, 'mariadb')
def _now_mysql(element: now, compiler_: Any, **kw: Any) -> str:
    # + 0e0 makes a DOUBLE of the DECIMAL, which has no place for arithmetics
    # with bound parameters.
    return '(UNIX_TIMESTAMP(SYSDATE(6)) + 0e0)'


@compiler.compiles(now, 'postgresql')
def _now_postgresql(element: now, compiler_: Any, **kw: Any) -> str:
    # Not now(): that is when the transaction began.
    return 'EXTRACT(EPOCH FROM clock_timestamp())::double precision'
