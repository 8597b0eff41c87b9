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

"""What all live migrations have in common: records, checks, the cast."""

from collections.abc import Iterator
import contextlib
import functools
from typing import Any

from nova import availability_zones
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova.conductor.tasks import migrate
from nova import exception
from nova.i18n import _
from nova import objects
from nova.objects import fields
from nova.scheduler import utils as scheduler_utils
from oslo_log import log as logging
import oslo_messaging as messaging

from nova_ssm import compat
from nova_ssm.tasks import allocations
from nova_ssm.tasks import base
from nova_ssm.tasks import casts
from nova_ssm.tasks import moves
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

#: The event that a compute opens on a server's action as its first deed.
MIGRATE_EVENT = 'compute_live_migration'

#: The status of a migration record that no compute has seen.
ACCEPTED = 'accepted'


class LiveEventsToErrorOnRevert(moves.EventsToErrorOnRevert):
    """Does nothing, but if the move fails. The first task of the flow.

    Reversion strategy: close the events that a conductor opened for it, with
    the error that users see.
    """

    def revert(self, context: types.Context, instance: types.Instance,
               result: Any, flow_failures: types.Failures) -> None:
        moves.close_events(context, instance.uuid, compat.live_migration_error(
            base.cause_of(result, flow_failures)))


class LiveMigrationToErrorOnRevert(base.NovaTask):
    """Does nothing, but if the server cannot be live migrated.

    Reversion strategy: leave the server in its former state, or in ERROR if
    it is not known what went wrong, with a fault; fail the migration record.
    """

    effect = False
    reversion = 'reset the server, with a fault; fail the migration record'

    def execute(self) -> None:
        pass

    def revert(self, context: types.Context, instance: types.Instance,
               migration_uuid: str, destination: str | None, result: Any,
               flow_failures: types.Failures) -> None:
        exc = base.cause_of(result, flow_failures)
        record = moves.record(context, migration_uuid)
        source = record.source_compute if record else instance.host
        moves.tell(self._reset, context, instance, exc, context, exc,
                   source, destination,
                   on_the_way=(task_states.MIGRATING,),
                   request_spec=_notified_spec(instance))
        moves.fail_migration(context, migration_uuid)

    @staticmethod
    def _reset(instance: types.Instance, context: types.Context,
               exc: BaseException, source: str,
               destination: str | None) -> None:
        if instance.host != source:
            LOG.warning('The server is on host %s already, it is left as it '
                        'is', instance.host, instance=instance)
            return
        state = instance.vm_state
        if compat.live_migration_error(exc) is not exc:
            state = vm_states.ERROR
            LOG.error('Migration of instance %(instance_id)s to host %(dest)s '
                      'unexpectedly failed.',
                      {'instance_id': instance.uuid, 'dest': destination},
                      exc_info=True)
        scheduler_utils.set_vm_state_and_notify(
            context, instance.uuid, 'compute_task', 'migrate_server',
            {'vm_state': state, 'task_state': None,
             'expected_task_state': task_states.MIGRATING}, exc,
            _notified_spec(instance))


def _notified_spec(instance: types.Instance) -> dict[str, Any]:
    """What Nova tells of the request in its notifications."""
    return {'instance_properties': {'uuid': instance.uuid}}


class CreateLiveMigration(base.NovaTask):
    """Create the migration record.

    Reversion strategy: none, it ends in ``error`` with the server's reset.
    Recovery: take the record if it is there.
    """

    default_provides = 'migration'

    def execute(self, context: types.Context, instance: types.Instance,
                migration_uuid: str, destination: str | None,
                owner: str) -> types.Migration:
        migration = objects.Migration(
            context=context.elevated(), uuid=migration_uuid,
            dest_compute=destination, status=ACCEPTED,
            instance_uuid=instance.uuid, source_compute=instance.host,
            migration_type=fields.MigrationType.LIVE_MIGRATION)
        flavor = (instance.flavor.id if instance.obj_attr_is_set('flavor')
                  else instance.instance_type_id)
        migration.old_instance_type_id = flavor
        migration.new_instance_type_id = flavor
        migration.create()
        return migration

    def recover(self, context: types.Context, instance: types.Instance,
                migration_uuid: str, destination: str | None,
                owner: str) -> types.Migration:
        migration = moves.record(context, migration_uuid)
        if migration is None:
            return self.execute(context, instance, migration_uuid,
                                destination, owner)
        check(context, migration, owner)
        return migration


class MoveLiveAllocations(base.NovaTask):
    """Give what the server holds at its source to the migration record.

    Reversion strategy: give it back.
    Recovery: take it as done if the migration record has it; not if somebody
    else has moved the server meanwhile.
    """

    default_provides = ('source_node', 'held_allocations')
    reversion = 'give the allocations back to the server'

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration,
                owner: str) -> tuple[str | None, types.Held]:
        node, held = migrate.replace_allocation_with_migration(
            context, instance, migration)
        return node.uuid if node else None, held

    def recover(self, context: types.Context, instance: types.Instance,
                migration: types.Migration,
                owner: str) -> tuple[str | None, types.Held]:
        check(context, migration, owner)
        held = allocations.held_by(self.manager, context, migration.uuid)
        if not held:
            return self.execute(context, instance, migration, owner)
        node = objects.ComputeNode.get_by_host_and_nodename(
            context, migration.source_compute, instance.node)
        return node.uuid, held

    def revert(self, context: types.Context, instance: types.Instance,
               migration: types.Migration, result: Any,
               flow_failures: types.Failures) -> None:
        moves.give_back(self.manager, context, instance, migration)


class CheckSource(base.NovaTask):
    """See whether the server may be live migrated at all.

    :raises InstanceInvalidState, MigrationPreCheckError: if it may not
    :raises ComputeServiceUnavailable: if its host is down
    """

    effect = False

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration) -> None:
        stock = stock_task(self.manager, context, instance, migration)
        stock._check_instance_is_active()
        stock._check_instance_has_no_numa()
        stock._check_host_is_up(stock.source)


class UpdateMigration(base.NovaTask):
    """Put down in the migration record where the server goes."""

    def execute(self, instance: types.Instance, migration: types.Migration,
                dest_host: str, dest_node: str) -> None:
        migration.source_node = instance.node
        migration.dest_node = dest_node
        migration.dest_compute = dest_host
        migration.save()


class CastLiveMigration(casts.Cast):
    """Tell the source to migrate the server: once, and not twice.

    Reversion strategy: none, it is the last step.
    Recovery: wait until the compute shows that it has taken the server. If
    it does not, make sure that no message is on its way, see whether the
    move is still wanted, then cast again.
    """

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, owner: str,
                block_migration: bool | None,
                migrate_data: types.MigrateData,
                provider_mapping: types.ProviderMapping,
                dest_host: str) -> None:
        # Both are in this object only: the compute saves them at the end.
        update_pci_requests(self.manager, context, instance,
                            provider_mapping)
        instance.availability_zone = (
            availability_zones.get_host_availability_zone(
                context, dest_host))
        self.manager.compute_rpcapi.live_migration(
            context, host=instance.host, instance=instance, dest=dest_host,
            block_migration=block_migration, migration=migration,
            migrate_data=migrate_data)

    def recover(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, owner: str,
                block_migration: bool | None,
                migrate_data: types.MigrateData,
                provider_mapping: types.ProviderMapping,
                dest_host: str) -> None:
        source = migration.source_compute
        if self._was_taken(
                context, instance, source,
                functools.partial(_is_taken, context, instance.uuid,
                                  migration.uuid, source)):
            LOG.info('Compute %s has taken the server already', source,
                     instance=instance)
            return
        check(context, migration, owner)
        LOG.info('Compute %s has not got the server, casting again', source,
                 instance=instance)
        self.execute(context, instance, migration, owner, block_migration,
                     migrate_data, provider_mapping, dest_host)

    def _ping(self, context: types.Context, host: str) -> bool:
        # Newer releases send live migrations through a queue of their own.
        return compat.ping_alt(self.manager.compute_rpcapi, context, host,
                               self.ping_timeout)


def _is_taken(context: types.Context, uuid: str, migration_uuid: str,
              host: str) -> bool:
    """Whether there is a sign of the compute, or the server is gone."""
    if moves.current(context, uuid) is None:
        return True
    migration = moves.record(context, migration_uuid)
    if migration is None or migration.status != ACCEPTED:
        return True
    return any(event.event == MIGRATE_EVENT and event.host == host
               for event in casts.events(context, uuid))


def check(context: types.Context, migration: types.Migration,
          owner: str) -> None:
    """See that a move which was interrupted is still wanted.

    :raises MigrationPreCheckError: if it is not
    """
    moves.check(context, migration.instance_uuid, migration.uuid, owner,
                task_states.MIGRATING, ACCEPTED)


@contextlib.contextmanager
def asking(host: str) -> Iterator[None]:
    """Ask a host whether it can take the server.

    A compute that is calling a conductor when it dies gives up after
    rpc_response_timeout and answers with that. It says as little of the
    server as one that does not answer at all.

    :raises MigrationPreCheckError: if it does, as if it did not answer
    """
    try:
        yield
    except messaging.RemoteError as exc:
        if exc.exc_type != messaging.MessagingTimeout.__name__:
            raise
        raise exception.MigrationPreCheckError(reason=_(
            'Timeout while checking if we can live migrate to host: %s'
        ) % host) from exc


def stock_task(manager: types.Manager, context: types.Context,
               instance: types.Instance, migration: types.Migration,
               destination: str | None = None,
               block_migration: bool | None = None,
               disk_over_commit: bool | None = None,
               request_spec: types.RequestSpec | None = None) -> Any:
    """Nova's own task, of which only single methods are called."""
    return manager._build_live_migrate_task(
        context, instance, destination, block_migration, disk_over_commit,
        migration, request_spec)


def update_pci_requests(manager: types.Manager, context: types.Context,
                        instance: types.Instance,
                        mapping: types.ProviderMapping) -> None:
    """Let the server ask for the devices that were claimed for it.

    In memory only, and the same however often it is called.

    :param mapping: resource providers by request group
    """
    if mapping:
        compute_utils.update_pci_request_with_placement_allocations(
            context, manager.report_client, instance.pci_requests.requests,
            mapping)
