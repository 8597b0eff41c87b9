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
"""Moves servers through the public API, and says what became of each.

An :class:`Operation` is one way to move a server; ``OPERATIONS`` has all of
them by name. :class:`Mover` does it in one cloud::

    mover = moves.Mover(it, moves.OPERATIONS['resize'])
    servers = mover.build(3)
    started = [mover.start(server) for server in servers]
    verdicts = mover.wait(started, timeout=120)
    # look at moves_checks.find(it, started) here: resized servers still hold
    # resources on both hosts
    mover.finish(started)
    # ... and here: everything is at rest
    mover.delete(servers)

What is looked up comes from the tables of Nova, what is done goes through
its API.
"""

from collections.abc import Iterable
import dataclasses
import json
import time
from typing import Any

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import servers as servers_module
from nova_ssm.tests.cloud import settings

_POLL = 0.3
#: The last microversion with ``force``.
_FORCING = '2.67'
_LATEST = '2.90'
#: What a move goes between.
FLAVORS = ('m1.nano', 'm1.micro')

DONE = 'done'
BACK = 'back'
ERROR = 'ERROR'
STUCK = 'stuck'
LOST = 'lost'
SILENT = 'back without a fault'
ODD = 'neither here nor there'
#: What a user can live with.
GOOD = (DONE, BACK)
#: All verdicts, the good ones first.
VERDICTS = (DONE, BACK, ERROR, STUCK, LOST, SILENT, ODD)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One way to move a server."""

    name: str
    #: Whether the guest goes on running.
    live: bool
    #: Whether the server gets another flavor.
    resize: bool = False
    #: Whether the caller names the destination and forbids the scheduler.
    forced: bool = False
    #: What the names of its servers begin with; the fake hypervisor reads
    #: it, see :mod:`nova_ssm.tests.cloud.driver`.
    prefix: str = 'move'
    #: Whether the first destination refuses.
    refused: bool = False

    @property
    def action(self) -> str:
        """The event of the conductor's work in the server's action log."""
        return ('conductor_live_migrate_instance' if self.live
                else 'conductor_migrate_server')

    @property
    def flow(self) -> str:
        """The name of the flow that does it."""
        if self.forced:
            return 'live_migrate_forced'
        return 'live_migrate' if self.live else 'resize'

    @property
    def promise(self) -> tuple[str, str]:
        """The vm_state and the migration status at its success."""
        return ('active', 'completed') if self.live else (
            'resized', 'finished')


OPERATIONS: dict[str, Operation] = {one.name: one for one in (
    Operation('resize', live=False, resize=True),
    Operation('cold-migrate', live=False),
    Operation('live-migrate', live=True),
    Operation('live-migrate-forced', live=True, forced=True),
    Operation('live-migrate-retry', live=True, prefix='refuse-live-first',
              refused=True),
)}


@dataclasses.dataclass(frozen=True)
class Server:
    """A server as the cell knows it."""

    id: str
    name: str
    host: str | None
    vm_state: str | None
    task_state: str | None
    #: The name of its flavor.
    flavor: str

    @property
    def resting(self) -> bool:
        """Whether it runs and nothing is done with it."""
        return self.vm_state == 'active' and self.task_state is None


@dataclasses.dataclass(frozen=True)
class Move:
    """One request to move one server."""

    operation: Operation
    #: The server before the request.
    server: Server
    request_id: str
    #: When the API had answered (monotonic clock, seconds).
    answered: float
    #: The name of the flavor that it shall get.
    flavor: str
    #: The newest migration record and fault of the server before.
    last_migration: int
    last_fault: int
    #: Where it shall go, if the caller said so.
    target: str | None = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one move."""

    #: One of ``VERDICTS``.
    kind: str
    #: In words, for people.
    text: str
    #: The newest fault of this move, if there is one.
    fault: str | None = None

    @property
    def good(self) -> bool:
        """Whether the server is where it was promised, or where it was."""
        return self.kind in GOOD


def look(it: cloud.Cloud, ids: list[str]) -> dict[str, Server]:
    """Return the servers that a cell has, by their ids."""
    if not ids:
        return {}
    marks = ', '.join(['%s'] * len(ids))
    rows = it.db(
        'SELECT uuid, display_name, host, vm_state, task_state, '
        'extra.flavor FROM nova_cell1.instances '
        'JOIN nova_cell1.instance_extra AS extra '
        'ON extra.instance_uuid = uuid WHERE instances.deleted = 0 '
        f'AND uuid IN ({marks})', *ids)
    return {row['uuid']: Server(
        row['uuid'], row['display_name'], row['host'], row['vm_state'],
        row['task_state'], flavor_of(row['flavor'])['name'])
        for row in rows}


def flavor_of(text: str, which: str = 'cur') -> dict[str, Any]:
    """Return a flavor's fields from ``instance_extra.flavor``."""
    return json.loads(text)[which]['nova_object.data']


def ended(it: cloud.Cloud, operation: Operation,
          requests: Iterable[str]) -> set[str]:
    """Return the requests on which no conductor works any more.

    Its last deed is to close its event in the server's action log.
    """
    wanted = sorted(requests)
    if not wanted:
        return set()
    marks = ', '.join(['%s'] * len(wanted))
    rows = it.db(
        'SELECT DISTINCT action.request_id '
        'FROM nova_cell1.instance_actions AS action '
        'JOIN nova_cell1.instance_actions_events AS event '
        'ON event.action_id = action.id WHERE event.event = %s '
        'AND event.finish_time IS NOT NULL '
        f'AND action.request_id IN ({marks})', operation.action, *wanted)
    return {row['request_id'] for row in rows}


class Mover:
    """Moves servers of one cloud in one way."""

    def __init__(self, it: cloud.Cloud, operation: Operation) -> None:
        self._cloud = it
        self._servers = servers_module.Servers(it)
        self.operation = operation

    # -- before

    def build(self, count: int = 1, timeout: float = 120) -> list[Server]:
        """Build servers that the operation can move, with a port each.

        :param timeout: in seconds
        :raises CloudError: if one does not become ACTIVE
        """
        request = self._servers.boot(count, self.operation.prefix, 'auto')
        found = self._servers.wait(request, timeout)
        states = [server['status'] for server in found]
        if states != ['ACTIVE'] * count:
            raise settings.CloudError(
                f'the servers to move are {states}; see tools/cloud.sh logs')
        return list(self._look([server['id'] for server in found]).values())

    def refresh(self, servers: list[Server]) -> list[Server]:
        """Return the servers as they are now, without those that are gone."""
        return list(self._look([server.id for server in servers]).values())

    def _look(self, ids: list[str]) -> dict[str, Server]:
        return look(self._cloud, ids)

    # -- the move

    def start(self, server: Server) -> Move:
        """Ask for the move of a server; return when the API has answered.

        :raises CloudError: if the API refuses
        """
        server = self._look([server.id])[server.id]
        operation = self.operation
        target = self._target(server) if operation.forced else None
        flavor = server.flavor
        if operation.resize:
            flavor = next(name for name in FLAVORS if name != server.flavor)
        last = self._last(server)
        response = self._action(
            server, self._body(flavor, target),
            _FORCING if operation.forced else _LATEST)
        if response.status_code != 202:
            raise settings.CloudError(
                f'the API refused to {operation.name}: {response.text}')
        return Move(operation, server,
                    response.headers['x-openstack-request-id'],
                    time.monotonic(), flavor, *last, target=target)

    def _body(self, flavor: str, target: str | None) -> dict[str, Any]:
        if self.operation.resize:
            found = self._cloud.client.compute.find_flavor(flavor)
            return {'resize': {'flavorRef': found.id}}
        if not self.operation.live:
            return {'migrate': None}
        body: dict[str, Any] = {'host': target, 'block_migration': 'auto'}
        if self.operation.forced:
            body['force'] = True
        return {'os-migrateLive': body}

    def _action(self, server: Server, body: dict[str, Any],
                microversion: str) -> Any:
        return self._cloud.client.compute.post(
            f'/servers/{server.id}/action', json=body,
            microversion=microversion)

    @staticmethod
    def _target(server: Server) -> str:
        hosts = [host for host in settings.COMPUTES if host != server.host]
        # Servers spread over the others without a common counter.
        return hosts[int(server.id[:8], 16) % len(hosts)]

    def _last(self, server: Server) -> tuple[int, int]:
        row = self._cloud.db(
            'SELECT (SELECT COALESCE(MAX(id), 0) FROM nova_cell1.migrations '
            'WHERE instance_uuid = %s) AS migration, '
            '(SELECT COALESCE(MAX(id), 0) FROM nova_cell1.instance_faults '
            'WHERE instance_uuid = %s) AS fault', server.id, server.id)[0]
        return row['migration'], row['fault']

    # -- what became of it

    def verdict(self, move: Move) -> Verdict:
        """Say what has become of a move so far."""
        now = self._look([move.server.id]).get(move.server.id)
        fault = self._fault(move)
        if now is None:
            return Verdict(LOST, 'no such server', fault)
        states = [row['status'] for row in self.migrations(move)]
        where = (f'{now.vm_state}/{now.task_state} on {now.host}, was on '
                 f'{move.server.host}; {now.flavor}; migrations {states}')
        return Verdict(self._kind(move, now, states, fault), where, fault)

    def _kind(self, move: Move, now: Server, states: list[str],
              fault: str | None) -> str:
        if now.task_state is not None:
            return STUCK
        if now.vm_state == 'error':
            return ERROR
        if self._is_done(move, now, states):
            return DONE
        former = (move.server.host, 'active', move.server.flavor)
        if ((now.host, now.vm_state, now.flavor) == former
                and set(states) <= {'error', 'failed', 'cancelled'}):
            return BACK if fault else SILENT
        return ODD

    def _is_done(self, move: Move, now: Server, states: list[str]) -> bool:
        vm_state, status = self.operation.promise
        if (now.vm_state, states) != (vm_state, [status]):
            return False
        if now.host == move.server.host or now.flavor != move.flavor:
            return False
        return move.target in (None, now.host)

    def _fault(self, move: Move) -> str | None:
        rows = self._cloud.db(
            'SELECT message FROM nova_cell1.instance_faults WHERE '
            'instance_uuid = %s AND id > %s ORDER BY id DESC LIMIT 1',
            move.server.id, move.last_fault)
        return rows[0]['message'] if rows else None

    def migrations(self, move: Move) -> list[dict[str, Any]]:
        """Return the migration records of a move."""
        return self._cloud.db(
            'SELECT uuid, status, source_compute, dest_compute, created_at '
            'FROM nova_cell1.migrations WHERE instance_uuid = %s '
            'AND id > %s AND deleted = 0 ORDER BY id',
            move.server.id, move.last_migration)

    def refusals(self, move: Move) -> list[str]:
        """Return the hosts that refused a live migration of this request."""
        return [record['host'] for record in self._servers.records()
                if record['event'] == 'refuse-live'
                and record['uuid'] == move.server.id
                and record['request_id'] == move.request_id]

    def casts_left(self, started: list[Move]) -> int:
        """Return for how many moves a conductor is still at work."""
        requests = {move.request_id for move in started}
        return len(requests - ended(self._cloud, self.operation, requests))

    def wait(self, started: list[Move], timeout: float,
             quiet: float | None = None) -> dict[str, Verdict]:
        """Wait until all moves have come to an end.

        :param timeout: in seconds
        :param quiet: seconds without a change after which nothing more is
            expected; None: wait for the timeout
        :returns: server id -> verdict, also when the time is over
        """
        limit = time.monotonic() + timeout
        changed = time.monotonic()
        found: dict[str, Verdict] = {}
        while True:
            for move in started:
                before = found.get(move.server.id)
                if before is None or before.kind not in (*GOOD, ERROR):
                    found[move.server.id] = self.verdict(move)
                    if found[move.server.id] != before:
                        changed = time.monotonic()
            now = time.monotonic()
            if (all(one.kind in (*GOOD, ERROR) for one in found.values())
                    or now > limit
                    or quiet is not None and now > changed + quiet):
                break
            time.sleep(_POLL)
        # A second look: what was good must have stayed so.
        return {move.server.id: self.verdict(move) for move in started}

    # -- afterwards

    def finish(self, started: list[Move], timeout: float = 60) -> list[str]:
        """Confirm what waits for it; return who is not ACTIVE after that.

        :param started: moves that were judged ``DONE`` or ``BACK``
        :param timeout: in seconds
        """
        for server in self._resized(started):
            self._action(server, {'confirmResize': None}, _LATEST)
        limit = time.monotonic() + timeout
        while True:
            now = self._look([move.server.id for move in started])
            left = sorted(move.server.id for move in started
                          if not (move.server.id in now
                                  and now[move.server.id].resting))
            if not left or time.monotonic() > limit:
                return left
            time.sleep(_POLL)

    def _resized(self, started: list[Move]) -> list[Server]:
        now = self._look([move.server.id for move in started])
        return [server for server in now.values()
                if server.vm_state == 'resized'
                and server.task_state is None]

    def delete(self, servers: list[Server],
               timeout: float = 60) -> list[str]:
        """Delete servers; return the ids of those that do not go.

        :param timeout: in seconds
        """
        ids = [server.id for server in servers]
        for number in ids:
            self._cloud.client.compute.delete(f'/servers/{number}')
        limit = time.monotonic() + timeout
        while True:
            left = sorted(self._look(ids))
            if not left or time.monotonic() > limit:
                return left
            time.sleep(_POLL)
