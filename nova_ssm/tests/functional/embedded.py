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

"""Nova inside a test process: no services, no broker, SQLite files.

``EmbeddedNova`` is a fixture that starts nova-api, nova-scheduler,
nova-conductor, nova-compute with fake guests, and placement, as threads of
this process, on databases that are files in a directory. So another process
can be started on the same files after this one was killed, or run some of the
services beside it:

    nova = EmbeddedNova(directory, roles=('api', 'scheduler', 'compute'))
    conductor = EmbeddedNova(directory, roles=('conductor',))  # elsewhere

What is real: Nova and placement, their databases, RPC, the journal. What is
fake: guests, and neutron, glance, cinder and keystone, which Nova's own test
fixtures stand in for; they live in the memory of their process.
"""

# Nova is patched for eventlet when its tests are imported, unless told not to.
# Its conductor runs native threads, and so do these tests.
import os
os.environ.setdefault('OS_NOVA_DISABLE_EVENTLET_PATCHING', 'True')

# ruff: noqa: E402
from nova.tests import functional as _functional  # noqa: F401,H306 patches

from collections.abc import Sequence
import contextlib
import fcntl
import sqlite3
import sys
import threading
import time
from typing import Any
import uuid

from cryptography import fernet
import fixtures
from nova.api.openstack import wsgi_app
from nova.compute import api as compute_api
from nova.compute import rpcapi as compute_rpcapi
import nova.conf
from nova import context as nova_context
from nova.db.api import api as api_db
from nova.db.main import api as main_db
from nova.db import migration
from nova import exception
from nova import objects
from nova import rpc
from nova.scheduler.client import report
from nova.scheduler import utils as scheduler_utils
from nova.tests import fixtures as nova_fixtures
from nova.tests.functional import fixtures as functional_fixtures
from nova import thread_pool_factory
from oslo_db.sqlalchemy import enginefacade
from oslo_db.sqlalchemy import test_fixtures as db_fixtures
from oslo_utils.fixture import uuidsentinel
from placement import db_api as placement_db
from placement.objects import consumer_type
from placement.objects import resource_class
from placement.objects import trait

from nova_ssm.tests.functional import embedded_bus

CONF = nova.conf.CONF
# A service that is stopped ends the pools of its process for good, by a
# thread that on a busy machine outlives the stub of Nova's own fixture.
thread_pool_factory.shutdown_all_executors = lambda: None
ROLES = ('api', 'scheduler', 'conductor', 'compute')
HOSTS = ('host1', 'host2')
IMAGE = '155d900f-4e14-4e4c-a73d-069cbf4541e6'  # one of GlanceFixture's
NODE_NAMESPACE = uuid.UUID('6ba7b810-9dad-11d1-80b4-00c04fd430c8')
READY = 'schema.ready'  # exists when the databases are complete


class FilePlacement(functional_fixtures.PlacementFixture):
    """Placement in this process, on a database that is a file.

    :param url: of its database
    :param first: make the tables
    """

    def __init__(self, url: str, first: bool) -> None:
        super().__init__(db=False)
        self._url = url
        self._first = first

    def _configure_placement(self, conf_fixture):
        # Not super(), which would make a temporary file.
        conf_fixture.config(connection=self._url, sync_on_startup=self._first,
                            group='placement_database')
        self.useFixture(db_fixtures.ReplaceEngineFacadeFixture(
            placement_db.placement_context_manager,
            enginefacade.transaction_context()))
        placement_db.configure.reset()
        placement_db.configure(conf_fixture.conf)
        # What the last one in this process has seen was another database.
        trait._TRAITS_SYNCED = False
        resource_class._RESOURCE_CLASSES_SYNCED = False
        consumer_type._CONSUMER_TYPES_SYNCED = False


class FileRPC(nova_fixtures.RPCFixture):
    """RPC between processes, over files.

    :param directory: where the queues are
    """

    def __init__(self, directory: str) -> None:
        super().__init__('nova.test')
        self._directory = directory

    def _fake_create_transport(self, url):
        if None not in self._buses:
            self._buses[None] = embedded_bus.transport(
                CONF, self._directory, rpc.get_allowed_exmods())
        return self._buses[None]


class ProcessLock:
    """A reentrant lock for the threads of several processes.

    :param path: of a file, made when missing
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = threading.RLock()
        self._depth = 0

    def __enter__(self) -> None:
        self._thread.acquire()
        self._depth += 1
        if self._depth == 1:
            self._file = open(self._path, 'w')
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *exc_info) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._file.close()
        self._thread.release()


class FileWriteLock(nova_fixtures.DatabaseWriteLock):
    """One writer at a time for each SQLite file, over all processes."""

    def _get_lock(self, db_url):
        with self._locks_guard:
            key = str(db_url)
            if key not in self._locks:
                self._locks[key] = ProcessLock(db_url.database + '.lock')
            return self._locks[key]


def sqlite_url(path: str) -> str:
    """Make an SQLite file that several processes can use; return its URL."""
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        connection.execute('PRAGMA journal_mode=WAL')
    return 'sqlite:///' + path


def reset_globals() -> None:
    """Forget what another Nova in this process left behind."""
    nova_context.reset_globals()
    compute_rpcapi.reset_globals()
    scheduler_utils.reset_globals()
    objects.Service.clear_min_version_cache()
    compute_api.CELLS = []
    report.PLACEMENTCLIENT = None
    wsgi_app.init_global_data.reset()
    wsgi_app.init_application.reset()


class EmbeddedNova(fixtures.Fixture):
    """A Nova in this process.

    :param directory: of all its files; the first to use it makes the schemas
    :param roles: which services to run here
    :param hosts: names of the compute hosts
    :param workflows: ``[ssm] workflows``; empty: stock Nova
    :param ssm_url: URL of the journal; None: a file in the directory
    :param host: name of the host of the conductor and the scheduler
    :param shared: other processes run services of the same Nova
    :param options: further options, by group: {'ssm': {'lease': 2}}

    :ivar api: client of the compute API, as administrator
    :ivar placement: client of the placement API
    :ivar services: what runs here, by role; computes by host name
    """

    def __init__(self, directory: str, *, roles: Sequence[str] = ROLES,
                 hosts: Sequence[str] = HOSTS,
                 workflows: Sequence[str] = (), ssm_url: str | None = None,
                 host: str = 'controller', shared: bool = False,
                 options: dict[str, dict[str, Any]] | None = None) -> None:
        super().__init__()
        self.directory = os.path.abspath(directory)
        self.roles = tuple(roles)
        self.hosts = tuple(hosts)
        self.workflows = list(workflows)
        self.ssm_url = ssm_url
        self.host = host
        self.shared = shared
        self.options = options or {}
        self.services: dict[str, Any] = {}
        self.api: Any = None

    # Some of Nova's fixtures want the test case; these are what they use.

    def flags(self, group: str | None = None, **values: Any) -> None:
        """Set options."""
        for name, value in values.items():
            CONF.set_override(name, value, group)

    def stub_out(self, old: str, new: Any) -> None:
        """Replace an attribute while the fixture lives."""
        self.useFixture(fixtures.MonkeyPatch(old, new))

    def id(self) -> str:
        """Return a name for log lines."""
        return 'embedded'

    def _setUp(self) -> None:
        os.makedirs(self.directory, exist_ok=True)
        objects.register_all()
        reset_globals()
        self._configure()
        self.useFixture(nova_fixtures.OpenStackSDKFixture())
        self.useFixture(FileRPC(self._path('bus')) if self.shared
                        else nova_fixtures.RPCFixture('nova.test'))
        CONF.set_default('driver', ['noop'],
                         group='oslo_messaging_notifications')
        self.useFixture(FileWriteLock())
        for module in (api_db, main_db):
            self.useFixture(db_fixtures.ReplaceEngineFacadeFixture(
                module.context_manager, enginefacade.transaction_context()))
            module.configure(CONF)
        first = not os.path.exists(self._path(READY))
        if first:
            self._make_databases()
        self.placement = self.useFixture(
            FilePlacement(self._url('placement'), first)).api
        with open(self._path(READY), 'w'):
            pass
        self.useFixture(nova_fixtures.RealPolicyFixture())
        self.neutron = self.useFixture(nova_fixtures.NeutronFixture(self))
        self.glance = self.useFixture(nova_fixtures.GlanceFixture(self))
        self.cinder = self.useFixture(nova_fixtures.CinderFixture(self))
        self._start()

    def _configure(self) -> None:
        self.useFixture(nova_fixtures.ConfFixture(CONF))
        self.flags('api_database', connection=self._url('nova_api'))
        self.flags('database', connection=self._url('nova_cell1'))
        self.flags(compute_driver='fake.FakeDriver', host=self.host,
                   state_path=self.directory, report_interval=5)
        self.flags('oslo_concurrency', lock_path=self._path('locks'))
        # Where the wheel puts it.
        self.flags('wsgi', api_paste_config=os.path.join(
            sys.prefix, 'etc/nova/api-paste.ini'))
        if self.workflows:
            from nova_ssm import conf as ssm_conf
            ssm_conf.register_opts(CONF)
            self.flags('conductor', compute_task_manager='nova_ssm')
            self.flags('ssm', workflows=self.workflows,
                       connection=self.ssm_url or self._url('ssm'),
                       encryption_keys=[self._key()])
        for group, values in self.options.items():
            self.flags(None if group == 'DEFAULT' else group, **values)

    def _key(self) -> str:
        """Return the key of the journal's secrets, one for all processes."""
        path = self._path('ssm.key')
        # Complete before it has its name: another process may read it.
        part = '%s.%d' % (path, os.getpid())
        with open(part, 'wb') as new:
            new.write(fernet.Fernet.generate_key())
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
        os.unlink(part)
        with open(path, encoding='ascii') as key:
            return key.read()

    def _make_databases(self) -> None:
        migration.db_sync(database='api')
        migration.db_sync(database='main')
        context = nova_context.get_admin_context()
        for name, cell_uuid in (
                ('cell0', objects.CellMapping.CELL0_UUID),
                ('cell1', str(uuid.uuid4()))):
            cell = objects.CellMapping(
                context=context, uuid=cell_uuid, name=name,
                transport_url='fake://nowhere/',
                database_connection=self._url('nova_' + name))
            cell.create()
            if cell.is_cell0():
                with nova_context.target_cell(context, cell) as cell_context:
                    migration.db_sync(database='main', context=cell_context)
        self.useFixture(nova_fixtures.DefaultFlavorsFixture())
        if self.workflows:
            from nova_ssm.engine import database
            database.upgrade(CONF.ssm.connection)

    def _start(self) -> None:
        # The fake driver names its nodes after sentinels, which are random in
        # each process: give them a value that is not.
        self.useFixture(nova_fixtures.ComputeNodeIdFixture())
        for host in self.hosts:
            uuidsentinel._sentinels['node_' + host] = str(
                uuid.uuid5(NODE_NAMESPACE, host))
        for role in ('conductor', 'scheduler'):
            if role in self.roles:
                self.services[role] = self._service(role, self.host)
        if 'compute' in self.roles:
            for host in self.hosts:
                self.services[host] = self._service('compute', host)
                self._map_host(host)
        CONF.set_override('host', self.host)
        if 'api' in self.roles:
            self.api = self.useFixture(nova_fixtures.OSAPIFixture(
                api_version='v2.1')).admin_api
            self.api.microversion = 'latest'

    def _service(self, name: str, host: str):
        CONF.set_override('host', host)
        extra = {}
        if name == 'compute' and hasattr(compute_rpcapi, 'RPC_TOPIC_ALT'):
            extra['topic_alt'] = compute_rpcapi.RPC_TOPIC_ALT
        return self.useFixture(
            nova_fixtures.ServiceFixture(name, host, **extra)).service

    def _map_host(self, host: str) -> None:
        context = nova_context.get_admin_context()
        try:
            objects.HostMapping.get_by_host(context, host)
        except exception.HostMappingNotFound:
            cell = next(cell for cell
                        in objects.CellMappingList.get_all(context)
                        if not cell.is_cell0())
            objects.HostMapping(context=context, host=host,
                                cell_mapping=cell).create()

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _url(self, name: str) -> str:
        return sqlite_url(self._path(name + '.db'))

    def boot(self, name: str, count: int = 1,
             flavor: str = 'm1.tiny') -> dict:
        """Ask for servers in one request; return the API's answer."""
        flavor_id = next(f['id'] for f in self.api.get_flavors()
                         if f['name'] == flavor)
        return self.api.post_server({'server': {
            'name': name, 'flavorRef': flavor_id, 'imageRef': IMAGE,
            'networks': 'none', 'min_count': count, 'max_count': count}})

    def servers(self) -> list[dict]:
        """Return all servers as the API shows them."""
        return self.api.get_servers(detail=True)

    def wait(self, server_id: str, status: str = 'ACTIVE',
             timeout: float = 60) -> dict:
        """Wait until a server has a status and no task.

        :param timeout: seconds
        :raises RuntimeError: it went to ERROR instead, or timed out
        """
        deadline = time.monotonic() + timeout
        while True:
            server = self.api.get_server(server_id)
            if (server['status'] == status
                    and not server['OS-EXT-STS:task_state']):
                return server
            late = time.monotonic() > deadline
            if late or server['status'] == 'ERROR':
                raise RuntimeError('server %s is %s, not %s: %s' % (
                    server_id, server['status'], status,
                    server.get('fault', 'timeout')))
            time.sleep(0.05)
