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

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest
import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import schema
from nova_ssm.tests.ownership import conductor
from nova_ssm.tests.servers import mariadb


class Process:
    """A conductor that runs."""

    def __init__(self, told):
        self.host = told['host']
        self._process = subprocess.Popen(
            [sys.executable, '-W', 'ignore', '-m',
             conductor.__name__, json.dumps(told)],
            stdin=subprocess.PIPE, text=True)

    def run(self, name, number):
        """Ask for a flow."""
        self._process.stdin.write('%s %s\n' % (name, number))
        self._process.stdin.flush()

    def kill(self):
        self._process.kill()
        self._process.wait()

    def freeze(self):
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    @property
    def frozen(self):
        return psutil.Process(
            self._process.pid).status() == psutil.STATUS_STOPPED

    def terminate(self):
        self._process.terminate()

    def wait(self):
        """Its exit code."""
        return self._process.wait(60)

    def close(self):
        if self._process.poll() is None:
            self.kill()
        self._process.stdin.close()


class World:
    """A database, the processes on it, and what they have done."""

    def __init__(self, server, path):
        self.server = server
        self.url = server.fresh()
        database.upgrade(self.url)
        self._db = database.Database(self.url)
        self._file = path / 'effects'
        self._processes = []

    def start(self, host, lease=2.0, wait=True, **told):
        """Start a conductor, and wait until it is registered."""
        known = self.workers().keys()
        self._processes.append(Process({
            'url': self.url, 'host': host, 'lease': lease,
            'file': str(self._file), **told}))
        if wait:
            self.until(lambda: any(one.startswith(host + ':') for one in
                                   self.workers().keys() - known))
        return self._processes[-1]

    def go(self):
        """Let what waits go on."""
        self._file.with_suffix('.go').touch()

    def close(self):
        for process in self._processes:
            process.close()
        self._db.close()

    @staticmethod
    def until(condition, patience=60.0):
        limit = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < limit, 'waited in vain'
            time.sleep(0.02)

    # -- what is to be seen -------------------------------------------------

    def select(self, query):
        with self._db.transaction() as connection:
            return connection.execute(query).all()

    def execute(self, statement):
        with self._db.transaction() as connection:
            connection.execute(statement)

    def workers(self):
        return {row.id: row for row in self.select(
            sa.select(schema.workers))}

    def flow(self, number):
        [row] = self.select(sa.select(schema.flows).where(
            schema.flows.c.subject == number)) or [None]
        return row

    def flows(self):
        return self.select(sa.select(schema.flows))

    def rows(self, number):
        """The journal of a flow."""
        return self.select(sa.select(schema.journal).where(
            schema.journal.c.flow_uuid == self.flow(number).uuid).order_by(
                schema.journal.c.seq))

    def writers(self, number):
        """The hosts that wrote it, in order."""
        hosts = [row.writer.partition(':')[0] for row in self.rows(number)]
        return [host for index, host in enumerate(hosts)
                if not index or hosts[index - 1] != host]

    def claims(self):
        """Of all flows: who claimed when, on the database's clock."""
        return self.select(sa.select(schema.journal).where(
            schema.journal.c.kind == 'claim').order_by(
                schema.journal.c.created_at))

    def now(self):
        [(now,)] = self.select(sa.select(schema.now()))
        return now

    def effects(self, number=None, host=None, what='effect'):
        """The steps that were done, in order."""
        return [line[4] for line in conductor.lines(self._file)
                if line[2] == what and number in (None, line[3]) and
                host in (None, line[1])]

    def ended(self, *numbers):
        """Whether these flows are over."""
        return all((row := self.flow(number)) and row.finished_at
                   for number in numbers)


@pytest.fixture(scope='session')
def server():
    with mariadb.MariaDB() as made:
        yield made


@pytest.fixture
def world(server, tmp_path):
    made = World(server, tmp_path)
    yield made
    # A test may have left it so.
    if not server.running:
        server.start()
    server.thaw()
    made.close()


@pytest.fixture
def figure(capsys):
    """Shows a measured figure, also of a test that passes."""
    def show(text, *values):
        with capsys.disabled():
            print('\n    ' + text % values)
    return show
