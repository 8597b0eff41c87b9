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

"""MariaDB, as Debian's mariadb-server brings it."""

from collections.abc import Sequence
import itertools

import pymysql

from nova_ssm.tests.servers import base

# What is committed survives the end of the process all the same.
_FAST = ('--innodb-flush-method=nosync', '--innodb-flush-log-at-trx-commit=2',
         '--innodb-doublewrite=0')


class MariaDB(base.Server):
    """A MariaDB with an empty database in it, as administrator.

    :param durable: False leaves out what makes commits survive a power
        failure, and costs most of the time of a test
    :param options: further options of mariadbd
    """

    package = 'mariadb-server'
    program = 'mariadbd'

    def __init__(self, durable: bool = False,
                 options: Sequence[str] = ()) -> None:
        super().__init__()
        self._options = [*(() if durable else _FAST), *options]
        self._names = ('db%d' % number for number in itertools.count())

    def prepare(self) -> None:
        self.run('mariadb-install-db', '--no-defaults', '--skip-test-db',
                 '--datadir=%s' % self.data, *_FAST, '--skip-sync-frm',
                 '--auth-root-authentication-method=normal')

    @property
    def data(self) -> str:
        return str(self.home / 'data')

    def command(self) -> Sequence[str]:
        return [self.program, '--no-defaults', '--datadir=%s' % self.data,
                '--socket=%s' % (self.home / 'socket'),
                '--pid-file=%s' % (self.home / 'pid'),
                '--bind-address=%s' % base.HOST, '--port=%d' % self.port,
                '--skip-name-resolve', '--max-connections=500',
                '--character-set-server=utf8mb4',
                '--innodb-buffer-pool-size=128M',
                '--performance-schema=OFF', *self._options]

    def ready(self) -> bool:
        try:
            self.sql('SELECT 1')
        except pymysql.MySQLError:
            return False
        return True

    def sql(self, statement: str) -> list[tuple]:
        """Run one statement as administrator.

        :raises pymysql.MySQLError: as the server does
        """
        with pymysql.connect(host=base.HOST, port=self.port, user='root',
                             autocommit=True, connect_timeout=5,
                             ssl_disabled=True) as connection:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())

    def fresh(self) -> str:
        """The URL of a new, empty database."""
        name = next(self._names)
        self.sql('CREATE DATABASE %s' % name)
        return self.url(name)

    def url(self, name: str) -> str:
        # PyMySQL would load all the machine's authorities for each
        # connection, though there is no TLS here.
        return ('mysql+pymysql://root@%s:%d/%s?charset=utf8mb4&ssl_disabled=true'
                % (base.HOST, self.port, name))
