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

"""A conductor is killed in the middle of builds; another one goes on."""

from tempest.common import waiters
from tempest import config
from tempest.lib.common.utils import data_utils
from tempest.lib import decorators

from nova_ssm.tests.tempest import base

CONF = config.CONF

#: In one request: enough to be in the middle of when it is accepted.
SERVERS = 4


class KilledTest(base.FlowTest):
    """What nobody but an operator may do: where the job allows it."""

    @classmethod
    def skip_checks(cls):
        super().skip_checks()
        if not (CONF.nova_ssm.kill_command and CONF.nova_ssm.start_command
                and CONF.nova_ssm.nova_ssm_command):
            raise cls.skipException('no conductor may be killed here')

    @decorators.attr(type='slow')
    @decorators.idempotent_id('0f4cb5b3-7f1e-4a63-9e55-7c2d8b1d6a70')
    def test_no_server_is_lost_with_a_conductor(self):
        """All servers are built, once; a flow has changed hands meanwhile."""
        for _try in range(CONF.nova_ssm.kill_tries):
            if self._kill_during_builds():
                return
        self.fail('in %d tries the killed conductor had no flow'
                  % CONF.nova_ssm.kill_tries)

    def _kill_during_builds(self):
        """Returns whether a flow was in the hands of who was killed."""
        name = data_utils.rand_name(self.__class__.__name__)
        self.create_test_server(name=name, min_count=SERVERS,
                                max_count=SERVERS)
        try:
            self.run_command(CONF.nova_ssm.kill_command)
        finally:
            self.run_command(CONF.nova_ssm.start_command)
        servers = self.servers_client.list_servers(
            name=name)['servers']
        self.assertEqual(SERVERS, len(servers))
        for server in servers:
            waiters.wait_for_server_status(
                self.servers_client, server['id'], 'ACTIVE')
        return any(self._changed_hands(server['id']) for server in servers)

    def _changed_hands(self, server):
        """Whether a flow of a server has had two owners."""
        for flow in self.nova_ssm('flow', 'list', '--server', server):
            steps = self.nova_ssm('flow', 'show', flow['uuid'])['steps']
            if any(step['kind'] == 'claim' for step in steps):
                return True
        return False
