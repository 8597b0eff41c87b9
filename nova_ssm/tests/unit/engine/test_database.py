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

"""The journal's database: what is said when it is not as it should be."""

import collections
import functools
import logging
import os
import threading
import time
from unittest import mock

from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import enginefacade
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import queries
from nova_ssm.engine import schema
from nova_ssm.tests.unit.engine import helpers

AWAY = db_exc.DBConnectionError()


def empty(tmp_path):
    return 'sqlite:///%s' % (tmp_path / 'empty.db')


def test_without_a_url_it_says_which_option_to_set():
    with pytest.raises(exception.DatabaseUnusable,
                       match=r'set \[ssm\] connection'):
        database.Database('')


def test_what_is_no_url_is_not_repeated():
    with pytest.raises(exception.DatabaseUnusable,
                       match='not a database URL') as caught:
        database.Database('mysql:/nova:tiger@host/nova')
    assert 'tiger' not in str(caught.value)
    with pytest.raises(exception.DatabaseUnusable,
                       match='not a database URL'):
        database.Database('mysql+pymysql://nova:tiger@host:port/nova')


def test_missing_tables_are_to_be_made(tmp_path):
    db = database.Database(empty(tmp_path))
    assert db.version() is None
    with pytest.raises(exception.SchemaMissing,
                       match='run "nova-ssm db sync"'):
        db.check()


def test_tables_of_an_older_release_are_to_be_upgraded(url, monkeypatch):
    before = database.head()
    monkeypatch.setattr(database, 'head', lambda: '9999')
    with pytest.raises(exception.SchemaMissing, match=(
            'at revision %s, this release needs 9999' % before)):
        database.Database(url).check()


def test_tables_of_a_newer_release_will_do(url):
    set_version(url, '9999')
    database.Database(url).check()


def test_tables_of_a_newer_release_are_not_upgraded(url):
    set_version(url, '9999')
    with pytest.raises(exception.DatabaseUnusable, match='9999'):
        database.upgrade(url)


def set_version(url, version):
    with helpers.shared(url).transaction() as connection:
        connection.execute(sa.text(
            'UPDATE ssm_alembic_version SET version_num = :v'),
            {'v': version})


@pytest.mark.parametrize('work', [
    lambda url: database.Database(url).check(),
    lambda url: database.upgrade(url),
])
@pytest.mark.parametrize('bad', [
    'mysql+pymysql://nova:tiger@127.0.0.1:1/nova',
    'postgresql+psycopg2://nova:tiger@127.0.0.1:1/nova',
    'nosuchdb://nova:tiger@127.0.0.1/nova'])
def test_an_unreachable_database_is_named_without_its_password(work, bad):
    with pytest.raises(exception.DatabaseUnusable) as caught:
        work(bad)
    assert '//nova:***@127.0.0.1' in str(caught.value)
    assert 'tiger' not in str(caught.value)


def test_upgrading_twice_changes_nothing(url):
    database.upgrade(url)
    assert database.Database(url).version() == database.head()
    database.Database(url).check()


def test_an_sqlite_file_writes_ahead_to_its_log(tmp_path):
    """It waits for the disk once a commit, as a server does."""
    file = empty(tmp_path)
    for _time in range(2):
        database.upgrade(file)
        with database.Database(file).transaction() as connection:
            assert connection.exec_driver_sql(
                'PRAGMA journal_mode').scalar() == 'wal'
            # What is committed is on the disk nevertheless: FULL.
            assert connection.exec_driver_sql(
                'PRAGMA synchronous').scalar() == 2


def test_the_migrations_make_the_tables_that_the_code_works_with(
        url, tmp_path):
    migrated = helpers.shared(url).engine
    made = sa.create_engine(empty(tmp_path))
    schema.metadata.create_all(made)
    assert tables(migrated) == tables(made)
    assert set(tables(made)) == set(schema.metadata.tables)


def tables(engine):
    inspector = sa.inspect(engine)
    return {
        name: ([{**column, 'type': str(column['type'])}
                for column in inspector.get_columns(name)],
               inspector.get_pk_constraint(name)['constrained_columns'],
               sorted((index['name'], index['column_names'])
                      for index in inspector.get_indexes(name)))
        for name in inspector.get_table_names()
        if name != database.VERSION_TABLE}


#: What a flow had in every release.
FLOW = {'uuid': 'a', 'name': 'resize', 'version': '1.0', 'state': 'RUNNING',
        'subject': 'server', 'owner': 'w', 'generation': 3, 'priority': 'HIGH',
        'created_at': 1.5, 'updated_at': 2.5}
ROW = {'flow_uuid': 'a', 'seq': 7, 'kind': 'atom', 'atom': 'T',
       'state': 'SUCCESS', 'writer': 'w', 'created_at': 2.5,
       'payload': b'\0\xff'}


@pytest.mark.parametrize('revision', ['0001', '0002', '0003', '0004'])
def test_flows_of_an_earlier_release_stay_in_an_upgrade(url, revision):
    engine = helpers.shared(url).engine
    there = sa.MetaData()
    there.reflect(engine)
    there.drop_all(engine)
    database.upgrade(url, revision)
    assert database.Database(url).version() == revision
    with engine.begin() as connection:
        connection.execute(old(engine, 'ssm_flows').insert(), FLOW)
        connection.execute(old(engine, 'ssm_journal').insert(), ROW)
    database.upgrade(url)
    database.Database(url).check()
    with engine.begin() as connection:
        [flow] = connection.execute(sa.select(schema.flows)).mappings()
        [row] = connection.execute(sa.select(schema.journal)).mappings()
        # What is new is empty, and the tables that are new.
        assert {name: value for name, value in flow.items()
                if value is not None} == FLOW
        assert dict(row) == ROW
        assert connection.execute(sa.select(schema.orders)).all() == []
    assert queries.flow(database.Database(url), 'a').order is None


def old(engine, name):
    """A table as it is there."""
    return sa.Table(name, sa.MetaData(), autoload_with=engine)


def test_nothing_is_connected_before_it_is_needed(tmp_path):
    database.Database(empty(tmp_path))
    assert not os.path.exists(tmp_path / 'empty.db')


def test_a_transaction_is_rolled_back_if_it_raises(db):
    with pytest.raises(KeyError):
        with db.transaction() as connection:
            add_worker(connection)
            raise KeyError()
    assert workers(db) == 0


class Pool(collections.Counter):
    """Counts what a database asks its pool of connections for."""

    def __init__(self, db):
        super().__init__()
        for name in ('connect', 'checkout', 'checkin'):
            event.listen(db.engine, name, functools.partial(self._saw, name))

    def _saw(self, name, *args):
        self[name] += 1


def test_transactions_that_follow_each_other_share_a_connection(db):
    pool = Pool(db)
    for _number in range(5):
        with db.transaction() as connection:
            assert workers_in(connection) == 0
    assert pool['checkout'] == 1
    assert pool['checkin'] == 0


def test_a_connection_that_was_idle_is_asked_whether_it_lives(
        db, monkeypatch):
    pool, clock = Pool(db), [0.0]
    monkeypatch.setattr(database.time, 'monotonic', lambda: clock[0])
    for _number in range(3):
        with db.transaction() as connection:
            assert workers_in(connection) == 0
        clock[0] += 2 * database._FRESH
    # The pool asks, when it is taken out of it.
    assert pool['checkout'] == 3
    assert pool['checkin'] == 2


def test_a_connection_on_which_something_failed_is_not_taken_again(db):
    pool = Pool(db)
    with pytest.raises(KeyError):
        with db.transaction():
            raise KeyError()
    with db.transaction() as connection:
        add_worker(connection)
    assert pool['checkin'] == 1
    assert workers(db) == 1


def test_transactions_at_the_same_time_have_connections_of_their_own(db):
    with db.transaction() as one, db.transaction() as other:
        assert one is not other
    with db.transaction() as one, db.transaction() as other:
        assert one is not other


def test_only_some_connections_are_kept_at_hand(db):
    pool, count = Pool(db), database._SPARE + 2
    together = threading.Barrier(count, timeout=60)

    def work():
        with db.transaction() as connection:
            assert workers_in(connection) == 0
            together.wait()

    threads = [threading.Thread(target=work) for _number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool['checkout'] - pool['checkin'] == database._SPARE
    db.close()
    assert pool['checkout'] == pool['checkin']


def test_a_child_process_leaves_the_connections_of_its_parent_alone(db):
    with db.transaction() as connection:
        assert workers_in(connection) == 0
    before, closed = connection, []
    event.listen(db.engine, 'checkin', lambda *args: closed.append(args))
    db._pid = -1        # as after a fork
    with db.transaction() as connection:
        assert connection is not before
        assert workers_in(connection) == 0
    assert not closed
    assert not before.closed
    before.close()
    database._ORPHANS.clear()


def workers_in(connection):
    return connection.execute(sa.select(
        sa.func.count()).select_from(schema.workers)).scalar_one()


def add_worker(connection):
    connection.execute(schema.workers.insert().values(
        id='a', host='h', pid=1, process_started=0, started_at=0,
        expires_at=0))


def workers(db):
    with db.transaction() as connection:
        return connection.execute(sa.select(
            sa.func.count()).select_from(schema.workers)).scalar()


@pytest.mark.parametrize('error', [
    AWAY, db_exc.DBDeadlock(), sa.exc.TimeoutError(),
    sa.exc.OperationalError('', {}, Exception('server is shutting down'))])
def test_a_write_is_tried_again_until_the_database_takes_it(
        url, error, caplog):
    db = database.Database(url)
    helpers.Outage(db, [error] * 3)
    db.write(add_worker)
    assert workers(db) == 1
    assert 'trying again until it does' in caplog.text


def test_a_write_gives_up_when_it_is_told_to(url):
    db = database.Database(url)
    errors = [AWAY] * 10
    helpers.Outage(db, errors)
    answers = iter([False, False, True])
    with pytest.raises(db_exc.DBConnectionError):
        db.write(add_worker, give_up=lambda: next(answers))
    assert len(errors) == 7


def test_a_write_that_is_wrong_is_not_tried_again(db):
    tries = []

    def work(connection):
        tries.append(1)
        add_worker(connection)

    db.write(work)
    with pytest.raises(db_exc.DBDuplicateEntry):
        db.write(work)
    assert len(tries) == 2


def test_a_database_that_is_away_when_first_used_is_waited_for(
        url, monkeypatch):
    db = database.Database(url)
    make, errors = enginefacade.transaction_context, [AWAY, AWAY]

    def transaction_context():
        made = make()
        if errors:
            error = errors.pop()
            made = mock.Mock(**{'writer.get_engine.side_effect': error})
        return made

    monkeypatch.setattr(database.enginefacade, 'transaction_context',
                        transaction_context)
    db.write(add_worker)
    assert workers(db) == 1


def test_a_fork_gets_connections_of_its_own(url):
    db = database.Database(url)
    here = db.engine
    assert db.engine is here
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            db.write(add_worker)
            os.write(write, b'new' if db.engine is not here else b'old')
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 3) == b'new'
    assert db.engine is here
    assert workers(db) == 1


def test_a_closed_database_may_be_used_again(url):
    db = database.Database(url)
    db.write(add_worker)
    db.close()
    assert workers(db) == 1
    db.close()
    db.close()


def test_a_full_disk_is_waited_for(url, world, caplog):
    """Nothing is dropped, reverted or done twice meanwhile."""
    process = helpers.Process(url, world, {'flow': lambda: helpers.linear(
        Large('a', world), Large('b', world))})
    engine = process.db.engine
    room = limit(engine, 40)
    caplog.set_level(logging.WARNING)
    found = []
    thread = threading.Thread(target=lambda: found.append(process.run()),
                              daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while 'is full' not in caplog.text and time.monotonic() < until:
        time.sleep(0.02)
    assert 'trying again until it does' in caplog.text
    assert (found, world.effects) == ([], ['a'])
    room['pages'] = 10000
    thread.join(30)
    assert [outcome.state for outcome in found] == ['SUCCESS']
    assert (world.effects, world.doubled) == (['a', 'b'], [])


class Large(helpers.Do):
    """A task whose result takes up some pages."""

    def execute(self, **kwargs):
        return super().execute(**kwargs) + os.urandom(100000).hex()


def limit(engine, pages):
    """Let a SQLite file grow to so many pages only; may be changed."""
    room = {'pages': pages}

    @event.listens_for(engine, 'begin')
    def begin(connection):
        connection.exec_driver_sql(
            'PRAGMA max_page_count = %d' % room['pages'])
    return room


def test_what_a_statement_was_given_is_not_in_its_error(db, caplog):
    with pytest.raises(db_exc.DBError) as caught:
        with db.transaction() as connection:
            connection.execute(sa.text(
                'INSERT INTO ssm_flows (uuid) VALUES (:it)'),
                {'it': 'tiger-7f3a'})
    assert 'tiger-7f3a' not in str(caught.value)


def test_what_cannot_be_read_is_said_in_one_line(db):
    with pytest.raises(exception.DatabaseUnusable) as caught:
        with db.reading() as connection:
            connection.execute(sa.text('SELECT x FROM ssm_flows'))
    assert 'cannot be read' in str(caught.value)
    assert '\n' not in str(caught.value)


def test_threads_take_turns_at_an_sqlite_file(own_db):
    inside, done = threading.Event(), threading.Event()
    order = []

    def first(connection):
        inside.set()
        # Long enough for the other to come, if it is let in.
        assert not done.wait(0.3)
        order.append('first')

    def second():
        inside.wait(10)
        own_db.write(lambda connection: order.append('second'))
        done.set()

    thread = threading.Thread(target=second)
    thread.start()
    own_db.write(first)
    thread.join(10)
    assert order == ['first', 'second']


def test_writers_of_other_databases_do_not_wait_for_each_other():
    turn = database.Database('mysql+pymysql://nova@host/nova')._turn
    with turn, turn:
        entered = threading.Event()

        def other():
            with turn:
                entered.set()

        threading.Thread(target=other).start()
        assert entered.wait(10)
