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

"""Where a server is live migrated to: chosen, or forced by an admin."""

from collections.abc import Iterable, Iterator
import contextlib
from typing import Any, ClassVar, TypeAlias

from nova import context as nova_context
from nova import exception
from nova.network import constants
from nova.scheduler import utils as scheduler_utils
from oslo_log import log as logging
import oslo_messaging as messaging
from taskflow import retry

from nova_ssm.engine import failures
from nova_ssm import exception as ssm_exc
from nova_ssm.tasks import allocations
from nova_ssm.tasks import base
from nova_ssm.tasks import live_migration
from nova_ssm.tasks import moves
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

#: What the computes have agreed on, resource providers by request group.
_Checked: TypeAlias = tuple[types.MigrateData, types.ProviderMapping]
#: The same, and the host and the node of the destination.
_Chosen: TypeAlias = tuple[types.MigrateData, types.ProviderMapping, str, str]


class PrepareSpec(base.NovaTask):
    """Work out what the scheduler has to look for."""

    effect = False
    default_provides = 'move_spec'

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration,
                request_spec: types.RequestSpec) -> types.RequestSpec:
        stock = live_migration.stock_task(
            self.manager, context, instance, migration,
            request_spec=request_spec)
        return stock._get_request_spec_for_select_destinations(
            [stock.source])


class TryHosts(retry.Retry):
    """Tries other hosts, as long as it is the host that is unfit.

    How often is up to the task that selects the next one. Provides the hosts
    that are out of the question: the source, then those that were tried.
    """

    def __init__(self) -> None:
        super().__init__(name=type(self).__name__, provides='attempted_hosts')

    def execute(self, history: retry.History,
                migration: types.Migration) -> list[str]:
        return [migration.source_compute,
                *(exc.host for exc in _causes(history.outcomes_iter()))]

    def on_failure(self, history: retry.History,
                   migration: types.Migration) -> str:
        causes = list(_causes(history.outcomes_iter(index=-1)))
        if causes and all(isinstance(exc, ssm_exc.DestinationUnfit)
                          for exc in causes):
            return retry.RETRY
        return retry.REVERT_ALL


def _causes(outcomes: Iterable[tuple[str, base.Failure]]) -> Iterable[Any]:
    return (failures.exception_of(failure) for _task, failure in outcomes)


class SelectDestination(base.NovaTask):
    """Have the scheduler choose and claim a host that was not tried yet.

    :raises NoValidHost: if there is none, or too many were tried
    :raises MigrationSchedulerRPCError: if the scheduler has failed

    Reversion strategy: free what it claimed.
    Recovery: free what an earlier attempt may have claimed, choose again.
    """

    default_provides = 'host'
    reversion = 'free the claim on the destination'

    #: Seconds that a scheduler may go on claiming for a dead conductor.
    settle: ClassVar[float] = 1.0

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, move_spec: types.RequestSpec,
                held_allocations: types.Held, attempted_hosts: list[str],
                owner: str) -> types.Selection:
        stock = live_migration.stock_task(self.manager, context, instance,
                                          migration)
        stock._check_not_over_max_retries(attempted_hosts)
        if held_allocations and len(attempted_hosts) > 1:
            # Or the scheduler would take it for what the server holds now.
            allocations.free_claim(self.manager, context, instance.uuid)
        move_spec.ignore_hosts = attempted_hosts
        try:
            return self.manager.query_client.select_destinations(
                context, move_spec, [instance.uuid], return_objects=True,
                return_alternates=False)[0][0]
        except messaging.RemoteError as exc:
            raise exception.MigrationSchedulerRPCError(
                reason=str(exc)) from exc

    def recover(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, move_spec: types.RequestSpec,
                held_allocations: types.Held, attempted_hosts: list[str],
                owner: str) -> types.Selection:
        live_migration.check(context, migration, owner)
        if held_allocations:
            allocations.free_claim(self.manager, context, instance.uuid,
                                   self.settle)
        return self.execute(context, instance, migration, move_spec,
                            held_allocations, attempted_hosts, owner)

    def revert(self, context: types.Context, instance: types.Instance,
               migration: types.Migration, held_allocations: types.Held,
               result: Any, flow_failures: types.Failures) -> None:
        if not moves.may_have_claimed(context, migration, result,
                                      flow_failures):
            return
        if not isinstance(result, base.Failure):
            _unclaim(self.manager, context, instance, migration,
                     result.compute_node_uuid)
        elif held_allocations:
            with _as_far_as_possible(instance):
                allocations.free_claim(self.manager, context, instance.uuid,
                                       self.settle)


class CheckDestination(base.NovaTask):
    """Have source and destination agree, bind the ports to the destination.

    :raises DestinationUnfit: if another host may still do

    Reversion strategy: remove the bindings.
    Recovery: remove the bindings, do it again.
    """

    default_provides = ('migrate_data', 'provider_mapping', 'dest_host',
                        'dest_node')
    reversion = "remove the ports' bindings to the destination"

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, block_migration: bool | None,
                disk_over_commit: bool | None, move_spec: types.RequestSpec,
                host: types.Selection, owner: str) -> _Chosen:
        scheduler_utils.fill_provider_mapping(move_spec, host)
        mapping = move_spec.get_request_group_mapping()
        live_migration.update_pci_requests(self.manager, context, instance,
                                           mapping)
        name = host.service_host
        stock = live_migration.stock_task(
            self.manager, context, instance, migration, None,
            block_migration, disk_over_commit)
        stock.limits = host.limits
        try:
            stock._check_compatible_with_source_hypervisor(name)
            with live_migration.asking(name):
                stock._call_livem_checks_on_host(name, mapping)
        except (exception.Invalid, exception.MigrationPreCheckError) as exc:
            LOG.debug('Skipping host: %(host)s because: %(e)s',
                      {'host': name, 'e': exc})
            raise ssm_exc.DestinationUnfit(name, exc) from exc
        return stock.migrate_data, mapping, name, host.nodename

    def recover(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, block_migration: bool | None,
                disk_over_commit: bool | None, move_spec: types.RequestSpec,
                host: types.Selection, owner: str) -> _Chosen:
        live_migration.check(context, migration, owner)
        unbind(self.manager, context, migration, host.service_host)
        return self.execute(context, instance, migration, block_migration,
                            disk_over_commit, move_spec, host, owner)

    def revert(self, context: types.Context, instance: types.Instance,
               migration: types.Migration, host: types.Selection,
               result: Any, flow_failures: types.Failures) -> None:
        unbind(self.manager, context, migration, host.service_host)


class CheckForcedDestination(base.NovaTask):
    """See whether the server may go to the host that an admin has named.

    :raises UnableToMigrateToSelf, MigrationPreCheckError: if it may not
    :raises InvalidHypervisorType, DestinationHypervisorTooOld: if its
        hypervisor cannot take the server
    :raises ComputeServiceUnavailable, ComputeHostNotFound: if it is down, or
        there is no such host
    """

    effect = False
    default_provides = ('dest_host', 'dest_node', 'dest_uuid')

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration,
                destination: str) -> tuple[str, str, str]:
        stock = live_migration.stock_task(self.manager, context, instance,
                                          migration, destination)
        stock._check_destination_is_not_source()
        stock._check_host_is_up(destination)
        stock._check_destination_has_enough_memory()
        _source, node = stock._check_compatible_with_source_hypervisor(
            destination)
        return destination, node.hypervisor_hostname, node.uuid


class ClaimForcedDestination(base.NovaTask):
    """Claim at the destination what the server holds at the source.

    :raises NoValidHost: if there is no room for it

    Reversion strategy: free it.
    Recovery: take it as done if the server holds something there.
    """

    reversion = 'free the claim on the destination'

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, destination: str,
                held_allocations: types.Held, dest_uuid: str,
                owner: str) -> None:
        stock = live_migration.stock_task(self.manager, context, instance,
                                          migration, destination)
        scheduler_utils.claim_resources_on_destination(
            context, self.manager.report_client, instance,
            stock._get_compute_info(stock.source),
            stock._get_compute_info(destination),
            source_allocations=held_allocations, consumer_generation=None)

    def recover(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, destination: str,
                held_allocations: types.Held, dest_uuid: str,
                owner: str) -> None:
        live_migration.check(context, migration, owner)
        if dest_uuid not in allocations.held_by(self.manager, context,
                                                instance.uuid):
            self.execute(context, instance, migration, destination,
                         held_allocations, dest_uuid, owner)

    def revert(self, context: types.Context, instance: types.Instance,
               migration: types.Migration, dest_uuid: str, result: Any,
               flow_failures: types.Failures) -> None:
        if moves.is_at_source(context, migration):
            _unclaim(self.manager, context, instance, migration, dest_uuid)


class CheckRequestedDestination(base.NovaTask):
    """Have source and forced destination agree, bind the ports to it.

    :raises MigrationPreCheckError: if they do not agree

    Reversion strategy: remove the bindings.
    Recovery: remove the bindings, do it again.
    """

    default_provides = ('migrate_data', 'provider_mapping')
    reversion = "remove the ports' bindings to the destination"

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, destination: str,
                block_migration: bool | None,
                disk_over_commit: bool | None, owner: str) -> _Checked:
        stock = live_migration.stock_task(
            self.manager, context, instance, migration, destination,
            block_migration, disk_over_commit)
        with live_migration.asking(destination):
            stock._check_requested_destination()
        # Servers whose allocations are nested are not forced anywhere.
        return stock.migrate_data, {}

    def recover(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, destination: str,
                block_migration: bool | None,
                disk_over_commit: bool | None, owner: str) -> _Checked:
        live_migration.check(context, migration, owner)
        unbind(self.manager, context, migration, destination)
        return self.execute(context, instance, migration, destination,
                            block_migration, disk_over_commit, owner)

    def revert(self, context: types.Context, instance: types.Instance,
               migration: types.Migration, destination: str, result: Any,
               flow_failures: types.Failures) -> None:
        unbind(self.manager, context, migration, destination)


def _unclaim(manager: types.Manager, context: types.Context,
             instance: types.Instance, migration: types.Migration,
             node_uuid: str) -> None:
    """Free what the server holds on a node that it does not go to."""
    with _as_far_as_possible(instance):
        # Nova takes it for an error if there is nothing.
        if allocations.held_by(manager, context, instance.uuid):
            live_migration.stock_task(
                manager, context, instance, migration
            )._remove_host_allocations(node_uuid)


def unbind(manager: types.Manager, context: types.Context,
           migration: types.Migration, host: str) -> None:
    """Remove the ports' inactive bindings to a host.

    Only of ports that are bound to the host of the server: what is active
    stays.
    """
    now = moves.left_alone(context, migration)
    if now is None or now.host == host:
        return
    # Not as the user, whose token may have expired meanwhile.
    admin = nova_context.get_admin_context()
    api = manager.network_api
    with _as_far_as_possible(now):
        if not api.has_port_binding_extension(admin):
            return
        for port in api.list_ports(
                admin, device_id=now.uuid, tenant_id=now.project_id,
                fields=['id'], **{constants.BINDING_HOST_ID: now.host}
        )['ports']:
            with _as_far_as_possible(now):
                # It is no error if there is none.
                api.delete_port_binding(admin, port['id'], host)


@contextlib.contextmanager
def _as_far_as_possible(instance: types.Instance) -> Iterator[None]:
    """Let a service fail without leaving the server as it is.

    What it keeps is logged, as Nova does; but what is still to be undone
    matters more to the user.
    """
    try:
        yield
    except Exception:  # noqa: BLE001 - whatever a service may answer
        LOG.exception('Something is left on a host that the server does not '
                      'go to', instance=instance)
