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

"""A database that is not as it should be: what is said, and what goes on."""

import contextlib
import logging
import subprocess
import sys
import threading
import time

from oslo_config import cfg
import pymysql
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from nova_ssm.cmd import main
from nova_ssm import conf as ssm_conf
from nova_ssm.engine import database
from nova_ssm.engine import exception as engine_exc
from nova_ssm.engine import queries
from nova_ssm.engine import recovery
from nova_ssm.engine import schema
from nova_ssm import exception
from nova_ssm import runtime
from nova_ssm.tests.servers import base
from nova_ssm.tests.servers import mariadb
from nova_ssm.tests.servers import postgresql
from nova_ssm.tests.unit import cmd
from nova_ssm.tests.unit.engine import helpers

PASSWORD = 'tiger-7f3a'


class Trouble:
    """A MariaDB as Nova uses one: with an account that is no administrator.

    :ivar url: of a database of this test
    """

    def __init__(self, server):
        self.server = server
        self.name = server.fresh().partition('?')[0].rpartition('/')[2]
        self.grant('ALL')
        self.url = self.make_url(PASSWORD)

    def make_url(self, password, name=None):
        return 'mysql+pymysql://nova:%s@%s:%d/%s?charset=utf8mb4' % (
            password, base.HOST, self.server.port, name or self.name)

    def grant(self, what, table='*'):
        self.server.sql("GRANT %s ON %s.%s TO nova@'%%' IDENTIFIED BY '%s'"
                        % (what, self.name, table, PASSWORD))

    @contextlib.contextmanager
    def setting(self, **values):
        """Global settings, for a while; those who are connected are cut."""
        before = {name: self.server.sql('SELECT @@global.%s' % name)[0][0]
                  for name in values}
        self.set(values)
        try:
            yield
        finally:
            self.set(before)

    def set(self, values):
        for name, value in values.items():
            self.server.sql('SET GLOBAL %s = %s' % (name, value))

    def cut(self):
        """Break the connections of the account."""
        self.server.sql('KILL USER nova')


@contextlib.contextmanager
def crowd(trouble):
    """As many connections as the account may have."""
    trouble.server.sql("ALTER USER nova@'%' WITH MAX_USER_CONNECTIONS 1")
    trouble.cut()
    other = pymysql.connect(host=base.HOST, port=trouble.server.port,
                            user='nova', password=PASSWORD)
    try:
        yield
    finally:
        other.close()
        trouble.server.sql("ALTER USER nova@'%' WITH MAX_USER_CONNECTIONS 0")


@pytest.fixture(scope='module')
def server():
    with mariadb.MariaDB() as one:
        yield one


@pytest.fixture
def trouble(server):
    return Trouble(server)


@pytest.fixture
def away():
    return 'mysql+pymysql://nova:%s@%s:%d/nova' % (
        PASSWORD, base.HOST, base.free_port())


@pytest.fixture
def nova_ssm(tmp_path, capsys):
    """Runs the command on a database; gives exit code, output, errors."""
    def run(url, *argv):
        path = tmp_path / 'nova.conf'
        path.write_text('[ssm]\nconnection = %s\n' % url)
        with cmd.one_process():
            code = main.main(['--config-file', str(path), *argv])
        return (code, *capsys.readouterr())
    yield run
    cfg.CONF.reset()


def start(url):
    """What a conductor does when it starts."""
    conf = cfg.ConfigOpts()
    conf([])
    ssm_conf.register_opts(conf)
    conf.set_override('connection', url, 'ssm')
    try:
        return runtime.Runtime(conf, 'conductor')
    finally:
        conf.clear_override('connection', 'ssm')


COMMANDS = (('flow', 'list'), ('flow', 'show', 'x'), ('db', 'purge'))


def assert_clear(url, nova_ssm, *words, commands=COMMANDS):
    """Conductor and commands stop, in a line that says what is the matter."""
    with pytest.raises((engine_exc.EngineError,
                        exception.ConfigurationError)) as caught:
        start(url)
    said = [str(caught.value)]
    for command in commands:
        result = nova_ssm(url, *command)
        cmd.assert_one_line(result, *words)
        said.append(result[2])
    for text in said:
        assert '\n' not in text.strip()
        assert PASSWORD not in text
        for word in words:
            assert word in text


# -- at the start ------------------------------------------------------------

def test_a_wrong_password(trouble, nova_ssm):
    assert_clear(trouble.make_url('wrong'), nova_ssm,
                 'nova:***@', 'Access denied')


def test_a_database_that_is_not_there(trouble, nova_ssm):
    assert_clear(trouble.make_url(PASSWORD, 'nothing'), nova_ssm,
                 'nova:***@', 'nothing')


def test_a_server_that_is_not_there(away, nova_ssm):
    assert_clear(away, nova_ssm, 'nova:***@', 'refused')


def test_a_driver_that_is_not_there(nova_ssm):
    assert_clear('oracle://nova:%s@db/nova' % PASSWORD, nova_ssm,
                 'nova:***@')


def test_missing_tables(trouble, nova_ssm):
    assert_clear(trouble.url, nova_ssm, 'run "nova-ssm db sync"')


def test_tables_of_an_older_release(trouble, nova_ssm):
    database.upgrade(trouble.url, '0001')
    assert_clear(trouble.url, nova_ssm, 'at revision 0001',
                 'run "nova-ssm db sync"')


def test_tables_of_a_newer_release_will_do(trouble, nova_ssm):
    """Conductors are upgraded one after the other."""
    database.upgrade(trouble.url)
    trouble.server.sql("UPDATE %s.ssm_alembic_version SET version_num = "
                       "'9999'" % trouble.name)
    start(trouble.url)
    assert nova_ssm(trouble.url, 'flow', 'list')[0] == 0
    cmd.assert_one_line(nova_ssm(trouble.url, 'db', 'sync'), '9999')


def test_too_many_connections(trouble, nova_ssm):
    database.upgrade(trouble.url)
    with crowd(trouble):
        assert_clear(trouble.url, nova_ssm, 'max_user_connections')


def test_an_account_that_may_not_read(trouble, nova_ssm):
    database.upgrade(trouble.url)
    trouble.server.sql("REVOKE ALL ON %s.* FROM nova@'%%'" % trouble.name)
    trouble.grant('SELECT', 'ssm_alembic_version')
    for command in (('flow', 'list'), ('db', 'purge')):
        cmd.assert_one_line(nova_ssm(trouble.url, *command), 'denied',
                            'nova:***@')


def test_a_database_that_is_read_only(trouble, nova_ssm):
    """It can be looked at; what would change it says so and ends."""
    database.upgrade(trouble.url, '0001')
    with trouble.setting(read_only=1):
        cmd.assert_one_line(nova_ssm(trouble.url, 'db', 'sync'), 'read-only')
    database.upgrade(trouble.url)
    helpers.Process(trouble.url, helpers.World(), {}).board.post('flow')
    with trouble.setting(read_only=1):
        code, out, _err = nova_ssm(trouble.url, 'flow', 'list', '-f', 'csv')
        assert (code, out.count('PENDING')) == (0, 1)
        with helpers.shared(trouble.url).transaction() as connection:
            uuid = connection.execute(sa.select(
                schema.flows.c.uuid)).scalar()
        assert nova_ssm(trouble.url, 'flow', 'show', uuid)[0] == 0
    helpers.MortalDatabase.shared.pop(trouble.url).close()


def test_purging_what_is_read_only_says_so(trouble, nova_ssm):
    database.upgrade(trouble.url)
    process = helpers.Process(trouble.url, helpers.World(), {})
    process.board.post('flow')
    with process.db.transaction() as connection:
        connection.execute(schema.flows.update().values(
            state='SUCCESS', finished_at=1.0))
    with trouble.setting(read_only=1):
        code, out, err = nova_ssm(trouble.url, 'db', 'purge')
    assert (code, out) == (1, '')
    assert 'cannot be removed' in err.splitlines()[-1]
    assert 'read-only' in err.splitlines()[-1]
    helpers.MortalDatabase.shared.pop(trouble.url).close()


def test_postgresql_says_it_as_clearly(nova_ssm):
    with postgresql.PostgreSQL() as one:
        url = one.fresh().replace('root@', 'root:%s@' % PASSWORD)
        assert_clear(url, nova_ssm, 'run "nova-ssm db sync"')
        assert_clear(url.rpartition('/')[0] + '/nothing', nova_ssm,
                     'root:***@', '"nothing" does not exist')
        database.upgrade(url)
        one.sql('ALTER DATABASE %s SET default_transaction_read_only = on'
                % url.rpartition('/')[2])
        assert nova_ssm(url, 'flow', 'list')[0] == 0


NOVA_CONF = '''
[DEFAULT]
host = here
transport_url = fake://
state_path = %(path)s
[api_database]
connection = sqlite:///%(path)s/api
[database]
connection = sqlite:///%(path)s/cell
[placement]
auth_type = none
endpoint_override = http://127.0.0.1:1
[ssm]
workflows = build_instances
connection = %(journal)s
'''


@pytest.mark.parametrize('password, words', (
    ('wrong', ('Access denied',)), (PASSWORD, ('nova-ssm db sync',))))
def test_nova_conductor_itself_ends_with_one_line(
        trouble, tmp_path, password, words):
    (tmp_path / 'nova.conf').write_text(NOVA_CONF % {
        'path': tmp_path, 'journal': trouble.make_url(password)})
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c',
         'from nova_ssm.cmd import conductor; conductor.main()',
         '--config-file', str(tmp_path / 'nova.conf')],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=100, check=False)
    assert done.returncode == 1
    critical = [line for line in done.stdout.splitlines()
                if ' CRITICAL ' in line]
    assert len(critical) == 1
    for word in words:
        assert word in critical[0]
    assert 'Traceback' not in done.stdout
    assert PASSWORD not in done.stdout


# -- while flows run ---------------------------------------------------------

class Slow(helpers.Do):
    """A task in which something happens to the database."""

    begun: threading.Event
    go_on: threading.Event

    def execute(self, **kwargs):
        self.begun.set()
        assert self.go_on.wait(60)
        return super().execute(**kwargs)


@pytest.fixture
def running(trouble):
    """A flow, stopped in its second of three tasks."""
    database.upgrade(trouble.url)
    world = helpers.World()

    def flow():
        return helpers.linear(helpers.Do('a', world), Slow('b', world),
                              helpers.Do('c', world))

    Slow.begun, Slow.go_on = threading.Event(), threading.Event()
    one = helpers.Process(trouble.url, world, {'flow': flow})
    found = []
    thread = threading.Thread(target=lambda: found.append(one.run()),
                              daemon=True)
    thread.start()
    assert Slow.begun.wait(60)
    yield one, thread, found
    Slow.go_on.set()
    thread.join(60)
    helpers.MortalDatabase.shared.pop(trouble.url).close()


def wait_for(condition):
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


@contextlib.contextmanager
def read_only(trouble):
    with trouble.setting(read_only=1):
        trouble.cut()
        yield 'read-only'


@contextlib.contextmanager
def crowded(trouble):
    with crowd(trouble):
        yield 'max_user_connections'


@contextlib.contextmanager
def locked_out(trouble):
    trouble.server.sql("ALTER USER nova@'%' ACCOUNT LOCK")
    trouble.cut()
    try:
        yield 'Access denied|locked'
    finally:
        trouble.server.sql("ALTER USER nova@'%' ACCOUNT UNLOCK")


@pytest.mark.parametrize('happens', (read_only, crowded, locked_out))
def test_a_flow_waits_and_goes_on(happens, trouble, running, caplog):
    """Nothing is dropped, reverted or done twice meanwhile."""
    one, thread, found = running
    caplog.set_level(logging.WARNING)
    with happens(trouble) as words:
        Slow.go_on.set()
        wait_for(lambda: 'trying again until it does' in caplog.text)
        time.sleep(0.3)
        assert found == []
    thread.join(60)
    assert [outcome.state for outcome in found] == ['SUCCESS']
    assert one.world.effects == ['a', 'b', 'c']
    assert one.world.doubled == []
    warned = [record.getMessage() for record in caplog.records
              if 'does not take our write' in record.getMessage()]
    assert any(word in warned[0] for word in words.split('|'))
    for text in warned:
        assert '\n' not in text
        assert PASSWORD not in text


# -- clocks ------------------------------------------------------------------

def set_clock(url, seconds):
    """The clock of the database is another one from now on."""
    @event.listens_for(helpers.shared(url).engine, 'before_cursor_execute')
    def set_timestamp(conn, cursor, *args):
        # SYSDATE() goes on by itself; all else is what is set here.
        cursor.execute('SET timestamp = UNIX_TIMESTAMP(SYSDATE(6)) + %d'
                       % seconds)


def flows_of(world):
    return {'flow': lambda: helpers.linear(
        helpers.Do('a', world), Slow('b', world), helpers.Do('c', world))}


@pytest.mark.parametrize('seconds', (-7200, 7200))
def test_nobody_is_dead_because_the_clock_of_the_database_was_set(
        trouble, seconds):
    """Also not for who has not renewed its lease on the new clock yet."""
    database.upgrade(trouble.url)
    world, found = helpers.World(), []
    Slow.begun, Slow.go_on = threading.Event(), threading.Event()
    one = helpers.Process(trouble.url, world, flows_of(world), lease=3)
    one.runner._renew = True
    thread = threading.Thread(target=lambda: found.append(one.run()),
                              daemon=True)
    thread.start()
    assert Slow.begun.wait(60)
    two = helpers.Process(trouble.url, world, flows_of(world), lease=3,
                          host='other')
    two.runner._renew = True
    looking = recovery.Recovery(two.runner, 'other', interval=0.1)
    looking.start()
    time.sleep(1)
    try:
        set_clock(trouble.url, seconds)
        time.sleep(5)       # longer than a lease
        Slow.go_on.set()
        thread.join(60)
    finally:
        Slow.go_on.set()
        looking.stop()
        one.runner._worker.stop()
        two.runner._worker.stop()
    assert [outcome.state for outcome in found] == ['SUCCESS']
    assert (world.effects, world.doubled) == (['a', 'b', 'c'], [])
    assert world.count('do b') == 1
    assert queries.flows(one.db)[0].claims == 0
    helpers.MortalDatabase.shared.pop(trouble.url).close()
