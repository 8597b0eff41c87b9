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

"""PostgreSQL, as Debian's postgresql brings it."""

from collections.abc import Sequence
import itertools
import pathlib
import signal

import psycopg2

from nova_ssm.tests.servers import base

# What is committed survives the end of the process all the same.
_FAST = ('fsync=off', 'full_page_writes=off')


class PostgreSQL(base.Server):
    """A PostgreSQL with an empty database in it, as administrator.

    :param durable: False leaves out what makes commits survive a power
        failure, and costs most of the time of a test
    :param options: further settings, as name=value
    """

    package = 'postgresql'
    program = 'postgres'
    # Not SIGTERM: it waits until the last client has gone.
    stop_signal = signal.SIGINT

    def __init__(self, durable: bool = False,
                 options: Sequence[str] = ()) -> None:
        # Debian keeps them out of the way: several may be installed.
        self.bin = max(pathlib.Path('/usr/lib/postgresql').glob('*/bin'),
                       key=lambda path: int(path.parent.name),
                       default=pathlib.Path('/usr/bin'))
        self.program = str(self.bin / 'postgres')
        super().__init__()
        self._settings = [*(() if durable else _FAST), *options]
        self._names = ('db%d' % number for number in itertools.count())

    def prepare(self) -> None:
        self.run(str(self.bin / 'initdb'), '--pgdata', self.data,
                 '--username', 'root', '--auth', 'trust', '--no-sync',
                 '--encoding', 'UTF8', '--locale', 'C')

    @property
    def data(self) -> str:
        return str(self.home / 'data')

    def command(self) -> Sequence[str]:
        settings = ['listen_addresses=%s' % base.HOST,
                    'unix_socket_directories=%s' % self.home,
                    'max_connections=200', *self._settings]
        return [self.program, '-D', self.data, '-p', str(self.port),
                *(word for one in settings for word in ('-c', one))]

    def ready(self) -> bool:
        try:
            self.sql('SELECT 1')
        except psycopg2.Error:
            return False
        return True

    def sql(self, statement: str) -> list[tuple]:
        """Run one statement as administrator.

        :raises psycopg2.Error: as the server does
        """
        connection = psycopg2.connect(host=base.HOST, port=self.port,
                                      user='root', dbname='postgres',
                                      connect_timeout=5)
        try:
            connection.autocommit = True    # as CREATE DATABASE wants it
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        name = next(self._names)
        self.sql('CREATE DATABASE %s' % name)
        return self.url(name)

    def url(self, name: str) -> str:
        return 'postgresql+psycopg2://root@%s:%d/%s' % (
            base.HOST, self.port, name)
