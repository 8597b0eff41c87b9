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
"""The cloud: bring it up, break parts of it, look into it."""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import concurrent.futures
import contextlib
import fcntl
import functools
import http.client
import os
import pathlib
import shutil
import signal
import socket
import time
from typing import Any
from typing import TextIO
import urllib.error
import urllib.request

import pymysql

from nova_ssm.tests.cloud import configs
from nova_ssm.tests.cloud import database
from nova_ssm.tests.cloud import install
from nova_ssm.tests.cloud import populate
from nova_ssm.tests.cloud import process
from nova_ssm.tests.cloud import services
from nova_ssm.tests.cloud import settings

MODES = ('ssm', 'stock')
#: What tests kill and freeze.
BREAKABLE = services.NOVA
_PATHS = {'keystone': '/v3', 'placement': '/', 'glance': '/',
          'neutron': '/', 'nova-api': '/'}


def _silent(text: str) -> None:
    """Say nothing."""


class Cloud:
    """One cloud of processes on this machine.

    :param where: its directories and ports; read from the environment if
        not given
    :param say: takes lines about the progress
    """

    def __init__(self, where: settings.Settings | None = None,
                 say: Callable[[str], None] = _silent) -> None:
        self.settings = where or settings.load()
        self.db = database.Database(self.settings)
        self._say = say
        self._supervisor = process.Supervisor(self.settings.run,
                                              self.settings.log)
        self._reserved = False

    # -- all of it

    def up(self, mode: str | None = None) -> None:
        """Start what does not run; return when all of it answers.

        :param mode: of the conductors; None for the one of last time
        :raises CloudError: if a part of it does not come up
        """
        self.check_free()
        with self._locked():
            self._up(mode)

    def _up(self, mode: str | None) -> None:
        began = time.monotonic()
        self._say('packages and environments')
        install.everything(self.settings)
        configs.Writer(self.settings).write_all()
        schema = database.Schema(self.settings, self._say)
        schema.make_data_directory()
        self._say('database, broker, cache')
        self._launch(services.INFRA)
        schema.make()
        self._say('APIs')
        self._launch(services.APIS)
        marker = self.settings.var / 'populated'
        if not marker.exists():
            self._say('users, images, networks')
            populate.populate(self.settings)
            marker.touch()
        self._set_mode(mode or self.mode)
        self._say('nova services')
        self._launch(services.NOVA)
        self._map_hosts()
        self._say(f'up, conductors in {self.mode} mode, '
                  f'{time.monotonic() - began:.0f} s')

    def down(self, wipe: bool = False) -> None:
        """Stop everything.

        :param wipe: remove all data, too (but not the kept schemas)
        """
        self.check_free()
        with self._locked():
            for names in (services.NOVA, services.APIS,
                          ('memcached', 'rabbitmq'), ('epmd', 'mariadb')):
                self._stop_all(names)
            if wipe:
                self._wipe()

    def _wipe(self) -> None:
        for path in (self.settings.var, self.settings.log,
                     self.settings.run, self.settings.etc):
            if path.exists():
                shutil.rmtree(path)
        self.settings.mode_file.unlink(missing_ok=True)

    @property
    def mode(self) -> str:
        """The mode of the conductors, ``ssm`` or ``stock``."""
        try:
            return self.settings.mode_file.read_text().strip()
        except FileNotFoundError:
            return 'ssm'

    def set_mode(self, mode: str) -> None:
        """Restart the conductors in another mode.

        :raises CloudError: if ``nova-ssm`` fails in the cloud's environment
        """
        self.check_free()
        with self._locked():
            self._set_mode(mode)
            self._launch(settings.CONDUCTORS)

    @contextlib.contextmanager
    def reserved(self, purpose: str) -> Iterator[None]:
        """Keep other processes from changing the cloud meanwhile.

        A test whose conductors are exchanged by somebody else measures
        something else than it says.

        :param purpose: what to tell the others
        :raises CloudError: if another process has reserved it
        """
        self.settings.home.mkdir(parents=True, exist_ok=True)
        with open(self.settings.home / 'reserved', 'a+') as stream:
            self._take(stream)
            stream.truncate(0)
            stream.write(f'{purpose}, pid {os.getpid()}')
            stream.flush()
            self._reserved = True
            try:
                yield
            finally:
                self._reserved = False

    @staticmethod
    def _take(stream: TextIO) -> None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            raise settings.CloudError(
                f'the cloud is in use by: {stream.read()}; wait for its end, '
                'or use another cloud (NOVA_SSM_STATE, NOVA_SSM_CLOUD_PORT)'
            ) from None

    @staticmethod
    def _is_lent(path: pathlib.Path) -> bool:
        """Whether who has reserved it had us called."""
        holder = os.environ.get(settings.HOLDER)
        return bool(holder) and path.read_text().endswith(f'pid {holder}')

    def check_free(self) -> None:
        """Make sure that this process may change the cloud.

        :raises CloudError: if another process has reserved it
        """
        path = self.settings.home / 'reserved'
        if not self._reserved and path.exists() and not self._is_lent(path):
            with open(path, 'a+') as stream:
                self._take(stream)

    def conductors(self) -> tuple[str, dict[str, int | None]]:
        """Return the mode, and the pid of each conductor."""
        return self.mode, {name: self._supervisor.pid(name)
                           for name in settings.CONDUCTORS}

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep two callers from bringing the same cloud up or down."""
        self.settings.home.mkdir(parents=True, exist_ok=True)
        with open(self.settings.home / 'lock', 'w') as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say('another process is at it, waiting for that')
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _set_mode(self, mode: str) -> None:
        """Write the conductors' files; if they differ, restart who runs."""
        if mode not in MODES:
            raise settings.CloudError(
                f'no mode {mode!r}; there are: ' + ', '.join(MODES))
        if mode == 'ssm':
            self._prepare_ssm()
        changed = configs.Writer(self.settings).write_conductors(mode)
        self.settings.mode_file.write_text(mode + '\n')
        if changed:
            self._exchange_conductors()

    def _exchange_conductors(self) -> None:
        """Restart the conductors that run, one after the other.

        Both at once would catch the heartbeats of all computes in flight.
        Those hang for rpc_response_timeout, as long as service_down_time:
        a minute later the scheduler would find no host for some seconds.
        """
        running = [name for name in settings.CONDUCTORS
                   if self._supervisor.members(name)]
        for name in running:
            self._stop_all([name])
            self._launch([name])
        if running:
            self.wait_for_computes()

    def _prepare_ssm(self) -> None:
        where = self.settings
        program = str(where.venv / 'bin/nova-ssm')
        env = services.environment(where)
        self._say('nova-ssm patch apply, db sync')
        install.run([program, 'patch', 'apply'], where.log / 'patch.log', env)
        install.run(
            [program, '--config-file', str(where.etc / 'nova/nova.conf'),
             'db', 'sync'], where.log / 'sync-ssm.log', env)

    # -- one service

    def start(self, *names: str, wait: bool = True) -> None:
        """Start services that do not run.

        :param wait: return when they answer, not at once
        :raises CloudError: if one does not come up
        """
        self.check_free()
        self._launch(names, wait)

    def wait_for(self, *names: str) -> None:
        """Start what does not run, wait until Nova has just heard of all.

        :raises CloudError: if one does not come up
        """
        self._launch(names, wait=False)
        since = self.db('SELECT UTC_TIMESTAMP() AS now')[0]['now']
        for name in names:
            self._wait(name, since)

    def wait_for_computes(self) -> None:
        """Wait until each compute that runs has just been heard of.

        :raises CloudError: if one is not heard of
        """
        since = self.db('SELECT UTC_TIMESTAMP() AS now')[0]['now']
        for name in settings.COMPUTES:
            if self.status_of(name).state == 'up':
                self._wait(name, since)

    def stop(self, *names: str) -> None:
        """Stop services in good order."""
        self.check_free()
        self._stop_all(names)

    def kill(self, name: str) -> None:
        """SIGKILL all processes of a service.

        :raises CloudError: if it does not run
        """
        self.check_free()
        services.get(self.settings, name)
        if not self._supervisor.kill(name):
            raise settings.CloudError(f'{name} does not run')

    def pause(self, name: str) -> None:
        """SIGSTOP all processes of a service."""
        self._signal(name, signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT all processes of a service."""
        self._signal(name, signal.SIGCONT)

    def _signal(self, name: str, number: int) -> None:
        self.check_free()
        services.get(self.settings, name)
        if not self._supervisor.signal(name, number):
            raise settings.CloudError(f'{name} does not run')

    def status(self) -> list[process.Status]:
        """Look at all services."""
        return [self.status_of(name) for name in services.ALL]

    def status_of(self, name: str) -> process.Status:
        """Look at one service."""
        return self._supervisor.status(
            name, services.get(self.settings, name).port)

    def set_compute(self, name: str, enabled: bool) -> None:
        """Let the scheduler use a compute, or not."""
        client = self.client.compute
        service = next(client.services(binary='nova-compute', host=name))
        if enabled:
            client.enable_service(service)
        else:
            client.disable_service(service)

    def members(self, name: str) -> list[int]:
        """Return the pids of a service."""
        return self._supervisor.members(name)

    def log_file(self, name: str) -> pathlib.Path:
        """Return where a service writes its log."""
        services.get(self.settings, name)
        path = self.settings.log / f'{name}.log'
        return path if path.exists() else path.with_suffix('.out')

    # -- looking into it

    @functools.cached_property
    def client(self) -> Any:
        """An openstacksdk connection of the administrator."""
        return populate.connect(self.settings)

    # -- how it is done

    def _stop_all(self, names: Iterable[str]) -> None:
        found = [services.get(self.settings, name) for name in names]
        with concurrent.futures.ThreadPoolExecutor(len(found) or 1) as pool:
            for _ in pool.map(self._supervisor.stop, found):
                pass

    def _launch(self, names: Iterable[str], wait: bool = True) -> None:
        """Start services side by side, then wait for each of them."""
        names = list(names)
        since = None
        if any(name in services.NOVA for name in names):
            since = self.db('SELECT UTC_TIMESTAMP() AS now')[0]['now']
        started = []
        for name in names:
            service = services.get(self.settings, name)
            # The broker asks for its port mapper at once.
            if name == 'rabbitmq':
                self._wait('epmd', None)
            if self._supervisor.start(service):
                started.append(name)
        for name in names if wait else ():
            self._wait(name, since if name in started else None)

    def _wait(self, name: str, since: Any, timeout: float = 180) -> None:
        limit = time.monotonic() + timeout
        while not self._ready(name, since):
            if not self._supervisor.members(name):
                raise settings.CloudError(self._death(name, 'ended'))
            if time.monotonic() > limit:
                raise settings.CloudError(self._death(
                    name, f'does not answer after {timeout:.0f} s'))
            time.sleep(0.2)

    def _death(self, name: str, what: str) -> str:
        lines = [f'{name} {what}']
        for path in {self.settings.log / f'{name}.out', self.log_file(name)}:
            lines.append(f'the end of {path}:')
            lines += path.read_text(errors='replace').splitlines()[-12:]
        return '\n'.join(lines)

    def _ready(self, name: str, since: Any) -> bool:
        if name == 'mariadb':
            try:
                self.db.connect().close()
            except pymysql.MySQLError:
                return False
            return True
        if name == 'rabbitmq':
            return self._amqp_answers()
        if name in services.APIS:
            return self._http_answers(
                self.settings.url(name, _PATHS[name]))
        if name in services.NOVA:
            return since is None or bool(self.db(
                'SELECT id FROM nova_cell1.services WHERE deleted = 0 '
                "AND host = %s AND `binary` != 'nova-osapi_compute' "
                'AND last_seen_up >= %s', name, since))
        return process.listening(self.settings.port(name))

    def _amqp_answers(self) -> bool:
        """Tell whether the broker answers a protocol header."""
        try:
            with socket.create_connection(
                    (settings.HOST, self.settings.port('rabbitmq')), 2) as s:
                s.sendall(b'AMQP\x00\x00\x09\x01')
                return s.recv(1) == b'\x01'
        except OSError:
            return False

    @staticmethod
    def _http_answers(url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=30):
                return True
        except urllib.error.HTTPError as error:
            return error.code < 500
        except (OSError, http.client.HTTPException):
            return False

    def _map_hosts(self) -> None:
        """Tell Nova of computes that are in no cell yet."""
        found = {row['host'] for row in self.db(
            'SELECT host FROM nova_api.host_mappings')}
        if set(settings.COMPUTES) <= found:
            return
        where = self.settings
        install.run(
            [str(where.venv / 'bin/nova-manage'), '--config-file',
             str(where.etc / 'nova/nova.conf'), 'cell_v2', 'discover_hosts',
             '--by-service'],
            where.log / 'discover.log', services.environment(where))
