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

"""Flows that are wanted elsewhere.

A table of its own: a release that does not know it works on beside this one.
"""

from alembic import op
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

revision = '0004'
down_revision = '0003'


def upgrade() -> None:
    op.create_table(
        'ssm_transfers',
        sa.Column('flow_uuid', sa.String(36), primary_key=True),
        sa.Column('target', sa.String(255), nullable=True),
        sa.Column('asked_at', sa.Float(53).with_variant(
            mysql.DOUBLE(asdecimal=False), 'mysql', 'mariadb'),
            nullable=False),
        mysql_engine='InnoDB', mysql_charset='utf8mb4')
