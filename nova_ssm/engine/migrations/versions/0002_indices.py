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

"""Indices by which every look stays as quick as the tables grow.

A release that does not know them works on beside this one.
"""

from alembic import op

revision = '0002'
down_revision = '0001'

_OLD = ('ssm_flows_finished_owner_idx', 'ssm_flows_subject_idx',
        'ssm_flows_request_idx')
_NEW = (
    ('ssm_flows_owner_idx',
     ['owner', 'finished_at', 'created_at', 'uuid']),
    ('ssm_flows_finished_idx', ['finished_at', 'created_at', 'uuid']),
    ('ssm_flows_created_idx', ['created_at', 'uuid']),
    ('ssm_flows_project_idx', ['project_id', 'created_at', 'uuid']),
    ('ssm_flows_subject_idx', ['subject', 'created_at', 'uuid']),
    ('ssm_flows_request_idx', ['request_id', 'created_at', 'uuid']),
)


def upgrade() -> None:
    for name in _OLD:
        op.drop_index(name, 'ssm_flows')
    for name, columns in _NEW:
        op.create_index(name, 'ssm_flows', columns)
