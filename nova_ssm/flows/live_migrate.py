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

"""Live migration: to where the scheduler says, or to a forced host."""

from nova.compute import task_states
from taskflow import flow as taskflow_flow
from taskflow.patterns import linear_flow

from nova_ssm.engine import registry
from nova_ssm.tasks import abandoned_moves
from nova_ssm.tasks import destinations
from nova_ssm.tasks import live_migration
from nova_ssm.tasks import moves
from nova_ssm.tasks import steering
from nova_ssm.tasks import types


def live_migrate(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for a server that the scheduler finds a host for.

    1. create the migration record, look at the source
    2. let the record have what the server holds at the source
    3. choose and claim a host, have it agree with the source and bind the
       ports to it; again with the next one if the host turns out to be unfit
    4. put down where the server goes
    5. see whether all is still as it was, tell the source to migrate
    """
    return _with_tail(
        manager, _with_head(manager, 'live_migrate').add(
            destinations.PrepareSpec(manager),
            linear_flow.Flow('try_hosts', retry=destinations.TryHosts()).add(
                destinations.SelectDestination(manager),
                destinations.CheckDestination(manager))))


def live_migrate_forced(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for a server whose host an admin has named.

    1. create the migration record, look at the source
    2. let the record have what the server holds at the source
    3. look at the destination, claim there what is held at the source
    4. have both hosts agree, bind the ports to the destination
    5. put down where the server goes
    6. see whether all is still as it was, tell the source to migrate
    """
    return _with_tail(
        manager, _with_head(manager, 'live_migrate_forced').add(
            destinations.CheckForcedDestination(manager),
            destinations.ClaimForcedDestination(manager),
            destinations.CheckRequestedDestination(manager)))


def _with_head(manager: types.Manager, name: str) -> linear_flow.Flow:
    return linear_flow.Flow(name).add(
        live_migration.LiveEventsToErrorOnRevert(manager),
        live_migration.LiveMigrationToErrorOnRevert(manager),
        live_migration.CreateLiveMigration(manager),
        live_migration.CheckSource(manager),
        live_migration.MoveLiveAllocations(manager))


def _with_tail(manager: types.Manager,
               flow: linear_flow.Flow) -> linear_flow.Flow:
    return flow.add(
        live_migration.UpdateMigration(manager),
        moves.FinishEvents(manager),
        moves.CheckMove(manager, task_states.MIGRATING,
                        live_migration.ACCEPTED),
        live_migration.CastLiveMigration(manager))


def end_abandoned_live_migrations(
        manager: types.Manager) -> taskflow_flow.Flow:
    """What is done once for each conductor that died during migrations.

    1. give servers back that a compute gave up, since its call to that
       conductor was not answered
    """
    return linear_flow.Flow('end_abandoned_live_migrations').add(
        abandoned_moves.EndAbandonedLiveMigrations(manager),
    )


def flow_types(manager: types.Manager) -> list[registry.FlowType]:
    """The flows of this operation, for the registry."""
    return [
        registry.FlowType('live_migrate', '1.0',
                          lambda: live_migrate(manager),
                          cancelled=steering.move_cancelled,
                          again=steering.live_migration_again,
                          renewed=steering.another_migration),
        registry.FlowType('live_migrate_forced', '1.0',
                          lambda: live_migrate_forced(manager),
                          cancelled=steering.move_cancelled,
                          again=steering.live_migration_again,
                          renewed=steering.another_migration),
        registry.FlowType('end_abandoned_live_migrations', '1.0',
                          lambda: end_abandoned_live_migrations(manager),
                          instead=steering.FOR_A_WORKER),
    ]
