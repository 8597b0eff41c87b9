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

"""What the tests share."""

import json
import shlex
import subprocess
import time

from tempest.api.compute import base
from tempest import config

CONF = config.CONF

#: What the event of a task begins with.
PREFIX = 'ssm_'


class FlowTest(base.BaseV2ComputeAdminTest):
    """A test of what is run as flows.

    :cvar workflow: which has to be on
    """

    workflow = 'build_instances'
    # Action events with their hosts, and networks: "none".
    min_microversion = '2.62'

    @classmethod
    def skip_checks(cls):
        super().skip_checks()
        if not CONF.service_available.nova_ssm:
            raise cls.skipException('nova_ssm is not in use')
        if cls.workflow not in CONF.nova_ssm.workflows:
            raise cls.skipException('%s is not in use' % cls.workflow)

    def run_command(self, command, *args):
        """Run a program of the configuration. Returns what it says."""
        done = subprocess.run([*shlex.split(command), *args],
                              capture_output=True, text=True, timeout=300)
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout

    def nova_ssm(self, *args):
        """What nova-ssm says, as data."""
        return json.loads(self.run_command(
            CONF.nova_ssm.nova_ssm_command, *args, '-f', 'json'))

    def action(self, server, name):
        """The newest action of a server of that name, with its events."""
        found = [one for one in self.os_admin.servers_client.
                 list_instance_actions(server)['instanceActions']
                 if one['action'] == name]
        self.assertTrue(found, 'server %s has no action %s' % (server, name))
        return self.os_admin.servers_client.show_instance_action(
            server, found[0]['request_id'])['instanceAction']

    def task_events(self, server, name, last):
        """The events of the tasks of a flow, when that task has ended."""
        deadline = time.monotonic() + CONF.compute.build_timeout
        while True:
            events = {one['event'].removeprefix(PREFIX): one
                      for one in self.action(server, name)['events']
                      if one['event'].startswith(PREFIX)}
            if last in events and events[last]['result']:
                return events
            self.assertLess(time.monotonic(), deadline,
                            'no end of %s in %s' % (last, sorted(events)))
            time.sleep(CONF.compute.build_interval)
