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

"""The records of servers: instances, mappings, build requests, tags."""

from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

from nova import availability_zones
from nova.compute import instance_actions
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova.conductor import manager as conductor_manager
from nova import context as nova_context
from nova import exception
from nova import notifications
from nova import objects
from oslo_log import log as logging

from nova_ssm import exception as ssm_exc
from nova_ssm import objects as ssm_objects
from nova_ssm.tasks import base
from nova_ssm.tasks import burial
from nova_ssm.tasks import scheduling
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

obj_target_cell = conductor_manager.obj_target_cell

#: Of each server its record and the cell that has it.
_Created: TypeAlias = tuple[list[types.Instance | None],
                            list[types.Cell | None]]


class CreateInstances(base.NovaTask):
    """Create the servers' records in the cells of their hosts.

    Gives None for a server that will not be built: its host is in no cell,
    or its user has deleted it.

    Reversion strategy: leave the servers that have a record in ERROR, bury
    the others in cell0.
    Recovery: take the records that are there, create the others.
    """

    default_provides = ('instances', 'cells')
    deferred = True
    reversion = 'leave the servers in ERROR'

    def execute(self, context: types.Context,
                build_requests: list[types.BuildRequest],
                request_specs: list[types.RequestSpec],
                host_lists: list[list[types.Selection]],
                block_device_mapping: types.Disks,
                tags: types.Tags) -> _Created:
        return self._create(context, build_requests, request_specs,
                            host_lists, block_device_mapping, tags, False)

    def recover(self, context: types.Context,
                build_requests: list[types.BuildRequest],
                request_specs: list[types.RequestSpec],
                host_lists: list[list[types.Selection]],
                block_device_mapping: types.Disks,
                tags: types.Tags) -> _Created:
        return self._create(context, build_requests, request_specs,
                            host_lists, block_device_mapping, tags, True)

    def _create(self, context: types.Context,
                build_requests: list[types.BuildRequest],
                request_specs: list[types.RequestSpec],
                host_lists: list[list[types.Selection]],
                block_device_mapping: types.Disks, tags: types.Tags,
                look_first: bool) -> _Created:
        hosts = _Hosts(context)
        wanted = _Wanted(context, [build_request.instance_uuid
                                   for build_request in build_requests])
        instances: list[types.Instance | None] = []
        cells: list[types.Cell | None] = []
        for build_request, request_spec, host_list in zip(
                build_requests, request_specs, host_lists, strict=True):
            host = host_list[0].service_host
            try:
                cell = hosts.cell(host)
            except exception.HostMappingNotFound as exc:
                LOG.error('No host-to-cell mapping found for selected host '
                          '%(host)s. Setup is incomplete.', {'host': host})
                cell = instance = None
                burial.bury(self.manager, context, exc, [build_request],
                            request_spec, block_device_mapping, tags)
                self._free(context, build_request.instance_uuid)
            else:
                instance = self._create_one(context, build_request, cell,
                                            hosts, host, wanted, look_first)
            instances.append(instance)
            cells.append(cell if instance is not None else None)
        return instances, cells

    def _create_one(self, context: types.Context,
                    build_request: types.BuildRequest, cell: types.Cell,
                    hosts: '_Hosts', host: str, wanted: '_Wanted',
                    look_first: bool) -> types.Instance | None:
        uuid = build_request.instance_uuid
        instance = look_first and burial.instance_in(context, cell, uuid)
        if instance:
            return _in_cell(context, instance, cell)
        # Who deletes it later is noticed when its build request goes.
        if not wanted.has(uuid):
            self._forget(context, uuid)
            return None
        instance = build_request.get_new_instance(context)
        instance.availability_zone = hosts.zone(host)
        with obj_target_cell(instance, cell):
            instance.create()
        return _in_cell(context, instance, cell)

    def _forget(self, context: types.Context, uuid: str) -> None:
        """Leave nothing of a server that was deleted before it had a host."""
        LOG.debug('While scheduling instance, the build request was already '
                  'deleted.', instance_uuid=uuid)
        try:
            mapping = objects.InstanceMapping.get_by_instance_uuid(
                context, uuid)
            # Or it is that of a server that was taken for lost meanwhile.
            if mapping.cell_mapping is None:
                mapping.destroy()
        except exception.InstanceMappingNotFound:
            LOG.debug('Its instance mapping is gone, too',
                      instance_uuid=uuid)
        self._free(context, uuid)

    def _free(self, context: types.Context, uuid: str) -> None:
        self.manager.report_client.delete_allocation_for_instance(
            context, uuid, force=True)

    def revert(self, context: types.Context,
               build_requests: list[types.BuildRequest],
               request_specs: list[types.RequestSpec],
               host_lists: list[list[types.Selection]],
               block_device_mapping: types.Disks, tags: types.Tags,
               result: Any, flow_failures: types.Failures) -> None:
        exc = base.cause_of(result, flow_failures)
        hosts = _Hosts(context)
        failed: Exception | None = None
        for build_request, request_spec, host_list in zip(
                build_requests, request_specs, host_lists, strict=True):
            try:
                self._give_up(
                    context, exc, build_request, request_spec,
                    hosts.cell_or_none(host_list[0].service_host),
                    block_device_mapping, tags,
                    may_be_fresh=isinstance(result, base.Failure))
            except Exception as error:  # noqa: BLE001 one cell may be down
                LOG.exception('The server could not be left in ERROR',
                              instance_uuid=build_request.instance_uuid)
                failed = failed or error
        if failed is not None:
            raise failed

    def _give_up(self, context: types.Context, exc: BaseException,
                 build_request: types.BuildRequest,
                 request_spec: types.RequestSpec, cell: types.Cell | None,
                 block_device_mapping: types.Disks, tags: types.Tags,
                 may_be_fresh: bool) -> None:
        uuid = build_request.instance_uuid
        instance = cell and burial.instance_in(context, cell, uuid)
        if instance:
            burial.leave_in_error(
                self.manager, context, exc, instance, cell, build_request,
                request_spec, block_device_mapping, tags)
        elif may_be_fresh and burial.is_wanted(context, uuid):
            burial.bury(self.manager, context, exc, [build_request],
                        request_spec, block_device_mapping, tags)


class _Hosts:
    """Cells and zones of hosts, each looked up once a request."""

    def __init__(self, context: nova_context.RequestContext) -> None:
        self._context = context
        self._cells: dict[str, objects.CellMapping] = {}
        self._zones: dict[str, str] = {}

    def cell(self, host: str) -> objects.CellMapping:
        """:raises HostMappingNotFound: if the host is in no cell"""
        if host not in self._cells:
            self._cells[host] = objects.HostMapping.get_by_host(
                self._context, host).cell_mapping
        return self._cells[host]

    def cell_or_none(self, host: str) -> types.Cell | None:
        try:
            return self.cell(host)
        except exception.HostMappingNotFound:
            return None

    def zone(self, host: str) -> str:
        if host not in self._zones:
            self._zones[host] = availability_zones.get_host_availability_zone(
                self._context, host)
        return self._zones[host]


class _Wanted:
    """Which servers have not been deleted by their user, a few at a time.

    That is asked right before they are created, as in stock Nova, so not
    for all servers of a large request at once.
    """

    at_once: ClassVar[int] = 20

    def __init__(self, context: nova_context.RequestContext,
                 uuids: Sequence[str]) -> None:
        self._context = context
        self._uuids = uuids
        self._known: dict[str, bool] = {}

    def has(self, uuid: str) -> bool:
        if uuid not in self._known:
            first = self._uuids.index(uuid)
            some = self._uuids[first:first + self.at_once]
            found = burial.wanted(self._context, some)
            self._known.update((one, one in found) for one in some)
        return self._known[uuid]


def _in_cell(context: nova_context.RequestContext,
             instance: objects.Instance,
             cell: objects.CellMapping) -> objects.Instance:
    """Let the journal know in which cell the record is."""
    instance._context = ssm_objects.in_cell(context, cell)
    return instance


class RecheckQuota(base.NovaTask):
    """Check the quota again, now that the resources are taken.

    :raises TooManyInstances, ProjectOverLimit: if another request was faster
    """

    effect = False

    def execute(self, context: types.Context,
                build_requests: list[types.BuildRequest],
                request_specs: list[types.RequestSpec],
                instances: list[types.Instance | None]) -> None:
        alive = [instance for instance in instances if instance is not None]
        if build_requests[-1].obj_attr_is_set('instance'):
            instance = build_requests[-1].instance
        elif alive:
            instance = alive[-1]
        else:
            return
        self.manager._recheck_quota(
            context, instance.flavor, request_specs[0], len(build_requests),
            project_id=instance.project_id, user_id=instance.user_id)


class ServerToErrorOnRevert(base.NovaTask):
    """Does nothing, but if the build of the server fails.

    Reversion strategy: leave the server in ERROR, with a fault, and free
    its allocations. They stay if the compute may have been told: it might
    build the server nevertheless.
    """

    effect = False
    reversion = 'leave the server in ERROR'

    def execute(self) -> None:
        pass

    def revert(self, context: types.Context, instance: types.Instance,
               cell: types.Cell, build_request: types.BuildRequest,
               request_spec: types.RequestSpec,
               block_device_mapping: types.Disks, tags: types.Tags,
               result: Any, flow_failures: types.Failures) -> None:
        burial.leave_in_error(
            self.manager, context, base.cause_of(result, flow_failures),
            instance, cell, build_request, request_spec,
            block_device_mapping, tags)
        if 'CastBuild' not in flow_failures:
            self.manager.report_client.delete_allocation_for_instance(
                context, instance.uuid, force=True)


class StartBuildAction(base.NovaTask):
    """Tell of the new server: a notification, and its action ``create``.

    Recovery: skip it if the action is there.
    """

    deferred = True

    def execute(self, instance: types.Instance, cell: types.Cell) -> None:
        with obj_target_cell(instance, cell) as cctxt:
            notifications.send_update_with_states(
                cctxt, instance, None, vm_states.BUILDING, None, None,
                service='conductor')
            objects.InstanceAction.action_start(
                cctxt, instance.uuid, instance_actions.CREATE,
                want_result=False)

    def recover(self, instance: types.Instance, cell: types.Cell) -> None:
        with obj_target_cell(instance, cell) as cctxt:
            if objects.InstanceAction.get_by_request_id(
                    cctxt, instance.uuid, cctxt.request_id):
                return
        self.execute(instance, cell)


class CreateTags(base.NovaTask):
    """Create the tags that the user gave the server."""

    default_provides = 'instance_tags'

    def execute(self, instance: types.Instance, cell: types.Cell,
                tags: types.Tags) -> types.Tags:
        with obj_target_cell(instance, cell) as cctxt:
            created = self.manager._create_tags(cctxt, instance.uuid, tags)
        # Or the compute's notification would look for them.
        instance.tags = created if created else objects.TagList()
        return created

    def had_effect(self, result: Any) -> bool:
        return bool(result)


class MapInstance(base.NovaTask):
    """Point the API at the cell that has the server's record.

    Recovery: skip it if it does already.
    """

    deferred = True

    def execute(self, context: types.Context, instance: types.Instance,
                cell: types.Cell) -> None:
        self.manager._map_instance_to_cell(context, instance, cell)

    def recover(self, context: types.Context, instance: types.Instance,
                cell: types.Cell) -> None:
        mapping = objects.InstanceMapping.get_by_instance_uuid(
            context, instance.uuid)
        if (mapping.cell_mapping is None or
                mapping.cell_mapping.uuid != cell.uuid):
            self.execute(context, instance, cell)


class DeleteBuildRequest(base.NovaTask):
    """Delete the build request: from now on the record is the server.

    Gives False if its user was faster and deleted the server; then nothing
    is left of it.

    Recovery: a build request that is gone was deleted by an earlier attempt
    if the record is still there. A user who deletes the server deletes the
    record as well, where the API finds it by the mapping; where it was not
    mapped yet, the mapping says that it is to be deleted.
    """

    default_provides = 'wanted'
    deferred = True

    def execute(self, context: types.Context,
                build_request: types.BuildRequest, instance: types.Instance,
                cell: types.Cell, instance_bdms: types.Disks,
                instance_tags: types.Tags) -> bool:
        wanted = self.manager._delete_build_request(
            context, build_request, instance, cell, instance_bdms,
            instance_tags)
        if not wanted:
            self.manager.report_client.delete_allocation_for_instance(
                context, instance.uuid, force=True)
        return wanted

    def recover(self, context: types.Context,
                build_request: types.BuildRequest, instance: types.Instance,
                cell: types.Cell, instance_bdms: types.Disks,
                instance_tags: types.Tags) -> bool:
        if (not burial.is_wanted(context, instance.uuid) and
                not self._is_deleted(context, instance, cell)):
            return True
        return self.execute(context, build_request, instance, cell,
                            instance_bdms, instance_tags)

    @staticmethod
    def _is_deleted(context: types.Context, instance: types.Instance,
                    cell: types.Cell) -> bool:
        if burial.instance_in(context, cell, instance.uuid) is None:
            return True
        return bool(objects.InstanceMapping.get_by_instance_uuid(
            context, instance.uuid).queued_for_delete)


class RescheduleToErrorOnRevert(base.NovaTask):
    """Does nothing, but if the next attempt at a build fails.

    Reversion strategy: leave the server in ERROR with a fault, without
    networks and accelerators.
    """

    effect = False
    reversion = 'leave the server in ERROR'

    def execute(self) -> None:
        pass

    def revert(self, context: types.Context, instance: types.Instance,
               request_spec: types.RequestSpec,
               requested_networks: types.Networks, result: Any,
               flow_failures: types.Failures) -> None:
        try:
            instance.refresh()
        except exception.InstanceNotFound:
            LOG.debug('The server was deleted meanwhile', instance=instance)
            return
        if instance.host:
            LOG.warning('The server is on host %s already, it is left as it '
                        'is', instance.host, instance=instance)
            return
        exc = base.cause_of(result, flow_failures)
        told = burial.is_told(instance._context, instance)
        if isinstance(exc, ssm_exc.TooLate) and not told:
            LOG.info('A request to try another host came too late: %s', exc,
                     instance=instance)
            return
        if told:
            # An earlier revert came that far; the rest may be repeated.
            self.manager._cleanup_allocated_networks(
                context, instance, requested_networks)
            compute_utils.delete_arqs_if_needed(
                context, instance, [
                    network.arq_uuid for network in requested_networks or ()
                    if network.arq_uuid])
            return
        base.while_handling(
            exc, self.manager._cleanup_when_reschedule_fails, context,
            instance, exc, request_spec.to_legacy_request_spec_dict(),
            requested_networks)


class SetAvailabilityZone(base.NovaTask):
    """Put down the zone of the next host.

    Gives False if the server was deleted meanwhile.
    """

    default_provides = 'wanted'

    def execute(self, context: types.Context, instance: types.Instance,
                host: types.Selection) -> bool:
        instance.availability_zone = scheduling.zone_of(context, host)
        try:
            instance.save()
        except (exception.InstanceNotFound,
                exception.InstanceInfoCacheNotFound):
            LOG.debug('Instance deleted during build', instance=instance)
            self.manager.report_client.delete_allocation_for_instance(
                context, instance.uuid, force=True)
            return False
        return True
