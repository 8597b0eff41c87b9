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

"""What users see of a live migration, compared with stock Nova's."""

import inspect

from nova.compute import vm_states
from nova.conductor import manager as conductor_manager
from nova import exception
from nova import objects
import oslo_messaging as messaging
import pytest

from nova_ssm import compat
from nova_ssm.tasks import live_migration
from nova_ssm.tests.unit.tasks import live_conductor
from nova_ssm.tests.unit.tasks import live_world
from nova_ssm.tests.unit.tasks import test_live_flows as cases
from nova_ssm.tests.unit.tasks import world as world_module

UUID, MIGRATION = live_world.UUID, live_world.MIGRATION


def errors():
    """One of each class of exception that Nova has, and some of others."""
    for cls in vars(exception).values():
        if inspect.isclass(cls) and issubclass(cls, Exception) and (
                cls.__module__ == exception.__name__):
            yield (cls(code=500) if cls is exception.ConvertedException
                   else cls())
    yield from (ValueError('x'), messaging.MessagingTimeout('y'),
                messaging.RemoteError('z'))


def stock_migrate(world, destination=None):
    """Let stock Nova do it.

    :returns: what it raises
    """
    try:
        conductor_manager.ComputeTaskManager._live_migrate(
            world.manager, world.context,
            world._record(world.context, UUID), {'host': destination}, None,
            False, live_world.Spec())
    except Exception as exc:  # noqa: BLE001 - compared by the caller
        return exc
    return None


class Failing:
    """A task of stock Nova that fails."""

    def __init__(self, exc):
        self.exc = exc

    def execute(self):
        raise self.exc


def seen(world, exc):
    """What there is to be seen of a failure."""
    [fault] = world.faults[UUID]
    [row] = world.migrations.values()
    return (type(exc), str(exc), world.server.vm_state,
            world.server.task_state, row['status'], fault.message,
            world.notified)


def test_every_exception_is_seen_as_with_stock(caplog):
    ends = set()
    for exc in errors():
        with live_world.LiveWorld().entered() as world:
            world.manager._build_live_migrate_task = (
                lambda *args, exc=exc: Failing(exc))
            expected = seen(world, stock_migrate(world))
        with live_world.LiveWorld().entered() as world:
            live_migration.CreateLiveMigration(world.manager).execute(
                world.context, world.server, MIGRATION, None, 'project')
            live_migration.LiveMigrationToErrorOnRevert(
                world.manager).revert(
                    world.context, world.server, MIGRATION, None, None,
                    {'x': world_module.failure(exc)})
            found = seen(world, compat.live_migration_error(exc))
        assert found == expected
        ends.add((found[2], found[0] is exception.MigrationError))
    # Both ways out were taken.
    assert ends >= {(vm_states.ERROR, True), (vm_states.ACTIVE, False)}


def test_an_unexpected_failure_is_logged_as_with_stock(caplog):
    texts = []
    for stock in (True, False):
        caplog.clear()
        with live_world.LiveWorld().entered() as world:
            if stock:
                world.manager._build_live_migrate_task = (
                    lambda *args: Failing(ValueError('x')))
                stock_migrate(world, 'host1')
            else:
                live_migration.LiveMigrationToErrorOnRevert(
                    world.manager).revert(
                        world.context, world.server, MIGRATION, 'host1',
                        None, {'x': world_module.failure(ValueError('x'))})
        [record] = [record for record in caplog.records
                    if record.levelname == 'ERROR']
        texts.append(record.getMessage())
        assert record.exc_info[0] is ValueError
    assert texts[0] == texts[1]


def test_the_record_is_the_same_as_with_stock(live):
    live.manager._build_live_migrate_task = (
        lambda *args: Failing(ValueError()))
    stock_migrate(live, 'host2')
    [expected] = live.migrations.values()
    del expected['uuid']
    live.migrations.clear()
    live_migration.CreateLiveMigration(live.manager).execute(
        live.context, live.server, MIGRATION, 'host2', 'project')
    [(uuid, row)] = live.migrations.items()
    assert uuid == row.pop('uuid') == MIGRATION
    assert {**row, 'status': 'error'} == expected


#: Where we do better on purpose: stock puts such servers into ERROR.
BETTER = ('first host asked a dead conductor',
          'forced host asked a dead conductor')


@pytest.mark.parametrize('case', [
    case for case in (*cases.SUCCEEDING, *cases.FAILING)
    if case not in BETTER])
def test_a_migration_ends_as_with_stock(url, case):
    destination, prepare, *_rest = {**cases.SUCCEEDING,
                                    **cases.FAILING}[case]
    ends = []
    for stock in (True, False):
        with live_world.LiveWorld().entered() as world:
            prepare(world)
            if stock:
                exc = stock_migrate(world, destination)
            else:
                failure = live_conductor.Conductor(url, world).migrate(
                    destination).failure
                exc = failure and compat.live_migration_error(failure)
            ends.append(end(world, exc))
    assert ends[0] == ends[1]


def end(world, exc):
    """All that a migration leaves, but for its uuid."""
    [(uuid, row)] = world.migrations.items()
    held = {('migration' if consumer == uuid else consumer): providers
            for consumer, providers in world.placement.held.items()}
    return {
        # Each that comes over RPC has a class of its own.
        'raised': (type(exc).__name__, str(exc)), 'held': held,
        'migration': {name: value for name, value in row.items()
                      if name != 'uuid'},
        'server': (world.server.host, world.server.vm_state,
                   world.server.task_state),
        'faults': [fault.message for fault in world.faults.get(UUID, ())],
        'told': world.notified, 'attempts': world.attempts,
        'bound': {} if exc else world.neutron.bound,
        'cast': [described(cast) for cast in world.queue]}


def described(cast):
    plain = {name: value for name, value in cast.items()
             if not isinstance(value, objects.Migration)}
    plain['instance'] = cast['instance'].uuid
    plain['migrate_data'] = cast['migrate_data'].obj_to_primitive()
    plain['migration'] = {name: value for name, value in live_world.values(
        cast['migration']).items() if name != 'uuid'}
    return plain
