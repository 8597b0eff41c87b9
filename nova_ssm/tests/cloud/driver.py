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
"""Nova's fake compute driver, made fit for a cloud that is killed.

* It keeps the uuid of its node in ``state_path/compute_id``, as libvirt
  does. Nova's own makes up a new one in every process, and nova-compute then
  refuses its second start.
* It appends a line to ``state_path/guests.jsonl`` for each guest that it
  makes or destroys, that comes or goes, so that a server built twice or a
  guest on the wrong host is seen.
* A guest outlives its nova-compute, so that a compute can be killed.
* A moved guest is on one host only. Nova's own stays on the source of a live
  migration for ever.
* The name of a server can ask for trouble: ``fail-on-<host>...`` cannot be
  built on that host, ``slow-<seconds>-...`` takes that long to build,
  ``refuse-live-first...`` is refused by the first destination that is asked
  in a live migration. (The first of each request: it goes on to refuse,
  however often it is asked, and the others accept.)
"""

import contextlib
import json
import os
import pathlib
import re
import time

from nova.compute import power_state
from nova import conf
from nova import exception
from nova.virt import fake
from nova.virt import node

CONF = conf.CONF
SLOW = re.compile(r'slow-(\d+)-')
REFUSE = 'refuse-live-first'


class FakeDriver(fake.FakeDriver):
    """A fake hypervisor with a memory of what it did."""

    def __init__(self, virtapi, read_only=False):
        super().__init__(virtapi, read_only)
        #: Guests that went to another host; what is left of them here waits
        #: for a confirmation, or for their return.
        self._left = set()

    def init_host(self, host):
        """Find the guests again that a compute before has left here.

        A hypervisor outlives its nova-compute; Nova's own fake does not.
        """
        super().init_host(host)
        for number, name in self._found().items():
            self.instances[number] = fake.FakeInstance(
                name, power_state.RUNNING, number)

    @staticmethod
    def _found():
        """Return the names of the guests here, by the ids of the servers."""
        path = pathlib.Path(CONF.state_path) / 'guests.jsonl'
        living = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            record = json.loads(line)
            # A test notes guests of a host that there is not.
            if record['host'] != CONF.host:
                continue
            if record['event'] in ('spawn', 'arrive'):
                living[record['uuid']] = record.get('guest', record['name'])
            elif record['event'] in ('destroy', 'leave'):
                living.pop(record['uuid'], None)
        return living

    def get_nodenames_by_uuid(self, refresh=False):
        """Return the one node under the uuid that the host keeps."""
        return {node.get_local_node_uuid(): name
                for name in self.get_available_nodes()[:1]}

    def get_available_resource(self, nodename):
        """Return the resources, with the uuid that the host keeps."""
        resources = super().get_available_resource(nodename)
        if resources:
            resources['uuid'] = node.get_local_node_uuid()
        return resources

    def _note(self, context, event, instance):
        line = json.dumps({
            'event': event, 'uuid': instance.uuid, 'host': CONF.host,
            'pid': os.getpid(), 'time': time.time(),
            'name': instance.display_name, 'guest': instance.name,
            'request_id': context.request_id})
        # One write of one line to a file opened for appending is not torn.
        with open(pathlib.Path(CONF.state_path) / 'guests.jsonl', 'a') as f:
            f.write(line + '\n')

    def spawn(self, context, instance, *args, **kwargs):
        """Make a guest, unless its name says that this host cannot."""
        name = instance.display_name or ''
        slow = SLOW.match(name)
        if slow:
            time.sleep(int(slow.group(1)))
        if name.startswith(f'fail-on-{CONF.host}'):
            self._note(context, 'refuse', instance)
            raise exception.InstanceDeployFailure(
                reason=f'{name} cannot be built on {CONF.host}')
        super().spawn(context, instance, *args, **kwargs)
        self._note(context, 'spawn', instance)

    def destroy(self, context, instance, *args, **kwargs):
        """Destroy a guest, or what is left of one that went."""
        if instance.uuid in self.instances:
            gone = instance.uuid in self._left
            self._note(context, 'discard' if gone else 'destroy', instance)
            self._left.discard(instance.uuid)
        super().destroy(context, instance, *args, **kwargs)

    # -- resize and cold migration

    def migrate_disk_and_power_off(self, context, instance, *args, **kwargs):
        """Stop a guest and send its disks away."""
        result = super().migrate_disk_and_power_off(
            context, instance, *args, **kwargs)
        if instance.uuid in self.instances:
            self.power_off(instance)
            self._left.add(instance.uuid)
            self._note(context, 'leave', instance)
        return result

    def finish_migration(self, context, migration, instance, disk_info,
                         network_info, image_meta, resize_instance,
                         allocations, block_device_info=None, power_on=True,
                         share_info=None):
        """Start a guest that came from another host."""
        # Not self.spawn: that would count as another build.
        super().spawn(context, instance, image_meta, None, None, allocations,
                      block_device_info=block_device_info, power_on=power_on)
        self._note(context, 'arrive', instance)

    def finish_revert_migration(self, context, instance, *args, **kwargs):
        """Start a guest again that has come back, or had never left.

        A compute that is started again does so with all that it was about to
        send away.
        """
        here = (instance.uuid in self.instances and
                instance.uuid not in self._left)
        super().finish_revert_migration(context, instance, *args, **kwargs)
        self._left.discard(instance.uuid)
        if not here:
            self._note(context, 'arrive', instance)

    # -- live migration

    def check_can_live_migrate_destination(self, context, instance, *args,
                                           **kwargs):
        """Accept a guest, unless its name asks for a refusal."""
        name = instance.display_name or ''
        if name.startswith(REFUSE) and self._refuses(context, instance):
            self._note(context, 'refuse-live', instance)
            raise exception.MigrationPreCheckError(
                reason=f'{name} is refused by {CONF.host}')
        return super().check_can_live_migrate_destination(
            context, instance, *args, **kwargs)

    @staticmethod
    def _refuses(context, instance):
        """Tell whether this host was the first that was asked."""
        where = pathlib.Path(CONF.state_path).parent / 'refusals'
        where.mkdir(exist_ok=True)
        mark = where / f'{context.request_id}-{instance.uuid}'
        # A link, because it comes into being with its content.
        with contextlib.suppress(FileExistsError):
            os.symlink(CONF.host, mark)
        return os.readlink(mark) == CONF.host

    def post_live_migration(self, context, instance, block_device_info,
                            migrate_data=None):
        """Forget a guest that went to another host."""
        if instance.uuid in self.instances:
            super().destroy(context, instance, None, block_device_info)
            self._note(context, 'leave', instance)

    def post_live_migration_at_destination(self, context, instance,
                                           network_info,
                                           block_migration=False,
                                           block_device_info=None):
        """Keep a guest that came from another host."""
        # Not self.spawn: that would count as another build.
        super().spawn(context, instance, None, None, None, None)
        self._note(context, 'arrive', instance)
