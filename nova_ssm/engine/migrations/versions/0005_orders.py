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

"""What people want of flows, and flows by their names and states.

A table of its own: a release that does not know it works on beside this one,
but does not obey.
"""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

revision = '0005'
down_revision = '0004'


def upgrade() -> None:
    time = sa.Float(53).with_variant(
        mysql.DOUBLE(asdecimal=False), 'mysql', 'mariadb')
    op.create_table(
        'ssm_orders',
        sa.Column('flow_uuid', sa.String(36), primary_key=True),
        sa.Column('verb', sa.String(16), nullable=False),
        sa.Column('asked_by', sa.String(255), nullable=False),
        sa.Column('reason', sa.String(255), nullable=True),
        sa.Column('asked_at', time, nullable=False),
        sa.Column('answer', sa.Text, nullable=True),
        sa.Column('answered_at', time, nullable=True),
        mysql_engine='InnoDB', mysql_charset='utf8mb4')
    op.create_index('ssm_orders_answered_idx', 'ssm_orders', ['answered_at'])
    for column in ('name', 'state'):
        op.create_index('ssm_flows_%s_idx' % column, 'ssm_flows',
                        [column, 'created_at', 'uuid'])
