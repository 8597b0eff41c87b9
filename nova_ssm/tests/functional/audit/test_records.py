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

"""Records that have lost what they belong to."""

from nova.compute import task_states
from nova.compute import vm_states
from nova import objects
import pytest

from nova_ssm.audit import moves
from nova_ssm.audit import records
from nova_ssm.tests.functional.audit import cloud as cloud_module
from nova_ssm.tests.functional.audit import test_repairs


def mappings(cloud, only=None):
    return {one.subject: one
            for one in records.mappings(cloud.survey(), only)}


def migrations(cloud, only=None):
    return {one.subject: one
            for one in records.migrations(cloud.survey(), only)}


def age(cloud, server):
    cloud.backdate('api', 'instance_mappings', 'instance_uuid', server,
                   cloud_module.LONG)
    return server


def test_a_mapping_without_request_and_cell_is_an_orphan(cloud):
    server = test_repairs.orphan_mapping(cloud)
    [finding] = mappings(cloud).values()
    assert (finding.subject, finding.safe) == (server, True)


def test_a_mapping_of_a_request_is_none(cloud):
    age(cloud, cloud.ask()[0])
    assert not mappings(cloud)


def test_a_mapping_of_a_server_is_none(cloud):
    age(cloud, cloud.server())
    age(cloud, cloud.server('cell0', host=None, node=None))
    assert not mappings(cloud)


def test_a_mapping_of_a_server_in_another_cell_is_none(cloud):
    """Between two steps of a move from cell to cell."""
    server = age(cloud, cloud.server('cell2', mapped=False))
    objects.InstanceMapping(
        cloud.context, instance_uuid=server, project_id='project',
        cell_mapping=cloud.cells['cell1'], user_id='user',
        queued_for_delete=False).create()
    age(cloud, server)
    assert not mappings(cloud)


def test_a_fresh_mapping_is_none(cloud):
    [server] = cloud.ask()
    objects.BuildRequest.get_by_instance_uuid(cloud.context, server).destroy()
    assert not mappings(cloud)


def test_a_mapping_that_a_flow_works_on_is_none(cloud):
    """It forgets a server that was deleted while it was scheduled."""
    server = test_repairs.orphan_mapping(cloud)
    cloud.flow('build_instance', server)
    assert not mappings(cloud)


def test_a_mapping_of_a_deleted_server_is_told(cloud):
    server = age(cloud, cloud.server())
    cloud.delete(server)
    assert not mappings(cloud)
    mapping = objects.InstanceMapping.get_by_instance_uuid(
        cloud.context, server)
    mapping.queued_for_delete = False
    mapping.save()
    age(cloud, server)
    [finding] = mappings(cloud).values()
    assert finding.safe and finding.details['deleted']


def test_a_mapping_to_a_cell_that_has_nothing_is_asked_about(cloud):
    server = '5e000000-0000-4000-8000-000000000001'
    objects.InstanceMapping(
        cloud.context, instance_uuid=server, project_id='project',
        cell_mapping=cloud.cells['cell1'], user_id='user',
        queued_for_delete=False).create()
    age(cloud, server)
    [finding] = mappings(cloud).values()
    assert not finding.safe and 'cell1' in finding.what
    assert set(mappings(cloud, {server})) == {server}


# -- migrations -----------------------------------------------------------

def test_a_migration_of_a_deleted_server_is_ended(cloud):
    subject = test_repairs.endless_migration(cloud)
    [finding] = migrations(cloud).values()
    assert (finding.subject, finding.safe) == (subject, True)


def test_a_migration_of_a_server_in_no_task_is_asked_about(cloud):
    server = cloud.server()
    subject = cloud.migration(server, 'pre-migrating')
    [finding] = migrations(cloud).values()
    assert (finding.subject, finding.safe) == (subject, False)


@pytest.mark.parametrize('changed', (
    {'task_state': task_states.MIGRATING}, {'vm_state': vm_states.RESIZED},
    {'age': moves.PATIENCE / 2}))
def test_a_migration_of_a_server_on_the_move_is_none(cloud, changed):
    cloud.migration(cloud.server(**changed), 'running')
    assert not migrations(cloud)


@pytest.mark.parametrize('status, values', (
    ('finished', {}), ('confirmed', {}), ('error', {}),
    ('accepted', {'migration_type': 'evacuation'}), ('running', {'age': 5})))
def test_a_migration_that_is_over_or_at_work_is_none(cloud, status, values):
    cloud.migration(cloud.server(), status, **values)
    assert not migrations(cloud)


def test_a_migration_whose_server_has_a_flow_is_none(cloud):
    server = cloud.server()
    cloud.migration(server, 'accepted')
    cloud.flow('live_migrate', server)
    assert not migrations(cloud)
