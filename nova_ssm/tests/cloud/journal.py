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
"""What the tables of nova_ssm say about a request."""

import dataclasses

from nova_ssm.tests.cloud import cloud


@dataclasses.dataclass(frozen=True)
class Flow:
    """One row of ``ssm_flows``."""

    uuid: str
    parent_uuid: str | None
    name: str
    state: str
    owner: str | None
    subject: str | None
    finished: bool

    @property
    def host(self) -> str | None:
        """The conductor that owns it."""
        return _host(self.owner)


def _host(process: str | None) -> str | None:
    """Return the host in the name of a worker process, host:pid:number."""
    return process.partition(':')[0] if process else None


def flows(it: cloud.Cloud, request_id: str) -> list[Flow]:
    """Return the flows of a request, parents first."""
    rows = it.db(
        'SELECT uuid, parent_uuid, name, state, owner, subject, '
        'finished_at IS NOT NULL AS finished FROM nova_cell1.ssm_flows '
        'WHERE request_id = %s ORDER BY parent_uuid IS NOT NULL, created_at',
        request_id)
    return [Flow(**row) for row in rows]


def looks_after(it: cloud.Cloud) -> bool:
    """Whether what a dead conductor has left is looked after now."""
    return bool(it.db(
        'SELECT uuid FROM nova_cell1.ssm_flows '
        'WHERE name LIKE %s AND finished_at IS NULL LIMIT 1',
        'end_abandoned_%'))


def owner(it: cloud.Cloud, request_id: str) -> str | None:
    """Return the conductor that works on a request, None if nobody does."""
    return next((flow.host for flow in flows(it, request_id) if flow.host),
                None)


def first_writer(it: cloud.Cloud, flow_uuid: str) -> str | None:
    """Return the conductor that wrote the first row of a flow."""
    rows = it.db('SELECT writer FROM nova_cell1.ssm_journal '
                 'WHERE flow_uuid = %s ORDER BY seq LIMIT 1', flow_uuid)
    return _host(rows[0]['writer']) if rows else None
