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

"""What can happen to a move to another cell, and how it has to end."""

from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
from nova import objects

from nova_ssm.tests.unit.tasks import cross_cell_world as world_module

UUID, CELL1, CELL2 = (world_module.UUID, world_module.CELL1,
                      world_module.CELL2)
CALLS = ('prep_dest', 'prep_source', 'finish')


# -- how they end ---------------------------------------------------------

def assert_moved(world):
    """The server is in the other cell; each compute has worked once."""
    assert dict(world.computes.begun) == dict.fromkeys(CALLS, 1)
    assert dict(world.computes.ended) == dict.fromkeys(CALLS, 1)
    assert world.computes.guests == {'host2'}
    assert world.mapping.cell_mapping.uuid == CELL2
    old, new = world.server(CELL1), world.server(CELL2)
    assert (old.hidden, new.hidden) == (True, False)
    assert (new.host, new.vm_state, new.task_state) == (
        'host2', vm_states.RESIZED, None)
    assert new.system_metadata['old_vm_state'] == vm_states.ACTIVE
    assert old.migration_context.migration_id == world.migration.id
    assert (old.task_state, old.vm_state) == (
        task_states.RESIZE_MIGRATED, vm_states.ACTIVE)
    assert_migrations(world)
    assert_copied(world)
    assert not world.glance.data
    assert len(world.glance.ever) == 1
    world.neutron.assert_bound('host1', False)
    world.neutron.assert_bound('host2', True)
    assert_attachments(world, CELL1, CELL2)
    assert_events_closed(world, CELL1, CELL2)
    assert not faults(world, CELL1) and not faults(world, CELL2)


def assert_migrations(world):
    status = {CELL1: 'post-migrating', CELL2: 'finished'}
    for cell in (CELL1, CELL2):
        [record] = objects.MigrationList.get_by_filters(
            world.in_cell(cell), {'instance_uuid': UUID})
        assert record.uuid == world_module.MIGRATION
        assert record.cross_cell_move
        assert (record.status, record.dest_compute, record.dest_node) == (
            status[cell], 'host2', 'host2-node')


def assert_copied(world):
    """All that hangs on the server is in the other cell too, once."""
    before, after = (world.cells[cell].rows() for cell in (CELL1, CELL2))
    for table in ('instances', 'block_device_mapping', 'tags', 'migrations',
                  'virtual_interfaces', 'instance_actions'):
        assert after[table] == before[table] == 1


def assert_attachments(world, *cells):
    """There is one for each record of the volume, and no other."""
    known = [world.volumes(world.in_cell(cell)) for cell in cells]
    assert all(len(attachments) == 1 for attachments in known)
    assert world.cinder.attachments.keys() == set.union(*known)
    assert len(world.cinder.attachments) == len(cells)


def assert_events_closed(world, *cells):
    for cell in cells:
        found = events(world, cell)
        assert found
        assert len({event.event for event in found}) == len(found)
        for event in found:
            assert event.finish_time or event.event.startswith('conductor')


def events(world, cell):
    action = objects.InstanceAction.get_by_request_id(
        world.in_cell(cell), UUID, 'req-1')
    return objects.InstanceActionEventList.get_by_action(
        world.in_cell(cell), action.id)


def faults(world, cell):
    return [fault.message for fault in
            objects.InstanceFaultList.get_by_instance_uuids(
                world.in_cell(cell), [UUID])]


def assert_undone(world, state=vm_states.ACTIVE):
    """Nothing is left in the other cell, at its host, or of the snapshot."""
    assert world.cells[CELL2].rows() == {}
    assert world.mapping.cell_mapping.uuid == CELL1
    assert 'host2' not in world.computes.guests
    assert not world.glance.data
    world.neutron.assert_bound('host1', True)
    world.neutron.assert_bound('host2', None)
    assert all(world.computes.begun[call] <= 1 for call in CALLS)
    if state is None:
        # The server was deleted, and with it all that hung on it.
        assert not world.cinder.attachments
        return
    server = world.server(CELL1)
    assert not server.hidden
    assert (server.host, server.vm_state) == ('host1', state)
    assert server.migration_context is None
    assert ('host1' in world.computes.guests) == (state == vm_states.ACTIVE)
    assert_attachments(world, CELL1)
    assert_events_closed(world, CELL1)


# -- what can happen ------------------------------------------------------

def breaks(method, exc, where=None):
    return lambda world: world.computes.fails.update({(method, where): exc})


def deleted_after(method):
    """The user deletes the server when a compute has come so far."""
    def delete(world):
        server = world.server(CELL1)
        for attachment in world.volumes(world.source):
            world.cinder.attachment_delete(world.source, attachment)
        for bdm in server.get_bdms():
            bdm.destroy()
        world.computes.guests.discard('host1')
        server.destroy()
    return lambda world: world.computes.after.update(
        {method: lambda: delete(world)})


def prepared(method, work):
    return lambda world: world.computes.after.update(
        {method: lambda: work(world)})


def reset(world):
    """An administrator has reset the server's state."""
    server = world.server(CELL1)
    server.task_state = None
    server.save()


def no_extension(world):
    world.neutron.broken = ('extension',)


def no_second_port(world):
    world.neutron.broken = world_module.PORTS[1:]


def no_volumes(world):
    world.cinder.broken = True


def no_images(world):
    world.glance.broken = True


def no_mapping(world):
    world.mapping.broken = ValueError('broken')


class DestroyFailed(exception.NovaException):
    msg_fmt = 'no hypervisor'


#: What goes wrong, what is raised, and how the server is left.
FAILING = {
    'neutron is too old': (no_extension, exception.MigrationPreCheckError,
                           vm_states.ACTIVE),
    'a port is not bound': (no_second_port, exception.MigrationPreCheckError,
                            vm_states.ACTIVE),
    'cinder fails': (no_volumes, exception.InvalidVolume, vm_states.ACTIVE),
    'the destination is full': (
        breaks('prep_dest', exception.MigrationPreCheckError(reason='full')),
        exception.MigrationPreCheckError, vm_states.ACTIVE),
    'it is reset': (prepared('prep_dest', reset),
                    exception.MigrationPreCheckError, vm_states.ACTIVE),
    'glance fails': (no_images, exception.Forbidden, vm_states.ACTIVE),
    'it does not stop': (
        breaks('prep_source', exception.InstancePowerOffFailure(reason=''),
               'power off'),
        exception.InstancePowerOffFailure, vm_states.ACTIVE),
    'it is not destroyed': (
        breaks('prep_source', DestroyFailed(), 'destroy'), DestroyFailed,
        vm_states.ERROR),
    'it does not start': (breaks('finish', DestroyFailed()), DestroyFailed,
                          vm_states.ERROR),
    'it is deleted before it stops': (
        deleted_after('prep_dest'), exception.MigrationPreCheckError, None),
    'it is deleted before it starts': (
        deleted_after('prep_source'), exception.MigrationPreCheckError,
        None),
    'it is deleted before the switch': (
        deleted_after('finish'), exception.InstanceNotFound, None),
    'the mapping fails': (no_mapping, ValueError, vm_states.ERROR),
}


# -- conductors -----------------------------------------------------------

def move(world, url):
    """Have it done by a conductor."""
    return world_module.Conductor(url, world).move()
