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
  makes or destroys, so that a server built twice is seen.
* The name of a server can ask for trouble: ``fail-on-<host>...`` cannot be
  built on that host, ``slow-<seconds>-...`` takes that long to build.
"""

import json
import os
import pathlib
import re
import time

from nova import conf
from nova import exception
from nova.virt import fake
from nova.virt import node

CONF = conf.CONF
SLOW = re.compile(r'slow-(\d+)-')


class FakeDriver(fake.FakeDriver):
    """A fake hypervisor with a memory of what it did."""

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
            'name': instance.display_name,
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
        """Destroy a guest."""
        if instance.uuid in self.instances:
            self._note(context, 'destroy', instance)
        super().destroy(context, instance, *args, **kwargs)
