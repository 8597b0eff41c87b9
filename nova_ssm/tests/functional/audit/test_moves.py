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

"""Moves that nobody works on: what is found, and how they end."""

import pytest

from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import vm_states
from nova import objects

from nova_ssm.audit import moves
from nova_ssm import keys
from nova_ssm.tasks import audit_moves
from nova_ssm.tests.functional.audit import cloud as cloud_module

MOVES = (
    (instance_actions.RESIZE, task_states.RESIZE_PREP, keys.RESIZE),
    (instance_actions.MIGRATE, task_states.RESIZE_PREP, keys.RESIZE),
    (instance_actions.LIVE_MIGRATION, task_states.MIGRATING,
     keys.LIVE_MIGRATE))


def lost(cloud):
    return {one.subject: one for one in moves.lost(cloud.survey())}


def stuck(cloud):
    return {one.subject: one for one in moves.stuck(cloud.survey())}


def ask(cloud, action=instance_actions.RESIZE,
        task_state=task_states.RESIZE_PREP, age=cloud_module.LONG, **values):
    """The API asks for a move."""
    server = cloud.server(task_state=task_state, age=age, **values)
    return server, cloud.action(server, action, age=age)


@pytest.mark.parametrize('action, task_state, request_', MOVES)
def test_a_move_without_flow_and_record_is_lost(cloud, action, task_state,
                                                request_):
    server, request_id = ask(cloud, action, task_state)
    [finding] = lost(cloud).values()
    assert (finding.subject, finding.safe) == (server, True)
    assert finding.details['fence'] == keys.move(request_, server,
                                                 request_id)
    assert task_state in finding.what and request_id in finding.why


def test_a_fresh_one_is_on_its_way(cloud):
    ask(cloud, age=5)
    assert not lost(cloud)


def test_one_with_a_flow_is_on_its_way(cloud):
    server, _ = ask(cloud)
    cloud.flow('resize', server)
    assert not lost(cloud)


def test_one_that_a_flow_has_handed_to_a_compute_is_not_lost(cloud):
    server, request_id = ask(cloud)
    cloud.flow('resize', server, finished=True,
               flow_uuid=keys.move(keys.RESIZE, server, request_id))
    assert not lost(cloud)


@pytest.mark.parametrize('status', ('accepted', 'pre-migrating', 'error'))
def test_one_with_a_record_of_its_own_is_not_lost(cloud, status):
    server, _ = ask(cloud, age=500)
    cloud.migration(server, status, age=400)
    assert not lost(cloud)


def test_the_record_of_an_earlier_move_says_nothing(cloud):
    server, _ = ask(cloud, age=500)
    cloud.migration(server, 'confirmed', age=5000)
    assert set(lost(cloud)) == {server}


def test_a_task_of_a_compute_is_no_matter_of_conductors(cloud):
    ask(cloud, task_state=task_states.RESIZE_MIGRATING)
    cloud.server(task_state=task_states.REBOOTING)
    assert not lost(cloud)
    assert not stuck(cloud)


@pytest.mark.parametrize('status', ('accepted', 'pre-migrating'))
def test_one_whose_compute_has_not_begun_it_is_stuck(cloud, status):
    server, _ = ask(cloud)
    uuid = cloud.migration(server, status)
    [finding] = stuck(cloud).values()
    assert (finding.subject, finding.safe) == (server, True)
    assert uuid in finding.what


@pytest.mark.parametrize('status', ('preparing', 'running', 'queued',
                                    'migrating', 'post-migrating'))
def test_one_that_a_compute_works_on_is_not_stuck(cloud, status):
    server, _ = ask(cloud)
    cloud.migration(server, status)
    assert not stuck(cloud)


def test_what_a_destination_that_died_had_opened_is_closed(cloud):
    server, request_id = ask(cloud)
    cloud.migration(server, 'pre-migrating')
    with cloud.at('cell1') as context:
        context.request_id = request_id
        objects.InstanceActionEvent.event_start(
            context, server, 'compute_prep_resize')
    [finding] = stuck(cloud).values()
    audit_moves.GiveUpMove(cloud.manager).execute(cloud.context,
                                                  finding.details)
    told, its = events(cloud, server)
    assert told.message == 'Error'
    assert {event.event for event in its} >= {'compute_prep_resize'}
    assert {event.result for event in its} == {'Error'}


def test_one_that_a_compute_may_only_come_to_is_not_stuck(cloud):
    server, _ = ask(cloud, age=moves.PATIENCE / 2)
    cloud.migration(server, 'accepted')
    assert not stuck(cloud)


# -- those that people gave up ---------------------------------------------

@pytest.fixture
def killed(cloud):
    """A move whose flow people gave up, at some steps of its journal."""
    def make(*states, record=None, age=100):
        server, request_id = ask(cloud, age=age)
        flow = cloud.flow('resize', server, finished=True,
                          request_id=request_id, flow_uuid=keys.move(
                              keys.RESIZE, server, request_id))
        cloud.sql("UPDATE ssm_flows SET state = 'KILLED', "
                  "failure = 'given up by root' WHERE uuid = '%s'" % flow)
        for seq, state in enumerate(states, 1000):
            cloud.sql(
                'INSERT INTO ssm_journal (flow_uuid, seq, kind, atom, state, '
                "writer, created_at) VALUES ('%s', %d, 'atom', 'A', '%s', "
                "'w', 1)" % (flow, seq, state))
        if record:
            cloud.migration(server, record, age=age - 1)
        return server, flow
    return make


@pytest.mark.parametrize('record, find', ((None, lost),
                                          ('accepted', stuck),
                                          ('pre-migrating', stuck)))
def test_one_that_was_killed_is_found_at_once(cloud, killed, record, find):
    """Its conductor has told no compute: there is nothing to wait for."""
    server, flow = killed('SUCCESS', record=record)
    [finding] = find(cloud).values()
    assert (finding.subject, finding.safe) == (server, False)
    assert flow in finding.why and 'given up by root' in finding.why
    assert len(lost(cloud)) + len(stuck(cloud)) == 1


def test_one_that_was_killed_behind_its_word_to_a_compute_is_not(
        cloud, killed):
    """The compute may still begin; until it must have, nobody is asked."""
    killed('SUCCESS', 'RUNNING', record='pre-migrating')
    assert not stuck(cloud)
    server, _flow = killed('SUCCESS', 'RUNNING', record='pre-migrating',
                           age=cloud_module.LONG)
    assert set(stuck(cloud)) == {server}


def test_the_user_is_told_who_gave_it_up(cloud, killed):
    server, _flow = killed()
    [finding] = lost(cloud).values()
    end(cloud, finding)
    assert cloud.record(server).task_state is None
    assert 'given up by an operator' in cloud.faults(server)[0]


# -- how they end ---------------------------------------------------------

def end(cloud, finding):
    audit_moves.EndLostMove(cloud.manager).execute(
        cloud.context, finding.details)


def events(cloud, server):
    with cloud.at('cell1') as context:
        [action] = objects.InstanceActionList.get_by_instance_uuid(
            context, server)
        return action, list(objects.InstanceActionEventList.get_by_action(
            context, action.id))


@pytest.mark.parametrize('vm_state', (vm_states.ACTIVE, vm_states.STOPPED))
@pytest.mark.parametrize('action, task_state, request_', MOVES)
def test_the_server_is_as_it_was(cloud, action, task_state, request_,
                                 vm_state):
    server, _ = ask(cloud, action, task_state, vm_state=vm_state)
    [finding] = lost(cloud).values()
    end(cloud, finding)
    record = cloud.record(server)
    assert (record.vm_state, record.task_state) == (vm_state, None)
    assert 'lost with a nova-conductor' in cloud.faults(server)[0]
    told, [event] = events(cloud, server)
    assert told.message == 'Error'
    assert (event.result, event.event) == (
        'Error', audit_moves._EVENTS[action])
    assert not lost(cloud)


def test_an_event_that_the_conductor_had_opened_is_closed(cloud):
    server, request_id = ask(cloud)
    with cloud.at('cell1') as context:
        context.request_id = request_id
        objects.InstanceActionEvent.event_start(
            context, server, 'conductor_migrate_server')
    [finding] = lost(cloud).values()
    end(cloud, finding)
    _, [event] = events(cloud, server)
    assert event.result == 'Error'


def test_to_end_it_twice_is_to_end_it_once(cloud):
    server, _ = ask(cloud)
    [finding] = lost(cloud).values()
    end(cloud, finding)
    end(cloud, finding)
    assert len(cloud.faults(server)) == 1


def test_each_of_two_lost_requests_is_told_of(cloud):
    """They are lost in the same words, and that is no reason for silence."""
    server, _ = ask(cloud, age=2 * cloud_module.LONG)
    [finding] = lost(cloud).values()
    end(cloud, finding)
    cloud.backdate('cell1', 'instance_faults', 'instance_uuid', server,
                   1.5 * cloud_module.LONG)
    cloud.action(server)
    with cloud.at('cell1') as context:
        record = objects.Instance.get_by_uuid(context, server)
        record.task_state = task_states.RESIZE_PREP
        record.save()
    cloud.backdate('cell1', 'instances', 'uuid', server, cloud_module.LONG)
    [finding] = lost(cloud).values()
    end(cloud, finding)
    end(cloud, finding)
    first, second = cloud.faults(server)
    assert first == second
    assert not lost(cloud)


@pytest.mark.parametrize('taken', (None, task_states.DELETING,
                                   task_states.RESIZE_MIGRATING))
def test_one_that_somebody_has_taken_meanwhile_is_left(cloud, taken):
    server, _ = ask(cloud)
    [finding] = lost(cloud).values()
    with cloud.at('cell1') as context:
        record = objects.Instance.get_by_uuid(context, server)
        record.task_state = taken
        record.save()
    end(cloud, finding)
    assert cloud.record(server).task_state == taken
    assert not cloud.faults(server)


def test_one_that_somebody_takes_at_the_last_moment_is_left(
        cloud, monkeypatch):
    """The database decides: the write is a compare-and-swap."""
    server, _ = ask(cloud)
    [finding] = lost(cloud).values()
    save = objects.Instance.save
    raced = []

    def race(instance, *args, **kwargs):
        if not raced:
            raced.append(True)
            with cloud.at('cell1') as context:
                other = objects.Instance.get_by_uuid(context, server)
                other.task_state = task_states.DELETING
                other.save()
        return save(instance, *args, **kwargs)

    monkeypatch.setattr(objects.Instance, 'save', race)
    end(cloud, finding)
    assert cloud.record(server).task_state == task_states.DELETING
