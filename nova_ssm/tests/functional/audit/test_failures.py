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

"""Failures that nobody has told of: what is found, and how it is told."""

from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import vm_states
from nova import objects
import pytest

from nova_ssm.audit import failures
from nova_ssm.tasks import audit_failures
from nova_ssm.tests.functional.audit import cloud as cloud_module
from nova_ssm.tests.functional.audit import test_builds

BUILDS = 'compute__do_build_and_run_instance'


def untold(cloud, look=None):
    return {one.subject: one
            for one in failures.untold((look or cloud.survey)())}


def interrupted(cloud, action=instance_actions.CREATE, **values):
    """A server whose compute was started again while it worked on it."""
    values = {'vm_state': vm_states.ERROR, **values}
    server = cloud.server(**values)
    test_builds.event(cloud, server, None, BUILDS, action)
    return server


def fault(cloud, server, age):
    with cloud.at('cell1') as context:
        made = objects.InstanceFault(
            context, instance_uuid=server, code=500, message='why',
            details='', host='host1')
        made.create()
    cloud.backdate('cell1', 'instance_faults', 'id', made.id, age)


def tell(cloud, finding):
    audit_failures.TellFailure(cloud.manager).execute(
        cloud.context, finding.details)


@pytest.mark.parametrize('host', ('host1', None))
def test_an_interrupted_build_is_told_of(cloud, host):
    """It is in ERROR, and its user does not see why."""
    server = interrupted(cloud, host=host)
    [finding] = untold(cloud).values()
    assert (finding.subject, finding.safe) == (server, True)
    tell(cloud, finding)
    [message] = cloud.faults(server)
    assert 'without saying why' in message
    assert test_builds.results(cloud, server) == ['Error']
    assert cloud.record(server).vm_state == 'error'
    assert not untold(cloud)


def test_a_deletion_that_failed_in_silence_is_told_of(cloud):
    """The database was away when its compute would have said why."""
    server = interrupted(cloud, instance_actions.DELETE)
    [finding] = untold(cloud).values()
    assert (finding.subject, finding.safe) == (server, True)
    tell(cloud, finding)
    [message] = cloud.faults(server)
    assert message.startswith('Failed to terminate instance: nova-compute')
    assert test_builds.results(cloud, server) == ['Error']
    assert not untold(cloud)


def test_the_conductors_find_it_by_themselves(cloud):
    server = interrupted(cloud)
    test_builds.written(cloud, server, 100)
    assert set(untold(cloud, cloud.quick)) == {server}


@pytest.mark.parametrize('changed', (
    {'age': 5}, {'vm_state': vm_states.ACTIVE},
    {'task_state': task_states.DELETING},
    {'action': instance_actions.RESET_STATE},
    {'action': instance_actions.STOP}))
def test_who_is_well_or_at_work_or_put_there_by_people_is_not(cloud, changed):
    interrupted(cloud, **changed)
    assert not untold(cloud)


def test_one_with_a_flow_is_told_by_it(cloud):
    cloud.flow('build_instance', interrupted(cloud))
    assert not untold(cloud)


def test_who_has_a_fault_of_it_knows(cloud):
    fault(cloud, interrupted(cloud), 10)
    assert not untold(cloud)


def test_a_fault_of_an_earlier_action_says_nothing(cloud):
    server = interrupted(cloud, instance_actions.RESIZE)
    fault(cloud, server, 2 * cloud_module.LONG)
    [finding] = untold(cloud).values()
    tell(cloud, finding)
    assert len(cloud.faults(server)) == 2
    assert not untold(cloud)


def migrated(cloud, status, **values):
    """A live migration that is over, of a server that goes on."""
    server = cloud.server(**values)
    cloud.action(server, instance_actions.LIVE_MIGRATION, age=500)
    cloud.migration(server, status, migration_type='live-migration', age=400)
    return server


@pytest.mark.parametrize('status', ('error', 'failed'))
@pytest.mark.parametrize('vm_state', (vm_states.ACTIVE, vm_states.ERROR))
def test_a_live_migration_that_failed_in_silence_is_told_of(cloud, status,
                                                            vm_state):
    """Nova's own computes tell nobody behind the first step."""
    server = migrated(cloud, status, vm_state=vm_state)
    [finding] = untold(cloud).values()
    assert finding.subject == server
    tell(cloud, finding)
    assert cloud.record(server).vm_state == vm_state
    assert len(cloud.faults(server)) == 1
    assert not untold(cloud)


@pytest.mark.parametrize('action', (instance_actions.RESIZE,
                                    instance_actions.MIGRATE))
def test_a_resize_that_its_source_has_let_go_of_is_told_of(cloud, action):
    """It was started again, and the server is as it was before."""
    server = cloud.server()
    cloud.action(server, action, age=500)
    cloud.migration(server, 'error', age=400)
    [finding] = untold(cloud).values()
    assert finding.subject == server
    tell(cloud, finding)
    assert cloud.record(server).vm_state == 'active'
    assert len(cloud.faults(server)) == 1
    assert not untold(cloud)


@pytest.mark.parametrize('values', (
    {'status': 'confirmed'}, {'status': 'reverted'}, {'age': 600},
    {'migration_type': 'evacuation'}, {'migration_type': 'live-migration'}))
def test_one_that_went_well_or_is_another_is_not(cloud, values):
    server = cloud.server()
    cloud.action(server, instance_actions.RESIZE, age=500)
    cloud.migration(server, **{'status': 'error', 'age': 400, **values})
    assert not untold(cloud)


@pytest.mark.parametrize('status', ('completed', 'cancelled', 'running'))
def test_one_that_went_well_or_was_aborted_is_not(cloud, status):
    migrated(cloud, status)
    assert not untold(cloud)


def test_one_that_was_tried_again_and_went_well_is_not(cloud):
    server = migrated(cloud, 'failed')
    cloud.action(server, instance_actions.LIVE_MIGRATION, age=300)
    cloud.migration(server, 'completed', migration_type='live-migration',
                    age=200)
    assert not untold(cloud)


@pytest.mark.parametrize('changed', (
    {'task_state': task_states.DELETING}, {'vm_state': vm_states.ACTIVE}))
def test_one_that_somebody_has_taken_meanwhile_is_left(cloud, changed):
    """A compute may build a server after all that it had put into ERROR."""
    server = interrupted(cloud)
    [finding] = untold(cloud).values()
    record = cloud.record(server)
    record.update(changed)
    record.save()
    tell(cloud, finding)
    assert not cloud.faults(server)


def test_to_tell_twice_is_to_tell_once(cloud):
    server = interrupted(cloud)
    [finding] = untold(cloud).values()
    tell(cloud, finding)
    tell(cloud, finding)
    assert len(cloud.faults(server)) == 1
