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

"""Resizes within a cell: how they end, also if their conductor is killed."""

import copy

from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
from nova import objects
from nova.scheduler import utils as scheduler_utils
import oslo_messaging as messaging
import pytest

from nova_ssm import exception as ssm_exc
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.tasks import killing
from nova_ssm.tests.unit.tasks import live_world
from nova_ssm.tests.unit.tasks import resize_world

UUID, SOURCE, HELD = live_world.UUID, live_world.SOURCE, live_world.HELD
RP = live_world.RP
OLD, NEW = resize_world.OLD, resize_world.NEW


@pytest.fixture
def resizing():
    with resize_world.ResizeWorld().entered() as world:
        yield world


# -- how they end ---------------------------------------------------------

def assert_prepared(world, host, alternates, new=NEW):
    """One destination has been told once; everything is where it has to be."""
    world.compute_reads()
    [cast] = world.prepared
    assert (cast['host'], cast['node'], cast['flavor']) == (
        host, host + '-node', new)
    assert cast['state'] == world.server.vm_state == vm_states.ACTIVE
    assert [a.service_host for a in cast['host_list']] == alternates
    assert cast['request_spec'].flavor.id == new
    assert cast['request_spec'].force_hosts is None
    retry = cast['filter_properties']['retry']
    assert [host, host + '-node'] in retry['hosts']
    [(uuid, row)] = world.migrations.items()
    assert cast['migration'] == uuid
    assert (row['status'], row['source_compute'], row['migration_type']) == (
        'pre-migrating', SOURCE, 'resize' if new != OLD else 'migration')
    assert world.placement.held == {uuid: {RP[SOURCE]: HELD},
                                    UUID: {RP[host]: HELD}}
    assert world.saved == new
    assert world.server.task_state == task_states.RESIZE_PREP
    assert not world.faults and not world.notified
    assert_events_closed(world, None)


def assert_as_before(world, error, seen):
    """The server is where and what it was, with one fault."""
    world.compute_reads()
    assert not world.prepared
    assert world.placement.held == {UUID: {RP[SOURCE]: HELD}}
    assert {row['status'] for row in world.migrations.values()} <= {'error'}
    assert (world.server.host, world.server.vm_state,
            world.server.task_state) == (SOURCE, vm_states.ACTIVE, None)
    [fault] = world.faults[UUID]
    assert isinstance(fault.exc, error)
    # Again if the conductor died right behind it.
    assert world.notified
    for uuid, service, method, _spec in world.notified:
        assert (uuid, service, method) == (
            UUID, 'compute_task', 'migrate_server')
    assert world.saved == OLD
    assert_events_closed(world, seen)


def assert_events_closed(world, seen):
    for event in world.events[UUID]:
        if event.event in ('conductor_migrate_server', 'cold_migrate'):
            assert event.finish_time is not None
            assert isinstance(event.error, seen or type(None))


# -- what can happen ------------------------------------------------------

def nothing(world):
    pass


def no_room(*hosts):
    def prepare(world):
        world.room -= set(hosts)
    return prepare


def fails(owner, name, exc):
    def prepare(world):
        def fail(*args, **kwargs):
            # One that is raised again and again has a traceback of them all.
            raise copy.copy(exc)
        setattr(owner(world), name, fail)
    return prepare


def begun(prepare):
    """A first host could not take the server: the record is there."""
    def prepare_more(world):
        migration = objects.Migration(
            world.context.elevated(), old_instance_type_id=OLD,
            new_instance_type_id=NEW, status='pre-migrating',
            uuid=live_world.MIGRATION, migration_type='resize',
            instance_uuid=UUID, source_compute=SOURCE,
            source_node='source-node')
        migration.create()
        world.saved = NEW
        world.steps.clear()
        world.points = 0
        prepare(world)
    return prepare_more


def not_freed(world):
    """Placement was away when the first host was to free what it had."""
    world.placement.held = {live_world.MIGRATION: {RP[SOURCE]: HELD},
                            UUID: {RP['host1']: HELD}}


#: The alternates of a reschedule, the new flavor, what happens before, the
#: host it goes to, the alternates that are left.
SUCCEEDING = {
    'resize': (None, NEW, nothing, 'host1', ['host2', 'host3']),
    'cold migration': (None, OLD, nothing, 'host1', ['host2', 'host3']),
    'resize where there is room': (
        None, NEW, no_room('host1', 'host3'), 'host2', []),
    'rescheduled': (
        ['host2', 'host3'], NEW, begun(nothing), 'host2', ['host3']),
    'rescheduled where there is room': (
        ['host2', 'host3'], NEW, begun(no_room('host2')), 'host3', []),
    'rescheduled by a host that could not free itself': (
        ['host2', 'host3'], NEW, begun(not_freed), 'host2', ['host3']),
}

_query = 'select_destinations'

#: The alternates, what happens before, what fails, what users see.
FAILING = {
    'no host': (None, no_room('host1', 'host2', 'host3'),
                exception.NoValidHost, exception.NoValidHost),
    'scheduler is away': (None, fails(
        lambda world: world.manager.query_client, _query,
        messaging.MessagingTimeout()),
        messaging.MessagingTimeout, messaging.MessagingTimeout),
    'neutron is away': (None, fails(
        lambda world: world.neutron, 'get_requested_resource_for_instance',
        exception.PortNotFound(port_id='p1')),
        exception.PortNotFound, exception.PortNotFound),
    'source is unknown': (None, lambda world: world.hosts.pop(SOURCE),
                          exception.ComputeHostNotFound,
                          exception.ComputeHostNotFound),
    'cast breaks': (None, fails(
        lambda world: world.manager.compute_rpcapi, 'prep_resize',
        messaging.MessageDeliveryFailure()),
        messaging.MessageDeliveryFailure, messaging.MessageDeliveryFailure),
    'no alternate has room': (
        ['host2', 'host3'], begun(no_room('host2', 'host3')),
        exception.MaxRetriesExceeded, exception.NoValidHost),
    'no alternate is left': (
        [], begun(nothing), exception.MaxRetriesExceeded,
        exception.NoValidHost),
}


@pytest.mark.parametrize('case', SUCCEEDING)
def test_succeeds(resizing, url, case):
    hosts, new, prepare, host, alternates = SUCCEEDING[case]
    prepare(resizing)
    outcome = resize_world.Conductor(url, resizing).resize(hosts, new)
    assert (outcome.state, outcome.failure) == ('SUCCESS', None)
    assert_prepared(resizing, host, alternates, new)


@pytest.mark.parametrize('case', FAILING)
def test_fails(resizing, url, case):
    hosts, prepare, error, seen = FAILING[case]
    prepare(resizing)
    outcome = resize_world.Conductor(url, resizing).resize(hosts)
    assert outcome.state == 'REVERTED'
    assert isinstance(outcome.failure, error)
    assert_as_before(resizing, error, seen)
    assert len(resizing.notified) == 1


def test_a_group_that_cannot_be_respected(resizing, url, monkeypatch):
    def setup(context, spec):
        raise exception.UnsupportedPolicyException(reason='no such filter')
    monkeypatch.setattr(scheduler_utils, 'setup_instance_group', setup)
    resize_world.Conductor(url, resizing).resize()
    assert_as_before(resizing, exception.UnsupportedPolicyException,
                     exception.UnsupportedPolicyException)
    assert not resizing.migrations, 'it comes before the record'


def test_rows_and_commits(resizing, url):
    """One row for each task with an effect, one more for the cast."""
    conductor = resize_world.Conductor(url, resizing)
    conductor.resize()
    assert [(kind, atom) for kind, atom, _state in conductor.rows] == [
        ('start', None), ('atom', 'PreallocateMigration'),
        ('atom', 'ScheduleMove'), ('atom', 'SaveRequestSpec'),
        ('atom', 'CastPrepResize'), ('atom', 'CastPrepResize'),
        ('end', None)]


# -- the conductor dies ---------------------------------------------------

@pytest.mark.parametrize('again', (False, True))
@pytest.mark.parametrize('case', SUCCEEDING)
def test_a_killed_resize_is_gone_on_with(url, case, again):
    hosts, new, prepare, host, alternates = SUCCEEDING[case]
    killing.everywhere(
        resize_world.Conductor, url,
        lambda conductor: conductor.resize(hosts, new),
        lambda world: assert_prepared(world, host, alternates, new), prepare,
        again=again)


@pytest.mark.parametrize('again', (False, True))
@pytest.mark.parametrize('case', FAILING)
def test_a_killed_resize_that_fails_is_undone(url, case, again):
    hosts, prepare, error, seen = FAILING[case]
    killing.everywhere(
        resize_world.Conductor, url,
        lambda conductor: conductor.resize(hosts),
        lambda world: assert_as_before(world, error, seen), prepare,
        again=again)


@pytest.mark.parametrize('patience, again', (
    (0, False), (resize_world.TIMEOUT, False), (resize_world.TIMEOUT, True)))
@pytest.mark.parametrize('case', [
    case for case, (hosts, *_more) in SUCCEEDING.items() if hosts])
def test_the_compute_that_has_called_gives_up_first(url, case, again,
                                                    patience):
    """It puts the server into ERROR: nothing is begun before that."""
    hosts, new, prepare, host, alternates = SUCCEEDING[case]

    def prepare_more(world):
        prepare(world)
        world.patience = patience

    def check(world):
        if world.told_before:
            assert len(world.prepared + world.queue) == 1
        else:
            assert world.gave_up
            assert_prepared(world, host, alternates, new)
            # Nobody waits for it twice, but behind a crash.
            assert world.now < world.died_at + resize_world.TIMEOUT + (
                2 * (resize_world.TIMEOUT + 10) if again else 10)

    killing.everywhere(
        resize_world.Conductor, url,
        lambda conductor: conductor.resize(hosts, new), check, prepare_more,
        again=again)


@pytest.mark.parametrize('case', [
    case for case, (hosts, *_more) in FAILING.items() if hosts is not None])
def test_a_reschedule_that_fails_outlives_the_compute_too(url, case):
    """Its user has the server back only when nobody breaks it any more."""
    hosts, prepare, error, seen = FAILING[case]
    patience = resize_world.TIMEOUT

    def prepare_more(world):
        prepare(world)
        world.patience = patience

    def check(world):
        was_told = world.now < world.died_at + patience
        assert was_told or world.gave_up
        assert_as_before(world, error, seen)

    killing.everywhere(
        resize_world.Conductor, url,
        lambda conductor: conductor.resize(hosts), check, prepare_more)


# -- a request to try the next host comes too late ---------------------------

def taken_for_stuck(world):
    """Its move was given up meanwhile, as by a repair."""
    begun(nothing)(world)
    world.server.task_state = None
    for row in world.migrations.values():
        row['status'] = 'error'
    world.placement.held = {UUID: {RP[SOURCE]: HELD}}


def without_record(world):
    """Its user has asked for another move, which has not begun."""
    taken_for_stuck(world)
    world.server.task_state = task_states.RESIZE_PREP


def moved_anew(world):
    """Another move of it is under way."""
    begun(nothing)(world)
    world.request = 'req-another'


LATE = (taken_for_stuck, without_record, moved_anew)


def seen_of(world):
    """What a request that comes too late must not change."""
    return (dict(vars(world.server)), dict(world.placement.held), world.saved,
            {uuid: dict(row) for uuid, row in world.migrations.items()},
            dict(world.faults), list(world.notified), list(world.prepared))


@pytest.mark.parametrize('prepare', LATE)
def test_one_that_comes_too_late_changes_nothing(resizing, url, prepare):
    prepare(resizing)
    before = seen_of(resizing)
    outcome = resize_world.Conductor(url, resizing).resize(['host2'])
    assert outcome.state == 'REVERTED'
    assert isinstance(outcome.failure, ssm_exc.TooLate)
    resizing.compute_reads()
    assert seen_of(resizing) == before


@pytest.mark.parametrize('prepare', LATE)
def test_one_that_comes_too_late_may_be_killed(url, prepare):
    before = []

    def prepare_more(world):
        prepare(world)
        before[:] = [seen_of(world)]

    def check(world):
        world.compute_reads()
        assert seen_of(world) == before[0]

    killing.everywhere(
        resize_world.Conductor, url,
        lambda conductor: conductor.resize(['host2']), check, prepare_more)


def given_up(world):
    """Another compute, whose conductor died, has put it into ERROR."""
    begun(nothing)(world)
    world.saved = resize_world.NEW
    # The one that asks for the next host has put it into RESIZE_PREP.
    world.server.vm_state = vm_states.ERROR
    for row in world.migrations.values():
        row['status'] = 'error'
    world.placement.held = {UUID: {RP[SOURCE]: HELD}}


def assert_left_in_error(world):
    assert not world.queue and not world.prepared
    assert (world.server.vm_state, world.server.task_state) == (
        vm_states.ERROR, None)
    assert world.saved == resize_world.OLD
    assert world.placement.held == {UUID: {RP[SOURCE]: HELD}}
    [fault] = world.faults[UUID]
    assert type(fault.exc) is exception.MigrationError


def test_one_of_a_move_that_was_given_up_ends_with_an_error(resizing, url):
    """Or who asks would leave the server in RESIZE_PREP."""
    given_up(resizing)
    outcome = resize_world.Conductor(url, resizing).resize(['host2'])
    assert type(outcome.failure) is exception.MigrationError
    assert_left_in_error(resizing)


def test_one_of_a_move_that_was_given_up_may_be_killed(url):
    killing.everywhere(
        resize_world.Conductor, url,
        lambda conductor: conductor.resize(['host2']), assert_left_in_error,
        given_up)


# -- the world changes while nobody goes on ---------------------------------

def killed_before_the_cast(url, world):
    def kill(*args, **kwargs):
        world.process.kill()
    prep_resize = world.manager.compute_rpcapi.prep_resize
    world.manager.compute_rpcapi.prep_resize = kill
    with pytest.raises(helpers.Killed):
        resize_world.Conductor(url, world).resize()
    world.manager.compute_rpcapi.prep_resize = prep_resize


def test_a_server_that_was_deleted_leaves_nothing(resizing, url):
    killed_before_the_cast(url, resizing)
    del resizing.records[live_world.CELL1][UUID]
    killing.go_on(url, resizing)
    assert not resizing.queue
    assert not resizing.placement.held
    assert [row['status'] for row in resizing.migrations.values()] == [
        'error']
    assert not resizing.faults


@pytest.mark.parametrize('change', (
    {'host': 'host9'}, {'project_id': 'other'},
    {'task_state': task_states.REBOOTING}))
def test_a_server_that_somebody_changed_is_not_moved(resizing, url, change):
    killed_before_the_cast(url, resizing)
    resizing.server.__dict__.update(change)
    killing.go_on(url, resizing)
    assert not resizing.queue
    assert [row['status'] for row in resizing.migrations.values()] == [
        'error']
    if 'task_state' in change:
        assert resizing.server.task_state == task_states.REBOOTING
        assert not resizing.faults
    else:
        assert resizing.server.task_state is None
        [fault] = resizing.faults[UUID]
        assert type(fault.exc) is exception.MigrationPreCheckError
    if 'host' in change:
        assert resizing.server.host == 'host9'


@pytest.mark.parametrize('change', (
    {'status': 'error'}, {'instance_uuid': live_world.MIGRATION},
    {'source_compute': 'host9'}))
def test_a_migration_that_somebody_changed_is_given_up(resizing, url,
                                                       change):
    killed_before_the_cast(url, resizing)
    [row] = resizing.migrations.values()
    row.update(change)
    killing.go_on(url, resizing)
    assert not resizing.queue
    assert [row['status'] for row in resizing.migrations.values()] == [
        'error']
    assert resizing.server.task_state is None
    [fault] = resizing.faults[UUID]
    assert type(fault.exc) is exception.MigrationPreCheckError
