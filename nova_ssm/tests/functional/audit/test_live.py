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

"""Live migrations that their source has let go: found, and ended."""

from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import vm_states
from nova import objects
import pytest

from nova_ssm.audit import live
from nova_ssm import compat
from nova_ssm.tasks import audit_moves
from nova_ssm.tests.functional.audit import cloud as cloud_module


@pytest.fixture(autouse=True)
def answers(monkeypatch):
    """All computes answer."""
    for ping in ('ping_compute', 'ping_alt'):
        monkeypatch.setattr(compat, ping, lambda *args: True)


def stuck(cloud):
    return {one.subject: one for one in live.stuck(cloud.survey())}


def let_go(cloud, status='error', age=500, action='live-migration',
           kind='live-migration', **values):
    """A server in MIGRATING, with a migration record of its request."""
    server = cloud.server(task_state=task_states.MIGRATING, age=age, **values)
    cloud.action(server, action, age=age)
    cloud.spec(server)
    uuid = cloud.migration(server, status, migration_type=kind, age=age)
    cloud.hold(uuid, cloud.node('host1', 'node1'))
    cloud.hold(server, cloud.node('host2', 'node2'))
    return server


def disk(cloud, server, kind):
    with cloud.at('cell1') as context:
        objects.BlockDeviceMapping(
            context, instance_uuid=server, source_type=kind,
            destination_type='volume' if kind == 'volume' else 'local',
            device_type='disk', boot_index=0, volume_id='1').create()


@pytest.mark.parametrize('status', ('accepted', 'queued', 'preparing',
                                    'error'))
def test_one_whose_source_waits_no_more_is_stuck(cloud, status):
    server = let_go(cloud, status)
    [finding] = stuck(cloud).values()
    assert (finding.subject, finding.safe) == (server, True)
    assert finding.details['computes'] == ['host1']


@pytest.mark.parametrize('values', (
    {'age': 65}, {'status': 'running'}, {'status': 'completed'},
    {'host': 'host2'}, {'kind': 'migration', 'status': 'pre-migrating'},
    {'action': instance_actions.MIGRATE}))
def test_one_that_somebody_may_be_at_is_not(cloud, values):
    let_go(cloud, **values)
    assert not stuck(cloud)


def test_one_with_a_flow_is_under_way(cloud):
    cloud.flow('live_migrate', let_go(cloud))
    assert not stuck(cloud)


def test_the_record_of_an_earlier_one_says_nothing(cloud):
    server = cloud.server(task_state=task_states.MIGRATING, age=500)
    cloud.migration(server, 'error', migration_type='live-migration')
    cloud.action(server, instance_actions.LIVE_MIGRATION, age=500)
    assert not stuck(cloud)


@pytest.mark.parametrize(('status', 'kind', 'safe'), (
    ('error', 'volume', False), ('accepted', 'volume', True),
    ('error', 'image', True)))
def test_volumes_may_be_attached_to_the_destination(cloud, status, kind,
                                                    safe):
    """What they were attached to before is known to the source only."""
    server = let_go(cloud, status)
    disk(cloud, server, kind)
    assert stuck(cloud)[server].safe is safe


def end(cloud, finding):
    audit_moves.EndLiveMigration(cloud.manager).execute(
        cloud.context, finding.details)


@pytest.mark.parametrize('status', ('accepted', 'queued', 'error'))
@pytest.mark.parametrize('vm_state', (vm_states.ACTIVE, vm_states.PAUSED))
def test_the_server_is_as_it_was(cloud, status, vm_state):
    server = let_go(cloud, status, vm_state=vm_state)
    port = cloud.services.port(server)
    cloud.services.bind(port, 'host2')
    [finding] = stuck(cloud).values()
    end(cloud, finding)
    record = cloud.record(server)
    assert (record.vm_state, record.task_state) == (vm_state, None)
    assert 'did not answer' in cloud.faults(server)[0]
    assert set(cloud.placement.held) == {server}
    assert cloud.services.hosts(port) == {'host1': 'ACTIVE'}
    assert not stuck(cloud)


def test_one_that_waits_for_another_is_left(cloud):
    """A source migrates one server at a time."""
    server = let_go(cloud, 'queued')
    other = cloud.server(task_state=task_states.MIGRATING)
    cloud.migration(other, 'running', migration_type='live-migration')
    [finding] = stuck(cloud).values()
    end(cloud, finding)
    assert cloud.record(server).task_state == 'migrating'


def test_a_source_that_does_not_answer_may_be_at_it(cloud, monkeypatch):
    server = let_go(cloud)
    [finding] = stuck(cloud).values()
    monkeypatch.setattr(compat, 'ping_alt', lambda *args: False)
    end(cloud, finding)
    assert cloud.record(server).task_state == 'migrating'


def test_to_end_it_twice_is_to_end_it_once(cloud):
    server = let_go(cloud)
    [finding] = stuck(cloud).values()
    end(cloud, finding)
    end(cloud, finding)
    assert len(cloud.faults(server)) == 1


def test_one_that_was_deleted_meanwhile_leaves_nothing(cloud):
    server = let_go(cloud)
    [finding] = stuck(cloud).values()
    cloud.delete(server)
    end(cloud, finding)
    assert finding.details['group'] == server


def test_the_conductors_find_it_by_themselves(cloud):
    server = let_go(cloud, age=cloud_module.LONG)
    assert [one.subject for one in live.stuck(cloud.quick())] == [server]
