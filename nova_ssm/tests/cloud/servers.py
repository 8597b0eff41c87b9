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
"""Boots, watches and deletes servers through the public API."""

import collections
from collections.abc import Iterable
import dataclasses
import itertools
import json
import time
from typing import Any
import uuid

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import settings

_POLL = 0.5
#: event -> the change in the number of guests on that host
_CHANGES = {'spawn': 1, 'arrive': 1, 'destroy': -1, 'leave': -1}


@dataclasses.dataclass(frozen=True)
class Request:
    """One request for servers."""

    name: str
    request_id: str
    count: int
    #: When the API had answered (monotonic clock, seconds).
    answered: float
    #: The ids of its servers.
    ids: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class Guest:
    """What the fake hypervisors did with one server."""

    #: ``(event, host)`` in order of time: spawn, destroy or refuse; arrive,
    #: leave or refuse-live; discard, of the rest of a guest that had left.
    events: tuple[tuple[str, str], ...]

    @property
    def hosts(self) -> list[str]:
        """Where guests of the server are now, once for each guest."""
        found: collections.Counter[str] = collections.Counter()
        for event, host in self.events:
            found[host] += _CHANGES.get(event, 0)
        return sorted(found.elements())

    @property
    def living(self) -> int:
        """How many guests of the server there are now."""
        return len(self.hosts)


class Servers:
    """The servers of one cloud."""

    def __init__(self, it: cloud.Cloud) -> None:
        self._cloud = it

    def boot(self, count: int = 1, prefix: str = 'server',
             networks: str = 'none', flavor: str = 'm1.nano',
             host: str | None = None) -> Request:
        """Ask for servers in one request.

        :param count: how many
        :param prefix: what their names begin with
        :param networks: ``none``, ``auto`` (the private network), or the
            uuid of a port
        :param flavor: a name
        :param host: the compute to build on, None for the scheduler's choice
        :raises CloudError: if the API refuses
        """
        client = self._cloud.client
        wanted: Any = 'none'
        if networks == 'auto':
            wanted = [{'uuid': client.network.find_network('private').id}]
        elif networks != 'none':
            wanted = [{'port': networks}]
        name = f'{prefix}-{uuid.uuid4().hex[:8]}'
        body = {
            'name': name, 'min_count': count, 'max_count': count,
            'imageRef': client.image.find_image('cirros').id,
            'flavorRef': client.compute.find_flavor(flavor).id,
            'networks': wanted}
        if host:
            body['host'] = host
        response = client.compute.post('/servers', microversion='2.90',
                                       json={'server': body})
        if response.status_code != 202:
            raise settings.CloudError(
                f'the API refused to boot: {response.text}')
        return Request(name, response.headers['x-openstack-request-id'],
                       count, time.monotonic(), self._ids(name))

    def _ids(self, name: str) -> frozenset[str]:
        # From the tables: the API would take a good part of a build. One
        # statement, because a server goes from one table to the other.
        pattern = f'%{name}%'
        rows = self._cloud.db(
            'SELECT instance_uuid AS id FROM nova_api.build_requests '
            'WHERE instance LIKE %s UNION '
            'SELECT uuid FROM nova_cell1.instances '
            'WHERE display_name LIKE %s UNION '
            'SELECT uuid FROM nova_cell0.instances '
            'WHERE display_name LIKE %s', pattern, pattern, pattern)
        return frozenset(row['id'] for row in rows)

    def show(self, request: Request) -> list[dict[str, Any]]:
        """Return the servers of a request, as the API shows them."""
        response = self._cloud.client.compute.get(
            '/servers/detail', microversion='2.90',
            params={'name': request.name, 'all_tenants': '1'})
        response.raise_for_status()
        return response.json()['servers']

    def wait(self, request: Request, timeout: float,
             states: Iterable[str] = ('ACTIVE', 'ERROR')
             ) -> list[dict[str, Any]]:
        """Wait until all servers of a request are in one of the states.

        :param timeout: in seconds
        :returns: the servers, also when the time is over
        """
        limit = time.monotonic() + timeout
        wanted = set(states)
        while True:
            found = self.show(request)
            if (len(found) == request.count
                    and {server['status'] for server in found} <= wanted):
                return found
            if time.monotonic() > limit:
                return found
            time.sleep(_POLL)

    def delete(self, request: Request, timeout: float = 120) -> list[str]:
        """Delete the servers of a request and wait until they are gone.

        :param timeout: in seconds
        :returns: the ids of those that are still there
        """
        limit = time.monotonic() + timeout
        asked: set[str] = set()
        while True:
            left = [server['id'] for server in self.show(request)]
            for number in left:
                if number not in asked:
                    self._cloud.client.compute.delete(f'/servers/{number}')
                    asked.add(number)
            if not left or time.monotonic() > limit:
                return left
            time.sleep(_POLL)

    def records(self) -> list[dict[str, Any]]:
        """Return the lines of all hypervisors, in order of time."""
        lines = itertools.chain.from_iterable(
            path.read_text().splitlines() for path in
            self._cloud.settings.var.glob('cmp*/guests.jsonl'))
        return sorted(map(json.loads, lines),
                      key=lambda record: record['time'])

    def guests(self) -> dict[str, Guest]:
        """Return what the hypervisors did, by the id of the server."""
        events = collections.defaultdict(list)
        for record in self.records():
            events[record['uuid']].append((record['event'], record['host']))
        return {number: Guest(tuple(found))
                for number, found in events.items()}
