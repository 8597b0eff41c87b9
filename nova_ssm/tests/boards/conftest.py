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

"""Real servers, one of each kind for all tests of a run."""

import itertools

import pytest

from nova_ssm.engine.coordination import base
from nova_ssm.engine import database
from nova_ssm.tests.boards import places
from nova_ssm.tests.servers import etcd
from nova_ssm.tests.servers import mariadb
from nova_ssm.tests.servers import postgresql
from nova_ssm.tests.servers import redis
from nova_ssm.tests.servers import zookeeper

SERVERS = {'mariadb': mariadb.MariaDB, 'postgresql': postgresql.PostgreSQL,
           'etcd': etcd.Etcd, 'redis': redis.Redis,
           'zookeeper': zookeeper.ZooKeeper}
#: Of each board in these tests: the database, and the server of the board.
BOARDS = {'sql': ('mariadb', None), 'sql-postgresql': ('postgresql', None),
          'zookeeper': ('mariadb', 'zookeeper'), 'etcd': ('mariadb', 'etcd'),
          'redis': ('mariadb', 'redis')}
_paths = ('/nova_ssm/%d' % number for number in itertools.count())


@pytest.fixture(scope='session')
def servers():
    """Starts each kind when it is first asked for."""
    started = {}

    def start(kind):
        if kind not in started:
            started[kind] = SERVERS[kind]()
            started[kind].start()
        return started[kind]

    yield start
    for server in started.values():
        server.remove()


@pytest.fixture(params=BOARDS)
def board_kind(request):
    """Each board in turn."""
    return request.param


@pytest.fixture
def place_server(servers, board_kind):
    """The server that the board is in."""
    engine, kind = BOARDS[board_kind]
    return servers(kind or engine)


@pytest.fixture
def place(servers, board_kind):
    """An empty journal and an empty board."""
    engine, kind = BOARDS[board_kind]
    url = servers(engine).fresh()
    database.upgrade(url)
    if kind is None:
        return places.Place(url)
    return places.Place(url, base.Server(
        kind, (servers(kind).hosts,), path=next(_paths), patience=3.0))
