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

from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import vm_states
from nova import objects
import pytest

from nova_ssm.audit import moves
from nova_ssm.audit import records
from nova_ssm.tasks import audit_records
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
    subject = cloud.migration(server, 'migrating')
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


# -- live migrations that were cut short ------------------------------------

def cut_short(cloud, status='preparing', host='host1', age=500,
              vm_state=vm_states.ACTIVE):
    """The source was started again on the way: the server is in no task."""
    server = cloud.server(host=host, node=host.replace('host', 'node'),
                          age=age, vm_state=vm_state)
    cloud.action(server, instance_actions.LIVE_MIGRATION, age=age)
    uuid = cloud.migration(server, status, migration_type='live-migration',
                           age=age)
    nodes = [cloud.node('host1', 'node1'), cloud.node('host2', 'node2')]
    cloud.hold(uuid, nodes[0])
    cloud.hold(server, nodes[1])
    return server, uuid, nodes


def end(cloud, finding):
    audit_records.EndMigration(cloud.manager).execute(
        cloud.context, finding.subject, finding.details)


def status_of(cloud, uuid):
    with cloud.at('cell1') as context:
        return objects.Migration.get_by_uuid(context, uuid).status


@pytest.mark.parametrize('status', ('queued', 'preparing', 'running'))
def test_one_whose_source_was_started_again_is_ended_at_once(cloud, status):
    server, uuid, nodes = cut_short(cloud, status)
    port = cloud.services.port(server)
    cloud.services.bind(port, 'host2')
    [finding] = migrations(cloud).values()
    assert (finding.subject, finding.safe) == (uuid, True)
    assert finding.details['computes'] == ['host1']
    end(cloud, finding)
    assert status_of(cloud, uuid) == 'error'
    assert {one: set(held) for one, held in cloud.placement.held.items()} == {
        server: {nodes[0]}}
    assert cloud.services.hosts(port) == {'host1': 'ACTIVE'}
    assert not migrations(cloud)


def test_one_whose_server_has_come_to_its_destination_is_completed(cloud):
    """The source died between the last word of the destination and its own."""
    server, uuid, nodes = cut_short(cloud, 'running', 'host2')
    [finding] = migrations(cloud).values()
    assert finding.safe
    end(cloud, finding)
    assert status_of(cloud, uuid) == 'completed'
    assert {one: set(held) for one, held in cloud.placement.held.items()} == {
        server: {nodes[1]}}


@pytest.mark.parametrize('values', (
    {'age': 65}, {'host': 'host3'}, {'vm_state': vm_states.ERROR}))
def test_one_that_its_source_may_be_at_is_not(cloud, values):
    cut_short(cloud, **values)
    assert not migrations(cloud)


def test_one_whose_server_people_have_reset_may_be_under_way(cloud):
    server, *_ = cut_short(cloud)
    cloud.action(server, instance_actions.RESET_STATE, age=400)
    assert not migrations(cloud)


def test_the_conductors_find_those_of_late_by_themselves(cloud):
    _, uuid, _ = cut_short(cloud)
    cloud.backdate('cell1', 'migrations', 'uuid', uuid, 300,
                   also=('updated_at',))
    assert [one.subject for one in records.migrations(cloud.quick())] == [
        uuid]


# -- resizes that were cut short --------------------------------------------

def cut_resize(cloud, status='pre-migrating', age=500, **values):
    """As that, while its destination prepared it."""
    server = cloud.server(age=age, **values)
    cloud.action(server, instance_actions.RESIZE, age=age)
    uuid = cloud.migration(server, status, age=age)
    nodes = [cloud.node('host1', 'node1'), cloud.node('host2', 'node2')]
    cloud.hold(uuid, nodes[0])
    cloud.hold(server, nodes[1])
    return server, uuid, nodes


def ask_for_another_flavor(cloud, server):
    cloud.spec(server)
    spec = objects.RequestSpec.get_by_instance_uuid(cloud.context, server)
    spec.flavor.id += 1
    # A flavor in it is saved if it is another one.
    spec.flavor = spec.flavor.obj_clone()
    spec.save()
    assert asked_for(cloud, server) != cloud.flavor().id


def asked_for(cloud, server):
    return objects.RequestSpec.get_by_instance_uuid(
        cloud.context, server).flavor.id


def test_a_resize_that_is_asked_for_meanwhile_is_what_is_asked_for(cloud):
    server, _, _ = cut_resize(cloud)
    ask_for_another_flavor(cloud, server)
    [finding] = migrations(cloud).values()
    record = cloud.record(server)
    record.task_state = task_states.RESIZE_PREP
    record.save()
    end(cloud, finding)
    assert asked_for(cloud, server) != cloud.flavor().id


@pytest.mark.parametrize('vm_state', (vm_states.ACTIVE, vm_states.STOPPED))
def test_a_resize_whose_source_was_started_again_is_ended(cloud, vm_state):
    server, uuid, nodes = cut_resize(cloud, vm_state=vm_state)
    ask_for_another_flavor(cloud, server)
    [finding] = migrations(cloud).values()
    assert (finding.subject, finding.safe) == (uuid, True)
    assert finding.details['computes'] == ['host1', 'host2']
    end(cloud, finding)
    assert asked_for(cloud, server) == cloud.flavor().id
    assert status_of(cloud, uuid) == 'error'
    assert {one: set(held) for one, held in cloud.placement.held.items()} == {
        server: {nodes[0]}}
    assert not migrations(cloud)


@pytest.mark.parametrize('values', (
    {'age': 205}, {'status': 'migrating'}, {'host': 'host2'},
    {'vm_state': vm_states.RESIZED}, {'vm_state': vm_states.SUSPENDED}))
def test_a_resize_that_a_compute_may_be_at_is_not(cloud, values):
    cut_resize(cloud, **values)
    assert not any(one.safe for one in migrations(cloud).values())


def test_a_resize_whose_server_people_have_reset_is_asked_about(cloud):
    server, *_ = cut_resize(cloud, age=700)
    cloud.action(server, instance_actions.RESET_STATE, age=400)
    [finding] = migrations(cloud).values()
    assert not finding.safe


def happened(cloud, server, **results):
    """The events of the computes in the last action, and how they ended."""
    with cloud.at('cell1') as context:
        [action] = objects.InstanceActionList.get_by_instance_uuid(
            context, server, limit=1)
        context.request_id = action.request_id
        for name, result in results.items():
            name = 'compute_' + name
            objects.InstanceActionEvent.event_start(
                context, server, name, want_result=False, host='host1')
            if result:
                objects.InstanceActionEvent.event_finish_with_failure(
                    context, server, name, want_result=False,
                    exc_tb='no' if result == 'Error' else None)


PREPARED, SENT = {'prep_resize': 'Success'}, {'resize_instance': 'Error'}
AT_SOURCE = {'prep_resize': 'Error', 'resize_instance': None}


@pytest.mark.parametrize('status, vm_state, happens', (
    ('pre-migrating', vm_states.ERROR, {}),
    ('migrating', vm_states.ERROR, PREPARED),
    ('migrating', vm_states.ERROR, SENT),
    ('migrating', vm_states.ACTIVE, PREPARED),
    ('post-migrating', vm_states.STOPPED, {**PREPARED,
                                           'resize_instance': None})))
def test_a_resize_that_a_compute_has_left_at_its_source_is_ended(
        cloud, status, vm_state, happens):
    """In ERROR, when the database went away; or it was started again."""
    server, uuid, nodes = cut_resize(cloud, status, vm_state=vm_state)
    happened(cloud, server, **happens)
    [finding] = migrations(cloud).values()
    assert (finding.subject, finding.safe) == (uuid, True)
    end(cloud, finding)
    assert status_of(cloud, uuid) == 'error'
    assert {one: set(held) for one, held in cloud.placement.held.items()} == {
        server: {nodes[0]}}
    assert cloud.record(server).vm_state == vm_state
    assert not migrations(cloud)


@pytest.mark.parametrize('happens', (
    PREPARED, SENT, {**PREPARED, 'finish_resize': 'Error'}))
def test_one_in_error_at_its_destination_stays_there(cloud, happens):
    server, uuid, nodes = cut_resize(cloud, 'post-migrating', host='host2',
                                     vm_state=vm_states.ERROR)
    happened(cloud, server, **happens)
    [finding] = migrations(cloud).values()
    assert (finding.subject, finding.safe) == (uuid, True)
    end(cloud, finding)
    assert status_of(cloud, uuid) == 'error'
    assert {one: set(held) for one, held in cloud.placement.held.items()} == {
        server: {nodes[1]}}


@pytest.mark.parametrize('values, happens', (
    ({'vm_state': vm_states.ERROR, 'age': 205}, PREPARED),
    ({'vm_state': vm_states.ERROR}, AT_SOURCE),
    ({'vm_state': vm_states.ACTIVE}, AT_SOURCE),
    ({'vm_state': vm_states.ERROR}, {'prep_resize': None}),
    ({'vm_state': vm_states.ERROR, 'host': 'host3'}, PREPARED),
    ({'vm_state': vm_states.ERROR, 'host': 'host2'},
     {**PREPARED, 'finish_resize': None}),
    ({'vm_state': vm_states.ACTIVE, 'host': 'host2'}, PREPARED)))
def test_one_that_a_compute_may_send_on_or_finish_is_not(cloud, values,
                                                         happens):
    server, *_ = cut_resize(cloud, 'migrating', **values)
    happened(cloud, server, **happens)
    assert not any(one.safe for one in migrations(cloud).values())


def test_nor_is_one_of_an_earlier_action(cloud):
    server, *_ = cut_resize(cloud, 'migrating', vm_state=vm_states.ERROR)
    cloud.action(server, age=300)
    happened(cloud, server, **PREPARED)
    assert not any(one.safe for one in migrations(cloud).values())


# -- moves whose flow could not undo what it had done ------------------------

def failed(cloud, *atoms, state='FAILURE', age=500, **values):
    server = cloud.server(**values)
    uuid = cloud.migration(server, 'pre-migrating', age=age)
    flow = cloud.flow('resize', server, finished=True)
    cloud.sql("UPDATE ssm_flows SET state = '%s', created_at = created_at - "
              "600, finished_at = created_at WHERE uuid = '%s'"
              % (state, flow))
    for seq, atom in enumerate(atoms, 1000):
        cloud.sql(
            'INSERT INTO ssm_journal (flow_uuid, seq, kind, atom, state, '
            "writer, created_at) VALUES ('%s', %d, 'atom', '%s', 'SUCCESS', "
            "'w', 1)" % (flow, seq, atom))
    cloud.hold(uuid, cloud.node('host1', 'node1'))
    return server, uuid


def test_what_a_flow_could_not_undo_is_undone_later(cloud):
    """Placement did not answer when it failed, nor when it was reverted."""
    server, uuid = failed(cloud, 'PreallocateMigration')
    [finding] = migrations(cloud).values()
    assert (finding.subject, finding.safe) == (uuid, True)
    end(cloud, finding)
    assert status_of(cloud, uuid) == 'error'
    assert set(cloud.placement.held) == {server}


@pytest.mark.parametrize('values', (
    {'atoms': ('PreallocateMigration', 'CastPrepResize'), 'age': 150},
    {'state': 'SUCCESS', 'age': 150}, {'task_state': task_states.RESIZE_PREP},
    {'host': 'host2'}))
def test_what_a_compute_may_have_been_told_is_asked_about(cloud, values):
    failed(cloud, *values.pop('atoms', ()), **values)
    assert not any(one.safe for one in migrations(cloud).values())
