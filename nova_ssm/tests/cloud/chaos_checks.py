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
"""What a chaos test has left over, looked for in everything there is.

First with all servers at rest, then with all of them deleted. Whatever does
not belong to a server that somebody asked for counts, too: nobody else uses
the cloud.
"""

from collections.abc import Iterable
import dataclasses

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import leftovers
from nova_ssm.tests.cloud import moves
from nova_ssm.tests.cloud import moves_checks
from nova_ssm.tests.cloud import servers as servers_module

FLOW = 'unfinished flow'
ON_THE_WAY = 'server on the way'
NO_FAULT = 'server in ERROR without a fault'
GUEST = 'guest of nobody'
EVENT = 'event without an end'
#: Migrations hold resources until a resize is confirmed.
_AT_REST = {name: query for name, query in leftovers.AT_REST.items()
            if name not in ('allocation without a server',
                            'running server without an allocation')}
#: These say again what others of the same list say of fewer.
_DELETED = {name: query for name, query in leftovers.EMPTY.items()
            if name not in ('allocation without a server',
                            'port without a server')}
_ENDED = ("('completed', 'confirmed', 'reverted', 'error', 'failed', "
          "'cancelled', 'done')")


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str
    #: The id of the server, empty if nobody knows it.
    server: str
    text: str
    #: ``at rest`` or ``deleted``: what the servers were when it was found.
    when: str


def _plain(it: cloud.Cloud, queries: dict[str, str],
           when: str) -> list[Finding]:
    """Ask queries of the leftovers, and for what each cell shows."""
    found = []
    owners = _owners(it)
    for kind, query in queries.items():
        for row in it.db(query):
            what = row['what']
            found.append(Finding(kind, owners.get(what, what), what, when))
    return found


def _owners(it: cloud.Cloud) -> dict[str, str]:
    """Return the servers of migrations, which hold allocations, too."""
    return {row['uuid']: row['instance_uuid'] for row in it.db(
        'SELECT uuid, instance_uuid FROM nova_cell1.migrations')}


def _events(it: cloud.Cloud, requests: Iterable[str]) -> list[Finding]:
    wanted = set(requests) - {''}
    rows = it.db(
        'SELECT action.instance_uuid AS server, action.request_id AS '
        'request, event.event AS event '
        'FROM nova_cell1.instance_actions AS action JOIN '
        'nova_cell1.instance_actions_events AS event '
        'ON event.action_id = action.id GROUP BY action.id, '
        'action.instance_uuid, action.request_id, event.event '
        'HAVING COUNT(event.finish_time) = 0')
    return [Finding(EVENT, row['server'], row['event'], 'at rest')
            for row in rows if row['request'] in wanted]


def _states(it: cloud.Cloud) -> list[Finding]:
    found = []
    for cell in ('nova_cell1', 'nova_cell0'):
        for row in it.db(
                f'SELECT uuid, vm_state, task_state FROM {cell}.instances '
                "WHERE deleted = 0 AND (task_state IS NOT NULL OR "
                "vm_state = 'building')"):
            found.append(Finding(
                ON_THE_WAY, row['uuid'],
                f'{row["vm_state"]}/{row["task_state"]}', 'at rest'))
        for row in it.db(
                f'SELECT uuid FROM {cell}.instances WHERE deleted = 0 AND '
                "vm_state = 'error' AND uuid NOT IN "
                f'(SELECT instance_uuid FROM {cell}.instance_faults)'):
            found.append(Finding(NO_FAULT, row['uuid'], '', 'at rest'))
    return found


def _flows(it: cloud.Cloud, when: str) -> list[Finding]:
    if it.mode != 'ssm':
        return []
    return [Finding(FLOW, row['subject'] or '',
                    '{uuid} {name} {state}'.format(**row), when)
            for row in it.db(
                'SELECT uuid, name, state, subject FROM '
                'nova_cell1.ssm_flows WHERE finished_at IS NULL')]


def _moves(it: cloud.Cloud) -> list[moves.Move]:
    """Return a move of each server, for what checks moves."""
    ids = [row['uuid'] for row in it.db(
        'SELECT uuid FROM nova_cell1.instances WHERE deleted = 0')]
    return [moves.Move(moves.OPERATIONS['resize'], server, '', 0.0,
                       server.flavor, 0, 0)
            for server in moves.look(it, ids).values()]


def at_rest(it: cloud.Cloud, requests: Iterable[str]) -> list[Finding]:
    """Look at everything while the servers are there."""
    found = _states(it) + _events(it, requests) + _flows(it, 'at rest')
    found += _plain(it, _AT_REST, 'at rest')
    nobody = set()
    for one in moves_checks.find(it, _moves(it)):
        if one.kind == moves_checks.FLOW:
            continue
        key = (one.kind, one.server, one.text)
        if key not in nobody:
            nobody.add(key)
            found.append(Finding(*key, 'at rest'))
    return found


def deleted(it: cloud.Cloud) -> list[Finding]:
    """Look at everything when no server is there any more."""
    found = _plain(it, _DELETED, 'deleted') + _flows(it, 'deleted')
    for row in it.db(
            'SELECT uuid, instance_uuid, status FROM nova_cell1.migrations '
            f'WHERE deleted = 0 AND status NOT IN {_ENDED}'):
        found.append(Finding(moves_checks.UNENDED, row['instance_uuid'],
                             f'{row["uuid"]} {row["status"]}', 'deleted'))
    for server, guest in servers_module.Servers(it).guests().items():
        if guest.living:
            found.append(Finding(GUEST, server, f'on {guest.hosts}',
                                 'deleted'))
    return found
