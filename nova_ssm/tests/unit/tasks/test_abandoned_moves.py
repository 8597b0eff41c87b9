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

"""Moves that a compute has given up without a word."""

import contextlib
import types
from unittest import mock

from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
from nova import objects
import pytest

from nova_ssm import compat
from nova_ssm.engine import queries
from nova_ssm.tasks import abandoned
from nova_ssm.tasks import abandoned_moves
from nova_ssm.tests.unit.tasks import live_world
from nova_ssm.tests.unit.tasks import resize_world
from nova_ssm.tests.unit.tasks import world as world_module

UUID, MIGRATION = live_world.UUID, live_world.MIGRATION
SOURCE, HELD, RP = live_world.SOURCE, live_world.HELD, live_world.RP
#: Seconds: [DEFAULT] rpc_response_timeout.
TIMEOUT = 60


class Journal:
    """Which flows have ended when, on a clock that waits for nobody."""

    def __init__(self):
        self.now = 1000.0
        self.ended = {UUID: self.now}
        self.unfinished = []
        self.happens = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        for when, what in list(self.happens):
            if self.now >= when:
                self.happens.remove((when, what))
                what()

    def clock(self, db):
        return self.now

    def subjects_finished(self, db, names, since, until=None):
        return [uuid for uuid, at in self.ended.items()
                if at > since and (until is None or at <= until)]

    def look(self, cls, world):
        """Look after what a conductor has left that has just died."""
        cls(world.manager).execute(
            world.context, self.now - abandoned.window(),
            self.now + abandoned.window())

    def flows(self, db, unfinished, subject, limit):
        assert unfinished
        return [uuid for uuid in self.unfinished if uuid == subject]


@pytest.fixture
def journal(monkeypatch):
    made = Journal()
    monkeypatch.setattr(abandoned, 'time', made)
    monkeypatch.setattr(abandoned_moves, 'time', made)
    # Not in the time of the world, in which others wait.
    monkeypatch.setattr(abandoned.LookAfter, 'wait',
                        staticmethod(made.sleep))
    monkeypatch.setattr(abandoned, 'CONF', types.SimpleNamespace(
        rpc_response_timeout=TIMEOUT))
    for name in ('clock', 'subjects_finished', 'flows'):
        monkeypatch.setattr(queries, name, getattr(made, name))
    return made


@contextlib.contextmanager
def with_migration(world, **values):
    world.manager.ssm = mock.Mock()
    migration = objects.Migration(
        world.context.elevated(), uuid=MIGRATION, instance_uuid=UUID,
        source_compute=SOURCE, source_node='source-node',
        dest_compute='host1', dest_node='host1-node',
        new_instance_type_id=resize_world.NEW, **values)
    migration.create()
    world.placement.held = {MIGRATION: {RP[SOURCE]: HELD},
                            UUID: {RP['host1']: HELD}}
    world.events[UUID].append(live_world.Event('compute_of_the_move'))
    world.last_action = 'migrate'
    with mock.patch.object(
            objects.MigrationList, 'get_by_filters',
            lambda context, filters, **sorting: objects.MigrationList(
                objects=[world._migration(context.elevated(), MIGRATION)]
            )), mock.patch.object(
                objects.InstanceActionList, 'get_by_instance_uuid',
                lambda context, uuid, limit: [types.SimpleNamespace(
                    request_id='req-of-the-move',
                    action=world.last_action)]):
        yield


def assert_given_back(world):
    assert world.placement.held == {UUID: {RP[SOURCE]: HELD}}
    assert world.migrations[MIGRATION]['status'] == 'error'
    assert (world.server.vm_state, world.server.task_state) == (
        vm_states.ACTIVE, None)
    [fault] = world.faults[UUID]
    assert type(fault.exc) is exception.MigrationError
    assert 'nova-conductor' in str(fault.exc)
    for event in world.events[UUID]:
        assert (type(event.error) is exception.MigrationError or
                event.event == abandoned_moves.ABORT_EVENT)


def assert_untouched(world, status, task_state):
    assert MIGRATION in world.placement.held
    assert world.migrations[MIGRATION]['status'] == status
    assert world.server.task_state == task_state
    assert not world.faults
    # What is over has no open events, whoever has left them open.
    assert {event.finish_time is None for event in world.events[UUID]} == {
        task_state is not None}
    assert not any(event.error for event in world.events[UUID])


# -- live migrations ------------------------------------------------------

@pytest.fixture
def live_server(live, journal, monkeypatch):
    """A server in MIGRATING that its source does nothing with."""
    for hosts in live.neutron.bound.values():
        hosts['host1'] = False
    live.others = []
    live.journal = journal
    monkeypatch.setattr(
        objects.MigrationList, 'get_in_progress_by_host_and_node',
        lambda context, host, node: live.others)
    monkeypatch.setattr(live, '_to_error', _to_error(live))
    live.manager._set_vm_state_and_notify = (
        lambda context, uuid, method, updates, exc, spec:
        live._to_error(context, uuid, 'compute_task', method, updates, exc,
                       spec))
    with with_migration(live, status='accepted',
                        migration_type='live-migration'):
        yield live


def _to_error(world):
    original = world._to_error

    def to_error(context, uuid, service, method, updates, exc, spec):
        original(context, uuid, service, method,
                 {'expected_task_state': task_states.MIGRATING, **updates},
                 exc, spec)
    return to_error


def look_at_live(world):
    world.journal.look(abandoned_moves.EndAbandonedLiveMigrations, world)


@pytest.mark.parametrize('status', ('accepted', 'error', 'queued'))
def test_a_migration_that_never_began_is_taken_back(live_server, status):
    live_server.migrations[MIGRATION]['status'] = status
    look_at_live(live_server)
    assert_given_back(live_server)
    for hosts in live_server.neutron.bound.values():
        assert hosts == {SOURCE: True}


def test_looking_twice_tells_it_once(live_server):
    look_at_live(live_server)
    live_server.server.task_state = None
    look_at_live(live_server)
    assert_given_back(live_server)


@pytest.mark.parametrize('status', ('preparing', 'running', 'completed'))
def test_a_migration_that_its_source_works_on_is_left_alone(live_server,
                                                            status):
    live_server.migrations[MIGRATION]['status'] = status
    live_server.events[UUID].append(live_world.Event(
        abandoned_moves.PREPARE_EVENT, 'host1'))
    look_at_live(live_server)
    assert_untouched(live_server, status, task_states.MIGRATING)


@pytest.fixture
def preparing(live_server, monkeypatch):
    """Its source has only said that it prepares, and lost its conductor."""
    live_server.migrations[MIGRATION]['status'] = 'preparing'
    live_server.pinged, live_server.aborted = [], []

    def ping(context, host, timeout, topic):
        assert topic == 'compute-alt'
        live_server.pinged.append(host)
        return True

    def abort(context, instance, migration_id):
        assert context.request_id == 'req-of-the-move'
        live_server.aborted.append(migration_id)
        event = live_world.Event(abandoned_moves.ABORT_EVENT, SOURCE)
        live_server.events[UUID].append(event)
        event.finish_time, event.result = 1, live_server.abort_ends
        live_server.step('abort')

    live_server.abort_ends = 'Success'
    monkeypatch.setattr(compat, 'ping_compute', ping)
    live_server.manager.compute_rpcapi.live_migration_abort = abort
    return live_server


def test_a_migration_whose_source_has_let_it_go(preparing, journal):
    began = journal.now
    look_at_live(preparing)
    assert len(preparing.aborted) == 1
    assert set(preparing.pinged) == {SOURCE, 'host1'}
    assert journal.now > began + 2 * TIMEOUT
    assert_given_back(preparing)


def later(journal, what):
    """It happens while the migration is being watched."""
    journal.happens.append((journal.now + 2 * TIMEOUT, what))


@pytest.mark.parametrize('happens', (
    lambda world: world.events[UUID].append(live_world.Event(
        abandoned_moves.PREPARE_EVENT, 'host1')),
    lambda world: world.migrations[MIGRATION].update(status='running'),
    lambda world: world.migrations[MIGRATION].update(status='error'),
    lambda world: setattr(world.server, 'host', 'host1'),
    lambda world: setattr(world.server, 'task_state', None)))
def test_a_source_that_goes_on_with_it_late(preparing, journal, happens):
    later(journal, lambda: happens(preparing))
    look_at_live(preparing)
    assert not preparing.aborted
    assert MIGRATION in preparing.placement.held
    assert not preparing.faults


def test_a_source_that_does_not_abort_it(preparing):
    """It has restarted, for instance, and will see to it itself."""
    preparing.abort_ends = 'Error'
    look_at_live(preparing)
    assert MIGRATION in preparing.placement.held
    assert preparing.server.task_state == task_states.MIGRATING


def test_a_source_that_does_not_answer_the_abort(preparing):
    preparing.abort_ends = None
    look_at_live(preparing)
    assert len(preparing.aborted) == 1
    assert MIGRATION in preparing.placement.held


@pytest.mark.parametrize('host', (SOURCE, 'host1'))
def test_computes_that_do_not_answer(preparing, monkeypatch, host):
    monkeypatch.setattr(compat, 'ping_compute',
                        lambda context, asked, *args: asked != host)
    look_at_live(preparing)
    assert not preparing.aborted
    assert MIGRATION in preparing.placement.held


def test_a_user_who_aborts_it_is_not_disturbed(preparing):
    preparing.last_action = 'live_migration_cancel'
    look_at_live(preparing)
    assert not preparing.aborted
    assert MIGRATION in preparing.placement.held


@pytest.mark.parametrize('status', ('preparing', 'running'))
def test_a_migration_that_waits_for_another_one_is_left_alone(live_server,
                                                              status):
    live_server.migrations[MIGRATION]['status'] = 'queued'
    live_server.others = [types.SimpleNamespace(
        status=status, source_compute=SOURCE)]
    look_at_live(live_server)
    assert_untouched(live_server, 'queued', task_states.MIGRATING)


def test_one_whose_source_does_not_answer_is_left_alone(live_server,
                                                        monkeypatch):
    monkeypatch.setattr(compat, 'ping_compute', lambda *args: False)
    look_at_live(live_server)
    assert_untouched(live_server, 'accepted', task_states.MIGRATING)


@pytest.mark.parametrize('change', (
    {'task_state': None}, {'task_state': task_states.REBOOTING},
    {'host': 'host1'}))
def test_a_server_that_goes_on_is_left_alone(live_server, change):
    live_server.server.__dict__.update(change)
    look_at_live(live_server)
    assert_untouched(live_server, 'accepted', live_server.server.task_state)


def test_a_server_that_is_moved_again_is_left_alone(live_server, journal):
    journal.unfinished.append(UUID)
    look_at_live(live_server)
    assert_untouched(live_server, 'accepted', task_states.MIGRATING)


def test_it_waits_for_computes_that_were_told_late(live_server, journal):
    told = journal.now + abandoned.window() - 1
    journal.happens.append((told, lambda: journal.ended.update({UUID: told})))
    look_at_live(live_server)
    assert journal.now >= told + TIMEOUT
    assert_given_back(live_server)


def test_it_does_not_wait_for_ever(live_server, journal):
    def again():
        journal.ended[UUID] = journal.now
        journal.happens.append((journal.now + 30, again))
    journal.happens.append((journal.now + 30, again))
    look_at_live(live_server)
    assert_untouched(live_server, 'accepted', task_states.MIGRATING)


# -- resizes --------------------------------------------------------------

@pytest.fixture
def resized(journal, monkeypatch):
    """A server whose destination has only taken its task state back."""
    with (resize_world.ResizeWorld().entered() as world,
          with_migration(world, status='pre-migrating',
                         migration_type='resize')):
        world.journal = journal
        world.server.task_state = None
        world.server.image_meta = objects.ImageMeta(
            properties=objects.ImageMetaProps())
        world.saved = resize_world.NEW
        # The world does not replace it: nothing is put back too late.
        monkeypatch.setattr(
            objects.RequestSpec, 'get_by_instance_uuid',
            lambda context, uuid: resize_world.spec(world.saved))
        world.manager._set_vm_state_and_notify = (
            lambda context, uuid, method, updates, exc, spec:
            world._to_error(context, uuid, 'compute_task', method, updates,
                            exc, spec))
        yield world


def look_at_resize(world):
    world.journal.look(abandoned_moves.EndAbandonedResizes, world)


@pytest.mark.parametrize('status', ('pre-migrating', 'error'))
def test_a_resize_that_never_began_is_taken_back(resized, status):
    resized.migrations[MIGRATION]['status'] = status
    look_at_resize(resized)
    assert_given_back(resized)
    assert resized.saved == resize_world.OLD


def test_the_flavor_is_put_back_before_the_record_ends(resized, monkeypatch):
    """Who dies in between leaves a record that is looked at again."""
    monkeypatch.setattr(objects.RequestSpec, 'save', mock.Mock(
        side_effect=exception.NovaException))
    with pytest.raises(exception.NovaException):
        look_at_resize(resized)
    assert MIGRATION in resized.placement.held
    assert resized.migrations[MIGRATION]['status'] == 'pre-migrating'
    assert not resized.faults


def test_a_resize_without_a_request_spec_is_taken_back(resized, monkeypatch):
    monkeypatch.setattr(
        objects.RequestSpec, 'get_by_instance_uuid', mock.Mock(
            side_effect=exception.RequestSpecNotFound(instance_uuid=UUID)))
    look_at_resize(resized)
    assert_given_back(resized)


def test_a_resize_that_its_compute_took_back_is_left_alone(resized):
    resized.migrations[MIGRATION]['status'] = 'error'
    resized.placement.held = {UUID: {RP[SOURCE]: HELD}}
    look_at_resize(resized)
    assert not resized.faults
    assert resized.saved == resize_world.OLD


@pytest.mark.parametrize('task_state', (
    task_states.RESIZE_PREP, task_states.RESIZE_MIGRATING,
    task_states.REBOOTING))
def test_a_resize_that_goes_on_is_left_alone(resized, task_state):
    resized.server.task_state = task_state
    look_at_resize(resized)
    assert_untouched(resized, 'pre-migrating', task_state)


def test_a_resize_that_is_not_finished_at_its_destination(resized):
    resized.server.host = 'host1'
    resized.migrations[MIGRATION]['status'] = 'post-migrating'
    look_at_resize(resized)
    assert resized.placement.held == {UUID: {RP['host1']: HELD}}
    assert resized.migrations[MIGRATION]['status'] == 'error'
    assert resized.server.vm_state == vm_states.ERROR
    assert len(resized.faults[UUID]) == 1


@pytest.mark.parametrize('status', ('finished', 'confirmed', 'reverted'))
def test_a_resize_that_is_over_is_left_alone(resized, status):
    resized.server.host = 'host1'
    resized.migrations[MIGRATION]['status'] = status
    look_at_resize(resized)
    assert_untouched(resized, status, None)


@pytest.fixture
def given_up_elsewhere(resized):
    """Its destination has resized it; the one that sent it on gave it up."""
    resized.server.host = 'host1'
    resized.server.vm_state = vm_states.ERROR
    resized.migrations[MIGRATION]['status'] = 'error'
    finished = live_world.Event(abandoned_moves.FINISH_EVENT, 'host1')
    finished.result, finished.finish_time = 'Success', 1
    resized.events[UUID] = [finished]
    return resized


def assert_resized_again(world):
    assert (world.server.vm_state, world.server.task_state) == (
        vm_states.RESIZED, None)
    assert world.migrations[MIGRATION]['status'] == 'finished'
    # Its user may take it back still.
    assert world.placement.held == {MIGRATION: {RP[SOURCE]: HELD},
                                    UUID: {RP['host1']: HELD}}


def test_a_finished_resize_that_was_given_up_elsewhere(given_up_elsewhere):
    look_at_resize(given_up_elsewhere)
    assert_resized_again(given_up_elsewhere)


@pytest.mark.parametrize('change', (
    lambda world: world.events.update({UUID: []}),
    lambda world: setattr(world.events[UUID][0], 'result', 'Error'),
    lambda world: setattr(world.events[UUID][0], 'host', 'host2'),
    lambda world: setattr(world, 'last_action', 'confirmResize'),
    lambda world: world.migrations[MIGRATION].update(status='confirmed')))
def test_any_other_server_in_error_is_left_alone(given_up_elsewhere, change):
    """Its destination, or its user, has done something else with it."""
    change(given_up_elsewhere)
    status = given_up_elsewhere.migrations[MIGRATION]['status']
    look_at_resize(given_up_elsewhere)
    assert given_up_elsewhere.server.vm_state == vm_states.ERROR
    assert given_up_elsewhere.migrations[MIGRATION]['status'] == status


# -- the conductor that looks after them dies, too -------------------------

def killed_at_each_step(world, look, journal):
    """Look until it is done, dying behind one more effect each time."""
    for moment in range(1, 30):
        journal.ended[UUID] = journal.now
        if not world.crash(moment, look, world):
            return
    pytest.fail('it never comes to its end')


@pytest.fixture
def mortal(monkeypatch):
    """Effects are where a conductor may die."""
    monkeypatch.setattr(live_world.LiveWorld, 'point', lambda world: (
        world_module.World.step(world, world.steps.pop())))


def test_a_killed_look_at_a_live_migration_is_finished(live_server, mortal,
                                                       journal):
    killed_at_each_step(live_server, look_at_live, journal)
    assert_given_back(live_server)


def test_a_killed_look_at_a_resize_is_finished(resized, mortal, journal):
    killed_at_each_step(resized, look_at_resize, journal)
    assert_given_back(resized)


def test_a_killed_look_at_a_destination_is_finished(resized, mortal, journal):
    resized.server.host = 'host1'
    resized.migrations[MIGRATION]['status'] = 'post-migrating'
    killed_at_each_step(resized, look_at_resize, journal)
    assert resized.placement.held == {UUID: {RP['host1']: HELD}}
    assert resized.migrations[MIGRATION]['status'] == 'error'
    assert resized.server.vm_state == vm_states.ERROR
    assert len(resized.faults[UUID]) == 1


def test_a_killed_look_at_a_finished_resize_is_finished(
        given_up_elsewhere, mortal, journal):
    killed_at_each_step(given_up_elsewhere, look_at_resize, journal)
    assert_resized_again(given_up_elsewhere)


def test_a_killed_look_at_one_that_was_prepared_is_finished(
        preparing, mortal, journal):
    killed_at_each_step(preparing, look_at_live, journal)
    assert len(preparing.aborted) == 1, 'it was told, and heard of it'
    assert_given_back(preparing)
