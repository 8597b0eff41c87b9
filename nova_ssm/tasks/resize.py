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

"""Resizes and cold migrations, up to the word to the destination."""

import copy
from typing import Any, ClassVar, TypeAlias

from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova.conductor.tasks import migrate
from nova import exception
from nova import objects
from nova.scheduler import utils as scheduler_utils
from oslo_log import log as logging

from nova_ssm import compat
from nova_ssm import exception as ssm_exc
from nova_ssm.tasks import allocations
from nova_ssm.tasks import base
from nova_ssm.tasks import callers
from nova_ssm.tasks import casts
from nova_ssm.tasks import moves
from nova_ssm.tasks import scheduling
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

#: The event that a compute opens on a server's action as its first deed.
PREP_EVENT = 'compute_prep_resize'

_Prepared: TypeAlias = tuple[types.RequestSpec, types.Properties]
#: The migration record, and what the server held at its source.
_Preallocated: TypeAlias = tuple[types.Migration, types.Held]
#: The host, those that are left, the request as claimed, whether the host is
#: in the cell of the source.
_Scheduled: TypeAlias = tuple[types.Selection, list[types.Selection],
                              types.RequestSpec, bool]
_Claimed: TypeAlias = tuple[types.Selection, list[types.Selection],
                            types.RequestSpec]


class ResizeEventsToErrorOnRevert(moves.EventsToErrorOnRevert):
    """Does nothing, but if the move fails. The first task of a resize.

    Reversion strategy: close the events that a conductor opened for it, with
    the error that users see.
    """

    def revert(self, context: types.Context,
               instance: types.Instance, flavor: types.Flavor, result: Any,
               flow_failures: types.Failures) -> None:
        moves.close_events(context, instance.uuid, compat.resize_error(
            base.cause_of(result, flow_failures), instance, flavor))


class ResizeStateOnRevert(base.NovaTask):
    """Does nothing, but if the move fails.

    Reversion strategy: the server is as it was, with a fault. If an earlier
    host could not take it, the request spec asks for the new flavor since
    that one was told: it asks for the old one again.
    """

    effect = False
    reversion = "take the server's task state back, leave a fault"

    def execute(self) -> None:
        pass

    def revert(self, context: types.Context, instance: types.Instance,
               request_spec: types.RequestSpec, caller: types.Caller,
               result: Any, flow_failures: types.Failures) -> None:
        exc = base.cause_of(result, flow_failures)
        if isinstance(exc, ssm_exc.TooLate):
            LOG.info('A request to try another host came too late: %s', exc,
                     instance=instance)
            return
        # Or that puts it into ERROR when its user works with it again.
        callers.outlive(self, context, instance, caller, going_on=False)

        def work(now: types.Instance) -> None:
            if request_spec.flavor.id != now.flavor.id:
                moves.put_flavor_back(context, now)
            self.manager._set_vm_state_and_notify(
                context, now.uuid, 'migrate_server',
                {'vm_state': now.vm_state or vm_states.ACTIVE,
                 'task_state': None}, exc, request_spec)

        moves.tell(work, context, instance, exc,
                   on_the_way=(task_states.RESIZE_PREP,
                               task_states.RESIZE_MIGRATING,
                               task_states.RESIZE_MIGRATED),
                   request_spec=request_spec)


class PrepareMove(base.NovaTask):
    """Work out what the scheduler has to look for.

    :raises UnsupportedPolicyException: if the server's group cannot be
        respected
    """

    effect = False
    default_provides = ('prepared_spec', 'legacy_properties')

    def execute(self, context: types.Context, instance: types.Instance,
                flavor: types.Flavor, filter_properties: types.Properties,
                request_spec: types.RequestSpec) -> _Prepared:
        # The request is needed as it was if the move is undone.
        spec = self.manager._get_request_spec_for_cold_migrate(
            context, instance, flavor, filter_properties,
            request_spec.obj_clone())
        # A move never goes where the server was forced to when it was built.
        spec.reset_forced_destinations()
        properties = spec.to_legacy_filter_properties_dict()
        scheduler_utils.setup_instance_group(context, spec)
        if not _target_host(spec):
            scheduler_utils.populate_retry(properties, instance.uuid)
        spec.requested_resources, spec.request_level_params = (
            self.manager.network_api.get_requested_resource_for_instance(
                context, instance.uuid))
        spec.generate_request_groups_from_pci_requests()
        nova_task(self.manager, context, instance, flavor,
                  spec)._set_requested_destination_cell(properties)
        spec.ensure_project_and_user_id(instance)
        spec.ensure_network_information(instance)
        compute_utils.heal_reqspec_is_bfv(context, spec, instance)
        return spec, properties


def _target_host(spec: types.RequestSpec) -> bool:
    """Whether the user has named the host."""
    return bool('requested_destination' in spec and
                spec.requested_destination and
                'host' in spec.requested_destination)


def nova_task(manager: types.Manager, context: types.Context,
              instance: types.Instance, flavor: types.Flavor,
              spec: types.RequestSpec,
              host_list: list[types.Selection] | None = None
              ) -> migrate.MigrationTask:
    """Nova's own task, for the helpers that it has."""
    return manager._build_cold_migrate_task(
        context, instance, flavor, spec, True, host_list)


class PreallocateMigration(base.NovaTask):
    """Create the migration record, let it have what the server holds.

    A move that is tried again on the next host has its record already.

    :param again: it is one
    :raises TooLate: if that one is over

    Reversion strategy: give the allocations back, put the record into
    ``error``.
    Recovery: take the record that is there, and what it holds.
    """

    default_provides = ('migration', 'held_allocations')
    reversion = 'give the allocations back, put the migration into error'

    def __init__(self, manager: types.Manager, again: bool = False) -> None:
        super().__init__(manager)
        self._again = again

    def execute(self, context: types.Context, instance: types.Instance,
                flavor: types.Flavor, prepared_spec: types.RequestSpec,
                owner: str, caller: types.Caller) -> _Preallocated:
        if self._again:
            moves.see_that_it_goes_on(context, instance.uuid)
            self._take_back(context, instance, flavor)
        task = nova_task(self.manager, context, instance, flavor,
                         prepared_spec)
        migration = task._preallocate_migration()
        return migration, (task._held_allocations or allocations.held_by(
            self.manager, context, migration.uuid) or None)

    def recover(self, context: types.Context, instance: types.Instance,
                flavor: types.Flavor, prepared_spec: types.RequestSpec,
                owner: str, caller: types.Caller) -> _Preallocated:
        callers.outlive(self, context, instance, caller)
        if self._again:
            moves.see_that_it_goes_on(context, instance.uuid)
        # What it holds on another host is not ours to take.
        begun = self._begun(context, instance, flavor)
        if begun is None:
            moves.check_server(context, instance.uuid, owner,
                               task_states.RESIZE_PREP)
        else:
            check(context, instance, begun, owner)
        return self.execute(context, instance, flavor, prepared_spec, owner,
                            caller)

    def revert(self, context: types.Context, instance: types.Instance,
               flavor: types.Flavor, caller: types.Caller, result: Any,
               flow_failures: types.Failures) -> None:
        if isinstance(result, base.Failure):
            if isinstance(base.cause_of(result, flow_failures),
                          ssm_exc.TooLate):
                return      # the record is another request's
            callers.outlive(self, context, instance, caller)
            migration = self._begun(context, instance, flavor)
        else:
            migration = result[0]
        if migration is None:
            return
        moves.give_back(self.manager, context, instance, migration)
        moves.fail_migration(context, migration.uuid)

    def _take_back(self, context: types.Context, instance: types.Instance,
                   flavor: types.Flavor) -> None:
        """Do for the last host what that could not, if placement was away.

        It gives the server back what the record holds before it sends it on.
        Else the server would go on holding resources of that host: those of
        the next one are added to what it holds.
        """
        begun = self._begun(context, instance, flavor)
        if begun is not None and allocations.held_by(
                self.manager, context, begun.uuid):
            moves.give_back(self.manager, context, instance, begun)

    @staticmethod
    def _begun(context: types.Context, instance: types.Instance,
               flavor: types.Flavor) -> types.Migration | None:
        found = objects.MigrationList.get_by_filters(
            context.elevated(), {'instance_uuid': instance.uuid,
                                 'status': 'pre-migrating'}).objects
        return next((migration for migration in found
                     if not migration.is_live_migration and
                     migration.new_instance_type_id == flavor.id), None)


class ScheduleMove(base.NovaTask):
    """Have the scheduler choose and claim a host, and choose alternates.

    Reversion strategy: free what it claimed, if the migration record holds
    the source.
    Recovery: free what an earlier attempt may have claimed, schedule again.
    """

    default_provides = ('host', 'alternates', 'move_spec', 'same_cell')
    reversion = 'free the claim on the destination'

    #: Seconds that a scheduler may go on claiming for a dead conductor.
    settle: ClassVar[float] = 1.0

    def execute(self, context: types.Context, instance: types.Instance,
                flavor: types.Flavor, migration: types.Migration,
                prepared_spec: types.RequestSpec,
                held_allocations: types.Held, owner: str) -> _Scheduled:
        task = nova_task(self.manager, context, instance, flavor,
                         prepared_spec)
        host = task._schedule()
        return (host, task.host_list, task.request_spec,
                task._is_selected_host_in_source_cell(host))

    def recover(self, context: types.Context, instance: types.Instance,
                flavor: types.Flavor, migration: types.Migration,
                prepared_spec: types.RequestSpec,
                held_allocations: types.Held, owner: str) -> _Scheduled:
        check(context, instance, migration, owner)
        self._free(context, instance, held_allocations, self.settle)
        return self.execute(context, instance, flavor, migration,
                            prepared_spec, held_allocations, owner)

    def revert(self, context: types.Context, instance: types.Instance,
               migration: types.Migration, held_allocations: types.Held,
               result: Any, flow_failures: types.Failures) -> None:
        if moves.may_have_claimed(context, migration, result, flow_failures):
            self._free(context, instance, held_allocations,
                       self.settle if isinstance(result, base.Failure) else 0)

    def _free(self, context: types.Context, instance: types.Instance,
              held_allocations: types.Held, settle: float) -> None:
        # Or the server's own allocations cannot be told from the claim.
        if held_allocations:
            allocations.free_claim(self.manager, context, instance.uuid,
                                   settle)


class ClaimNextHost(base.NovaTask):
    """Claim the next alternate host that has room, after a compute failed.

    :raises MaxRetriesExceeded: if none is left

    Reversion strategy: free the claim, if the migration record holds the
    source.
    Recovery: if the server holds allocations on one of the alternates, take
    that one.
    """

    default_provides = ('host', 'alternates', 'move_spec')
    reversion = 'free the claim on the destination'

    def execute(self, context: types.Context, instance: types.Instance,
                flavor: types.Flavor, migration: types.Migration,
                prepared_spec: types.RequestSpec,
                host_list: list[types.Selection],
                held_allocations: types.Held, owner: str,
                caller: types.Caller) -> _Claimed:
        task = nova_task(self.manager, context, instance, flavor,
                         prepared_spec, host_list=list(host_list))
        host = task._reschedule()
        return host, task.host_list, prepared_spec

    def recover(self, context: types.Context, instance: types.Instance,
                flavor: types.Flavor, migration: types.Migration,
                prepared_spec: types.RequestSpec,
                host_list: list[types.Selection],
                held_allocations: types.Held, owner: str,
                caller: types.Caller) -> _Claimed:
        callers.outlive(self, context, instance, caller)
        check(context, instance, migration, owner)
        held = allocations.held_by(self.manager, context, instance.uuid)
        for index, host in enumerate(host_list):
            if held_allocations and held and (
                    held.keys() == allocations.providers(host)):
                scheduler_utils.fill_provider_mapping(prepared_spec, host)
                return host, host_list[index + 1:], prepared_spec
        return self.execute(context, instance, flavor, migration,
                            prepared_spec, host_list, held_allocations,
                            owner, caller)

    def revert(self, context: types.Context, instance: types.Instance,
               migration: types.Migration, held_allocations: types.Held,
               result: Any, flow_failures: types.Failures) -> None:
        if held_allocations and moves.is_at_source(context, migration):
            self.manager.report_client.delete_allocation_for_instance(
                context, instance.uuid, force=True)


def check(context: types.Context, instance: types.Instance,
          migration: types.Migration, owner: str) -> None:
    """See whether a resize is still what it was. See moves.check."""
    moves.check(context, instance.uuid, migration.uuid, owner,
                task_states.RESIZE_PREP, 'pre-migrating')


class SaveRequestSpec(base.NovaTask):
    """Put down the new flavor in the server's request spec.

    Reversion strategy: put down what was there.
    """

    reversion = 'put the old flavor back into the request spec'

    def execute(self, move_spec: types.RequestSpec) -> bool:
        if not move_spec.obj_what_changed():
            return False
        # The compute is told what has changed, as by Nova.
        move_spec.obj_clone().save()
        return True

    def had_effect(self, result: Any) -> bool:
        return bool(result)

    def revert(self, context: types.Context, instance: types.Instance,
               request_spec: types.RequestSpec, result: Any,
               flow_failures: types.Failures) -> None:
        now = moves.current(context, instance.uuid)
        if result is False or now is None:
            return
        spec = request_spec.obj_clone()
        spec._context = context
        # A compute that has failed gives it back with the new flavor, and
        # the NUMA topology of that.
        moves.ask_for(spec, now)
        try:
            spec.save()
        except exception.RequestSpecNotFound:
            LOG.debug('The request spec is gone, with its server',
                      instance=instance)


class CastPrepResize(casts.Cast):
    """Tell the destination to prepare for the server: once, and not twice.

    Reversion strategy: none, it is the last step.
    Recovery: wait until the compute shows that it has taken the server. If
    it does not, make sure that no message is on its way, see whether the
    move is still what it was, then cast again.
    """

    def execute(self, context: types.Context, instance: types.Instance,
                flavor: types.Flavor, migration: types.Migration,
                move_spec: types.RequestSpec,
                legacy_properties: types.Properties, host: types.Selection,
                alternates: list[types.Selection], clean_shutdown: bool,
                owner: str, caller: types.Caller) -> None:
        properties = copy.deepcopy(legacy_properties)
        scheduler_utils.populate_filter_properties(properties, host)
        # The compute saves it, along with what else it changes.
        instance.availability_zone = scheduling.zone_of(context, host)
        LOG.debug('Calling prep_resize with selected host: %s; Selected '
                  'node: %s; Alternates: %s', host.service_host,
                  host.nodename, alternates, instance=instance)
        self.manager.compute_rpcapi.prep_resize(
            context, instance, move_spec.image, flavor, host.service_host,
            migration, request_spec=move_spec, filter_properties=properties,
            node=host.nodename, clean_shutdown=clean_shutdown,
            host_list=alternates)

    def recover(self, context: types.Context, instance: types.Instance,
                flavor: types.Flavor, migration: types.Migration,
                move_spec: types.RequestSpec,
                legacy_properties: types.Properties, host: types.Selection,
                alternates: list[types.Selection], clean_shutdown: bool,
                owner: str, caller: types.Caller) -> None:
        name = host.service_host
        if self._was_taken(
                context, instance, name,
                lambda: self._is_taken(context, instance, name)):
            LOG.info('Compute %s has taken the server already', name,
                     instance=instance)
            return
        callers.outlive(self, context, instance, caller)
        check(context, instance, migration, owner)
        LOG.info('Compute %s has not got the server, casting again', name,
                 instance=instance)
        self.execute(context, instance, flavor, migration, move_spec,
                     legacy_properties, host, alternates, clean_shutdown,
                     owner, caller)

    @staticmethod
    def _is_taken(context: types.Context, instance: types.Instance,
                  host: str) -> bool:
        """Whether there is a sign of the compute."""
        return any(event.event == PREP_EVENT and event.host == host
                   for event in casts.events(context, instance.uuid))
