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

"""What an operation would do to a server, and whether it could now.

Only reads: the cells, the API database, placement and the journal.
"""

# Nova's objects have their names only when they are registered.
from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

from keystoneauth1 import exceptions as ks_exc
from nova.compute import vm_states
from nova import context as nova_context
from nova import exception
from nova import objects
from nova.scheduler import utils as scheduler_utils
from nova import servicegroup

from nova_ssm.engine import database
from nova_ssm.engine import queries


@dataclasses.dataclass(frozen=True)
class Operation:
    """Something that users ask for.

    :param flows: the names of the flows that do it, in their order
    :param on_server: whether it is done to a server that is there
    :param states: the vm_states in which Nova's API allows it
    :param flavor: whether it takes a flavor
    """

    flows: tuple[str, ...]
    on_server: bool = True
    states: tuple[str, ...] = ()
    flavor: bool = False


_AT_REST = (vm_states.ACTIVE, vm_states.STOPPED)

OPERATIONS = {
    'build': Operation(('schedule_and_build_instances', 'build_instance'),
                       on_server=False, flavor=True),
    'resize': Operation(('resize',), states=_AT_REST, flavor=True),
    'migrate': Operation(('resize',), states=_AT_REST),
    'live-migrate': Operation(('live_migrate',),
                              states=(vm_states.ACTIVE, vm_states.PAUSED)),
}


@dataclasses.dataclass(frozen=True)
class Check:
    """Something that has to be in order.

    :param good: whether it is; None if that is only for information
    """

    what: str
    good: bool | None
    found: str


class Planner:
    """Looks whether an operation could be done now.

    :param db: the journal's database
    :param report: makes the client of placement
    """

    def __init__(self, db: database.Database,
                 report: Callable[[], Any]) -> None:
        self._db = db
        self._report = report
        self._context = nova_context.get_admin_context()

    def checks(self, operation: Operation, server: str | None = None,
               flavor: str | None = None,
               host: str | None = None) -> Iterator[Check]:
        """What has to be in order, as far as that can be seen by reading.

        :param server: its uuid
        :param flavor: the name or id of the new flavor
        :param host: where it is to go
        """
        new = None
        if flavor is not None:
            new, check = self._flavor(flavor)
            yield check
            if new is None:
                return
        if not operation.on_server:
            yield self._room(objects.RequestSpec(
                context=self._context, flavor=new,
                image=objects.ImageMeta(properties=objects.ImageMetaProps()),
                numa_topology=None, pci_requests=None), None, host)
            return
        assert server is not None
        instance = self._server(server)
        if instance is None:
            yield Check('server', False, 'there is none with the uuid %s'
                        % server)
            return
        yield Check('server', True, '%s on host %s, flavor %s' % (
            instance.display_name, instance.host, instance.flavor.name))
        yield from self._at_rest(operation, instance)
        yield self._host_up(instance.host, 'the compute of the server')
        if host is not None:
            yield self._host_up(host, 'the compute of the destination')
        if new is not None:
            yield _differs(instance, new)
        yield self._somewhere(instance, new, host)

    def _flavor(self, name: str) -> tuple[objects.Flavor | None, Check]:
        for get in (objects.Flavor.get_by_flavor_id,
                    objects.Flavor.get_by_name):
            try:
                found = get(self._context, name)
            except (exception.FlavorNotFound,
                    exception.FlavorNotFoundByName):
                continue
            return found, Check('flavor', not found.disabled, found.name + (
                ', which is disabled' if found.disabled else ''))
        return None, Check('flavor', False, 'there is none named %s' % name)

    def _server(self, uuid: str) -> objects.Instance | None:
        try:
            mapping = objects.InstanceMapping.get_by_instance_uuid(
                self._context, uuid)
            if mapping.cell_mapping is None:
                return None
            nova_context.set_target_cell(self._context, mapping.cell_mapping)
            return objects.Instance.get_by_uuid(
                self._context, uuid, expected_attrs=['flavor'])
        except (exception.InstanceMappingNotFound,
                exception.InstanceNotFound):
            return None

    def _at_rest(self, operation: Operation,
                 instance: objects.Instance) -> Iterator[Check]:
        yield Check('state', instance.vm_state in operation.states,
                    '%s; it must be %s' % (
                        instance.vm_state, ' or '.join(operation.states)))
        yield Check('task', instance.task_state is None,
                    instance.task_state or 'none')
        if instance.locked:
            yield Check('lock', None, 'locked: only admins may')
        flows = queries.flows(self._db, unfinished=True,
                              subject=instance.uuid, limit=1)
        yield Check('other flows', not flows, ', '.join(
            '%s %s works on it' % (one.name, one.uuid) for one in flows)
            or 'none works on it')

    def _host_up(self, host: str, what: str) -> Check:
        try:
            service = objects.Service.get_by_compute_host(
                self._context, host)
        except exception.NotFound:
            return Check(what, False, '%s: there is none in the cell of the '
                         'server' % host)
        up = servicegroup.API().service_is_up(service)
        return Check(what, up and not service.disabled, '%s is %s%s' % (
            host, 'up' if up else 'down',
            ', disabled' if service.disabled else ''))

    def _somewhere(self, instance: objects.Instance,
                   new: objects.Flavor | None, host: str | None) -> Check:
        try:
            spec = objects.RequestSpec.get_by_instance_uuid(
                self._context, instance.uuid)
        except exception.RequestSpecNotFound:
            return Check('room', False, 'the server has no request spec: '
                         '"nova-manage db online_data_migrations" makes it')
        if new is not None:
            spec.flavor = new
        return self._room(spec, instance.host, host)

    def _room(self, spec: objects.RequestSpec, source: str | None,
              host: str | None) -> Check:
        """Whether placement has a host; filters and ports may say no."""
        spec.requested_resources = []
        spec.request_level_params = objects.RequestLevelParams()
        wanted = scheduler_utils.ResourceRequest.from_request_spec(spec)
        try:
            _requests, providers, _version = (
                self._report().get_allocation_candidates(
                    self._context, wanted))
        except ks_exc.ClientException as exc:
            return Check('room', False, 'placement cannot be asked: %s' % exc)
        hosts = sorted(self._hosts(list(providers or {})) - {source})
        if host is not None:
            return Check('room', host in hosts, 'placement has room on %s: '
                         '%s' % (host, 'yes' if host in hosts else 'no'))
        return Check('room', bool(hosts), 'placement has room on %d hosts%s'
                     % (len(hosts), ''.join(
                         ': ' + ', '.join(hosts[:10]) for _ in hosts[:1])))

    def _hosts(self, providers: list[str]) -> set[str]:
        found = set()
        context = nova_context.get_admin_context()
        for cell in objects.CellMappingList.get_all(context):
            if cell.is_cell0():
                continue
            with nova_context.target_cell(context, cell) as targeted:
                found |= {node.host for node in
                          objects.ComputeNodeList.get_all_by_uuids(
                              targeted, providers)}
        return found


def _differs(instance: objects.Instance, new: objects.Flavor) -> Check:
    if instance.flavor.flavorid == new.flavorid:
        return Check('new flavor', False, 'the server has it already')
    if new.root_gb < instance.flavor.root_gb:
        return Check('new flavor', None, 'its disk is smaller: possible for '
                     'servers that boot from a volume only')
    return Check('new flavor', True, '%s instead of %s' % (
        new.name, instance.flavor.name))
