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

"""Actions whose computes died before their end: found, and ended."""

import contextlib

from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import vm_states
from nova.db.main import api as main_db
from nova import objects
from oslo_utils import timeutils
import pytest
import sqlalchemy as sa

from nova_ssm.audit import events
from nova_ssm.tasks import audit_events
from nova_ssm.tests.functional.audit import cloud as cloud_module

PREP = 'compute_prep_resize'
RESIZE = instance_actions.RESIZE


def endless(cloud, look=None, only=None):
    return {one.subject: one
            for one in events.endless((look or cloud.survey)(), only)}


def opened(cloud, server, name=PREP, action=RESIZE, age=cloud_module.LONG,
           request=None):
    """A compute begins an event; returns the id of the request."""
    request = request or cloud.action(server, action, age=age)
    with cloud.at('cell1') as context:
        context.request_id = request
        made = objects.InstanceActionEvent.event_start(
            context, server, name, host='host1')
        number = objects.InstanceAction.get_by_request_id(
            context, server, request).id
    cloud.backdate('cell1', 'instance_actions_events', 'id', made.id, age,
                   also=('start_time',))
    cloud.backdate('cell1', 'instance_actions', 'id', number, age)
    return request


def ended(cloud, server, request, name=PREP):
    """Its compute ends it, and it goes well."""
    with cloud.at('cell1') as context:
        context.request_id = request
        objects.InstanceActionEvent.event_finish(context, server, name,
                                                 want_result=False)


def shown(cloud, server, request):
    """What users see: the message of the action, and its events."""
    with cloud.at('cell1') as context:
        action = objects.InstanceAction.get_by_request_id(context, server,
                                                          request)
        return action.message, sorted(
            (one.event, one.result, one.finish_time is not None)
            for one in objects.InstanceActionEventList.get_by_action(
                context, action.id))


def end(cloud, finding):
    audit_events.EndEvents(cloud.manager).execute(cloud.context,
                                                  finding.details)


def test_an_event_of_a_compute_that_died_is_ended_with_an_error(cloud):
    server = cloud.server()
    request = opened(cloud, server)
    cloud.migration(server, 'error')
    [finding] = endless(cloud).values()
    assert (finding.subject, finding.safe) == (server, True)
    end(cloud, finding)
    assert shown(cloud, server, request) == ('Error', [(PREP, 'Error', True)])
    [message] = details(cloud, server, request)
    assert 'nova-compute has ended it without saying why' in message
    assert cloud.record(server).vm_state == 'active'
    assert not cloud.faults(server)
    assert not endless(cloud)


def details(cloud, server, request):
    with cloud.at('cell1') as context:
        action = objects.InstanceAction.get_by_request_id(context, server,
                                                          request)
        return [one.details for one in
                objects.InstanceActionEventList.get_by_action(
                    context, action.id)]


def built(cloud):
    return cloud.server(launched_at=timeutils.utcnow())


def deleted(cloud):
    server = cloud.server()
    cloud.delete(server)
    return server


def resized(cloud):
    server = cloud.server(vm_state=vm_states.RESIZED, host='host2')
    cloud.migration(server, 'finished', age=cloud_module.LONG - 10)
    return server


def confirmed(cloud):
    server = cloud.server(host='host2')
    cloud.migration(server, 'confirmed', age=cloud_module.LONG - 10)
    return server


def migrated(cloud):
    server = cloud.server(host='host2')
    cloud.migration(server, 'completed', age=cloud_module.LONG - 10,
                    migration_type='live-migration')
    return server


@pytest.mark.parametrize('make, action', (
    (built, instance_actions.CREATE), (deleted, instance_actions.DELETE),
    (resized, RESIZE), (confirmed, instance_actions.MIGRATE),
    (migrated, instance_actions.LIVE_MIGRATION),
    (confirmed, instance_actions.CONFIRM_RESIZE)))
def test_what_has_gone_well_is_no_error(cloud, make, action):
    """Nobody answered when the compute ended it; or another one did it."""
    server = make(cloud)
    request = opened(cloud, server, 'compute_event', action)
    [finding] = endless(cloud).values()
    end(cloud, finding)
    assert shown(cloud, server, request) == (
        None, [('compute_event', 'Success', True)])
    assert not endless(cloud)


@pytest.mark.parametrize('make, action', (
    (cloud_module.Cloud.server, instance_actions.CREATE),
    (cloud_module.Cloud.server, instance_actions.DELETE),
    (migrated, instance_actions.CONFIRM_RESIZE),
    (confirmed, instance_actions.REVERT_RESIZE)))
def test_what_the_server_does_not_show_is_an_error(cloud, make, action):
    server = make(cloud)
    request = opened(cloud, server, 'compute_event', action)
    [finding] = endless(cloud).values()
    end(cloud, finding)
    assert shown(cloud, server, request)[0] == 'Error'


def test_each_action_has_an_end_of_its_own(cloud):
    """The first of two resizes failed, the second went well."""
    server = cloud.server(vm_state=vm_states.RESIZED, host='host2')
    first = opened(cloud, server, age=5000)
    cloud.migration(server, 'error', age=4990)
    second = opened(cloud, server, age=3000)
    cloud.migration(server, 'finished', age=2990)
    [finding] = endless(cloud).values()
    end(cloud, finding)
    assert shown(cloud, server, first)[0] == 'Error'
    assert shown(cloud, server, second)[0] is None
    assert not endless(cloud)


def other_action(cloud, server):
    opened(cloud, server, 'compute_attach_volume',
           instance_actions.ATTACH_VOLUME)


def of_a_flow(cloud, server):
    opened(cloud, server, 'ssm_schedule')


def moving(cloud, server):
    opened(cloud, server)
    cloud.migration(server, 'running', migration_type='live-migration')


def owned(cloud, server):
    opened(cloud, server)
    cloud.flow('resize', server)


def done(cloud, server):
    ended(cloud, server, opened(cloud, server))


@pytest.mark.parametrize('values', (
    {'task_state': task_states.RESIZE_FINISH}, {'age': 100},
    {'vm_state': vm_states.BUILDING}))
def test_one_that_a_compute_may_be_at_is_not(cloud, values):
    opened(cloud, cloud.server(**values))
    assert not endless(cloud)


@pytest.mark.parametrize('make', (
    other_action, of_a_flow, moving, owned, done,
    lambda cloud, server: opened(cloud, server, age=100)))
def test_nor_is_what_may_be_under_way_or_is_over(cloud, make):
    server = cloud.server()
    make(cloud, server)
    assert not endless(cloud)
    assert not endless(cloud, only={server})


def test_the_second_event_of_a_name_stays_open(cloud):
    """So Nova has it: it would end the first one of that name again."""
    server = cloud.server()
    request = opened(cloud, server)
    ended(cloud, server, request)
    opened(cloud, server, request=request)
    cloud.backdate('cell1', 'instance_actions', 'request_id', request,
                   cloud_module.LONG)
    assert not endless(cloud)
    assert not endless(cloud, only={server})


def test_one_that_its_compute_ends_meanwhile_is_left(cloud):
    server = cloud.server()
    request = opened(cloud, server)
    [finding] = endless(cloud).values()
    ended(cloud, server, request)
    end(cloud, finding)
    assert shown(cloud, server, request) == (None, [(PREP, 'Success', True)])


def test_to_end_twice_is_to_end_once(cloud):
    server = cloud.server()
    request = opened(cloud, server)
    [finding] = endless(cloud).values()
    end(cloud, finding)
    before = shown(cloud, server, request)
    end(cloud, finding)
    assert shown(cloud, server, request) == before


# -- what it costs ----------------------------------------------------------

@contextlib.contextmanager
def statements(cloud):
    """The statements that a cell gets."""
    said = []
    with cloud.at('cell1') as context:
        engine = main_db.get_context_manager(context).reader.get_engine()

    def note(connection, cursor, statement, *args):
        if statement.startswith('SELECT'):
            said.append(statement)

    sa.event.listen(engine, 'before_cursor_execute', note)
    try:
        yield said
    finally:
        sa.event.remove(engine, 'before_cursor_execute', note)


def test_what_has_ended_costs_the_conductors_nothing(cloud):
    """Two statements in each cell, however much has been done in it."""
    counts = []
    for _ in range(2):
        for _ in range(5):
            done(cloud, cloud.server())
        with statements(cloud) as said:
            assert not endless(cloud, cloud.quick)
        counts.append(len(said))
    assert counts == [2, 2], said


def test_the_conductors_look_at_the_newest_only(cloud, monkeypatch):
    monkeypatch.setattr(events, 'WINDOW', 3)
    old, new = cloud.server(), cloud.server()
    opened(cloud, old)
    done(cloud, cloud.server())
    done(cloud, cloud.server())
    opened(cloud, new)
    assert set(endless(cloud, cloud.quick)) == {new}
    assert set(endless(cloud)) == {old, new}
