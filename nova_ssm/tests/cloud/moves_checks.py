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
"""What must be true of moved servers, as questions to the databases.

Between a resize and its confirmation both hosts hold resources: the server
on its new one, the migration on the old one. At rest each server holds what
its flavor says on its host, and nobody else holds anything for it.
"""

from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import json
import time
from typing import Any

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import journal
from nova_ssm.tests.cloud import moves
from nova_ssm.tests.cloud import servers as servers_module

ALLOCATION = 'server with another allocation than its own'
HELD_TWICE = 'migration with an allocation that it must not hold'
SOURCE = 'migration without the allocation of the old host'
NOBODY = 'allocation of nobody'
UNENDED = 'migration without an end'
BINDING = 'port not bound to the host of its server alone'
EVENT = 'event without an end'
SPEC = 'request spec with another flavor'
FLOW = 'unfinished flow'
GUEST = 'guest elsewhere than its server'
#: All kinds of findings.
KINDS = (ALLOCATION, HELD_TWICE, SOURCE, NOBODY, UNENDED, BINDING, EVENT,
         SPEC, FLOW, GUEST)

#: A migration in one of these is over.
_ENDED = frozenset({'completed', 'confirmed', 'reverted', 'error', 'failed',
                    'cancelled', 'done'})
_ORPHANS = (
    'SELECT DISTINCT consumer_id AS what FROM placement.allocations '
    'WHERE consumer_id NOT IN ('
    'SELECT uuid FROM nova_cell1.instances WHERE deleted = 0 UNION '
    'SELECT uuid FROM nova_cell0.instances WHERE deleted = 0 UNION '
    'SELECT instance_uuid FROM nova_api.build_requests UNION '
    'SELECT uuid FROM nova_cell1.migrations)')


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    #: One of ``KINDS``.
    kind: str
    #: The id of the server, empty if that is not known.
    server: str
    #: In words, for people.
    text: str


@dataclasses.dataclass(frozen=True)
class _Held:
    """What one consumer holds: ``((provider, class), amount)``."""

    amounts: frozenset[tuple[tuple[str, str], int]]

    def __str__(self) -> str:
        return ', '.join(f'{amount} {name} on {host}' for (host, name), amount
                         in sorted(self.amounts)) or 'nothing'


def _due(host: str | None, flavor: dict[str, Any]) -> _Held:
    """Return what a flavor takes on a host."""
    amounts = {'VCPU': flavor['vcpus'], 'MEMORY_MB': flavor['memory_mb'],
               'DISK_GB': flavor['root_gb'] + flavor['ephemeral_gb']}
    return _Held(frozenset(((str(host), name), amount)
                           for name, amount in amounts.items() if amount))


class _Look:
    """One look at the servers of some moves."""

    def __init__(self, it: cloud.Cloud, started: Iterable[moves.Move]
                 ) -> None:
        self._cloud = it
        self._moves = {move.server.id: move for move in started}
        self._ids = sorted(self._moves)

    def _rows(self, sql: str, column: str = 'uuid',
              values: Iterable[str] | None = None) -> list[dict[str, Any]]:
        """Ask for the rows of our servers, or of other ids."""
        ids = self._ids if values is None else sorted(values)
        if not ids:
            return []
        marks = ', '.join(['%s'] * len(ids))
        return self._cloud.db(f'{sql} {column} IN ({marks})', *ids)

    def all(self) -> Iterator[Finding]:
        """Ask everything."""
        self._servers = {row['uuid']: row for row in self._rows(
            'SELECT uuid, host, vm_state, task_state, extra.flavor '
            'FROM nova_cell1.instances JOIN nova_cell1.instance_extra '
            'AS extra ON extra.instance_uuid = uuid '
            'WHERE instances.deleted = 0 AND')}
        self._migrations = self._rows(
            'SELECT id, uuid, instance_uuid, status, source_compute '
            'FROM nova_cell1.migrations WHERE deleted = 0 AND',
            'instance_uuid')
        self._held = self._holdings()
        for number in self._ids:
            yield from self._server(number)
            yield from self._of_migrations(number)
        for row in self._cloud.db(_ORPHANS):
            yield Finding(NOBODY, '', f'consumer {row["what"]}')
        yield from self._bindings()
        yield from self._events()
        yield from self._specs()
        yield from self._flows()
        yield from self._guests()

    def _resting(self, number: str) -> bool:
        server = self._servers.get(number)
        return (server is not None and server['task_state'] is None
                and server['vm_state'] in ('active', 'resized'))

    def _resized(self, number: str) -> bool:
        server = self._servers.get(number)
        return server is not None and server['vm_state'] == 'resized'

    # -- placement

    def _holdings(self) -> dict[str, _Held]:
        rows = self._rows(
            'SELECT consumer_id, provider.name AS host, class.name, used '
            'FROM placement.allocations JOIN placement.resource_providers '
            'AS provider ON provider.id = resource_provider_id '
            'JOIN placement.resource_classes AS class '
            'ON class.id = resource_class_id WHERE', 'consumer_id',
            [*self._ids, *(row['uuid'] for row in self._migrations)])
        found: dict[str, set[tuple[tuple[str, str], int]]] = {}
        for row in rows:
            found.setdefault(row['consumer_id'], set()).add(
                ((row['host'], row['name']), row['used']))
        return {number: _Held(frozenset(amounts))
                for number, amounts in found.items()}

    def _holds(self, consumer: str) -> _Held:
        return self._held.get(consumer, _Held(frozenset()))

    def _server(self, number: str) -> Iterator[Finding]:
        if not self._resting(number):
            return
        server = self._servers[number]
        holds = self._holds(number)
        due = _due(server['host'], moves.flavor_of(server['flavor']))
        if holds != due:
            yield Finding(ALLOCATION, number, f'{holds}, not {due}')

    def _of_migrations(self, number: str) -> Iterator[Finding]:
        for row in self._migrations:
            if row['instance_uuid'] != number:
                continue
            ours = row['id'] > self._moves[number].last_migration
            waits = (ours and self._resized(number)
                     and row['status'] == 'finished')
            holds = self._holds(row['uuid'])
            if waits:
                flavor = json.loads(self._servers[number]['flavor'])['old']
                due = _due(row['source_compute'], flavor['nova_object.data'])
                if holds != due:
                    yield Finding(SOURCE, number, f'{holds}, not {due}')
                continue
            if holds.amounts:
                yield Finding(HELD_TWICE, number,
                              f'{row["uuid"]} {row["status"]}: {holds}')
            if row['status'] not in _ENDED:
                yield Finding(UNENDED, number,
                              f'{row["uuid"]} {row["status"]}')

    # -- what else knows the host or the flavor

    def _bindings(self) -> Iterator[Finding]:
        found: dict[str, list[tuple[str, str]]] = {}
        owners: dict[str, str] = {}
        for row in self._rows(
                'SELECT device_id, port_id, host, ml2_port_bindings.status '
                'FROM neutron.ml2_port_bindings JOIN neutron.ports '
                'ON ports.id = port_id WHERE', 'device_id'):
            owners[row['port_id']] = row['device_id']
            found.setdefault(row['port_id'], []).append(
                (row['host'], row['status']))
        for port, bindings in found.items():
            number = owners[port]
            server = self._servers.get(number)
            if server and server['vm_state'] == 'error':
                # Who failed may have no host yet, or none any more, and what
                # works is where that was. Only what nobody needs counts.
                bindings = [one for one in bindings if one[1] != 'ACTIVE']
                if not bindings:
                    continue
            if server and bindings != [(server['host'], 'ACTIVE')]:
                yield Finding(BINDING, number, f'port {port}: {bindings}, '
                              f'the server is on {server["host"]}')

    def _events(self) -> Iterator[Finding]:
        # Nova closes the first event of a name in a request only: when a
        # second host is asked, the second one stays open, also when nobody
        # disturbs it.
        for row in self._rows(
                'SELECT action.instance_uuid, event.event '
                'FROM nova_cell1.instance_actions AS action '
                'JOIN nova_cell1.instance_actions_events AS event '
                'ON event.action_id = action.id GROUP BY action.id, '
                'action.request_id, action.instance_uuid, event.event '
                'HAVING COUNT(event.finish_time) = 0 AND',
                'action.request_id',
                [move.request_id for move in self._moves.values()]):
            yield Finding(EVENT, row['instance_uuid'], row['event'])

    def _specs(self) -> Iterator[Finding]:
        for row in self._rows('SELECT instance_uuid, spec FROM '
                              'nova_api.request_specs WHERE',
                              'instance_uuid'):
            number = row['instance_uuid']
            if not self._resting(number):
                continue
            spec = json.loads(row['spec'])['nova_object.data']
            theirs = spec['flavor']['nova_object.data']['name']
            ours = moves.flavor_of(self._servers[number]['flavor'])['name']
            if theirs != ours:
                yield Finding(SPEC, number, f'{theirs}, not {ours}')

    def _flows(self) -> Iterator[Finding]:
        if self._cloud.mode != 'ssm':
            return
        for number, move in self._moves.items():
            for flow in journal.flows(self._cloud, move.request_id):
                if not flow.finished:
                    yield Finding(FLOW, number,
                                  f'{flow.uuid} {flow.name} {flow.state}')

    def _guests(self) -> Iterator[Finding]:
        guests = servers_module.Servers(self._cloud).guests()
        for number, server in self._servers.items():
            if self._resting(number):
                hosts = guests[number].hosts if number in guests else []
                if hosts != [server['host']]:
                    yield Finding(GUEST, number, f'on {hosts}, the server '
                                  f'is on {server["host"]}')


def find(it: cloud.Cloud, started: Iterable[moves.Move]) -> list[Finding]:
    """Look once at everything that some moves could have left."""
    return list(_Look(it, started).all())


def wait(it: cloud.Cloud, started: Iterable[moves.Move],
         timeout: float = 60) -> list[Finding]:
    """Look until nothing is found; return what is still there at the end.

    :param timeout: in seconds; the last deeds of a move (the end of its flow
        and of its events) come after its server is seen: as long as a compute
        may wait for answers, and then again for one
    """
    started = list(started)
    limit = time.monotonic() + timeout
    while True:
        found = find(it, started)
        if not found or time.monotonic() > limit:
            return found
        time.sleep(0.5)


def by_kind(findings: Iterable[Finding]) -> dict[str, list[str]]:
    """Return findings as lists of texts, under the names of their kinds."""
    found: dict[str, list[str]] = {}
    for one in findings:
        found.setdefault(one.kind, []).append(
            f'{one.server}: {one.text}' if one.server else one.text)
    return found


def checks(it: cloud.Cloud,
           started: Iterable[moves.Move]) -> dict[str, list[str]]:
    """Look once; return what is wrong by its kind, empty if nothing is."""
    return by_kind(find(it, started))
