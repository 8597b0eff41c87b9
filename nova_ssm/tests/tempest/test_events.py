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

"""What users and support see of a flow in the actions of a server."""

import time

from tempest.common import waiters
from tempest import config
from tempest.lib import decorators

from nova_ssm.tests.tempest import base

CONF = config.CONF


class EventsTest(base.FlowTest):
    """Tasks are events of the server's action."""

    @classmethod
    def skip_checks(cls):
        super().skip_checks()
        if not CONF.nova_ssm.task_events:
            raise cls.skipException('tasks are no events here')

    @decorators.idempotent_id('5b1f2c0e-6a55-4a0e-9d6b-0d4a7a3f1c11')
    def test_a_build_shows_its_tasks(self):
        """Each task of the build has begun and ended well, in order."""
        server = self.create_test_server(wait_until='ACTIVE')
        events = self.task_events(server['id'], 'create', 'CastBuild')
        for task in ('ScheduleInstances', 'CreateInstances', 'MapInstance'):
            self.assertEqual('Success', events[task]['result'])
        self.assertLessEqual(events['ScheduleInstances']['start_time'],
                             events['CastBuild']['start_time'])


class ResizeTest(base.FlowTest):
    """A resize that fails leaves the server as it was."""

    workflow = 'resize'

    @decorators.idempotent_id('c6a0a6e8-31d6-4f67-8a52-9a1d3d7be8b2')
    def test_a_resize_that_no_host_can_take_is_reverted(self):
        """The server runs on with its flavor; its action says what failed."""
        server = self.create_test_server(wait_until='ACTIVE')
        before = self.servers_client.show_server(server['id'])['server']
        # As large as one that the server could have: the API looks at sizes.
        other = self.flavors_client.show_flavor(
            CONF.compute.flavor_ref_alt)['flavor']
        flavor = self.create_flavor(
            **{name: other[name] for name in ('ram', 'vcpus', 'disk')})
        # A trait that is known everywhere, and that no host has.
        self.admin_flavors_client.set_flavor_extra_spec(
            flavor['id'], **{'trait:HW_GPU_MAX_DISPLAY_HEADS_8': 'required'})
        self.servers_client.resize_server(server['id'], flavor['id'])
        waiters.wait_for_server_status(
            self.servers_client, server['id'], 'ACTIVE')
        action = self._failed(server['id'])
        self.assertIn('No valid host', str(action))
        after = self.servers_client.show_server(server['id'])['server']
        self.assertEqual(before['flavor'], after['flavor'])
        self.assertEqual('ACTIVE', after['status'])
        if CONF.nova_ssm.task_events:
            events = self.task_events(server['id'], 'resize', 'ScheduleMove')
            self.assertEqual('Error', events['ScheduleMove']['result'])

    def _failed(self, server):
        """The action of the resize, when one of its events has failed."""
        for _try in range(CONF.compute.build_timeout):
            action = self.action(server, 'resize')
            if any(one['result'] == 'Error' for one in action['events']):
                return action
            time.sleep(CONF.compute.build_interval)
        return self.fail('no event of the resize has failed')
