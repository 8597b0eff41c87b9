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
"""SQL against the cloud's MariaDB, and how its schemas come about."""

from collections.abc import Callable
import concurrent.futures
import gzip
import hashlib
import pathlib
import shutil
import subprocess
import threading

from cryptography import fernet
import pymysql
from pymysql import cursors

from nova_ssm.tests.cloud import configs
from nova_ssm.tests.cloud import install
from nova_ssm.tests.cloud import services
from nova_ssm.tests.cloud import settings

#: endpoint type -> (service, path)
ENDPOINTS = {
    'identity': ('keystone', '/v3/'),
    'compute': ('nova-api', '/v2.1'),
    'placement': ('placement', ''),
    'image': ('glance', ''),
    'network': ('neutron', ''),
}


class Database:
    """Plain SQL as the administrator of the cloud's database.

    Each thread keeps its connection: a test that looks at a hundred servers
    each second would else take a core to open others, from those that it
    looks at.
    """

    def __init__(self, where: settings.Settings) -> None:
        self._settings = where
        self._of_thread = threading.local()

    def __call__(self, sql: str, *values: object) -> list[dict]:
        """Run one statement in a transaction of its own.

        :param sql: with ``%s`` for each value; tables with their database
        :returns: the rows, as dictionaries
        :raises pymysql.MySQLError: as the server does
        """
        with self._kept().cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall())

    def _kept(self) -> pymysql.Connection:
        connection = getattr(self._of_thread, 'connection', None)
        if connection is None:
            connection = self._of_thread.connection = self.connect()
        else:
            # The server may have been stopped, or the connection killed.
            connection.ping(reconnect=True)
        return connection

    def connect(self) -> pymysql.Connection:
        """Open a connection that commits every statement."""
        return pymysql.connect(
            host=settings.HOST, port=self._settings.port('mariadb'),
            user='root', autocommit=True, connect_timeout=5,
            cursorclass=cursors.DictCursor)


class Schema:
    """Makes the databases of all services."""

    def __init__(self, where: settings.Settings,
                 say: Callable[[str], None]) -> None:
        self._settings = where
        self._sql = Database(where)
        self._say = say
        constraints = (settings.HERE / 'constraints.txt').read_bytes()
        self._stamp = hashlib.sha256(constraints).hexdigest()[:16]
        self._dump = where.home / f'schema-{self._stamp}.sql.gz'

    def make_data_directory(self) -> None:
        """Create an empty MariaDB, if there is none."""
        data = self._settings.var / 'mariadb'
        if (data / 'mysql').exists():
            return
        install.run(
            ['mariadb-install-db', '--no-defaults', f'--datadir={data}',
             f'--user={services.user()}', '--skip-test-db',
             '--innodb-flush-method=nosync', '--skip-sync-frm',
             '--auth-root-authentication-method=normal'],
            self._settings.log / 'mariadb-install.log')

    def make(self) -> None:
        """Create, fill and address the databases. Needs a running MariaDB.

        :raises CloudError: if a migration fails
        """
        marker = self._settings.var / 'schema'
        self._make_users()
        if not marker.exists() or marker.read_text() != self._stamp:
            self._make_databases()
            self._make_keys()
            if self._dump.exists():
                self._say('loading the schemas that were kept')
                self._load(self._dump)
            else:
                self._say('migrating the schemas, this takes minutes once')
                self._migrate()
                self._save(self._dump)
            marker.write_text(self._stamp)
        self._address()

    def _make_databases(self) -> None:
        for name in settings.DATABASES:
            self._sql(f'CREATE DATABASE IF NOT EXISTS {name} '
                      'CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci')

    def _make_users(self) -> None:
        for user in ('openstack', settings.CONDUCTOR_USER):
            self._sql(f"CREATE USER IF NOT EXISTS '{user}'@'{settings.HOST}' "
                      'IDENTIFIED BY %s', self._settings.password)
            self._sql(f"GRANT ALL ON *.* TO '{user}'@'{settings.HOST}'")

    def _make_keys(self) -> None:
        # What keystone-manage fernet_setup and credential_setup leave.
        for kind in ('fernet-keys', 'credential-keys'):
            directory = self._settings.var / 'keystone' / kind
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for number in '01':
                if not (directory / number).exists():
                    configs.private_file(
                        directory / number,
                        fernet.Fernet.generate_key().decode())

    def _client(self, program: str, *arguments: str) -> list[str]:
        return [program, '--no-defaults', '--protocol=tcp',
                f'--host={settings.HOST}', '--user=root',
                f'--port={self._settings.port("mariadb")}', *arguments]

    def _load(self, path: pathlib.Path, *arguments: str) -> None:
        process = subprocess.Popen(self._client('mariadb', *arguments),
                                   stdin=subprocess.PIPE)
        assert process.stdin is not None
        with gzip.open(path) as source, process.stdin as sink:
            shutil.copyfileobj(source, sink)
        if process.wait():
            raise settings.CloudError(
                f'could not load {path}; remove that file and try again')

    def _save(self, path: pathlib.Path, *arguments: str) -> None:
        names = arguments or ('--databases', *settings.DATABASES)
        part = path.with_suffix('.part')
        process = subprocess.Popen(self._client('mariadb-dump', *names),
                                   stdout=subprocess.PIPE)
        assert process.stdout is not None
        with gzip.open(part, 'wb', 3) as sink:
            shutil.copyfileobj(process.stdout, sink)
        if process.wait():
            raise settings.CloudError('mariadb-dump failed')
        part.rename(path)

    def _tool(self, log: str, program: str, *arguments: str) -> None:
        install.run([str(self._settings.venv / 'bin' / program), *arguments],
                    self._settings.log / f'sync-{log}.log',
                    services.environment(self._settings))

    def _migrate(self) -> None:
        jobs = (self._neutron, self._keystone, self._nova_cell,
                self._nova_api, self._placement, self._glance)
        # More than the processors at once: each waits for the database a
        # good part of its time.
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            running = [pool.submit(job) for job in jobs]
        for job in running:
            job.result()

    def _neutron(self) -> None:
        etc = self._settings.etc / 'neutron'
        self._tool('neutron', 'neutron-db-manage',
                   '--config-file', str(etc / 'neutron.conf'), '--config-file',
                   str(etc / 'plugins/ml2/ml2_conf.ini'), 'upgrade', 'heads')
        self._say('  neutron done')

    def _keystone(self) -> None:
        etc = ('--config-dir', str(self._settings.etc / 'keystone'))
        self._tool('keystone', 'keystone-manage', *etc, 'db_sync')
        url = self._settings.url('keystone', '/v3/')
        self._tool('keystone-bootstrap', 'keystone-manage', *etc, 'bootstrap',
                   '--bootstrap-password', self._settings.password,
                   '--bootstrap-region-id', 'RegionOne',
                   '--bootstrap-admin-url', url,
                   '--bootstrap-internal-url', url,
                   '--bootstrap-public-url', url)
        self._say('  keystone done')

    def _nova_manage(self, log: str, *arguments: str) -> None:
        self._tool(log, 'nova-manage', '--config-file',
                   str(self._settings.etc / 'nova/nova.conf'), *arguments)

    def _nova_cell(self) -> None:
        self._nova_manage('nova-cell1', 'db', 'sync', '--local_cell')
        # The schemas of cell0 and of a cell are the same.
        copy = self._settings.home / 'cell.sql.gz'
        self._save(copy, 'nova_cell1')
        self._load(copy, 'nova_cell0')
        copy.unlink()
        self._say('  nova cells done')

    def _nova_api(self) -> None:
        self._nova_manage('nova-api', 'api_db', 'sync')
        self._nova_manage(
            'nova-cell0', 'cell_v2', 'map_cell0', '--database_connection',
            self._settings.database_url('nova_cell0'))
        if not self._sql("SELECT id FROM nova_api.cell_mappings "
                         "WHERE name = 'cell1'"):
            self._nova_manage('nova-cells', 'cell_v2', 'create_cell',
                              '--name', 'cell1')
        self._say('  nova api done')

    def _placement(self) -> None:
        self._tool('placement', 'placement-manage', '--config-file',
                   str(self._settings.etc / 'placement/placement.conf'),
                   'db', 'sync')
        self._say('  placement done')

    def _glance(self) -> None:
        self._tool('glance', 'glance-manage', '--config-file',
                   str(self._settings.etc / 'glance/glance-api.conf'),
                   'db_sync')
        self._say('  glance done')

    def _address(self) -> None:
        """Write the ports of today where the databases keep addresses."""
        where = self._settings
        for cell in ('cell0', 'cell1'):
            # A template: each service fills its own account in.
            self._sql('UPDATE nova_api.cell_mappings SET '
                      'database_connection = %s WHERE name = %s',
                      '{scheme}://{username}:{password}@{hostname}:{port}'
                      f'/nova_{cell}?{{query}}', cell)
        transport = configs.Writer(where).render_text('@TRANSPORT@')
        self._sql('UPDATE nova_api.cell_mappings SET transport_url = %s '
                  "WHERE name = 'cell1'", transport)
        for kind, (name, path) in ENDPOINTS.items():
            self._sql('UPDATE keystone.endpoint JOIN keystone.service '
                      'ON endpoint.service_id = service.id '
                      'SET endpoint.url = %s WHERE service.type = %s',
                      where.url(name, path), kind)
