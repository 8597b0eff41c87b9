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

from typing import Any

from nova import availability_zones
from nova.compute import instance_actions
from nova.compute import vm_states
from nova.conductor import manager as conductor_manager
from nova import context as nova_context
from nova import exception
from nova import notifications
from nova import objects
from oslo_log import log as logging

from nova_ssm import objects as ssm_objects
from nova_ssm.tasks import base
from nova_ssm.tasks import burial

LOG = logging.getLogger(__name__)

obj_target_cell = conductor_manager.obj_target_cell


class CreateInstances(base.NovaTask):
    """Create the servers' records in the cells of their hosts.

    Gives None for a server that will not be built: its host is in no cell,
    or its user has deleted it.

    Reversion strategy: leave the servers that have a record in ERROR, bury
    the others in cell0.
    Recovery: take the records that are there, create the others.
    """

    default_provides = ('instances', 'cells')
    reversion = 'leave the servers in ERROR'

    def execute(self, context, build_requests, request_specs, host_lists,
                block_device_mapping, tags):
        return self._create(context, build_requests, request_specs,
                            host_lists, block_device_mapping, tags, False)

    def recover(self, context, build_requests, request_specs, host_lists,
                block_device_mapping, tags):
        return self._create(context, build_requests, request_specs,
                            host_lists, block_device_mapping, tags, True)

    def _create(self, context, build_requests, request_specs, host_lists,
                block_device_mapping, tags, look_first):
        hosts = _Hosts(context)
        instances: list[objects.Instance | None] = []
        cells: list[objects.CellMapping | None] = []
        for build_request, request_spec, host_list in zip(
                build_requests, request_specs, host_lists):
            host = host_list[0].service_host
            instance = None
            try:
                cell = hosts.cell(host)
            except exception.HostMappingNotFound as exc:
                LOG.error('No host-to-cell mapping found for selected host '
                          '%(host)s. Setup is incomplete.', {'host': host})
                burial.bury(self.manager, context, exc, [build_request],
                            request_spec, block_device_mapping, tags)
            else:
                if look_first:
                    instance = burial.instance_in(
                        context, cell, build_request.instance_uuid)
                if instance is None:
                    instance = self._create_one(
                        context, build_request, cell, hosts.zone(host))
                else:
                    instance = _in_cell(context, instance, cell)
            instances.append(instance)
            cells.append(cell if instance is not None else None)
        return instances, cells

    def _create_one(self, context, build_request, cell, zone):
        try:
            # The last moment at which its user may have deleted it.
            objects.BuildRequest.get_by_instance_uuid(
                context, build_request.instance_uuid)
        except exception.BuildRequestNotFound:
            self._forget(context, build_request.instance_uuid)
            return None
        instance = build_request.get_new_instance(context)
        instance.availability_zone = zone
        with obj_target_cell(instance, cell):
            instance.create()
        return _in_cell(context, instance, cell)

    def _forget(self, context, uuid: str) -> None:
        """Leave nothing of a server that was deleted before it had a host."""
        LOG.debug('While scheduling instance, the build request was already '
                  'deleted.', instance_uuid=uuid)
        try:
            objects.InstanceMapping.get_by_instance_uuid(
                context, uuid).destroy()
        except exception.InstanceMappingNotFound:
            LOG.debug('Its instance mapping is gone, too',
                      instance_uuid=uuid)
        self.manager.report_client.delete_allocation_for_instance(
            context, uuid, force=True)

    def revert(self, context, build_requests, request_specs, host_lists,
               block_device_mapping, tags, result, flow_failures):
        exc = base.cause_of(result, flow_failures)
        hosts = _Hosts(context)
        for build_request, request_spec, host_list in zip(
                build_requests, request_specs, host_lists):
            try:
                cell = hosts.cell(host_list[0].service_host)
            except exception.HostMappingNotFound:
                cell = None
            instance = cell and burial.instance_in(
                context, cell, build_request.instance_uuid)
            if instance:
                burial.leave_in_error(
                    self.manager, context, exc, instance, cell,
                    build_request, request_spec, block_device_mapping, tags)
            elif isinstance(result, base.Failure):
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

    def zone(self, host: str) -> str:
        if host not in self._zones:
            self._zones[host] = availability_zones.get_host_availability_zone(
                self._context, host)
        return self._zones[host]


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

    def execute(self, context, build_requests, request_specs, instances):
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

    def execute(self):
        pass

    def revert(self, context, instance, cell, build_request, request_spec,
               block_device_mapping, tags, result, flow_failures):
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

    def execute(self, instance, cell):
        with obj_target_cell(instance, cell) as cctxt:
            notifications.send_update_with_states(
                cctxt, instance, None, vm_states.BUILDING, None, None,
                service='conductor')
            objects.InstanceAction.action_start(
                cctxt, instance.uuid, instance_actions.CREATE,
                want_result=False)

    def recover(self, instance, cell):
        with obj_target_cell(instance, cell) as cctxt:
            if objects.InstanceAction.get_by_request_id(
                    cctxt, instance.uuid, cctxt.request_id):
                return
        self.execute(instance, cell)


class CreateTags(base.NovaTask):
    """Create the tags that the user gave the server."""

    default_provides = 'instance_tags'

    def execute(self, instance, cell, tags):
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

    def execute(self, context, instance, cell):
        self.manager._map_instance_to_cell(context, instance, cell)

    def recover(self, context, instance, cell):
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
    record as well, since the API finds it by the mapping.
    """

    default_provides = 'wanted'

    def execute(self, context, build_request, instance, cell, instance_bdms,
                instance_tags):
        wanted = self.manager._delete_build_request(
            context, build_request, instance, cell, instance_bdms,
            instance_tags)
        if not wanted:
            self.manager.report_client.delete_allocation_for_instance(
                context, instance.uuid, force=True)
        return wanted

    def recover(self, context, build_request, instance, cell, instance_bdms,
                instance_tags):
        try:
            objects.BuildRequest.get_by_instance_uuid(context, instance.uuid)
        except exception.BuildRequestNotFound:
            if burial.instance_in(context, cell, instance.uuid):
                return True
        return self.execute(context, build_request, instance, cell,
                            instance_bdms, instance_tags)


class RescheduleToErrorOnRevert(base.NovaTask):
    """Does nothing, but if the next attempt at a build fails.

    Reversion strategy: leave the server in ERROR with a fault, without
    networks and accelerators.
    """

    effect = False
    reversion = 'leave the server in ERROR'

    def execute(self):
        pass

    def revert(self, context, instance, request_spec, requested_networks,
               result, flow_failures):
        try:
            instance.refresh()
        except exception.InstanceNotFound:
            LOG.debug('The server was deleted meanwhile', instance=instance)
            return
        if instance.vm_state == vm_states.ERROR:
            return
        exc = base.cause_of(result, flow_failures)
        base.while_handling(
            exc, self.manager._cleanup_when_reschedule_fails, context,
            instance, exc, request_spec.to_legacy_request_spec_dict(),
            requested_networks)


class SetAvailabilityZone(base.NovaTask):
    """Put down the zone of the next host.

    Gives False if the server was deleted meanwhile.
    """

    default_provides = 'wanted'

    def execute(self, context, instance, host):
        if 'availability_zone' in host:
            instance.availability_zone = host.availability_zone
        else:
            instance.availability_zone = (
                availability_zones.get_host_availability_zone(
                    context, host.service_host))
        try:
            instance.save()
        except (exception.InstanceNotFound,
                exception.InstanceInfoCacheNotFound):
            LOG.debug('Instance deleted during build', instance=instance)
            self.manager.report_client.delete_allocation_for_instance(
                context, instance.uuid, force=True)
            return False
        return True
