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

"""Live migrations that a source has given up without a word."""

import datetime
import types

from nova.compute import task_states
from nova import objects
import pytest

from nova_ssm import compat
from nova_ssm.engine import queries
from nova_ssm.tasks import abandoned
from nova_ssm.tasks import abandoned_moves
from nova_ssm.tasks import moves
from nova_ssm.tests.unit.tasks import abandoned_world
from nova_ssm.tests.unit.tasks import live_world

UUID, MIGRATION = live_world.UUID, live_world.MIGRATION
SOURCE = live_world.SOURCE

journal, mortal = abandoned_world.journal, abandoned_world.mortal
assert_given_back = abandoned_world.assert_given_back
assert_untouched = abandoned_world.assert_untouched


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
    with abandoned_world.with_migration(live, status='accepted',
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


def _at_work(journal):
    journal.unfinished.append(UUID)


def _told(journal):
    journal.ended[UUID] = journal.now


@pytest.mark.parametrize('flow_of_it', (_at_work, _told))
def test_a_move_that_begins_while_somebody_looks_is_left_alone(
        live_server, monkeypatch, flow_of_it):
    """Its record was taken for that of the move before, which was over."""
    newest = moves.newest

    def begin(context, uuid):
        flow_of_it(live_server.journal)
        return newest(context, uuid)

    monkeypatch.setattr(moves, 'newest', begin)
    look_at_live(live_server)
    assert_untouched(live_server, 'accepted', task_states.MIGRATING)


def test_a_move_whose_flow_ends_while_somebody_looks_is_left_alone(
        live_server, monkeypatch):
    """It is seen either at work, or as one that has told its compute."""
    journal = live_server.journal
    newest, unfinished = moves.newest, journal.subjects_unfinished

    def begin(context, uuid):
        _at_work(journal)
        return newest(context, uuid)

    def end():
        if UUID in journal.unfinished:
            journal.unfinished.remove(UUID)
            _told(journal)

    def look(question):
        def answer(*args, **kwargs):
            answered = question(*args, **kwargs)
            end()
            return answered
        return answer

    monkeypatch.setattr(moves, 'newest', begin)
    monkeypatch.setattr(queries, 'subjects_unfinished', look(unfinished))
    monkeypatch.setattr(queries, 'subjects_finished',
                        look(journal.subjects_finished))
    look_at_live(live_server)
    assert_untouched(live_server, 'accepted', task_states.MIGRATING)


def _moment(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


@pytest.fixture
def when_looked_at(live_server, monkeypatch):
    """Lets something happen while the API may write its action down."""
    live_server.migrations[MIGRATION].update(
        status='error', created_at=_moment(1000))

    def happens(what):
        live_server.journal.happens.append((
            live_server.journal.now + abandoned.window() + 2,
            lambda: what(live_server)))

    def ask_again(at):
        """The API takes a request at a time: no flow is of it."""
        monkeypatch.setattr(
            objects.InstanceAction, 'get_by_request_id',
            lambda context, uuid, request_id: types.SimpleNamespace(
                id=uuid, start_time=_moment(at)))
        live_server.last_request = abandoned_world.NEXT_REQUEST

    live_server.ask_again = ask_again
    return happens


def test_a_server_whose_next_move_is_asked_for_is_left_alone(
        live_server, when_looked_at):
    """Its newest record is that of the move before, which failed."""
    when_looked_at(lambda world: world.ask_again(at=1002))
    look_at_live(live_server)
    assert_untouched(live_server, 'error', task_states.MIGRATING)


def test_one_that_stock_nova_has_left_is_taken_back(live_server,
                                                    when_looked_at):
    """No flow is of its request, but its record is."""
    live_server.ask_again(at=999)
    look_at_live(live_server)
    assert_given_back(live_server)


def _by_another_move(world, monkeypatch):
    monkeypatch.setattr(moves, 'newest', lambda context, uuid: (
        types.SimpleNamespace(uuid='another', status='error')))


@pytest.mark.parametrize('change', (
    lambda world, _: _at_work(world.journal),
    lambda world, _: _told(world.journal),
    # Somebody was faster, and who asked has asked for another one.
    _by_another_move,
    lambda world, _: world.migrations[MIGRATION].update(status='queued'),
    lambda world, _: setattr(world.server, 'task_state',
                             task_states.REBOOTING)))
def test_a_server_with_which_something_happens_meanwhile_is_left_alone(
        live_server, when_looked_at, monkeypatch, change):
    when_looked_at(lambda world: change(world, monkeypatch))
    look_at_live(live_server)
    assert_untouched(live_server, live_server.migrations[MIGRATION]['status'],
                     live_server.server.task_state)


def test_one_that_was_deleted_meanwhile_is_left_alone(
        live_server, when_looked_at, monkeypatch):
    when_looked_at(lambda world: monkeypatch.setattr(
        moves, 'current', lambda context, uuid: None))
    look_at_live(live_server)
    assert_untouched(live_server, 'error', task_states.MIGRATING)


def test_one_that_somebody_tried_to_cancel_is_taken_back(live_server):
    live_server.last_action = 'live_migration_cancel'
    look_at_live(live_server)
    assert live_server.server.task_state is None
    assert MIGRATION not in live_server.placement.held


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
    assert journal.now > began + 2 * abandoned_world.TIMEOUT
    assert_given_back(preparing)


def later(journal, what):
    """It happens while the migration is being watched."""
    journal.happens.append((journal.now + 2 * abandoned_world.TIMEOUT, what))


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


def heard(world, result):
    """Its destination has been told of it, and has answered, or not."""
    event = live_world.Event(abandoned_moves.PREPARE_EVENT, 'host1')
    event.finish_time, event.result = result and 1, result
    world.events[UUID].append(event)


@pytest.mark.parametrize('result', ('Success', 'Error'))
@pytest.mark.parametrize(('abort', 'calls'), (('Error', 3), ('Success', 8)))
def test_a_source_that_lost_its_conductor_behind_the_answer(
        preparing, journal, result, abort, calls):
    """It does not know it any more, or waits for the ports no longer."""
    heard(preparing, result)
    preparing.abort_ends = abort
    began = journal.now
    look_at_live(preparing)
    assert len(preparing.aborted) == 1
    assert journal.now > began + calls * abandoned_world.TIMEOUT
    assert_given_back(preparing)


@pytest.mark.parametrize('abort', ('Error', 'Success'))
def test_a_source_that_says_late_that_it_is_running(preparing, journal,
                                                    abort):
    heard(preparing, 'Success')
    preparing.abort_ends = abort
    told = preparing.manager.compute_rpcapi.live_migration_abort

    def tell(*args):
        told(*args)
        journal.happens.append((
            journal.now + abandoned_world.TIMEOUT,
            lambda: preparing.migrations[MIGRATION].update(
                status='running')))

    preparing.manager.compute_rpcapi.live_migration_abort = tell
    look_at_live(preparing)
    assert len(preparing.aborted) == 1
    assert MIGRATION in preparing.placement.held
    assert not preparing.faults


def test_a_destination_that_has_not_answered_may_be_at_it(preparing):
    heard(preparing, None)
    look_at_live(preparing)
    assert not preparing.aborted
    assert MIGRATION in preparing.placement.held


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
    assert journal.now >= told + abandoned_world.TIMEOUT
    assert_given_back(live_server)


def test_it_does_not_wait_for_ever(live_server, journal):
    def again():
        journal.ended[UUID] = journal.now
        journal.happens.append((journal.now + 30, again))
    journal.happens.append((journal.now + 30, again))
    look_at_live(live_server)
    assert_untouched(live_server, 'accepted', task_states.MIGRATING)


# -- the conductor that looks after them dies, too -------------------------

def test_a_killed_look_at_a_live_migration_is_finished(live_server, mortal,
                                                       journal):
    abandoned_world.killed_at_each_step(live_server, look_at_live, journal)
    assert_given_back(live_server)


def test_a_killed_look_at_one_that_was_prepared_is_finished(
        preparing, mortal, journal):
    abandoned_world.killed_at_each_step(preparing, look_at_live, journal)
    assert len(preparing.aborted) == 1, 'it was told, and heard of it'
    assert_given_back(preparing)
