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

"""The computes of two cells, as a conductor that calls them sees them.

They go on when the conductor that called them is dead, and work when time
passes. What they do in their databases is not the conductor's to die in.
"""

import collections
import contextlib

from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova import objects

#: Seconds that a compute takes for what it is told.
TAKES = 3


class Computes:
    """Nova's client of the computes, and the computes.

    :ivar guests: hosts that have a guest of the server
    :ivar fails: what a method raises, by its name and where
    :ivar after: called when a method has ended, by its name
    :ivar ended: how often a compute has done what, without an error
    """

    def __init__(self, world):
        self.world = world
        self.guests = {'host1'}
        self.fails, self.after = {}, {}
        self.claims, self.queue = [], []
        self.begun = collections.Counter()
        self.ended = collections.Counter()
        self.up = True

    def _call(self, context, host, method, work, on_error=None):
        self.world.point()
        message = Message(self, context, host, method, work, on_error)
        self.queue.append(message)
        for step in (message.begin, message.end, lambda: None):
            # The conductor may be dead now, and the compute goes on.
            self.world.point()
            step()
        return message.answer()

    def answers(self, context, host, timeout, topic='compute'):
        """Whether a ping is answered; it comes behind what was sent."""
        if not self.up:
            self.world.now += timeout
            return False
        for message in self.queue:
            if message.host == host and topic == self.world.topic:
                message.begin()
        return True

    def go_on(self):
        """Do what is to be done by now."""
        for message in self.queue:
            if (message.begun is not None and self.up and
                    self.world.now >= message.begun + TAKES):
                message.end()

    def _check(self, method, where=None):
        if (method, where) in self.fails:
            raise self.fails[method, where]

    # -- what Nova's computes do ------------------------------------------

    def prep_snapshot_based_resize_at_dest(
            self, context, instance, flavor, nodename, migration, limits,
            spec, destination):
        assert (flavor.id, nodename) == (8, 'host2-node')
        assert instance.new_flavor.id == 8

        def claim(cctxt):
            world = self.world
            world.neutron.assert_bound('host2', False)
            volumes = world.volumes(cctxt)
            assert volumes <= world.cinder.attachments.keys()
            assert not volumes & world.volumes(world.source)
            self._check('prep_dest')
            self.claims.append('host2')
            record = objects.Migration.get_by_uuid(cctxt, migration.uuid)
            record.dest_compute, record.dest_node = 'host2', 'host2-node'
            record.dest_host = '192.0.2.2'
            record.save()
            now = objects.Instance.get_by_uuid(cctxt, instance.uuid)
            now.migration_context = objects.MigrationContext(
                cctxt, instance_uuid=now.uuid, migration_id=record.id,
                old_numa_topology=None, new_numa_topology=None,
                old_pci_devices=None, new_pci_devices=None,
                old_pci_requests=None, new_pci_requests=None,
                old_resources=None, new_resources=None)
            now.save()
            return now.migration_context
        return self._call(context, destination, 'prep_dest', claim)

    def prep_snapshot_based_resize_at_source(self, context, instance,
                                             migration, snapshot_id=None):
        def prepare(cctxt):
            world = self.world
            now = objects.Instance.get_by_uuid(cctxt, instance.uuid)
            record = objects.Migration.get_by_uuid(cctxt, migration.uuid)
            assert now.system_metadata['old_vm_state'] == vm_states.ACTIVE
            assert (now.old_flavor.id, now.new_flavor.id) == (7, 8)
            assert record.status == 'pre-migrating'
            record.status = 'migrating'
            record.save()
            self._check('prep_source', 'power off')
            world.glance.upload(snapshot_id, 'disk of the server')
            self.guests.remove('host1')
            self._check('prep_source', 'destroy')
            for bdm in now.get_bdms():
                world.cinder.attachment_delete(cctxt, bdm.attachment_id)
                bdm.attachment_id = world.cinder.attachment_create(
                    cctxt, bdm.volume_id, now.uuid)['id']
                bdm.save()
            world.neutron.migrate_instance_start(cctxt, now, record)
            record.status = 'post-migrating'
            record.save()
            now.task_state = task_states.RESIZE_MIGRATED
            now.save(expected_task_state=task_states.RESIZE_MIGRATING)

        def fail(cctxt):
            now = objects.Instance.get_by_uuid(cctxt, instance.uuid)
            if 'host1' not in self.guests:
                now.vm_state = vm_states.ERROR
            now.task_state = None
            now.save()
        return self._call(context, instance.host, 'prep_source', prepare,
                          fail)

    def finish_snapshot_based_resize_at_dest(
            self, context, instance, migration, snapshot_id, spec):
        def finish(cctxt):
            world = self.world
            now = objects.Instance.get_by_uuid(cctxt, instance.uuid)
            record = objects.Migration.get_by_uuid(cctxt, migration.uuid)
            assert now.migration_context.migration_id == record.id
            assert now.availability_zone == 'zone of host2'
            now.task_state = task_states.RESIZE_FINISH
            now.save(expected_task_state=task_states.RESIZE_MIGRATED)
            assert world.glance.data[snapshot_id] == 'disk of the server'
            world.neutron.assert_bound('host2', True)
            self._check('finish')
            assert not self.guests, 'it runs twice'
            self.guests.add('host2')
            world.glance.delete(cctxt, snapshot_id)
            record.status = 'finished'
            record.save()
            now.host, now.node, now.compute_id = 'host2', 'host2-node', 2
            now.vm_state, now.task_state = vm_states.RESIZED, None
            now.save(expected_task_state=task_states.RESIZE_FINISH)

        def fail(cctxt):
            self.world.neutron.migrate_instance_start(
                cctxt, instance, objects.Migration(dest_compute='host1'))
            now = objects.Instance.get_by_uuid(cctxt, instance.uuid)
            now.vm_state, now.task_state = vm_states.ERROR, None
            now.save()
        return self._call(context, migration.dest_compute, 'finish', finish,
                          fail)

    def revert_snapshot_based_resize_at_dest(self, context, instance,
                                             migration):
        def destroy(cctxt):
            self.guests.discard('host2')
            self.world.neutron.migrate_instance_start(
                cctxt, instance, objects.Migration(dest_compute='host1'))
            for port in self.world.neutron.bound:
                self.world.neutron.delete_port_binding(cctxt, port, 'host2')
            for bdm in instance.get_bdms():
                self.world.cinder.attachment_delete(cctxt, bdm.attachment_id)
        self._call(context, migration.dest_compute, 'revert', destroy)


class Message:
    """A call on its way to a compute, and what has become of it."""

    EVENTS = {
        'prep_dest': 'compute_prep_snapshot_based_resize_at_dest',
        'prep_source': 'compute_prep_snapshot_based_resize_at_source',
        'finish': 'compute_finish_snapshot_based_resize_at_dest',
        'revert': 'compute_revert_snapshot_based_resize_at_dest'}

    def __init__(self, computes, context, host, method, work, on_error):
        self.computes, self.host, self.method = computes, host, method
        # Which cell is not said over the bus: the compute knows its own.
        self.context = computes.world.context_of(host)
        assert self.context.cell_uuid == context.cell_uuid
        self._work, self._on_error = work, on_error
        self.begun = self.result = self.error = None
        self._ended = False

    def begin(self):
        """The compute reads it: first it opens its event."""
        if self.begun is None:
            with self.computes.world.elsewhere():
                self.computes.begun[self.method] += 1
                self.begun = self.computes.world.now
                self._event = compute_utils.EventReporter(
                    self.context, self.EVENTS[self.method], self.host,
                    self.computes.world.uuid)
                self._event.__enter__()

    def end(self):
        """The compute does it, and closes the event."""
        if self._ended:
            return
        self._ended = True
        with self.computes.world.elsewhere():
            try:
                with contextlib.ExitStack() as stack:
                    stack.push(self._event)     # it is open
                    self.result = self._work(self.context)
            except Exception as exc:  # noqa: BLE001 - as computes do
                self.error = exc
                self._failed(exc)
            else:
                self.computes.ended[self.method] += 1
            self.computes.after.get(self.method, lambda: None)()

    def _failed(self, exc):
        compute_utils.add_instance_fault_from_exc(
            self.context, objects.Instance(uuid=self.computes.world.uuid),
            exc)
        if self._on_error is not None:
            self._on_error(self.context)
            for migration in objects.MigrationList.get_by_filters(
                    self.context,
                    {'instance_uuid': self.computes.world.uuid}):
                migration.status = 'error'
                migration.save()

    def answer(self):
        if self.error is not None:
            raise self.error
        return self.result
