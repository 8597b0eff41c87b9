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
"""What must never be left behind, as questions to the databases.

Each query returns the id of a server for each thing that is not as it should
be.
"""

import time

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import journal
from nova_ssm.tests.cloud import servers

_SERVERS = ('SELECT uuid FROM nova_cell1.instances WHERE deleted = 0 '
            'UNION SELECT uuid FROM nova_cell0.instances WHERE deleted = 0')

#: At any time.
ALWAYS = {
    'allocation without a server':
        'SELECT DISTINCT consumer_id AS what FROM placement.allocations '
        f'WHERE consumer_id NOT IN ({_SERVERS})',
    'allocation on two hosts':
        'SELECT consumer_id AS what FROM placement.allocations '
        'GROUP BY consumer_id HAVING COUNT(DISTINCT resource_provider_id) > 1',
    'running server without an allocation':
        'SELECT uuid AS what FROM nova_cell1.instances WHERE deleted = 0 '
        "AND vm_state = 'active' AND uuid NOT IN "
        '(SELECT consumer_id FROM placement.allocations)',
    'mapping without an instance':
        'SELECT instance_uuid AS what FROM nova_api.instance_mappings '
        'WHERE instance_uuid NOT IN '
        '(SELECT uuid FROM nova_cell1.instances UNION '
        'SELECT uuid FROM nova_cell0.instances UNION '
        'SELECT instance_uuid FROM nova_api.build_requests)',
    'server in two cells':
        'SELECT uuid AS what FROM nova_cell1.instances WHERE deleted = 0 AND '
        'uuid IN (SELECT uuid FROM nova_cell0.instances WHERE deleted = 0)',
    'port without a server':
        'SELECT device_id AS what FROM neutron.ports '
        "WHERE device_owner LIKE 'compute:%' "
        f'AND device_id NOT IN ({_SERVERS})',
    'server with two ports':
        'SELECT device_id AS what FROM neutron.ports '
        "WHERE device_owner LIKE 'compute:%' GROUP BY device_id "
        'HAVING COUNT(*) > 1',
}

#: When no request is at work.
AT_REST = ALWAYS | {
    'build request left':
        'SELECT instance_uuid AS what FROM nova_api.build_requests',
}

#: When every server is deleted.
EMPTY = AT_REST | {
    'server left': _SERVERS.replace('SELECT uuid', 'SELECT uuid AS what', 1),
    'allocation left':
        'SELECT DISTINCT consumer_id AS what FROM placement.allocations',
    'compute port left':
        "SELECT device_id AS what FROM neutron.ports "
        "WHERE device_owner LIKE 'compute:%'",
}


def look(it: cloud.Cloud, queries: dict[str, str],
         *requests: servers.Request) -> dict[str, list[str]]:
    """Ask; return what was found, under the names of the queries.

    :param requests: only what belongs to their servers counts
    """
    ours = frozenset().union(*(request.ids for request in requests))
    found = {}
    for name, query in queries.items():
        what = sorted(ours & {row['what'] for row in it.db(query)})
        if what:
            found[name] = what
    if it.mode == 'ssm' and queries is not ALWAYS:
        flows = [f'{flow.uuid} {flow.name} {flow.state}'
                 for request in requests
                 for flow in journal.flows(it, request.request_id)
                 if not flow.finished]
        if flows:
            found['unfinished flow'] = flows
    return found


def wait(it: cloud.Cloud, queries: dict[str, str],
         *requests: servers.Request,
         timeout: float = 30) -> dict[str, list[str]]:
    """Ask until nothing is found; return what is still there at the end.

    :param timeout: in seconds; the last deeds of a request (the end of its
        flow, the deletion of a port) come after its servers are seen
    """
    limit = time.monotonic() + timeout
    while True:
        found = look(it, queries, *requests)
        if not found or time.monotonic() > limit:
            return found
        time.sleep(0.5)
