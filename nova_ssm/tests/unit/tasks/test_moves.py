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

"""What all moves have in common, where a flow does not show it."""

import datetime
import types

from keystoneauth1 import exceptions as ks_exc
from nova.compute import task_states
from nova import exception
from nova import objects
import pytest

from nova_ssm.tasks import moves
from nova_ssm.tests.unit.tasks import live_world
from nova_ssm.tests.unit.tasks import world as world_module

UUID, MIGRATION = live_world.UUID, live_world.MIGRATION
SOURCE, HELD, RP = live_world.SOURCE, live_world.HELD, live_world.RP


@pytest.fixture
def migration(live, monkeypatch):
    """A move that has claimed its destination."""
    made = objects.Migration(
        live.context.elevated(), uuid=MIGRATION, instance_uuid=UUID,
        source_compute=SOURCE, dest_compute='host1', status='accepted',
        migration_type='live-migration')
    made.create()
    live.placement.held = {MIGRATION: {RP[SOURCE]: HELD},
                           UUID: {RP['host1']: HELD}}
    monkeypatch.setattr(moves._give_back.retry, 'sleep', live.sleep)
    return made


# -- giving back ----------------------------------------------------------

def give_back(live, migration):
    moves.give_back(live.manager, live.context, live.server, migration)


def test_the_server_has_again_what_it_had(live, migration):
    give_back(live, migration)
    give_back(live, migration)
    assert live.placement.held == {UUID: {RP[SOURCE]: HELD}}


def test_a_deleted_server_leaves_nothing(live, migration):
    del live.records[live_world.CELL1][UUID]
    give_back(live, migration)
    give_back(live, migration)
    assert live.placement.held == {}


def test_a_server_that_was_moved_by_somebody_keeps_what_it_has(live,
                                                               migration):
    live.server.host = 'host1'
    give_back(live, migration)
    assert live.placement.held == {UUID: {RP['host1']: HELD}}


def failing(live, monkeypatch, *errors):
    errors = list(errors)
    move = live.placement.move_allocations

    def move_allocations(*args):
        if errors:
            raise errors.pop(0)
        return move(*args)
    monkeypatch.setattr(live.placement, 'move_allocations', move_allocations)
    return errors


@pytest.mark.parametrize('error', (
    ks_exc.ConnectFailure('away'),
    exception.AllocationMoveFailed(source_consumer=MIGRATION,
                                   target_consumer=UUID, error='409')))
def test_placement_that_is_away_for_a_while(live, migration, monkeypatch,
                                            error):
    failing(live, monkeypatch, error, error, error)
    give_back(live, migration)
    assert live.placement.held == {UUID: {RP[SOURCE]: HELD}}
    assert live.now > 0, 'it has waited'


def test_placement_that_does_not_say_for_a_while_what_is_held(
        live, migration, monkeypatch):
    """Nova's client raises that for what is answered with 500."""
    ask = live.placement.get_allocs_for_consumer
    errors = [exception.ConsumerAllocationRetrievalFailed(
        consumer_uuid=MIGRATION, error='500')] * 3

    def failing_ask(*args):
        if errors:
            raise errors.pop()
        return ask(*args)

    monkeypatch.setattr(live.placement, 'get_allocs_for_consumer',
                        failing_ask)
    give_back(live, migration)
    assert live.placement.held == {UUID: {RP[SOURCE]: HELD}}
    assert live.now > 0, 'it has waited'


def test_placement_that_stays_away_is_logged(live, migration, monkeypatch,
                                             caplog):
    errors = failing(live, monkeypatch,
                     *[ks_exc.ConnectFailure('away')] * 100)
    give_back(live, migration)
    assert errors, 'it does not try for ever'
    assert 'could not be given back' in caplog.text
    assert 'away' in caplog.text


def test_placement_that_refuses_is_logged(live, migration, monkeypatch,
                                          caplog):
    monkeypatch.setattr(live.placement, 'move_allocations',
                        lambda *args: False)
    give_back(live, migration)
    assert 'Unable to replace resource claim on source' in caplog.text


# -- the last look --------------------------------------------------------

def check(live, destination=None):
    moves.check(live.context, UUID, MIGRATION, 'project',
                task_states.MIGRATING, 'accepted', destination)


@pytest.mark.parametrize('destination', (None, 'host1'))
def test_a_move_that_is_what_it_was(live, migration, destination):
    check(live, destination)


def refused(live, words, destination=None):
    with pytest.raises(exception.MigrationPreCheckError) as caught:
        check(live, destination)
    assert words in str(caught.value)


@pytest.mark.parametrize('change, words', (
    ({'host': 'host1'}, 'is on host host1 now, not on source'),
    ({'project_id': 'other'}, 'belongs to project other now'),
    ({'task_state': None}, 'is in task state None now'),
    ({'task_state': task_states.DELETING}, 'is in task state deleting now')))
def test_a_server_that_was_changed(live, migration, change, words):
    live.server.__dict__.update(change)
    refused(live, words)


def test_a_server_that_was_deleted(live, migration):
    del live.records[live_world.CELL1][UUID]
    refused(live, 'was deleted meanwhile')


@pytest.mark.parametrize('change, words', (
    ({'status': 'error'}, 'has status error now, not accepted'),
    ({'instance_uuid': MIGRATION}, 'is of server'),
    ({'source_compute': 'host9'}, 'is on host source now, not on host9')))
def test_a_record_that_was_changed(live, migration, change, words):
    live.migrations[MIGRATION].update(change)
    refused(live, words)


def test_a_record_that_is_gone(live, migration):
    del live.migrations[MIGRATION]
    refused(live, 'is gone')


def test_a_record_that_leads_elsewhere(live, migration):
    refused(live, 'leads to host host1 now, not to host2', 'host2')


# -- telling --------------------------------------------------------------

class Fault:

    def __init__(self, message, seconds, by='while_handling'):
        self.message = message
        self.details = 'in %s' % by
        self.created_at = live_world.BEGAN + datetime.timedelta(
            seconds=seconds)


FULL = exception.NoValidHost(reason='full')


def tell(live):
    told = []
    moves.tell(lambda now: told.append(now.uuid), live.context, live.server,
               FULL, on_the_way=(task_states.MIGRATING,))
    return told


def test_a_user_is_told(live):
    assert tell(live) == [UUID]


@pytest.mark.parametrize('fault, task_state, again', (
    (Fault(str(FULL), 1), None, False),
    # It is told, but its state is not taken back yet.
    (Fault(str(FULL), 1), task_states.MIGRATING, True),
    # That was an earlier request, or another failure.
    (Fault(str(FULL), -1), None, True),
    # That may have been one, which was asked again within the second.
    (Fault(str(FULL), 0), None, True),
    (Fault('another one', 1), None, True),
    # A compute had the same to say, and the server is not as it was yet.
    (Fault(str(FULL), 1, by='prep_snapshot_based_resize_at_dest'), None,
     True)))
def test_a_user_is_told_once(live, fault, task_state, again):
    live.faults[UUID] = [fault]
    live.server.task_state = task_state
    assert bool(tell(live)) == again
    # Who listens may not have been told at all.
    assert live.notified == ([] if again else [
        (UUID, 'compute_task', 'migrate_server', {})])


@pytest.mark.parametrize('seconds, again', ((-1, True), (1, False)))
def test_who_looks_after_a_server_tells_of_its_last_action(
        live, monkeypatch, seconds, again):
    action = types.SimpleNamespace(start_time=live_world.BEGAN)
    monkeypatch.setattr(objects.InstanceAction, 'get_by_request_id',
                        lambda *args: None)
    monkeypatch.setattr(objects.InstanceActionList, 'get_by_instance_uuid',
                        lambda *args, **kwargs: [action])
    live.faults[UUID] = [Fault(str(FULL), seconds)]
    live.server.task_state = None
    assert bool(tell(live)) == again


@pytest.mark.parametrize('task_state', (
    task_states.DELETING, task_states.REBOOTING))
def test_a_server_that_its_user_works_on_is_left_alone(live, task_state):
    live.server.task_state = task_state
    assert not tell(live)


def test_nobody_is_told_of_a_deleted_server(live):
    del live.records[live_world.CELL1][UUID]
    assert not tell(live)


# -- events ---------------------------------------------------------------

def test_only_what_conductors_opened_is_closed(live):
    live.events[UUID] += [live_world.Event('compute_prep_resize'),
                          live_world.Event('cold_migrate')]
    moves.close_events(live.context, UUID)
    assert [event.event for event in live.events[UUID]
            if event.finish_time is not None] == [
                'conductor_live_migrate_instance', 'cold_migrate']


def test_a_closed_event_hears_of_a_late_failure(live):
    moves.close_events(live.context, UUID)
    moves.close_events(live.context, UUID, FULL)
    [event] = live.events[UUID]
    assert event.error is FULL


def test_events_of_a_deleted_server(live, monkeypatch):
    def gone(*args, **kwargs):
        raise exception.InstanceActionNotFound(request_id='req-1',
                                               instance_uuid=UUID)
    monkeypatch.setattr(objects.InstanceActionEvent,
                        'event_finish_with_failure', gone)
    moves.close_events(live.context, UUID)


def test_there_need_not_be_an_action(live, monkeypatch):
    monkeypatch.setattr(objects.InstanceAction, 'get_by_request_id',
                        lambda *args: None)
    moves.close_events(live.context, UUID)
    assert live.events[UUID][0].finish_time is None


def test_the_error_of_an_event_has_its_traceback(live, monkeypatch):
    seen = types.SimpleNamespace()

    def finish(context, uuid, name, exc_val, exc_tb, want_result):
        seen.exc, seen.traceback = exc_val, exc_tb
    monkeypatch.setattr(objects.InstanceActionEvent,
                        'event_finish_with_failure', finish)
    moves.close_events(live.context, UUID, world_module.failure(
        FULL).exception)
    assert seen.exc is FULL and seen.traceback is not None
