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

from collections.abc import Collection, Iterator
import functools
from typing import Any

from nova.network import constants
from nova import objects
from oslo_utils import timeutils

from nova_ssm.audit import allocations
from nova_ssm.audit import fates
from nova_ssm.audit import findings
from nova_ssm.audit import services
from nova_ssm.audit import survey as survey_module

BINDING, PORT = 'stale-binding', 'orphan-port'
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
    moved = _moved(survey, only)
    records = survey.records(moved, deleted=False)
    owned = survey.owned(moved)
    for uuid, hosts in sorted(moved.items()):
        known = records.get(uuid, [])
        if len(known) != 1 or uuid in owned:
            continue
        record, cell = known[0]
        if (not allocations.is_settled(survey, record) or
                allocations.is_moving(survey, uuid, cell)):
            continue
        stale = survey.ask('neutron', functools.partial(
            _stale, survey, uuid, hosts - {record.host}))
        if stale:
            yield _binding(record, cell, stale)


def _moved(survey: _Survey,
           only: Collection[str] | None) -> dict[str, set[str]]:
    """Of the servers that were moved the hosts of that."""
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
        # Other moves bind the ports to one host after the other.
        if migration.is_live_migration or migration.cross_cell_move:
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
