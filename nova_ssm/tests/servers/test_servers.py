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

"""The servers that tests start are private, and leave nothing behind."""

import os

import psutil
import pytest

from nova_ssm.engine import database
from nova_ssm.tests.servers import base
from nova_ssm.tests.servers import etcd
from nova_ssm.tests.servers import galera
from nova_ssm.tests.servers import mariadb
from nova_ssm.tests.servers import postgresql
from nova_ssm.tests.servers import redis
from nova_ssm.tests.servers import zookeeper

DATABASES = (mariadb.MariaDB, postgresql.PostgreSQL)
KINDS = (*DATABASES, etcd.Etcd, redis.Redis, zookeeper.ZooKeeper)


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)
def test_a_server_runs_until_it_is_left(kind):
    with kind() as server:
        assert server.ready()
        process = psutil.Process(server._process.pid)
        assert process.uids().real != 0
        assert {one.laddr.ip for one in process.net_connections()
                if one.status == psutil.CONN_LISTEN} == {base.HOST}
        family = server._family()
        server.kill()
        assert not [one for one in family if base._lives(one)]
        assert not server.ready()
        server.start()
        assert server.ready()
    assert not server.home.exists()
    assert not base.listens(server.port)


@pytest.mark.parametrize('kind', DATABASES, ids=lambda kind: kind.__name__)
def test_what_is_committed_survives_a_kill(kind):
    with kind() as server:
        urls = [server.fresh(), server.fresh()]
        database.upgrade(urls[0])
        server.kill()
        server.start()
        assert database.Database(urls[0]).version() == database.head()
        assert database.Database(urls[1]).version() is None


def test_what_is_written_to_one_node_of_a_cluster_is_in_the_other():
    with galera.cluster() as (one, other):
        database.upgrade(one.fresh())
        with database.Database(other.url('db0')).transaction() as connection:
            # The other node lags, but not for a session of ours.
            assert connection.exec_driver_sql(
                'SELECT version_num FROM %s' % database.VERSION_TABLE
            ).scalar() == database.head()


class Broken(redis.Redis):
    """A server that does not know one of its options."""

    def command(self):
        return [*super().command(), '--nonsense', 'yes']


def test_a_server_that_does_not_start_shows_its_log():
    server = Broken()
    with pytest.raises(base.ServerError, match='nonsense'):
        with server:
            pass
    assert not server.home.exists()


class Missing(redis.Redis):
    """A server that is not installed."""

    program = 'nova-ssm-not-there'


def test_a_server_that_is_missing_is_named_with_its_package():
    with pytest.raises(base.ServerError, match='package redis-server'):
        Missing()


def test_a_password_is_not_on_the_command_line():
    with redis.Redis('verySecret') as server:
        assert server.ready()
        assert 'verySecret' not in ' '.join(
            psutil.Process(server._process.pid).cmdline())
        [path] = server.home.glob('redis.conf')
        assert os.stat(path).st_mode & 0o777 == 0o600
