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

"""Whole live migrations: what they leave, also if the conductor dies."""

import copy

from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
import oslo_messaging as messaging
import pytest

from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.tasks import killing
from nova_ssm.tests.unit.tasks import live_conductor
from nova_ssm.tests.unit.tasks import live_world

UUID, MIGRATION = live_world.UUID, live_world.MIGRATION
SOURCE, RP, HELD = live_world.SOURCE, live_world.RP, live_world.HELD


@pytest.fixture(autouse=True)
def retries(monkeypatch):
    """As many retries as there are hosts."""
    monkeypatch.setattr(live_world.stock.CONF, 'migrate_max_retries', 5)


# -- how they end ---------------------------------------------------------

def assert_on_its_way(world, host, attempts=None):
    """The source has been told once; everything is where it has to be."""
    world.compute_reads()
    [cast] = world.migrating
    assert (cast['dest'], cast['host']) == (host, SOURCE)
    assert cast['migrate_data'].target_connect_addr == host
    assert cast['migrate_data'].vifs[0].profile == {'of': host}
    assert (cast['migration'].uuid, cast['instance'].uuid) == (
        MIGRATION, UUID)
    assert cast['zone'] == 'zone of ' + host
    assert world.placement.held == {MIGRATION: {RP[SOURCE]: HELD},
                                    UUID: {RP[host]: HELD}}
    assert_bound(world, host)
    assert list(world.migrations) == [MIGRATION]
    row = world.migrations[MIGRATION]
    assert (row['source_compute'], row['source_node'], row['dest_compute'],
            row['dest_node']) == (SOURCE, 'source-node', host, host + '-node')
    assert world.server.task_state == task_states.MIGRATING
    assert not world.faults and not world.notified
    assert_events_closed(world, False)


def assert_as_before(world, state=vm_states.ACTIVE, error=None):
    """The server is where it was, with one fault."""
    world.compute_reads()
    assert not world.migrating
    assert world.placement.held == {UUID: {RP[SOURCE]: HELD}}
    assert_bound(world)
    assert {row['status'] for row in world.migrations.values()} <= {'error'}
    assert (world.server.host, world.server.vm_state,
            world.server.task_state) == (SOURCE, state, None)
    [fault] = world.faults[UUID]
    if error is not None:
        assert isinstance(fault.exc, error)
    assert {notice[:3] for notice in world.notified} == {
        (UUID, 'compute_task', 'migrate_server')}
    assert_events_closed(world, True)


def assert_bound(world, *more):
    for hosts in world.neutron.bound.values():
        assert hosts == {SOURCE: True, **dict.fromkeys(more, False)}


def assert_events_closed(world, failed):
    for event in world.events[UUID]:
        if event.event != live_world.CAST:
            assert event.finish_time is not None
            assert bool(event.error) == failed


# -- what can happen ------------------------------------------------------

def unfit(world, *hosts):
    for host in hosts:
        world.unfit[host] = exception.InvalidCPUInfo(reason='too old')


def second_host(world):
    unfit(world, 'host1')


def third_host(world):
    unfit(world, 'host1')
    world.unfit['host2'] = messaging.MessagingTimeout()


def asked_a_dead_conductor(world):
    """The check of host1 was calling a conductor when that died."""
    world.unfit['host1'] = messaging.RemoteError('MessagingTimeout', 'x')


SUCCEEDING = {
    'first host': (None, lambda world: None, 'host1'),
    'second host': (None, second_host, 'host2'),
    'third host': (None, third_host, 'host3'),
    'first host asked a dead conductor': (None, asked_a_dead_conductor,
                                          'host2'),
    'forced': ('host2', lambda world: None, 'host2'),
}


def breaks(owner, name, exc):
    """A service fails in this way, each time."""
    def fail(*args, **kwargs):
        # One that is raised again and again has a traceback of them all.
        raise copy.copy(exc)

    def prepare(world):
        owner_of = owner(world)
        setattr(owner_of, name, fail)
    return prepare


def lives_alone(world):
    world.room.clear()


def no_memory(world):
    world.memory_mb = 100


def source_down(world):
    world.up.discard(SOURCE)


def forced_down(world):
    world.up.discard('host2')


def all_unfit(world):
    unfit(world, 'host1', 'host2', 'host3')


def powered_off(world):
    world.server.power_state = 4


_rpc = 'check_can_live_migrate_destination'
FAILING = {
    'no host': (None, lives_alone, exception.NoValidHost, False),
    'no host is fit': (None, all_unfit, exception.NoValidHost, False),
    'powered off': (None, powered_off, exception.InstanceInvalidState,
                    False),
    'source is down': (None, source_down,
                       exception.ComputeServiceUnavailable, False),
    'scheduler fails': (None, breaks(
        lambda world: world.manager.query_client, 'select_destinations',
        messaging.RemoteError('Broken', 'x')),
        exception.MigrationSchedulerRPCError, False),
    'scheduler is away': (None, breaks(
        lambda world: world.manager.query_client, 'select_destinations',
        messaging.MessagingTimeout()), messaging.MessagingTimeout, True),
    'check breaks': (None, breaks(
        lambda world: world.manager.compute_rpcapi, _rpc,
        ValueError('x')), ValueError, True),
    'cast breaks': (None, breaks(
        lambda world: world.manager.compute_rpcapi, 'live_migration',
        messaging.MessageDeliveryFailure()),
        messaging.MessageDeliveryFailure, True),
    'second check breaks': (None, lambda world: (
        unfit(world, 'host1'), world.unfit.update(host2=ValueError('x'))),
        ValueError, True),
    'to itself': (SOURCE, lambda world: None,
                  exception.UnableToMigrateToSelf, False),
    'forced host is down': ('host2', forced_down,
                            exception.ComputeServiceUnavailable, False),
    'forced host is unknown': ('host9', lambda world: world.up.add('host9'),
                               exception.ComputeHostNotFound, False),
    'forced host has no memory': ('host2', no_memory,
                                  exception.MigrationPreCheckError, False),
    'forced host has no room': ('host2', lives_alone, exception.NoValidHost,
                                False),
    'forced host is unfit': ('host2', lambda world: unfit(world, 'host2'),
                             exception.InvalidCPUInfo, False),
    'forced host asked a dead conductor': (
        'host1', asked_a_dead_conductor, exception.MigrationPreCheckError,
        False),
    'forced cast breaks': ('host2', breaks(
        lambda world: world.manager.compute_rpcapi, 'live_migration',
        messaging.MessageDeliveryFailure()),
        messaging.MessageDeliveryFailure, True),
}


@pytest.mark.parametrize('case', SUCCEEDING)
def test_succeeds(live, url, case):
    destination, prepare, host = SUCCEEDING[case]
    prepare(live)
    outcome = live_conductor.Conductor(url, live).migrate(destination)
    assert outcome.state == 'SUCCESS'
    assert outcome.failure is None
    assert_on_its_way(live, host)


@pytest.mark.parametrize('case', FAILING)
def test_fails(live, url, case):
    destination, prepare, error, unexpected = FAILING[case]
    prepare(live)
    outcome = live_conductor.Conductor(url, live).migrate(destination)
    assert outcome.state == 'REVERTED'
    assert isinstance(outcome.failure, error)
    assert_as_before(
        live, vm_states.ERROR if unexpected else vm_states.ACTIVE, error)
    assert len(live.notified) == 1


def test_tries_the_hosts_in_turn(live, url):
    third_host(live)
    live_conductor.Conductor(url, live).migrate()
    assert live.attempts == [[SOURCE], [SOURCE, 'host1'],
                             [SOURCE, 'host1', 'host2']]


@pytest.mark.parametrize('most', (0, 1))
def test_tries_no_more_hosts_than_it_may(live, url, monkeypatch, most):
    monkeypatch.setattr(live_world.stock.CONF, 'migrate_max_retries', most)
    third_host(live)
    outcome = live_conductor.Conductor(url, live).migrate()
    assert type(outcome.failure) is exception.MaxRetriesExceeded
    assert 'Exceeded max scheduling retries %d' % (most + 1) in str(
        outcome.failure)
    assert len(live.attempts) == most + 1
    assert_as_before(live)


def test_an_unlimited_number_of_hosts(live, url, monkeypatch):
    monkeypatch.setattr(live_world.stock.CONF, 'migrate_max_retries', -1)
    third_host(live)
    live_conductor.Conductor(url, live).migrate()
    assert_on_its_way(live, 'host3')


# -- the conductor dies ---------------------------------------------------

#: Between them they take every way through the graphs, and back.
KILLED = ('third host', 'forced')
KILLED_FAILING = ('powered off', 'scheduler is away', 'second check breaks',
                  'no host is fit', 'forced host has no room',
                  'forced cast breaks')


def kill_everywhere(url, case, cases, check, again):
    destination, prepare, *_rest = cases[case]
    killing.everywhere(
        live_conductor.Conductor, url,
        lambda conductor: conductor.migrate(destination), check, prepare,
        again=again)


@pytest.mark.parametrize('again', (False, True))
@pytest.mark.parametrize('case', KILLED)
def test_a_killed_migration_is_gone_on_with(url, case, again):
    host = SUCCEEDING[case][2]
    kill_everywhere(url, case, SUCCEEDING,
                    lambda world: assert_on_its_way(world, host), again)


@pytest.mark.parametrize('again', (False, True))
@pytest.mark.parametrize('case', KILLED_FAILING)
def test_a_killed_migration_that_fails_is_undone(url, case, again):
    _destination, _prepare, error, unexpected = FAILING[case]
    state = vm_states.ERROR if unexpected else vm_states.ACTIVE
    kill_everywhere(
        url, case, FAILING,
        lambda world: assert_as_before(world, state, error), again)


@pytest.mark.parametrize('case', [*SUCCEEDING, *FAILING])
def test_each_step_is_another_conductors(live, url, case):
    destination, prepare, result, *more = {**SUCCEEDING, **FAILING}[case]
    prepare(live)
    live.kill_after_rows = True
    for _time in range(100):
        try:
            if live.process is None:
                live_conductor.Conductor(url, live).migrate(destination)
            else:
                helpers.expire_leases(url)
                live_conductor.Conductor(url, live).resume_all()
            break
        except helpers.Killed:
            pass
    if case in SUCCEEDING:
        assert_on_its_way(live, result)
    else:
        assert_as_before(live, vm_states.ERROR if more[0] else
                         vm_states.ACTIVE, result)


def test_a_kill_in_the_third_try_goes_on_with_the_third(live, url):
    third_host(live)
    check = live.manager.compute_rpcapi.check_can_live_migrate_destination

    def kill(context, instance, host, *args):
        if host == 'host3':
            live.process.kill()
        return check(context, instance, host, *args)
    live.manager.compute_rpcapi.check_can_live_migrate_destination = kill
    with pytest.raises(helpers.Killed):
        live_conductor.Conductor(url, live).migrate()
    live.manager.compute_rpcapi.check_can_live_migrate_destination = check
    assert len(live.attempts) == 3
    killing.go_on(url, live)
    assert len(live.attempts) == 3, 'host3 was chosen and journaled'
    assert live.steps.count('check') == 3
    assert_on_its_way(live, 'host3')
