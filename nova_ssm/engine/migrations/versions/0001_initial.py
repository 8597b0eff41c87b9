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

"""The first tables: flows, journal, workers.

A migration spells its tables out: it must stay what it was when the code's
idea of them moves on.
"""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

revision = '0001'
down_revision = None

_BLOB = sa.LargeBinary().with_variant(mysql.LONGBLOB(), 'mysql', 'mariadb')
_TIME = sa.Float(53).with_variant(
    mysql.DOUBLE(asdecimal=False), 'mysql', 'mariadb')
_OPTIONS = {'mysql_engine': 'InnoDB', 'mysql_charset': 'utf8mb4'}


def upgrade() -> None:
    op.create_table(
        'ssm_flows',
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
        sa.Column('generation', sa.Integer, nullable=False),
        sa.Column('priority', sa.String(16), nullable=False),
        sa.Column('created_at', _TIME, nullable=False),
        sa.Column('updated_at', _TIME, nullable=False),
        sa.Column('finished_at', _TIME, nullable=True),
        sa.Column('failure', sa.Text, nullable=True),
        **_OPTIONS)
    for name, columns in (
            ('ssm_flows_finished_owner_idx', ['finished_at', 'owner']),
            ('ssm_flows_parent_idx', ['parent_uuid']),
            ('ssm_flows_subject_idx', ['subject']),
            ('ssm_flows_request_idx', ['request_id'])):
        op.create_index(name, 'ssm_flows', columns)
    op.create_table(
        'ssm_journal',
        sa.Column('flow_uuid', sa.String(36), primary_key=True),
        sa.Column('seq', sa.Integer, primary_key=True, autoincrement=False),
        sa.Column('kind', sa.String(16), nullable=False),
        sa.Column('atom', sa.String(255), nullable=True),
        sa.Column('state', sa.String(16), nullable=True),
        sa.Column('writer', sa.String(255), nullable=False),
        sa.Column('created_at', _TIME, nullable=False),
        sa.Column('payload', _BLOB, nullable=True),
        **_OPTIONS)
    op.create_table(
        'ssm_workers',
        sa.Column('id', sa.String(255), primary_key=True),
        sa.Column('host', sa.String(255), nullable=False),
        sa.Column('pid', sa.Integer, nullable=False),
        sa.Column('process_started', _TIME, nullable=False),
        sa.Column('started_at', _TIME, nullable=False),
        sa.Column('expires_at', _TIME, nullable=False),
        **_OPTIONS)
