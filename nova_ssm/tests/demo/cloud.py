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

"""The demo on the cloud of processes: tools/cloud.sh up."""

import collections
from collections.abc import Mapping
import json
import os
import subprocess
import uuid

import pymysql

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import services
from nova_ssm.tests.cloud import settings
from nova_ssm.tests.demo import story
from nova_ssm.tests.demo import watch

FLAVOR = 'm1.nano'
IMAGE = 'cirros'
#: The journal is in the conductors' own database.
JOURNAL = 'nova_cell1'


class CloudDatabases(watch.Databases):
    """The databases of the cloud.

    :param it: the cloud
    :param stock: there is no journal
    """

    def __init__(self, it: cloud.Cloud, stock: bool) -> None:
        super().__init__()
        self._stock = stock
        self._connection = it.db.connect()

    def rows(self, database: str, query: str) -> list[tuple]:
        """Return the rows of a query."""
        if database == 'ssm':
            if self._stock:
                return []
            database = JOURNAL
        self._connection.select_db(database)
        with self._connection.cursor(pymysql.cursors.Cursor) as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())


class CloudDemo(story.Story):
    """Two conductors, one of them is killed.

    With the plugins on, the other one takes over when the lease of the dead
    one has run out. On stock Nova both are killed and started again: nobody
    can tell which one has the request.

    :param count: number of servers
    :param stock: conductors without the plugins
    :param verbose: say more
    """

    def __init__(self, count: int, stock: bool, verbose: bool) -> None:
        self.it = cloud.Cloud()
        if any(row.state != 'up' for row in self.it.status()):
            raise story.DemoError('the cloud does not run: tools/cloud.sh up')
        super().__init__(CloudDatabases(self.it, stock), count, stock,
                         verbose)
        self.killed: list[str] = []
        self.databases.prefix = 'demo-%s-' % uuid.uuid4().hex[:6]

    def start(self) -> None:
        """See that the conductors run what the story is about.

        :raises DemoError: they do not; somebody else may need them so
        """
        mode = 'stock' if self.stock else 'ssm'
        if self.it.mode != mode:
            raise story.DemoError(
                'the conductors of the cloud are in %s mode: if nobody else '
                'uses the cloud, change that with "tools/cloud.sh mode %s"'
                % (self.it.mode, mode))
        self.screen.say('[bold]1.[/] The cloud runs, its conductors %s: %s' % (
            'as they are (stock)' if self.stock else 'with the plugins on',
            ', '.join(settings.CONDUCTORS)))

    def boot(self) -> None:
        """Ask the API for the servers."""
        client = self.it.client
        response = client.compute.post('/servers', json={'server': {
            'name': self.databases.prefix.rstrip('-'),
            'flavorRef': client.compute.find_flavor(FLAVOR).id,
            'imageRef': client.image.find_image(IMAGE).id,
            'networks': 'none',
            'min_count': self.count, 'max_count': self.count}})
        if response.status_code != 202:
            raise story.DemoError('the API refused the request: %s'
                                  % response.text)
        self.databases.request_id = response.headers['x-openstack-request-id']

    def kill(self) -> str:
        """Kill the conductor that works; both on stock Nova."""
        if self.stock:
            self.killed = list(settings.CONDUCTORS)
        else:
            owners = collections.Counter(
                flow.owner.split(':')[0] for flow in self.databases.flows()
                if flow.owner)
            if not owners:
                raise story.DemoError(
                    'the conductor was done before it could be killed: try '
                    'again with more --servers')
            self.killed = [owners.most_common(1)[0][0]]
        for name in self.killed:
            self.it.kill(name)
        return 'nova-conductor on ' + ' and '.join(self.killed)

    def revive(self) -> None:
        """Leave it to the other conductor; on stock start both again."""
        if self.stock:
            self.it.start(*self.killed)
            self.screen.say('[bold]4.[/] both are started again')
        else:
            self.screen.say('[bold]4.[/] the other conductor waits until the '
                            'lease of the dead one has run out')

    def shown(self) -> list[story.Shown]:
        """Ask the API for the servers' status."""
        return [story.Shown(server.name, server.status,
                            (server.fault or {}).get('message', ''))
                for server in self._servers()]

    def guests(self) -> Mapping[str, list[str]]:
        """Read what the fake hypervisors did."""
        found = {}
        for host in settings.COMPUTES:
            running: collections.Counter = collections.Counter()
            path = self.it.settings.var / host / 'guests.jsonl'
            if path.exists():
                for line in path.read_text().splitlines():
                    note = json.loads(line)
                    running[note['uuid']] += {
                        'spawn': 1, 'destroy': -1}.get(note['event'], 0)
            found[host] = list(running.elements())
        return found

    def end(self) -> None:
        """Start the dead conductor again and delete the servers."""
        if not self.stock and self.databases.request_id:
            self._list_flows()
        if self.killed:
            self.it.start(*self.killed)
        for server in self._servers():
            self.it.client.compute.delete_server(server.id, force=False)

    def where_to_look(self) -> str:
        """Return the directory of the logs."""
        return str(self.it.settings.log)

    def _servers(self) -> list:
        return [server for server in self.it.client.compute.servers()
                if server.name.startswith(self.databases.prefix)]

    def _list_flows(self) -> None:
        """Say what an operator would see."""
        where = self.it.settings
        etc = where.etc / 'nova'
        run = subprocess.run(
            [str(where.venv / 'bin/nova-ssm'),
             '--config-file', str(etc / 'nova.conf'),
             '--config-file', str(etc / (settings.CONDUCTORS[0] + '.conf')),
             'flow', 'list', '--request', self.databases.request_id,
             '-f', 'json'],
            env={**os.environ, **services.environment(where)},
            capture_output=True, text=True)
        if run.returncode:
            self.screen.say('nova-ssm flow list failed: %s'
                            % run.stderr.strip(), 'red')
            return
        states = collections.Counter(
            flow['state'] for flow in json.loads(run.stdout))
        self.screen.say('nova-ssm flow list --request %s: %s' % (
            self.databases.request_id, ', '.join(
                '%d %s' % (number, state)
                for state, number in sorted(states.items()))))
