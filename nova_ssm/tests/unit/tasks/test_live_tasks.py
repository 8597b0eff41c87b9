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

"""Single steps of a live migration: state, record, cast, interference."""

import types

from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
import pytest

from nova_ssm import compat
from nova_ssm.tasks import live_migration
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.tasks import live_conductor
from nova_ssm.tests.unit.tasks import live_world
from nova_ssm.tests.unit.tasks import world as world_module

UUID, MIGRATION = live_world.UUID, live_world.MIGRATION
SOURCE, RP, HELD = live_world.SOURCE, live_world.RP, live_world.HELD
CELL1 = world_module.CELL1


@pytest.fixture
def migration(live):
    return live_migration.CreateLiveMigration(live.manager).execute(
        live.context, live.server, MIGRATION, None, 'project')


def die(live, after, work, *args):
    """Run work and kill the conductor after so many steps."""
    live.process = types.SimpleNamespace(
        db=types.SimpleNamespace(dead=False), kill=killed)
    live.kill_at = live.points + after
    try:
        work(*args)
    except helpers.Killed:
        return True
    finally:
        live.kill_at = None
    return False


def killed():
    raise helpers.Killed


# -- LiveMigrationToErrorOnRevert -----------------------------------------

EXPECTED = exception.NoValidHost(reason='none')


def reset(live, exc=EXPECTED):
    live_migration.LiveMigrationToErrorOnRevert(live.manager).revert(
        live.context, live.server, MIGRATION, None, None,
        {'x': world_module.failure(exc)})


def assert_reset(live, state=vm_states.ACTIVE):
    assert (live.server.vm_state, live.server.task_state) == (state, None)
    assert len(live.faults[UUID]) == 1
    assert live.migrations[MIGRATION]['status'] == 'error'


@pytest.mark.parametrize('exc, state', (
    (EXPECTED, vm_states.ACTIVE), (ValueError('x'), vm_states.ERROR)))
@pytest.mark.parametrize('after', range(1, 7))
def test_reset_after_a_crash(live, migration, exc, state, after):
    assert die(live, after, reset, live, exc) == (after <= 4)
    reset(live, exc)
    assert_reset(live, state)


def test_reset_keeps_the_state_the_server_had(live, migration):
    live.server.vm_state = vm_states.PAUSED
    reset(live)
    assert_reset(live, vm_states.PAUSED)


def test_reset_without_a_record(live):
    reset(live)
    assert live.server.task_state is None
    assert live.migrations == {}


def test_reset_of_a_deleted_server(live, migration):
    live.records[CELL1].clear()
    reset(live)
    assert not live.faults
    assert live.migrations[MIGRATION]['status'] == 'error'


@pytest.mark.parametrize('task', (task_states.DELETING,
                                  task_states.REBUILDING))
def test_reset_of_a_server_that_its_user_works_on(live, migration, task):
    live.server.task_state = task
    reset(live)
    assert not live.faults
    assert live.server.task_state == task
    assert live.migrations[MIGRATION]['status'] == 'error'


# -- the record -----------------------------------------------------------

def test_record_recovered(live):
    task = live_migration.CreateLiveMigration(live.manager)
    for _time in range(2):
        record = task.recover(live.context, live.server, MIGRATION, None,
                              'project')
        assert record.uuid == MIGRATION
    assert live.steps == ['create migration']


def test_record_updated_repeatedly(live, migration):
    task = live_migration.UpdateMigration(live.manager)
    for _time in range(2):
        task.recover(live.server, migration, 'host1', 'node1')
    row = live.migrations[MIGRATION]
    assert (row['source_node'], row['dest_compute'], row['dest_node'],
            row['status']) == ('source-node', 'host1', 'node1', 'accepted')


# -- CastLiveMigration ----------------------------------------------------

def cast(live, migration, how='execute'):
    live.neutron.bound = {port: {SOURCE: True, 'host1': False}
                          for port in live_world.PORTS}
    getattr(live_migration.CastLiveMigration(live.manager), how)(
        live.context, live._record(live.context, UUID), migration,
        'project', True, 'data', {}, 'host1')


def test_cast_tells_the_zone_of_the_destination(live, migration):
    cast(live, migration)
    assert live.queue[0]['zone'] == 'zone of host1'
    # That is for the compute to save, when the server is there.
    assert live.server.availability_zone == 'zone of source'


def test_its_begin_is_journaled():
    assert live_migration.CastLiveMigration.once


SIGNS = {
    'it is queued': lambda live: live.migrations[MIGRATION].update(
        status='queued'),
    'it is done': lambda live: live.migrations[MIGRATION].update(
        status='completed'),
    'it has failed': lambda live: live.migrations[MIGRATION].update(
        status='error'),
    'it opened its event': lambda live: live.events[UUID].append(
        live_world.Event(live_world.CAST, SOURCE)),
    'the server is deleted': lambda live: live.records[CELL1].clear(),
    'its record is purged': lambda live: live.migrations.clear(),
}


@pytest.mark.parametrize('sign', SIGNS)
def test_taken(live, migration, sign):
    SIGNS[sign](live)
    cast(live, migration, 'recover') if live.records[CELL1] else (
        cast_of_a_deleted_server(live, migration))
    assert live.queue == []
    assert live.now == 0


def cast_of_a_deleted_server(live, migration):
    live_migration.CastLiveMigration(live.manager).recover(
        live.context, live.server, migration, 'project', True, 'data', {},
        'host1')


@pytest.mark.parametrize('event', (
    ('compute_live_migration', 'host1'), ('compute_check', SOURCE)))
def test_what_another_did_is_no_sign(live, migration, event):
    live.events[UUID].append(live_world.Event(*event))
    cast(live, migration, 'recover')
    assert len(live.queue) == 1


def test_cast_again_when_it_is_certain(live, migration):
    cast(live, migration, 'recover')
    assert len(live.queue) == 1
    assert live.now > 60, 'its calls to the dead conductor are over'


def test_a_message_in_the_queue_is_waited_for(live, migration):
    cast(live, migration)
    cast(live, migration, 'recover')
    assert live.queue == []
    assert len(live.migrating) == 1


def test_the_queue_of_live_migrations_has_to_be_read(live, migration,
                                                     monkeypatch):
    """The compute may answer in its other queue long before."""
    asked = []

    def ping(context, host, timeout, topic):
        asked.append(topic)
        return live.now > 500
    monkeypatch.setattr(compat, 'ping_compute', ping)
    cast(live, migration, 'recover')
    assert live.now > 500
    assert len(live.queue) == 1
    assert set(asked) == {'compute-alt'}


OUTDATED = {
    'reset': lambda live: setattr(live.server, 'task_state', None),
    'moved': lambda live: setattr(live.server, 'host', 'host3'),
    'given away': lambda live: setattr(live.server, 'project_id', 'other'),
}


@pytest.mark.parametrize('what', OUTDATED)
def test_a_move_that_is_outdated_is_not_cast(live, migration, what):
    OUTDATED[what](live)
    with pytest.raises(exception.MigrationPreCheckError):
        cast(live, migration, 'recover')
    assert live.queue == []


# -- interference while nobody runs the flow ------------------------------

def interrupted(live, url, step, meddle):
    """Kill a migration after a step, meddle, let another go on."""
    def kill_after(name):
        live.steps.append(name)
        live.need_life()
        if name == step:
            live.process.kill()
    live.step = kill_after
    with pytest.raises(helpers.Killed):
        live_conductor.Conductor(url, live).migrate()
    del live.step
    meddle()
    helpers.expire_leases(url)
    [outcome] = live_conductor.Conductor(url, live).resume_all()
    live.compute_reads()
    return outcome


STEPS = ('create migration', 'move allocations', 'claim', 'check', 'bind',
         'save migration')


@pytest.mark.parametrize('step', STEPS)
def test_a_server_that_was_deleted_is_not_migrated(live, url, step):
    def delete():
        live.records[CELL1].clear()
        live.placement.held.pop(UUID, None)
        live.neutron.bound.clear()
    outcome = interrupted(live, url, step, delete)
    assert outcome.state == 'REVERTED'
    assert not live.migrating
    assert live.placement.held == {}
    assert live.migrations[MIGRATION]['status'] == 'error'
    assert not live.faults


@pytest.mark.parametrize('step', STEPS)
def test_a_server_that_was_moved_is_left_where_it_is(live, url, step):
    """An admin lost patience, reset its state, and evacuated it."""
    def move():
        live.server.host, live.server.task_state = 'host3', None
        live.placement.held[UUID] = {RP['host3']: HELD}
        for hosts in live.neutron.bound.values():
            hosts.clear()
            hosts['host3'] = True
    outcome = interrupted(live, url, step, move)
    assert outcome.state == 'REVERTED'
    assert not live.migrating
    assert live.placement.held[UUID] == {RP['host3']: HELD}
    assert MIGRATION not in live.placement.held
    assert all(hosts == {'host3': True}
               for hosts in live.neutron.bound.values())
    assert (live.server.host, live.server.vm_state) == (
        'host3', vm_states.ACTIVE)
    assert live.migrations[MIGRATION]['status'] == 'error'


@pytest.mark.parametrize('step', STEPS)
def test_a_server_whose_state_was_reset_is_not_migrated(live, url, step):
    outcome = interrupted(
        live, url, step, lambda: setattr(live.server, 'task_state', None))
    assert outcome.state == 'REVERTED'
    assert not live.migrating
    assert live.placement.held == {UUID: {RP[SOURCE]: HELD}}
    assert all(hosts == {SOURCE: True}
               for hosts in live.neutron.bound.values())
    assert live.migrations[MIGRATION]['status'] == 'error'
