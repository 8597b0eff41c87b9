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

"""The demo inside processes of its own: no root, no services."""

from collections.abc import Mapping
import os
import shutil

from nova_ssm.tests.demo import nodes
from nova_ssm.tests.demo import story
from nova_ssm.tests.demo import watch

HOSTS = ('host1', 'host2', 'host3')
WORKFLOWS = 'build_instances'
MARK = '.nova-ssm-demo'  # a directory with this in it may be emptied


def prepare(directory: str) -> None:
    """Make the directory, or empty the one of an earlier demo.

    :raises DemoError: it holds something else
    """
    mark = os.path.join(directory, MARK)
    if os.path.isdir(directory) and os.listdir(directory):
        if not os.path.exists(mark):
            raise story.DemoError(
                '%s is not empty and not of an earlier demo: name another '
                'one with --dir' % directory)
        shutil.rmtree(directory)
    os.makedirs(directory, exist_ok=True)
    with open(mark, 'w'):
        pass


class EmbeddedDemo(story.Story):
    """One process is the cloud, another one its conductor.

    :param directory: of their files
    :param count: number of servers
    :param stock: without the plugins
    :param verbose: say more
    """

    def __init__(self, directory: str, count: int, stock: bool,
                 verbose: bool) -> None:
        self.directory = os.path.abspath(directory)
        super().__init__(watch.Files(self.directory), count, stock, verbose)
        self.verbose = verbose
        self.nodes: list[nodes.Node] = []

    def start(self) -> None:
        """Start both processes."""
        prepare(self.directory)
        self.screen.say('[bold]1.[/] Nova starts, %s, on SQLite files in %s'
                        % ('as it is (stock)' if self.stock
                           else 'with the plugins on', self.directory))
        self.cloud = self._node('cloud', 'api,scheduler,compute')
        self.conductor = self._node('conductor', 'conductor', '--wait')
        self.cloud.wait_ready()
        self.conductor.wait_ready()
        self.screen.say(
            '   process %d: nova-api, nova-scheduler, placement, %d '
            'nova-compute\n   process %d: nova-conductor'
            % (self.cloud.pid, len(HOSTS), self.conductor.pid))

    def boot(self) -> None:
        """Ask the API for the servers."""
        self.cloud.ask('boot', name='vm', count=self.count)

    def kill(self) -> str:
        """Kill the process of the conductor."""
        self.conductor.kill()
        return 'nova-conductor (process %d)' % self.conductor.pid

    def revive(self) -> None:
        """Start the conductor again."""
        self.conductor = self._node('conductor-again', 'conductor', '--wait')
        self.conductor.wait_ready()
        self.screen.say('[bold]4.[/] nova-conductor is started again, as '
                        'process %d' % self.conductor.pid)

    def shown(self) -> list[story.Shown]:
        """Ask the API for the servers' status."""
        return [story.Shown(server['name'], server['status'],
                            server['fault'] or '')
                for server in self.cloud.ask('servers')]

    def guests(self) -> Mapping[str, list[str]]:
        """Ask the fake hypervisors."""
        return self.cloud.ask('guests')

    def end(self) -> None:
        """Kill what runs; its files stay, to be looked at."""
        for node in self.nodes:
            node.kill()

    def where_to_look(self) -> str:
        """Return the pattern of the logs' names."""
        return os.path.join(self.directory, '*.log')

    def _node(self, name: str, roles: str, *more: str) -> nodes.Node:
        arguments = ['--roles', roles, '--hosts', ','.join(HOSTS), *more]
        if not self.stock:
            arguments += ['--workflows', WORKFLOWS]
        if self.verbose:
            arguments.append('--verbose')
        node = nodes.Node(name, self.directory, *arguments)
        self.nodes.append(node)
        return node
