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

"""What holds when nothing is under way, whatever has gone wrong before.

Each check yields a text for each thing that is not as it should be.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import json
from typing import Any

from nova_ssm.tests.faults import tables
from nova_ssm.tests.faults import world as world_module

#: A migration in one of these is over.
ENDED = frozenset(('completed', 'confirmed', 'reverted', 'error', 'failed',
                   'cancelled', 'done'))


@dataclasses.dataclass(frozen=True)
class End:
    """How a server may end.

    :param status: as the API shows it
    :param host: where it is; None: nowhere; ``*``: it does not matter
    """

    status: str
    host: str | None = '*'

    def __str__(self) -> str:
        return '%s on %s' % (self.status, self.host)

    def fits(self, status: str, host: str | None) -> bool:
        """Whether a server has ended so."""
        return self.status == status and self.host in ('*', host)


class Look:
    """One look at everything.

    :param servers: the ids of all servers that there are to be
    :param ends: how they may have ended
    """

    def __init__(self, world: world_module.World, servers: Sequence[str],
                 ends: Sequence[End]) -> None:
        self.world = world
        self.servers = list(servers)
        self.ends = list(ends)
        self.shown = {one['id']: one
                      for one in world.api.get_servers(detail=True)}
        self.records = tables.cells(
            world, 'SELECT instances.uuid AS uuid, host, vm_state, '
            'task_state, hidden, flavor FROM instances '
            'LEFT JOIN instance_extra ON '
            'instance_extra.instance_uuid = instances.uuid '
            'WHERE instances.deleted = 0')
        self.migrations = tables.cells(
            world, 'SELECT uuid, instance_uuid AS server, status, '
            'source_compute, migration_type AS type FROM migrations '
            'WHERE deleted = 0')
        self.disks = tables.cells(
            world, 'SELECT instance_uuid AS server, attachment_id, '
            'source_type, destination_type, boot_index '
            'FROM block_device_mapping WHERE deleted = 0')
        self.held = tables.held()
        self.guests = tables.guests(world)
        self.ports = tables.ports(world)
        self.attachments = tables.attachments(world)

    def record(self, server: str) -> dict[str, Any] | None:
        """The record of a server that users see."""
        return next((row for row in self.records if row['uuid'] == server and
                     not row['hidden']), None)

    def host(self, server: str) -> str | None:
        record = self.record(server)
        return record and record['host']

    def resized(self, server: str) -> bool:
        return self.shown.get(server, {}).get('status') == 'VERIFY_RESIZE'

    def all(self) -> list[str]:
        """What all checks find."""
        found = []
        for check in CHECKS:
            found += ['%s: %s' % (check.__name__.strip('_'), text)
                      for text in check(self)]
        return found


def _states(look: Look) -> Iterator[str]:
    """Each server ends as it was promised."""
    for extra in sorted(set(look.shown) - set(look.servers)):
        yield '%s: nobody has asked for it' % extra
    for server in look.servers:
        shown = look.shown.get(server)
        if shown is None:
            yield '%s is not there' % server
            continue
        host = shown['OS-EXT-SRV-ATTR:host']
        if not any(end.fits(shown['status'], host) for end in look.ends):
            yield '%s is %s on %s, not %s (%s)' % (
                server, shown['status'], host,
                ' or '.join(map(str, look.ends)),
                shown.get('fault', {}).get('message'))
        if shown['OS-EXT-STS:task_state']:
            yield '%s is still in %s' % (server,
                                         shown['OS-EXT-STS:task_state'])
        if shown['status'] == 'ERROR' and 'fault' not in shown:
            yield '%s has no fault' % server


def _records(look: Look) -> Iterator[str]:
    """One record, in the cell that its mapping names; no request left."""
    mappings = {row['server']: row for row in tables.api(
        'SELECT instance_uuid AS server, cell_mappings.name AS cell '
        'FROM instance_mappings LEFT JOIN cell_mappings '
        'ON cell_mappings.id = cell_id WHERE queued_for_delete = 0')}
    for server in look.servers:
        rows = [row for row in look.records if row['uuid'] == server]
        visible = [row['cell'] for row in rows if not row['hidden']]
        hidden = len(rows) - len(visible)
        if len(visible) != 1 or hidden and not look.resized(server):
            yield '%s has %s records, %d hidden' % (server, visible, hidden)
        mapping = mappings.pop(server, None)
        if mapping is None or visible and mapping['cell'] != visible[0]:
            yield '%s is mapped to %s, its record is in %s' % (
                server, mapping and mapping['cell'], visible)
    for server, row in mappings.items():
        yield '%s is mapped to %s, and nobody has asked for it' % (
            server, row['cell'])
    for row in tables.api('SELECT instance_uuid FROM build_requests'):
        yield 'build request of %s' % row['instance_uuid']


def _specs(look: Look) -> Iterator[str]:
    """The request spec has the server's flavor."""
    specs = {row['server']: json.loads(row['spec']) for row in tables.api(
        'SELECT instance_uuid AS server, spec FROM request_specs')}
    for server in look.servers:
        record, spec = look.record(server), specs.get(server)
        if spec is None:
            # As Nova leaves one that it cannot build.
            if look.shown.get(server, {}).get('status') != 'ERROR':
                yield '%s has no request spec' % server
        elif record is not None:
            theirs = _data(_data(spec)['flavor'])['name']
            if theirs != _flavor(record)['name']:
                yield '%s: request spec has flavor %s, not %s' % (
                    server, theirs, _flavor(record)['name'])


def _guests(look: Look) -> Iterator[str]:
    """One guest, on the host of the server; none of others."""
    for server in look.servers:
        hosts = look.guests.get(server, set())
        due = {look.host(server)} - {None}
        allowed = [due]
        if look.resized(server):
            allowed.append(due | {row['source_compute'] for row
                                  in look.migrations
                                  if row['server'] == server})
        if look.shown.get(server, {}).get('status') == 'ERROR':
            allowed.append(set())
        if hosts not in allowed:
            yield '%s has guests on %s, it is on %s' % (
                server, sorted(hosts), sorted(due))
    for server in sorted(set(look.guests) - set(look.servers)):
        yield '%s: guest of nobody on %s' % (server, look.guests[server])


def _allocations(look: Look) -> Iterator[str]:
    """Each server holds what its flavor says on its host, nobody else."""
    held = dict(look.held)
    for server in look.servers:
        record = look.record(server)
        if record is None:
            continue
        due = _due(look, server, record['host'], _flavor(record))
        if held.pop(server, {}) != due:
            yield '%s holds %s, not %s' % (
                server, look.held.get(server, {}), due)
    for row in look.migrations:
        record = look.record(row['server'])
        if row['status'] != 'finished' or record is None:
            continue
        due = _due(look, row['server'], row['source_compute'],
                   _data(json.loads(record['flavor'])['old']))
        if held.pop(row['uuid'], {}) != due:
            yield 'migration %s holds %s, not %s' % (
                row['uuid'], look.held.get(row['uuid'], {}), due)
    for consumer, what in held.items():
        yield '%s holds %s' % (consumer, what)


def _migrations(look: Look) -> Iterator[str]:
    """Each migration has an end."""
    for row in look.migrations:
        record = look.record(row['server'])
        if record is not None and record['cell'] != row['cell']:
            continue    # its copy in the other cell counts
        waits = row['status'] == 'finished' and look.resized(row['server'])
        if row['status'] not in ENDED and not waits:
            yield 'migration of %s is %s' % (row['server'], row['status'])


def _ports(look: Look) -> Iterator[str]:
    """Each port of a server is bound to its host alone."""
    for uuid, port in look.ports.items():
        if port['server'] is None:
            if port['hosts']:
                yield 'port %s of nobody is bound to %s' % (
                    uuid, sorted(port['hosts']))
            continue
        host = look.host(port['server'])
        if host is None:
            yield 'port %s of %s, which has no host' % (uuid, port['server'])
        elif (port['host'] != host or not look.resized(port['server']) and
                port['hosts'] != {host}):
            # The stand-in keeps the binding of the host before a resize.
            yield 'port %s of %s is bound to %s (%s), the server is on %s' % (
                uuid, port['server'], port['host'], sorted(port['hosts']),
                host)


def _volumes(look: Look) -> Iterator[str]:
    """Each attachment is that of a disk of a server, and each disk has one."""
    due = {row['attachment_id']: row['server'] for row in look.disks
           if row['attachment_id']}
    for uuid, server in look.attachments.items():
        if due.get(uuid) != server:
            yield 'attachment %s of %s is that of no disk' % (uuid, server)
    for uuid in sorted(set(due) - set(look.attachments)):
        # A compute that cannot build a server deletes its attachments, not
        # their ids: the next one is given others. If none is left the ids
        # stay, as in Nova: to delete what is gone is no error in cinder.
        if look.shown.get(due[uuid], {}).get('status') != 'ERROR' or (
                look.host(due[uuid])):
            yield 'disk of %s with an attachment that is gone' % due[uuid]
    for server in look.servers:
        boot = [row for row in look.disks if row['server'] == server and
                row['boot_index'] == 0]
        cells = {row['cell'] for row in boot}
        if len(boot) != 1 and not (look.resized(server) and
                                   len(boot) == len(cells)):
            yield '%s has %d disks to boot from' % (server, len(boot))


def _actions(look: Look) -> Iterator[str]:
    """Each action and each of its events has an end, and is there once."""
    for row in tables.cells(look.world, _OPEN):
        if row['server'] in look.servers:
            yield '%s: event %s has no end' % (row['server'], row['event'])
    for row in tables.cells(look.world, _TWICE):
        if row['server'] in look.servers:
            yield '%s: action %s is there %d times' % (
                row['server'], row['action'], row['times'])


# Nova closes the first event of a name in a request only: when a second host
# is asked, the second one stays open, also when nobody disturbs it.
_OPEN = (
    'SELECT instance_uuid AS server, event FROM instance_actions AS action '
    'JOIN instance_actions_events AS event ON event.action_id = action.id '
    'GROUP BY action.id, instance_uuid, event '
    'HAVING COUNT(event.finish_time) = 0')
_TWICE = (
    'SELECT instance_uuid AS server, action, COUNT(*) AS times '
    'FROM instance_actions GROUP BY instance_uuid, action, request_id '
    'HAVING COUNT(*) > 1')


def _quota(look: Look) -> Iterator[str]:
    """The quota counts the servers that there are."""
    used = look.world.api.get_limits()['absolute']['totalInstancesUsed']
    if used != len(look.servers):
        yield '%d instances are used, there are %d' % (
            used, len(look.servers))


def _flows(look: Look) -> Iterator[str]:
    """Each flow has ended, and none was given up."""
    for flow in look.world.unfinished():
        yield 'flow %s of %s is %s' % (flow.name, flow.subject, flow.state)
    for flow in look.world.flows():
        if flow.state == 'FAILURE':
            yield 'flow %s of %s could not be undone: %s' % (
                flow.name, flow.subject, flow.failure)


CHECKS: tuple[Callable[[Look], Iterator[str]], ...] = (
    _states, _records, _specs, _guests, _allocations, _migrations, _ports,
    _volumes, _actions, _quota, _flows)


def _data(primitive: dict[str, Any]) -> dict[str, Any]:
    return primitive['nova_object.data']


def _flavor(record: dict[str, Any]) -> dict[str, Any]:
    return _data(json.loads(record['flavor'])['cur'])


def _due(look: Look, server: str, host: str | None,
         flavor: dict[str, Any]) -> dict[str, dict[str, int]]:
    """What a server with this flavor holds on a host."""
    if host is None:
        return {}
    volume = any(row['server'] == server and row['boot_index'] == 0 and
                 row['destination_type'] == 'volume' for row in look.disks)
    amounts = {'VCPU': flavor['vcpus'], 'MEMORY_MB': flavor['memory_mb'],
               'DISK_GB': (0 if volume else flavor['root_gb']) +
               flavor['ephemeral_gb']}
    return {host: {name: amount for name, amount in amounts.items()
                   if amount}}
