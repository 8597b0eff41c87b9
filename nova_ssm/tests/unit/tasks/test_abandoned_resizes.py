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

"""Resizes that a compute has given up without a word, or with an error."""

import datetime
import types
from unittest import mock

from nova.compute import power_state
from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
from nova import objects
import oslo_messaging as messaging
import pytest

from nova_ssm import compat
from nova_ssm.tasks import abandoned_moves
from nova_ssm.tasks import moves
from nova_ssm.tasks import resize
from nova_ssm.tasks import untouched
from nova_ssm.tests.unit.tasks import abandoned_world
from nova_ssm.tests.unit.tasks import live_world
from nova_ssm.tests.unit.tasks import resize_world

UUID, MIGRATION = live_world.UUID, live_world.MIGRATION
SOURCE, HELD, RP = live_world.SOURCE, live_world.HELD, live_world.RP

journal, mortal = abandoned_world.journal, abandoned_world.mortal
assert_given_back = abandoned_world.assert_given_back
assert_untouched = abandoned_world.assert_untouched


@pytest.fixture
def resized(journal):
    """A server whose destination has only taken its task state back."""
    with (resize_world.ResizeWorld().entered() as world,
          abandoned_world.with_migration(world, status='pre-migrating',
                         migration_type='resize')):
        world.journal = journal
        world.server.task_state = None
        world.saved = resize_world.NEW
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

# -- a destination has put the server into ERROR ------------------------------

def fault(world, message='MessagingTimeout', host='host1', at=None):
    """A compute leaves a fault behind, by default of a moment ago."""
    world.left.append(types.SimpleNamespace(
        id=len(world.left), host=host, message=message, code=500, details='',
        created_at=datetime.datetime.fromtimestamp(
            world.journal.now if at is None else at, datetime.UTC)))


def event(world, name=resize.PREP_EVENT, host='host1', result='Error'):
    made = live_world.Event(name, host)
    made.result, made.finish_time = result, result and 1
    made.start_time = datetime.datetime.fromtimestamp(
        world.journal.now, datetime.UTC)
    world.events[UUID].append(made)


@pytest.fixture
def unanswered(resized, journal, monkeypatch):
    """Its destination got no answer, before it has told the source."""
    journal.now = datetime.datetime(2020, 1, 1, 1,
                                    tzinfo=datetime.UTC).timestamp()
    journal.ended[UUID] = journal.now
    resized.left, resized.pinged = [], []
    resized.server.vm_state = vm_states.ERROR
    resized.server.system_metadata = {'old_vm_state': vm_states.ACTIVE}
    resized.migrations[MIGRATION]['status'] = 'error'
    fault(resized)
    resized.events[UUID].clear()
    event(resized)
    monkeypatch.setattr(
        objects.InstanceFaultList, 'get_by_instance_uuids',
        lambda context, uuids: list(resized.left))

    def ping(context, host, timeout, topic):
        assert topic == 'compute-alt'
        resized.pinged.append(host)
        return True

    monkeypatch.setattr(compat, 'ping_compute', ping)
    monkeypatch.setattr(
        objects.ComputeNodeList, 'get_all_by_uuids',
        lambda context, uuids: [
            types.SimpleNamespace(host=host) for host, uuid in RP.items()
            if uuid in uuids])
    return resized


def assert_restored(world, vm_state=vm_states.ACTIVE):
    assert (world.server.vm_state, world.server.task_state) == (
        vm_state, None)
    assert world.migrations[MIGRATION]['status'] == 'error'
    assert world.placement.held == {UUID: {RP[SOURCE]: HELD}}
    assert world.saved == resize_world.OLD
    assert not world.faults, 'the compute has told why'


@pytest.mark.parametrize('status', ('error', 'pre-migrating'))
def test_a_server_whose_guest_was_not_touched_is_as_before(
        unanswered, journal, status):
    unanswered.migrations[MIGRATION]['status'] = status
    began = journal.now
    look_at_resize(unanswered)
    assert unanswered.pinged == [SOURCE]
    assert journal.now > began + 2 * abandoned_world.TIMEOUT
    assert_restored(unanswered)
    # Another look finds nothing to do.
    steps = len(unanswered.steps)
    journal.ended[UUID] = journal.now
    look_at_resize(unanswered)
    assert len(unanswered.steps) == steps


def test_one_whose_destination_gave_its_allocations_back(unanswered):
    unanswered.placement.held = {UUID: {RP[SOURCE]: HELD}}
    look_at_resize(unanswered)
    assert_restored(unanswered)


def test_one_that_was_stopped_is_stopped_again(unanswered):
    unanswered.server.system_metadata = {'old_vm_state': vm_states.STOPPED}
    unanswered.server.power_state = power_state.SHUTDOWN
    look_at_resize(unanswered)
    assert_restored(unanswered, vm_states.STOPPED)


def test_one_whose_destination_had_not_put_down_what_it_was(unanswered):
    unanswered.server.system_metadata = {}
    look_at_resize(unanswered)
    assert_restored(unanswered)


def test_one_that_could_not_be_sent_on(unanswered):
    """Its destination had no room, and the conductor died that it asked."""
    unanswered.journal.states = ['SUCCESS', 'REVERTED', 'SUCCESS']
    event(unanswered, host='host2')
    fault(unanswered, host='host2')
    fault(unanswered, 'no room', host='host2')
    look_at_resize(unanswered)
    assert_restored(unanswered)


def _second_destination(world, result):
    """Nova ends the first event of a name for all that have it."""
    world.journal.states.append('SUCCESS')
    world.events[UUID][0].result = result
    event(world, host='host2', result=None)


def test_one_that_no_destination_was_answered(unanswered):
    """The conductor died that had told the second one, and not the first."""
    _second_destination(unanswered, 'Error')
    fault(unanswered, host='host2')
    look_at_resize(unanswered)
    assert_restored(unanswered)


@pytest.fixture
def nobody_answered(unanswered):
    """Neither was the last destination, at its first call: it left nothing.

    The first one waited whether it could send the server on.
    """
    unanswered.journal.states.append('SUCCESS')
    fault(unanswered, 'no room')
    unanswered.placement.held[UUID] = {RP['host2']: HELD}
    return unanswered


def test_one_whose_last_destination_did_not_begin(nobody_answered):
    look_at_resize(nobody_answered)
    assert nobody_answered.pinged == ['host2', SOURCE]
    assert_restored(nobody_answered)


@pytest.mark.parametrize('change', (
    # The last destination begins yet, in the very last second.
    lambda world: _later(lambda world: event(
        world, host='host2', result=None))(world),
    # It is not known who that is, or there is one more.
    lambda world: world.placement.held.update({UUID: {}}),
    lambda world: world.placement.held.update({UUID: {RP[SOURCE]: HELD}}),
    lambda world: world.journal.states.append('SUCCESS'),
    lambda world: world.events[UUID].clear()))
def test_one_whose_last_destination_may_begin_stays_in_error(
        nobody_answered, change):
    change(nobody_answered)
    look_at_resize(nobody_answered)
    assert nobody_answered.server.vm_state == vm_states.ERROR


def test_one_whose_last_destination_does_not_answer_stays_in_error(
        nobody_answered, monkeypatch):
    monkeypatch.setattr(compat, 'ping_compute',
                        lambda context, host, *args: host != 'host2')
    look_at_resize(nobody_answered)
    assert nobody_answered.server.vm_state == vm_states.ERROR


def _later(change):
    def happen(world):
        # When it waits whether the source comes to it.
        world.journal.happens.append((
            world.journal.now + 2 * abandoned_world.TIMEOUT,
            lambda: change(world)))
    return happen


def _reset(world):
    world.last_action = 'resetState'


def _source_begins(world):
    event(world, untouched.SOURCE_EVENT, SOURCE, None)


def _other_error(world):
    world.left.clear()
    fault(world, 'no room')


def _late_fault(world, host='host1'):
    world.left.clear()
    fault(world, host=host,
          at=world.journal.now + 3 * abandoned_world.TIMEOUT)


def _early_fault(world, host='host1'):
    world.left.clear()
    fault(world, host=host,
          at=world.journal.now - 3 * abandoned_world.TIMEOUT)


@pytest.mark.parametrize('change', (
    _source_begins, _later(_source_begins), _reset, _later(_reset),
    lambda world: event(world, untouched.SOURCE_EVENT, SOURCE, 'Error'),
    _other_error, _late_fault, _early_fault,
    lambda world: fault(world, 'no room', 'host2'),
    lambda world: world.events[UUID].clear(),
    # Another destination was told, and is at work, or was not up.
    lambda world: (event(world, host='host2', result=None),
                   world.journal.states.append('SUCCESS')),
    lambda world: world.journal.states.append('SUCCESS'),
    # Another one has told the source.
    lambda world: _second_destination(world, 'Success'),
    lambda world: (_second_destination(world, 'Success'),
                   fault(world, host='host2')),
    lambda world: world.journal.states.append('KILLED'),
    lambda world: setattr(world.server, 'power_state', power_state.SHUTDOWN),
    lambda world: setattr(world.server, 'power_state', power_state.NOSTATE),
    _later(lambda world: setattr(world.server, 'host', 'host1'))))
def test_a_server_in_error_that_may_be_another_case_stays_so(unanswered,
                                                             change):
    unanswered.placement.held = {UUID: {RP[SOURCE]: HELD}}
    change(unanswered)
    look_at_resize(unanswered)
    assert unanswered.server.vm_state == vm_states.ERROR


def test_one_whose_source_does_not_answer_stays_in_error(unanswered,
                                                         monkeypatch):
    unanswered.placement.held = {UUID: {RP[SOURCE]: HELD}}
    monkeypatch.setattr(compat, 'ping_compute', lambda *args: False)
    look_at_resize(unanswered)
    assert unanswered.server.vm_state == vm_states.ERROR


def test_one_whose_source_begins_while_it_is_asked_stays_in_error(
        unanswered, monkeypatch):
    unanswered.placement.held = {UUID: {RP[SOURCE]: HELD}}

    def ping(context, host, timeout, topic):
        event(unanswered, untouched.SOURCE_EVENT, SOURCE, None)
        return True

    monkeypatch.setattr(compat, 'ping_compute', ping)
    look_at_resize(unanswered)
    assert unanswered.server.vm_state == vm_states.ERROR


def test_what_a_move_asks_for_that_begins_meanwhile_is_kept(unanswered):
    unanswered.placement.held = {UUID: {RP[SOURCE]: HELD}}

    def begin(world):
        world.server.task_state = task_states.RESIZE_PREP
        world.saved = resize_world.NEW

    _later(begin)(unanswered)
    look_at_resize(unanswered)
    assert unanswered.saved == resize_world.NEW


@pytest.mark.parametrize('change', (
    {'vm_state': vm_states.ACTIVE}, {'vm_state': vm_states.STOPPED},
    {'task_state': task_states.REBOOTING}))
def test_what_somebody_sets_at_the_last_moment_is_kept(unanswered,
                                                       monkeypatch, change):
    given_back = moves.give_back

    def give_back(*args):
        given_back(*args)
        unanswered.server.__dict__.update(change)

    monkeypatch.setattr(moves, 'give_back', give_back)
    look_at_resize(unanswered)
    for name, value in change.items():
        assert getattr(unanswered.server, name) == value
    assert unanswered.server.vm_state == change.get('vm_state',
                                                    vm_states.ERROR)


def look_killed_at_each_step(world):
    """The time of the one that died is that of who goes on, too."""
    journal = world.journal
    abandoned_world.killed_at_each_step(
        world, lambda world: abandoned_moves.EndAbandonedResizes(
            world.manager).execute(
                world.context, journal.now - 600, journal.now + 1), journal)


def test_a_killed_look_at_a_server_in_error_is_finished(unanswered, mortal):
    look_killed_at_each_step(unanswered)
    assert_restored(unanswered)


# -- the source has put the server into ERROR -------------------------------

@pytest.fixture
def source_unanswered(unanswered, monkeypatch):
    """Its source got no answer, and runs the guest still."""
    unanswered.events[UUID].clear()
    event(unanswered, result='Success')
    event(unanswered, untouched.SOURCE_EVENT, SOURCE)
    unanswered.left.clear()
    fault(unanswered, host=SOURCE)
    # As the API has it: what a compute says last.
    monkeypatch.setattr(objects.InstanceFault, 'create', lambda one: fault(
        unanswered, one.message, one.host))
    unanswered.diagnostics = mock.Mock()
    unanswered.manager.compute_rpcapi.get_instance_diagnostics = (
        unanswered.diagnostics)
    return unanswered


def assert_in_error(world, asked):
    assert world.server.vm_state == vm_states.ERROR
    assert world.left[-1].message == 'MessagingTimeout'
    assert world.diagnostics.called == asked


def test_a_server_whose_source_runs_it_still_is_as_before(source_unanswered):
    look_at_resize(source_unanswered)
    source_unanswered.diagnostics.assert_called_once()
    assert_restored(source_unanswered)


def _source_again(world):
    """It has begun since, and nothing tells that it has ended."""
    event(world, untouched.SOURCE_EVENT, SOURCE, None)
    world.events[UUID][-1].start_time += datetime.timedelta(seconds=1)


@pytest.fixture
def disturbed(source_unanswered):
    """The first destination was not answered when it had sent it on.

    It takes the task state that the source, which the second one has told,
    is about to change: that stops, and leaves the task behind.
    """
    world = source_unanswered
    world.journal.states.append('SUCCESS')
    world.events[UUID].clear()
    event(world, result='Error')
    event(world, host='host2', result=None)
    event(world, untouched.SOURCE_EVENT, SOURCE)
    world.left.clear()
    fault(world)
    fault(world, 'Conflict updating instance', SOURCE)
    world.server.task_state = task_states.RESIZE_MIGRATING
    return world


def test_one_whose_source_was_disturbed_is_as_before(disturbed):
    look_at_resize(disturbed)
    disturbed.diagnostics.assert_called_once()
    assert_restored(disturbed)


@pytest.mark.parametrize('change', (
    lambda world: setattr(world.server, 'task_state',
                          task_states.RESIZE_MIGRATED),
    lambda world: setattr(world.server, 'vm_state', vm_states.ACTIVE),
    lambda world: event(world, host='host3', result=None),
    lambda world: world.journal.states.append('SUCCESS'),
    lambda world: fault(world, 'no room', 'host2'),
    lambda world: world.left.pop(0), _source_again, _later(_source_again),
    _later(lambda world: setattr(world.server, 'task_state', None))))
def test_one_in_a_task_that_may_be_at_work_is_left_alone(disturbed, change):
    change(disturbed)
    before = disturbed.server.vm_state
    look_at_resize(disturbed)
    assert disturbed.server.vm_state == before
    assert not disturbed.diagnostics.called
    assert MIGRATION in disturbed.placement.held


def test_a_killed_look_at_a_disturbed_one_is_finished(disturbed, mortal):
    look_killed_at_each_step(disturbed)
    assert_restored(disturbed)


NOT_RUNNING = exception.InstanceInvalidState(
    attr='power state', instance_uuid=UUID, state='running',
    method='get_diagnostics')


@pytest.fixture
def stopped_by_source(source_unanswered):
    """The compute leaves a fault of its own when it is asked."""
    source_unanswered.placement.held = {UUID: {RP[SOURCE]: HELD}}

    def ask(context, instance):
        fault(source_unanswered, str(NOT_RUNNING), SOURCE)
        raise NOT_RUNNING

    source_unanswered.diagnostics.side_effect = ask
    return source_unanswered


def test_one_that_its_source_does_not_run_stays_in_error(stopped_by_source):
    look_at_resize(stopped_by_source)
    assert_in_error(stopped_by_source, asked=True)
    assert [one.message for one in stopped_by_source.left] == [
        'MessagingTimeout', str(NOT_RUNNING), 'MessagingTimeout']


def test_who_went_on_for_one_that_had_asked_tells_the_same(stopped_by_source):
    """That had died before it could tell again what went wrong."""
    fault(stopped_by_source, str(NOT_RUNNING), SOURCE)
    look_at_resize(stopped_by_source)
    assert_in_error(stopped_by_source, asked=True)


@pytest.mark.parametrize('error', (
    messaging.MessagingTimeout(), NotImplementedError()))
def test_one_whose_source_does_not_say_so_stays_in_error(source_unanswered,
                                                         error):
    source_unanswered.placement.held = {UUID: {RP[SOURCE]: HELD}}
    source_unanswered.diagnostics.side_effect = error
    look_at_resize(source_unanswered)
    assert_in_error(source_unanswered, asked=True)
    assert len(source_unanswered.left) == 1, 'it has left no other'


@pytest.mark.parametrize('change', (
    # Of one that is off it cannot be told where its disks are.
    lambda world: (setattr(world.server, 'power_state', power_state.SHUTDOWN),
                   world.server.system_metadata.update(
                       old_vm_state=vm_states.STOPPED)),
    lambda world: setattr(world.server, 'power_state', power_state.SHUTDOWN),
    _source_again, _later(_source_again), _reset, _later(_reset),
    lambda world: event(world, untouched.SOURCE_EVENT, 'host2'),
    # Something else went wrong behind it, or a while ago.
    lambda world: fault(world, host='host1'),
    lambda world: _late_fault(world, SOURCE),
    lambda world: _early_fault(world, SOURCE),
    # Another destination was told.
    lambda world: world.journal.states.append('SUCCESS')))
def test_one_of_a_source_that_may_be_another_case_stays_so(
        source_unanswered, change):
    source_unanswered.placement.held = {UUID: {RP[SOURCE]: HELD}}
    change(source_unanswered)
    look_at_resize(source_unanswered)
    assert_in_error(source_unanswered, asked=False)


def test_a_killed_look_at_what_a_source_left_is_finished(source_unanswered,
                                                         mortal):
    look_killed_at_each_step(source_unanswered)
    assert_restored(source_unanswered)


# -- who looks is killed ------------------------------------------------------

def test_a_killed_look_at_a_resize_is_finished(resized, mortal, journal):
    abandoned_world.killed_at_each_step(resized, look_at_resize, journal)
    assert_given_back(resized)


def test_a_killed_look_at_a_destination_is_finished(resized, mortal, journal):
    resized.server.host = 'host1'
    resized.migrations[MIGRATION]['status'] = 'post-migrating'
    abandoned_world.killed_at_each_step(resized, look_at_resize, journal)
    assert resized.placement.held == {UUID: {RP['host1']: HELD}}
    assert resized.migrations[MIGRATION]['status'] == 'error'
    assert resized.server.vm_state == vm_states.ERROR
    assert len(resized.faults[UUID]) == 1


def test_a_killed_look_at_a_finished_resize_is_finished(
        given_up_elsewhere, mortal, journal):
    abandoned_world.killed_at_each_step(
        given_up_elsewhere, look_at_resize, journal)
    assert_resized_again(given_up_elsewhere)
