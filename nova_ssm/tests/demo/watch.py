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

"""Looks at the databases of a Nova from outside, only reading."""

import abc
import collections
from collections.abc import Mapping
import contextlib
import dataclasses
import json
import os
import sqlite3

# Where a server stands, in the order in which it gets there.
REQUESTED = 'with the conductor'
CAST = 'handed to a compute'
BUILDING = 'compute builds it'
ACTIVE = 'ACTIVE'
ERROR = 'ERROR'
PLACES = (REQUESTED, CAST, BUILDING, ACTIVE, ERROR)
SETTLED = (ACTIVE, ERROR)
STUCK = 'servers that are still in BUILD'  # a kind of leftovers


@dataclasses.dataclass(frozen=True)
class Server:
    """A server as the databases show it.

    :ivar place: one of PLACES
    :ivar host: of its compute; empty before the compute has claimed it
    """

    uuid: str
    name: str
    place: str
    host: str


@dataclasses.dataclass(frozen=True)
class Flow:
    """A flow as the journal shows it.

    :ivar parent: UUID of the flow that it is a part of; empty: of none
    :ivar subject: UUID of the instance that it works on
    :ivar before: steps journaled before it was resumed, or all of them
    :ivar after: steps journaled after it was resumed
    :ivar resumed: another process, or a later one, took it over
    :ivar owner: the worker that runs it, HOST:PID:ID; empty: nobody does
    :ivar finished: it has come to its end
    """

    uuid: str
    parent: str
    name: str
    state: str
    subject: str
    owner: str
    finished: bool
    resumed: bool
    before: tuple[str, ...]
    after: tuple[str, ...]


class Databases(abc.ABC):
    """The databases of a Nova; subclasses know where they are."""

    def __init__(self) -> None:
        #: Only servers whose names begin so, and what belongs to them.
        self.prefix = ''
        #: Only flows of this request.
        self.request_id = ''

    @abc.abstractmethod
    def rows(self, database: str, query: str) -> list[tuple]:
        """Return the rows of a query.

        :param database: nova_api, nova_cell0, nova_cell1, placement or ssm
        """

    def servers(self) -> list[Server]:
        """Return all servers, by name."""
        requests = {
            uuid: json.loads(instance)['nova_object.data']['display_name']
            for uuid, instance in self.rows(
                'nova_api', 'SELECT instance_uuid, instance '
                'FROM build_requests')}
        found = {}
        for database in ('nova_cell1', 'nova_cell0'):
            for uuid, name, vm_state, task_state, host in self.rows(
                    database, 'SELECT uuid, display_name, vm_state, '
                    'task_state, host FROM instances WHERE deleted = 0'):
                place = _place(vm_state, task_state, host, uuid in requests)
                found[uuid] = Server(uuid, name, place, host or '')
        for uuid, name in requests.items():
            found.setdefault(uuid, Server(uuid, name, REQUESTED, ''))
        return sorted(
            (server for server in found.values()
             if server.name.startswith(self.prefix)),
            key=lambda server: (len(server.name), server.name))

    def flows(self) -> list[Flow]:
        """Return the flows of servers, oldest first; none on stock Nova.

        Not the one that a conductor's death brings: it works on no server,
        it waits until every compute must have noticed.
        """
        journal = collections.defaultdict(list)
        for flow, kind, atom, state in self.rows(
                'ssm', 'SELECT flow_uuid, kind, atom, state '
                'FROM ssm_journal ORDER BY flow_uuid, seq'):
            journal[flow].append((kind, atom, state))
        return [_flow(row, journal[row[0]]) for row in self.rows(
            'ssm', 'SELECT uuid, name, state, subject, finished_at, '
            'owner, parent_uuid, request_id FROM ssm_flows '
            "WHERE name <> 'fail_abandoned_builds' ORDER BY created_at")
            if self.request_id in ('', row[7])]

    def leftovers(self, guests: Mapping[str, list[str]],
                  ) -> dict[str, list[str]]:
        """Return the names of servers with something left over, by kind.

        :param guests: UUIDs of the guests that run, by host
        """
        servers = {server.uuid: server for server in self.servers()}
        active = {uuid for uuid, server in servers.items()
                  if server.place == ACTIVE}
        settled = {uuid for uuid, server in servers.items()
                   if server.place in SETTLED}
        holders = {uuid for uuid, in self.rows(
            'placement', 'SELECT DISTINCT consumer_id FROM allocations')}
        running = collections.Counter(
            uuid for uuids in guests.values() for uuid in uuids)
        begun = self.rows(
            'nova_cell1', 'SELECT a.instance_uuid, COUNT(*) '
            'FROM instance_actions a JOIN instance_actions_events e '
            'ON e.action_id = a.id '
            "WHERE e.event = 'compute__do_build_and_run_instance' "
            'GROUP BY a.instance_uuid')
        found = {
            STUCK: set(servers) - settled,
            'build requests': {uuid for uuid, in self.rows(
                'nova_api', 'SELECT instance_uuid FROM build_requests')},
            'instance mappings without a cell': {uuid for uuid, in self.rows(
                'nova_api', 'SELECT instance_uuid FROM instance_mappings '
                'WHERE cell_id IS NULL')},
            'allocations without an active server': holders - active,
            'active servers without an allocation': active - holders,
            'active servers without a guest': active - set(running),
            'guests without an active server': set(running) - active,
            'servers with more than one guest': {
                uuid for uuid, number in running.items() if number > 1},
            'servers built more than once': {
                uuid for uuid, number in begun if number > 1},
        }
        # Without a prefix everything in the databases belongs to us.
        names = {kind: sorted(servers[uuid].name if uuid in servers else uuid
                              for uuid in uuids
                              if uuid in servers or not self.prefix)
                 for kind, uuids in found.items()}
        names['unfinished flows'] = [
            '%s %s' % (flow.name, flow.uuid) for flow in self.flows()
            if not flow.finished]
        return names


class Files(Databases):
    """The databases of an embedded Nova.

    :param directory: that it runs in
    """

    def __init__(self, directory: str) -> None:
        super().__init__()
        self.directory = directory

    def rows(self, database: str, query: str) -> list[tuple]:
        """Return the rows of a query; none if there is no such database."""
        path = os.path.join(self.directory, database + '.db')
        if not os.path.exists(path):
            return []  # the journal, on stock Nova
        with contextlib.closing(sqlite3.connect(
                'file:%s?mode=ro' % path, uri=True,
                timeout=30)) as connection:
            return connection.execute(query).fetchall()


def _place(vm_state: str, task_state: str | None, host: str | None,
           requested: bool) -> str:
    if vm_state == 'error':
        return ERROR
    if vm_state == 'active' and not task_state:
        return ACTIVE
    if host:
        return BUILDING
    return REQUESTED if requested else CAST


def _flow(row: tuple, journal: list[tuple]) -> Flow:
    uuid, name, state, subject, finished_at, owner, parent, _ = row
    # The first claim is part of the start, the next one is by who resumes it.
    claims = [number for number, (kind, _, _) in enumerate(journal)
              if kind == 'claim']
    split = claims[0] if claims else len(journal)
    return Flow(
        uuid, parent or '', name, state, subject or '', owner or '',
        finished_at is not None, bool(claims),
        _atoms(journal[:split]), _atoms(journal[split:]))


def _atoms(journal: list[tuple]) -> tuple[str, ...]:
    return tuple(atom for kind, atom, state in journal
                 if kind == 'atom' and state in ('SUCCESS', 'REVERTED'))
