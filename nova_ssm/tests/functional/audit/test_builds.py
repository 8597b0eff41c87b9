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

"""Builds that nobody works on: what is found, and what is not."""

from unittest import mock

import pytest

from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
from nova import objects

from nova_ssm.audit import builds
from nova_ssm.audit import survey
from nova_ssm import keys
from nova_ssm.tests.functional.audit import cloud as cloud_module

SCHEDULING = {'vm_state': vm_states.BUILDING, 'host': None, 'node': None,
              'task_state': task_states.SCHEDULING}


def lost(cloud, only=None):
    return {one.subject: one for one in builds.lost(cloud.survey(), only)}


def stuck(cloud, only=None):
    return {one.subject: one for one in builds.stuck(cloud.survey(), only)}


# -- requests that were lost ----------------------------------------------

def test_a_request_without_a_flow_is_lost(cloud):
    [server] = cloud.ask()
    [finding] = lost(cloud).values()
    assert (finding.server, finding.safe) == (server, True)
    assert finding.project == cloud_module.PROJECT
    assert finding.details['servers'] == [server]
    assert finding.details['fence'] == keys.build(server)
    assert 'nobody works on it' in finding.what
    assert 'ERROR' in finding.remedy


def test_a_request_that_is_fresh_is_on_its_way(cloud):
    cloud.ask(age=5)
    assert not lost(cloud)


def test_servers_of_one_request_are_one_matter(cloud):
    servers = cloud.ask(3)
    found = lost(cloud)
    assert set(found) == set(servers)
    assert {one.details['group'] for one in found.values()} == {servers[0]}
    assert found[servers[2]].details['servers'] == sorted(servers)


def test_a_request_is_as_old_as_its_youngest_server(cloud):
    """An API that creates a hundred of them takes its time."""
    servers = cloud.ask(2)
    cloud.backdate('api', 'build_requests', 'instance_uuid', servers[1], 1)
    assert not lost(cloud)


@pytest.mark.parametrize('owned', (0, 1, 2))
def test_a_request_with_a_flow_is_being_worked_on(cloud, owned):
    """The parent's subject is the first one; a child has its own."""
    servers = cloud.ask(3)
    cloud.flow('schedule_and_build_instances', servers[owned])
    assert not lost(cloud)


def test_what_is_being_ended_is_being_worked_on(cloud):
    servers = cloud.ask(2)
    cloud.flow('end_lost_build', servers[0])
    assert not lost(cloud)


def test_the_repair_itself_does_not_count(cloud):
    [server] = cloud.ask()
    cloud.flow('repair_lost_build', server)
    assert lost(cloud)


def test_a_flow_that_has_failed_and_left_it_is_told(cloud):
    [server] = cloud.ask()
    uuid = cloud.flow('schedule_and_build_instances', server, finished=True)
    assert uuid in lost(cloud)[server].why


def test_what_people_gave_up_ends_when_they_say_so(cloud):
    """One that failed by itself has nobody to ask."""
    [server], [other] = cloud.ask(), cloud.ask()
    for one in (server, other):
        cloud.flow('schedule_and_build_instances', one, finished=True)
    cloud.sql("UPDATE ssm_flows SET state = 'KILLED' WHERE subject = '%s'"
              % server)
    assert {uuid: one.safe for uuid, one in lost(cloud).items()} == {
        server: False, other: True}


def test_nothing_is_safe_if_the_first_server_was_deleted(cloud):
    """Its uuid names the flow of the request: it is not known any more."""
    servers = cloud.ask(3, first=1)
    found = lost(cloud)
    assert set(found) == set(servers)
    assert not any(one.safe for one in found.values())


@pytest.mark.parametrize('deleted', (False, True))
def test_the_first_server_may_have_come_farther(cloud, deleted):
    """Its record tells the name of the flow, also when it is deleted."""
    reservation = 'r-12345678'
    first = cloud.server(reservation_id=reservation, launch_index=0)
    if deleted:
        cloud.delete(first)
    for index in (1, 2):
        cloud._ask_one(reservation, index, 3, cloud_module.LONG)
    found = lost(cloud)
    assert len(found) == 2 and all(one.safe for one in found.values())
    assert {one.details['fence'] for one in found.values()} == {
        keys.build(first)}
    cloud.flow('build_instance', first)
    assert not lost(cloud)


def test_a_build_whose_first_server_was_deleted_is_under_way(cloud):
    """The parent flow is named after a server that is not there."""
    cloud.ask(3, first=1)
    cloud.flow('schedule_and_build_instances', 'deleted')
    assert not lost(cloud)


def test_a_record_that_a_dead_conductor_left_is_told_of(cloud):
    [server] = cloud.ask()
    cloud.server('cell2', mapped=False, server=server, **SCHEDULING)
    assert 'cell2' in lost(cloud)[server].why


def test_a_server_that_a_compute_has_is_not_lost(cloud):
    [server] = cloud.ask()
    cloud.server(mapped=False, server=server)
    assert not lost(cloud)


def test_nothing_is_lost_while_a_cell_cannot_be_read(cloud, monkeypatch):
    cloud.ask()
    look = cloud.survey()
    monkeypatch.setattr(objects.InstanceList, 'get_by_filters',
                        lambda *a, **kw: (_ for _ in ()).throw(
                            builds.survey_module.db_exc.DBConnectionError()))
    assert not list(builds.lost(look))
    assert not look.complete


def test_looks_again_at_some_only(cloud):
    [one], [other] = cloud.ask(), cloud.ask()
    assert set(lost(cloud, {one})) == {one}
    assert not lost(cloud, {'unknown'})
    assert set(lost(cloud)) == {one, other}


# -- servers that wait for a host -----------------------------------------

def test_a_lost_reschedule_is_stuck(cloud):
    """Its compute has freed the allocations, and asked for another host."""
    server = cloud.server(**SCHEDULING)
    [finding] = stuck(cloud).values()
    assert (finding.subject, finding.safe) == (server, True)


@pytest.mark.parametrize('changed', (
    {'age': 5}, {'host': 'host1'}, {'task_state': task_states.SPAWNING},
    {'vm_state': vm_states.ACTIVE}))
def test_who_is_at_work_is_not_stuck(cloud, changed):
    cloud.server(**{**SCHEDULING, **changed})
    assert not stuck(cloud)


GIVEN_UP = {**SCHEDULING, 'task_state': None}


def test_what_a_compute_gave_up_without_a_word_is_stuck(cloud):
    """Its call to the dead conductor was not answered."""
    server = cloud.server(**GIVEN_UP)
    assert set(stuck(cloud)) == {server}
    assert set(stuck(cloud, {server})) == {server}
    fail(cloud, server)
    assert cloud.record(server).vm_state == 'error'


def test_a_compute_that_may_wait_for_an_answer_has_not_given_up(cloud):
    cloud.server(age=65, **GIVEN_UP)
    assert not stuck(cloud)


def test_a_compute_that_has_begun_may_wait_for_two_answers(cloud):
    """In the middle of its claim, as far as anybody can see."""
    server = cloud.server(age=100, **GIVEN_UP)
    cloud.hold(server, cloud.node('host1', 'node1'))
    assert not stuck(cloud)


def test_what_a_dead_compute_had_begun_is_stuck(cloud):
    """Placement was away when it was started again: Nova did not see it."""
    server = cloud.server(**GIVEN_UP)
    cloud.hold(server, cloud.node('host1', 'node1'))
    event(cloud, server, None)
    [finding] = stuck(cloud).values()
    assert (finding.safe, finding.details['computes']) == (True, ['host1'])
    held = dict(cloud.placement.held)
    fail(cloud, server, **finding.details)
    assert cloud.record(server).vm_state == 'error'
    assert 'given it up without a word' in cloud.faults(server)[0]
    # If the compute builds it after all, it is as it was asked for.
    assert cloud.placement.held == held
    assert results(cloud, server) == ['Error']


def results(cloud, server):
    """How the events of the actions of a server have ended."""
    with cloud.at('cell1') as context:
        return [event.result for action in
                objects.InstanceActionList.get_by_instance_uuid(
                    context, server) for event in
                objects.InstanceActionEventList.get_by_action(
                    context, action.id)]


def event(cloud, server, result, name='compute__do_build_and_run_instance',
          action=instance_actions.CREATE):
    """A compute's event in the action of a server; None: not finished."""
    request_id = cloud.action(server, action)
    with cloud.at('cell1') as context:
        context.request_id = request_id
        objects.InstanceActionEvent.event_start(
            context, server, name, want_result=False, host='host1')
        if result:
            objects.InstanceActionEvent.event_finish_with_failure(
                context, server, name,
                exc_tb='no' if result == 'Error' else None,
                want_result=False)


def test_what_a_compute_ended_with_an_error_is_stuck(cloud):
    """Placement did not answer when its compute freed the allocations."""
    server = cloud.server(**GIVEN_UP)
    cloud.hold(server, cloud.node('host1', 'node1'))
    event(cloud, server, 'Error')
    [finding] = stuck(cloud).values()
    assert finding.safe
    assert 'its compute has failed' in finding.why
    fail(cloud, server)
    assert cloud.record(server).vm_state == 'error'
    assert not cloud.placement.held


def test_what_a_compute_ended_with_an_error_is_told_of_at_once(cloud):
    """It waits for no answer: it is known that it does not."""
    server = cloud.server(age=61, **GIVEN_UP)
    event(cloud, server, 'Error')
    assert set(stuck(cloud)) == {server}


@pytest.mark.parametrize(('host', 'found'), (('host1', True),
                                             ('host2', False)))
def test_a_compute_may_fail_before_it_can_let_go_of_a_server(cloud, host,
                                                             found):
    """The database was away. Another compute may have it since."""
    server = cloud.server(**GIVEN_UP | {'host': host})
    event(cloud, server, 'Error')
    assert list(stuck(cloud)) == [server] * found
    if found:
        [finding] = stuck(cloud).values()
        fail(cloud, server, **finding.details)
        record = cloud.record(server)
        # It goes to its compute to be deleted.
        assert (record.vm_state, record.host) == ('error', 'host1')
        assert len(cloud.faults(server)) == 1


@pytest.mark.parametrize(('result', 'name', 'action'), (
    (None, 'compute__do_build_and_run_instance', instance_actions.CREATE),
    ('Success', 'compute__do_build_and_run_instance',
     instance_actions.CREATE),
    ('Error', 'conductor_schedule_and_build_instances',
     instance_actions.CREATE),
    ('Error', 'compute__do_build_and_run_instance',
     instance_actions.REBUILD)))
def test_a_compute_has_not_failed_before_it_says_so(cloud, result, name,
                                                    action):
    server = cloud.server(age=100, **GIVEN_UP)
    cloud.hold(server, cloud.node('host1', 'node1'))
    event(cloud, server, result, name, action)
    assert not stuck(cloud)


def test_who_is_tried_on_the_next_host_has_not_failed_there(cloud):
    """An earlier compute has; the next one has been asked since."""
    server = cloud.server(**SCHEDULING)
    cloud.hold(server, cloud.node('host1', 'node1', up=False))
    event(cloud, server, 'Error')
    assert not stuck(cloud)


def written(cloud, server, age):
    """Let a compute have written a record so many seconds ago."""
    cloud.backdate('cell1', 'instances', 'uuid', server, age,
                   also=('updated_at',))


@pytest.mark.parametrize('values', (SCHEDULING, GIVEN_UP))
def test_the_conductors_find_it_by_themselves(cloud, values):
    server = cloud.server(**values)
    written(cloud, server, 300)
    assert {one.subject for one in builds.stuck(cloud.quick())} == {server}


def test_the_conductors_leave_to_the_command_what_is_long_ago(cloud):
    """It would take them all servers of the cell."""
    written(cloud, cloud.server(**GIVEN_UP),
            2 * survey.RECENT.total_seconds())
    assert not list(builds.stuck(cloud.quick()))
    assert stuck(cloud)


@pytest.mark.parametrize('flow', ('build_instance', 'reschedule_instance'))
def test_who_has_a_flow_is_not_stuck(cloud, flow):
    cloud.flow(flow, cloud.server(**SCHEDULING))
    assert not stuck(cloud)


def test_a_server_of_a_request_that_is_there_is_not_stuck(cloud):
    """Its siblings are not created yet, or it is a matter of the request."""
    [server] = cloud.ask()
    cloud.server(server=server, mapped=False, **SCHEDULING)
    assert not stuck(cloud)


def test_a_compute_that_was_not_told_is_asked_behind_its_queue(cloud):
    """Or it took the word, and died before it wrote anything."""
    server = cloud.server(**SCHEDULING)
    cloud.hold(server, cloud.node('host1', 'node1'))
    [finding] = stuck(cloud).values()
    assert finding.safe
    assert finding.details['computes'] == ['host1']
    assert finding.details['kept']


def test_a_compute_that_builds_others_may_come_to_it(cloud):
    """What waits for a slot shows nowhere."""
    server = cloud.server(**SCHEDULING)
    cloud.hold(server, cloud.node('host1', 'node1'))
    cloud.server(vm_state=vm_states.BUILDING, age=builds.PATIENCE / 2)
    assert not stuck(cloud)


def test_a_build_that_never_ends_keeps_no_other_from_being_found(cloud):
    server = cloud.server(**SCHEDULING)
    cloud.hold(server, cloud.node('host1', 'node1'))
    cloud.server(vm_state=vm_states.BUILDING, age=2 * builds.PATIENCE)
    assert set(stuck(cloud)) == {server}


def test_a_compute_that_is_down_will_come_to_it(cloud):
    server = cloud.server(**SCHEDULING)
    cloud.hold(server, cloud.node('host1', 'node1', up=False))
    assert not stuck(cloud)


def test_what_holds_something_of_others_is_left_alone(cloud):
    server = cloud.server(**SCHEDULING)
    cloud.hold(server, 'a provider that is no compute')
    assert not stuck(cloud)


# -- how they end ---------------------------------------------------------

def end(cloud, servers):
    cloud.runner.registry.get('end_lost_build')
    from nova_ssm.tasks import audit_builds
    audit_builds.EndLostBuild(cloud.manager).execute(
        cloud.context, {'servers': servers})


def test_a_lost_request_ends_in_cell0(cloud):
    servers = cloud.ask(2)
    end(cloud, servers)
    for server in servers:
        record = cloud.record(server, 'cell0')
        assert (record.vm_state, record.task_state) == ('error', None)
        assert record.user_id == cloud_module.USER
        [fault] = cloud.faults(server, 'cell0')
        assert 'lost with a nova-conductor' in fault
        with pytest.raises(exception.BuildRequestNotFound):
            objects.BuildRequest.get_by_instance_uuid(cloud.context, server)
        assert objects.InstanceMapping.get_by_instance_uuid(
            cloud.context, server).cell_mapping.is_cell0()
    assert not lost(cloud)


def test_one_with_a_record_ends_where_it_is(cloud):
    [server] = cloud.ask()
    cloud.server('cell2', mapped=False, server=server, **SCHEDULING)
    cloud.hold(server, 'rp1')
    end(cloud, [server])
    assert cloud.record(server, 'cell2').vm_state == 'error'
    assert cloud.record(server, 'cell0') is None
    assert len(cloud.faults(server, 'cell2')) == 1
    assert objects.InstanceMapping.get_by_instance_uuid(
        cloud.context, server).cell_mapping.name == 'cell2'
    assert not cloud.placement.held


def test_one_that_was_deleted_meanwhile_leaves_nothing(cloud):
    [server] = cloud.ask()
    objects.BuildRequest.get_by_instance_uuid(
        cloud.context, server).destroy()
    end(cloud, [server])
    assert cloud.record(server, 'cell0') is None


def test_to_end_it_twice_is_to_end_it_once(cloud):
    servers = cloud.ask(2)
    end(cloud, servers)
    end(cloud, servers)
    assert [len(cloud.faults(server, 'cell0')) for server in servers] == [
        1, 1]


# -- from the finding to the end ------------------------------------------

def fail(cloud, server, **details):
    from nova_ssm.tasks import audit_builds
    audit_builds.FailStuckBuild(cloud.manager).execute(
        cloud.context, {'group': server, 'cell': cloud.cells['cell1'].uuid,
                        'task_state': 'scheduling', **details})


def test_a_stuck_build_fails(cloud, monkeypatch):
    freed = mock.Mock()
    monkeypatch.setattr(cloud.manager.network_api,
                        'deallocate_for_instance', freed)
    server = cloud.server(**SCHEDULING)
    cloud.hold(server, 'rp1')
    fail(cloud, server)
    record = cloud.record(server)
    assert (record.vm_state, record.task_state) == ('error', None)
    assert 'nobody looks for a host' in cloud.faults(server)[0]
    assert not cloud.placement.held
    freed.assert_called_once()


def test_to_fail_it_twice_is_to_fail_it_once(cloud):
    server = cloud.server(**SCHEDULING)
    fail(cloud, server)
    fail(cloud, server)
    assert len(cloud.faults(server)) == 1


@pytest.mark.parametrize('changed', (
    {'host': 'host1'}, {'task_state': task_states.SPAWNING},
    {'vm_state': vm_states.ACTIVE}))
def test_one_that_somebody_has_taken_meanwhile_is_left(cloud, changed):
    server = cloud.server(**{**SCHEDULING, **changed})
    cloud.hold(server, 'rp1')
    fail(cloud, server)
    assert not cloud.faults(server)
    assert cloud.placement.held
