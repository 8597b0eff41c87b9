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

"""What other services keep for servers that do not need it."""

from collections.abc import Callable, Collection, Iterator
import functools
from typing import Any

from nova.compute import vm_states
from nova.network import constants
from nova import objects
from oslo_utils import timeutils

from nova_ssm.audit import allocations
from nova_ssm.audit import fates
from nova_ssm.audit import findings
from nova_ssm.audit import services
from nova_ssm.audit import survey as survey_module

BINDING, PORT = 'stale-binding', 'orphan-port'
MISPLACED = 'misplaced-binding'
ACCELERATOR, ATTACHMENT = 'orphan-accelerator', 'orphan-attachment'

#: Whose ports are those of servers, of whatever zone.
_OWNER = 'compute:'

_Survey = survey_module.Survey
_Found = Iterator[findings.Finding]


def bindings(survey: _Survey, only: Collection[str] | None = None) -> _Found:
    """Ports that a move has left bound to hosts where their server is not.

    Only what is not active: the active binding is the one that works.

    :param only: these servers
    """
    # Other moves bind the ports to one host after the other.
    moved = _moved(survey, only, lambda one: (one.is_live_migration or
                                              one.cross_cell_move))
    for record, cell in _settled(survey, moved):
        stale = survey.ask('neutron', functools.partial(
            _stale, survey, record.uuid, moved[record.uuid] - {record.host}))
        if stale:
            yield _binding(record, cell, stale)


def misplaced(survey: _Survey, only: Collection[str] | None = None) -> _Found:
    """Ports that a move has left active where their server is not.

    The guest of one that was live migrated may be there, too: then only
    people can tell.

    :param only: these servers
    """
    moved = _moved(survey, only, lambda one: not one.cross_cell_move)
    for record, cell in _settled(survey, moved):
        if record.vm_state == vm_states.ERROR:
            continue    # it may be anywhere
        hosts = moved[record.uuid] - {record.host}
        away = survey.ask('neutron', functools.partial(
            _away, survey, record, hosts)) if hosts else []
        if away:
            yield _misplaced(
                record, cell, away, safe=all(map(_is_plain, away)) and
                not any(survey.in_cells(functools.partial(
                    _may_run, record.uuid, {one['host'] for one in away}),
                    [cell])))


def _settled(survey: _Survey, moved: Collection[str]
             ) -> Iterator[tuple[Any, Any]]:
    """Those of some servers that are at rest, and nobody moves."""
    records = survey.records(moved, deleted=False)
    owned = survey.owned(moved)
    for uuid in sorted(moved):
        known = records.get(uuid, [])
        if len(known) != 1 or uuid in owned:
            continue
        record, cell = known[0]
        if (allocations.is_settled(survey, record) and
                not allocations.is_moving(survey, uuid, cell)):
            yield record, cell


def _moved(survey: _Survey, only: Collection[str] | None,
           wanted: Callable[[Any], bool]) -> dict[str, set[str]]:
    """Of the servers that were moved the hosts of that.

    :param wanted: which migrations count
    """
    filters: dict[str, Any] = {'status': list(allocations.OVER)}
    if only is None and not survey.thorough:
        # Of those that went well the computes themselves unbind the ports.
        filters = {'status': list(allocations.FAILED),
                   **survey.lately(survey_module.LATELY)}

    def work(context: Any, _cell: Any) -> Iterator[Any]:
        if only is None:
            yield from objects.MigrationList.get_by_filters(
                context, dict(filters))
            return
        for uuid in sorted(only):
            yield from objects.MigrationList.get_by_filters(
                context, {**filters, 'instance_uuid': uuid})

    found: dict[str, set[str]] = {}
    for migration in survey.in_cells(work):
        if wanted(migration):
            found.setdefault(migration.instance_uuid, set()).update(
                {migration.source_compute, migration.dest_compute} - {None})
    return found


def _stale(survey: _Survey, uuid: str,
           hosts: Collection[str]) -> Iterator[dict[str, Any]]:
    for port in services.ports(survey.context, device_id=uuid):
        for host in sorted(hosts):
            found = services.binding(survey.context, port['id'], host)
            if found is not None and found.get('status') == 'INACTIVE':
                yield {'port': port['id'], 'host': host,
                       'vnic_type': found.get('vnic_type'),
                       'profile': found.get('profile')}


def _away(survey: _Survey, record: Any,
          hosts: Collection[str]) -> Iterator[dict[str, Any]]:
    for port in services.ports(survey.context, device_id=record.uuid):
        host = port.get(constants.BINDING_HOST_ID)
        if host is None or host not in hosts:
            continue
        found = services.binding(survey.context, port['id'], host)
        if found is not None and found.get('status') == 'ACTIVE':
            yield {'port': port['id'], 'host': host,
                   'vnic_type': found.get('vnic_type'),
                   'profile': {name: value for name, value in
                               (found.get('profile') or {}).items()
                               if name != constants.MIGRATING_ATTR},
                   'there': services.binding(survey.context, port['id'],
                                             record.host) is not None}


def _is_plain(one: dict[str, Any]) -> bool:
    """Whether a port can be bound to another host as it is bound to one.

    One that is bound there already can. Devices and what placement has given
    to a port belong to its host.
    """
    return one['there'] or (one['vnic_type'] == 'normal' and
                            not one['profile'])


def _may_run(uuid: str, hosts: Collection[str], context: Any,
             _cell: Any) -> Iterator[bool]:
    """Whether the guest of a server may run on one of some hosts.

    The last move that had to do with such a host was a live migration: the
    guest may be there, and its record not. A resize has powered it off.
    """
    last: dict[str, Any] = {}
    for migration in sorted(objects.MigrationList.get_by_filters(
            context, {'instance_uuid': uuid}), key=lambda one: one.id):
        for host in (migration.source_compute, migration.dest_compute):
            last[host] = migration
    for host in hosts:
        yield host not in last or last[host].migration_type not in (
            'resize', 'migration')


def _misplaced(record: Any, cell: Any, away: list[dict[str, Any]],
               safe: bool) -> findings.Finding:
    hosts = ', '.join(sorted({one['host'] for one in away}))
    return findings.Finding(
        kind=MISPLACED, subject=record.uuid, server=record.uuid,
        project=record.project_id, since=survey_module.touched(record),
        what='server %s is on %s, but its ports are active on %s' % (
            record.uuid, record.host, hosts),
        why='a move of it has ended in between' if safe else
            'a move of it has ended in between, and its guest, or a device '
            'of a port, may be there',
        remedy='bind these ports to the host of the server', safe=safe,
        state=(record.host, record.vm_state, record.task_state,
               *sorted((one['port'], one['host'], one['there'])
                       for one in away)),
        details={'group': record.uuid, 'server': record.uuid,
                 'cell': cell.uuid, 'host': record.host, 'bindings': away})


def _binding(record: Any, cell: Any,
             stale: list[dict[str, Any]]) -> findings.Finding:
    hosts = ', '.join(sorted({one['host'] for one in stale}))
    return findings.Finding(
        kind=BINDING, subject=record.uuid, server=record.uuid,
        project=record.project_id, since=survey_module.touched(record),
        what='server %s is on %s, but its ports are bound to %s, too' % (
            record.uuid, record.host, hosts),
        why='a move of it has ended, and has not unbound them',
        remedy='remove these bindings, which are not active', safe=True,
        state=(record.host, record.vm_state, record.task_state,
               *sorted((one['port'], one['host']) for one in stale)),
        details={'group': record.uuid, 'server': record.uuid,
                 'cell': cell.uuid, 'bindings': stale})


def ports(survey: _Survey, only: Collection[str] | None = None) -> _Found:
    """Ports of computes whose server is no more.

    :param only: these ports
    """
    filters = {} if only is None else {'id': sorted(only)}
    found = [port for port in survey.ask(
        'neutron', lambda: services.ports(survey.context, **filters))
        if port['device_id'] and
        port['device_owner'].startswith(_OWNER) and _is_old(survey, port)]
    known = fates.fates(survey, {port['device_id'] for port in found})
    for port in found:
        server = port['device_id']
        fate = known.get(server, fates.Fate.LIVES)
        if fate is fates.Fate.LIVES:
            continue
        was = {name: port.get(name) for name in (
            'device_id', 'device_owner', constants.BINDING_HOST_ID)}
        yield findings.Finding(
            kind=PORT, subject=port['id'], server=server,
            project=port.get('project_id'), since=_since(port),
            what='port %s is that of server %s%s' % (
                port['id'], server, ' on ' + port[constants.BINDING_HOST_ID]
                if port.get(constants.BINDING_HOST_ID) else ''),
            why=fates.why(server, fate),
            remedy='unbind it, so that its user can use or delete it',
            safe=fate is fates.Fate.OVER, state=tuple(was.values()),
            details={'group': port['id'], 'server': server, 'was': was})


def _since(port: dict[str, Any]) -> float | None:
    when = port.get('updated_at')
    return survey_module.seconds(timeutils.parse_isotime(when)) if when else (
        None)


def _is_old(survey: _Survey, port: dict[str, Any]) -> bool:
    since = _since(port)
    return since is None or since <= survey_module.now() - survey.age


def accelerators(survey: _Survey,
                 only: Collection[str] | None = None) -> _Found:
    """Accelerator requests whose server is no more, or never came.

    :param only: these requests
    """
    found = [one for one in survey.ask(
        'cyborg', lambda: services.accelerators(survey.context))
        if only is None or one['uuid'] in only]
    known = fates.fates(survey, {one['instance_uuid'] for one in found
                                 if one.get('instance_uuid')})
    if not survey.complete:
        return
    for one in found:
        server = one.get('instance_uuid')
        fate = known[server] if server else fates.Fate.UNKNOWN
        if fate is fates.Fate.LIVES:
            continue
        uuid = one['uuid']
        yield findings.Finding(
            kind=ACCELERATOR, subject=uuid, server=server,
            what='accelerator request %s (%s, %s) is that of %s' % (
                uuid, one.get('device_profile_name'), one.get('state'),
                'server ' + server if server else 'no server'),
            why=fates.why(server, fate) if server else
            'it was never bound: who created it died, or is about to bind it',
            remedy='delete it', safe=fate is fates.Fate.OVER,
            state=(one.get('state'), server, one.get('hostname')),
            details={'group': uuid, 'server': server, 'was': one})


def attachments(survey: _Survey,
                only: Collection[str] | None = None) -> _Found:
    """Attachments of volumes whose server is no more.

    :param only: these attachments
    """
    # Those without a server are of other services.
    found = [one for one in survey.ask(
        'cinder', lambda: services.attachments(survey.context, only))
        if one.get('instance')]
    known = fates.fates(survey, {one['instance'] for one in found})
    for one in found:
        server, uuid = one['instance'], one['id']
        fate = known.get(server, fates.Fate.LIVES)
        if fate is fates.Fate.LIVES:
            continue
        reserved = one.get('status') == 'reserved'
        yield findings.Finding(
            kind=ATTACHMENT, subject=uuid, server=server,
            what='volume %s is %s server %s' % (
                one['volume_id'], 'reserved for' if reserved else
                'attached to', server),
            why=fates.why(server, fate),
            remedy='delete the attachment' if reserved else
            'delete the attachment: be sure that no host uses the volume',
            # A host that is connected may still write.
            safe=fate is fates.Fate.OVER and reserved,
            state=(one['volume_id'], server, one.get('status')),
            details={'group': uuid, 'server': server,
                     'was': {'volume_id': one['volume_id'],
                             'status': one.get('status')}})
