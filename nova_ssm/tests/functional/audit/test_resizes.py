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

"""Resizes that their destination leaves alone: found, and ended."""

from nova.compute import instance_actions
from nova.compute import task_states
from nova import objects
import pytest

from nova_ssm.audit import resizes
from nova_ssm.tasks import audit_moves
from nova_ssm.tests.functional.audit import test_builds


def stuck(cloud):
    return {one.subject: one for one in resizes.stuck(cloud.survey())}


def sent(cloud, status='post-migrating', age=500, began=False, **values):
    """A server that its source has sent to another host."""
    values = {'task_state': task_states.RESIZE_MIGRATED, 'host': 'host2',
              'node': 'node2', **values}
    server = cloud.server(age=age, **values)
    uuid = cloud.migration(server, status, age=age)
    cloud.hold(uuid, cloud.node('host1', 'node1'))
    cloud.hold(server, cloud.node('host2', 'node2'))
    if began:
        test_builds.event(cloud, server, None, 'compute_finish_resize',
                          instance_actions.RESIZE)
    else:
        cloud.action(server, age=age)
    return server, uuid


def end(cloud, finding):
    audit_moves.FailResize(cloud.manager).execute(
        cloud.context, finding.details)


def test_one_whose_destination_died_when_it_was_told_is_stuck(cloud):
    server, uuid = sent(cloud)
    [finding] = stuck(cloud).values()
    assert (finding.subject, finding.safe) == (server, True)
    assert finding.details['computes'] == ['host2']
    end(cloud, finding)
    record = cloud.record(server)
    assert (record.vm_state, record.task_state, record.host) == (
        'error', None, 'host2')
    assert len(cloud.faults(server)) == 1
    assert set(cloud.placement.held) == {server}
    with cloud.at('cell1') as context:
        assert objects.Migration.get_by_uuid(context, uuid).status == 'error'
    assert not stuck(cloud)


@pytest.mark.parametrize('values', (
    {'age': 65}, {'began': True}, {'host': 'host3'},
    {'status': 'migrating'}, {'task_state': task_states.RESIZE_FINISH},
    {'task_state': task_states.RESIZE_MIGRATING}))
def test_one_that_a_compute_may_be_at_is_not(cloud, values):
    sent(cloud, **values)
    assert not stuck(cloud)


@pytest.mark.parametrize(('age', 'found'), ((700, [False]), (500, [])))
def test_one_whose_destination_died_at_it_is_asked_about(cloud, age, found):
    """Nova leaves it so when that is started again; or it is still at it."""
    server, uuid = sent(cloud, age=age, began=True,
                        task_state=task_states.RESIZE_FINISH)
    assert [one.safe for one in stuck(cloud).values()] == found
    for finding in stuck(cloud).values():
        assert finding.details['computes'] == ['host2']
        end(cloud, finding)
        record = cloud.record(server)
        assert (record.vm_state, record.task_state) == ('error', None)
        assert set(cloud.placement.held) == {server}
    assert not stuck(cloud)


@pytest.mark.parametrize(('result', 'found'), (('Error', True),
                                               ('Success', False),
                                               (None, False)))
def test_one_in_error_that_has_kept_its_task_state_is_stuck(cloud, result,
                                                            found):
    """Its source was started again, and took its task state away meanwhile."""
    server = cloud.server(vm_state='error', age=500,
                          task_state=task_states.RESIZE_MIGRATING)
    cloud.migration(server, 'error', age=500)
    test_builds.event(cloud, server, result, 'compute_resize_instance',
                      instance_actions.RESIZE)
    assert list(stuck(cloud)) == [server] * found
    if found:
        [finding] = stuck(cloud).values()
        end(cloud, finding)
        record = cloud.record(server)
        assert (record.vm_state, record.task_state) == ('error', None)
        assert not cloud.faults(server)


def test_one_with_a_flow_is_under_way(cloud):
    server, _ = sent(cloud)
    cloud.flow('reschedule_resize', server)
    assert not stuck(cloud)


def test_one_that_its_destination_takes_meanwhile_is_left(cloud):
    server, _ = sent(cloud)
    [finding] = stuck(cloud).values()
    record = cloud.record(server)
    record.task_state = task_states.RESIZE_FINISH
    record.save()
    held = dict(cloud.placement.held)
    end(cloud, finding)
    assert cloud.record(server).task_state == 'resize_finish'
    assert not cloud.faults(server) and cloud.placement.held == held
