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

"""The journal's database: connections, transactions, and its schema.

A connection is made by the first one who needs it, never at import or when
a manager is made: Nova makes its managers before the workers fork.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import threading
import time
from typing import Any, TypeVar

from alembic import command
from alembic import config as alembic_config
from alembic.runtime import migration as alembic_migration
from alembic import script as alembic_script
from alembic import util as alembic_util
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import enginefacade
from oslo_log import log as logging
import sqlalchemy as sa
from sqlalchemy import event
import tenacity

from nova_ssm.engine import exception

LOG = logging.getLogger(__name__)
T = TypeVar('T')

#: Connections of a parent process, kept from being closed by their end.
_ORPHANS: list[Any] = []

#: Seconds after which a connection that was not used is asked whether it
#: lives, and how many are kept without being asked.
_FRESH, _SPARE = 1.0, 8

VERSION_TABLE = 'ssm_alembic_version'
#: What is done in a transaction.
Work = Callable[[sa.Connection], T]
_MIGRATIONS = os.path.join(os.path.dirname(__file__), 'migrations')

#: Errors after which the same transaction may simply be tried again.
#: OperationalError is what oslo.db leaves of what is the matter with the
#: server: too many connections, read-only, shutting down, disk full.
TRANSIENT = (db_exc.DBDeadlock, db_exc.DBConnectionError,
             db_exc.RetryRequest, sa.exc.OperationalError,
             sa.exc.TimeoutError)

#: After how many seconds the database gives up a transaction of ours that
#: does not go on. Of a process that was stopped in the middle of one it would
#: keep what the others need, for as long as its connection lasts.
PATIENCE = 5


class Database:
    """One database, its connections made when they are first needed.

    :param url: an SQLAlchemy URL
    :param options: what oslo.db's ``[database]`` section may hold, e.g.
        ``max_pool_size``
    """

    def __init__(self, url: str, **options: Any) -> None:
        if not url:
            raise exception.DatabaseUnusable(
                'no database is configured for the journal: set [ssm] '
                'connection, or [database] connection, in nova.conf')
        self.safe_url = _without_password(url)
        self.url = url
        self._options = options
        self._engine: sa.Engine | None = None
        self._pid: int | None = None
        self._lock = threading.Lock()
        # SQLite lets one write at a time; who finds it locked sleeps, for
        # longer than the other needs. Threads of ours take turns.
        self._turn: contextlib.AbstractContextManager = (
            threading.RLock() if url.startswith('sqlite')
            else contextlib.nullcontext())
        #: Idle connections, with the time of their last use; in its order.
        self._spare: list[tuple[float, sa.Connection]] = []

    @property
    def engine(self) -> sa.Engine:
        # Also made anew in a forked child: connections are not shared.
        if self._engine is None or self._pid != os.getpid():
            with self._lock:
                if self._engine is None or self._pid != os.getpid():
                    if self._engine is not None:
                        self._engine.dispose(close=False)
                    # The parent's: not even to be closed here.
                    _ORPHANS.extend(self._spare)
                    self._spare = []
                    self._engine = self._create_engine()
                    self._pid = os.getpid()
        return self._engine

    def _create_engine(self) -> sa.Engine:
        context_manager = enginefacade.transaction_context()
        # No sleep(0) after each transaction: threads are threads here.
        options: dict[str, Any] = {'sqlite_fk': False, 'max_retries': 1,
                                   'thread_checkin': False}
        options.update(self._options)
        context_manager.configure(connection=self.url, **options)
        try:
            engine = context_manager.writer.get_engine()
        except TRANSIENT:
            raise       # worth waiting for, so not an error of ours yet
        except Exception as exc:
            raise exception.DatabaseUnusable(
                'the journal database %s cannot be reached: %s'
                % (self.safe_url, first_line(exc))) from exc
        # What a statement was given is nothing for a log.
        engine.hide_parameters = True
        if engine.dialect.name == 'sqlite':
            _wait_for_lock(engine)
        elif engine.dialect.name in ('mysql', 'mariadb'):
            _on_connect(engine, _mysql_session)
        elif engine.dialect.name == 'postgresql':
            _on_connect(engine, _postgresql_session)
        return engine

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """One transaction: committed at the end, rolled back if it raises.

        A flow writes one after the other. The connection of the last one is
        taken again as it is: the pool would ask it first whether it lives,
        and roll back once more when it gets it back.
        """
        connection = self._connect()
        try:
            with connection.begin():
                yield connection
        except BaseException:
            connection.close()
            raise
        self._keep(connection)

    def _connect(self) -> sa.Connection:
        engine = self.engine
        try:
            used, connection = self._spare.pop()
        except IndexError:
            return engine.connect()
        if time.monotonic() - used < _FRESH:
            return connection
        connection.close()
        self._close_spare()     # they are older
        return engine.connect()

    def _keep(self, connection: sa.Connection) -> None:
        if len(self._spare) < _SPARE:
            self._spare.append((time.monotonic(), connection))
        else:
            connection.close()

    def _close_spare(self) -> None:
        while True:
            try:
                _used, connection = self._spare.pop()
            except IndexError:
                return
            connection.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction for who asks once and tells what is the matter.

        :raises DatabaseUnusable: if the database cannot be read
        """
        try:
            with self.transaction() as connection:
                yield connection
        except (db_exc.DBError, sa.exc.SQLAlchemyError) as exc:
            raise exception.DatabaseUnusable(
                'the journal database %s cannot be read: %s'
                % (self.safe_url, first_line(exc))) from exc

    def write(self, work: Callable[[sa.Connection], T],
              give_up: Callable[[], bool] = lambda: False) -> T:
        """Run one transaction, again and again while the database is away.

        :param work: what to do in the transaction; may run more than once
        :param give_up: asked between two tries; True raises the last error
        """
        try:
            return self._try(work)
        except TRANSIENT:
            if give_up():
                raise
        for attempt in tenacity.Retrying(
                retry=tenacity.retry_if_exception(
                    lambda e: isinstance(e, TRANSIENT) and not give_up()),
                wait=tenacity.wait_exponential_jitter(
                    initial=0.05, max=2, jitter=0.1),
                before_sleep=self._say_waiting, reraise=True):
            with attempt:
                return self._try(work)
        raise AssertionError('unreachable')

    def _try(self, work: Callable[[sa.Connection], T]) -> T:
        with self._turn, self.transaction() as connection:
            return work(connection)

    def _say_waiting(self, state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None
        exc = state.outcome.exception()
        assert exc is not None
        if state.attempt_number in (1, 5) or not state.attempt_number % 30:
            LOG.warning('The journal database %s does not take our write '
                        '(%s); trying again until it does.',
                        self.safe_url, first_line(exc))

    def close(self) -> None:
        if self._engine is not None and self._pid == os.getpid():
            self._close_spare()
            self._engine.dispose()
        self._engine = None

    def check(self) -> None:
        """Make sure that the tables are there and new enough.

        Uses a connection of its own, which it closes: safe before a fork.

        :raises SchemaMissing: with what to do about it
        :raises DatabaseUnusable: if the database cannot be reached
        """
        found, wanted = self.version(), head()
        if found is None:
            raise exception.SchemaMissing(
                'the journal tables are missing in %s: run "nova-ssm db '
                'sync"' % self.safe_url)
        if found != wanted and found in _known_revisions():
            raise exception.SchemaMissing(
                'the journal tables in %s are at revision %s, this release '
                'needs %s: run "nova-ssm db sync"'
                % (self.safe_url, found, wanted))

    def version(self) -> str | None:
        """The revision of the tables, None if there are none."""
        try:
            engine = sa.create_engine(self.url, poolclass=sa.NullPool)
            with engine.connect() as connection:
                return alembic_migration.MigrationContext.configure(
                    connection, opts={'version_table': VERSION_TABLE}
                ).get_current_revision()
        except Exception as exc:
            raise exception.DatabaseUnusable(
                'the journal database %s cannot be used: %s'
                % (self.safe_url, first_line(exc))) from exc


def _wait_for_lock(engine: sa.Engine) -> None:
    """Let SQLite's writers wait for each other.

    Our transactions write first and read then: one that reads first could
    not be helped by waiting, its snapshot would be stale.
    """
    @event.listens_for(engine, 'connect')
    def _connect(dbapi_connection: Any, record: Any) -> None:
        dbapi_connection.execute('PRAGMA busy_timeout = 30000')


def _on_connect(engine: sa.Engine,
                setup: Callable[[Any], None]) -> None:
    """Set up each new session."""
    @event.listens_for(engine, 'connect')
    def _connect(dbapi_connection: Any, record: Any) -> None:
        with dbapi_connection.cursor() as cursor:
            setup(cursor)
        # Settings of a transaction that is not committed are forgotten.
        dbapi_connection.commit()

    # oslo.db has tried one already, and keeps it.
    engine.dispose()


def _mysql_session(cursor: Any) -> None:
    """Read what is committed on all nodes, and keep nobody waiting.

    A claim that does not know of a lease that was renewed, or somebody who
    resumes a flow and does not see its last row, would do things twice. What
    only inserts, as most of our transactions, does not wait for the nodes of
    a Galera cluster: it cannot be committed beside a row of another node
    that it does not know of.
    """
    cursor.execute("SHOW VARIABLES WHERE Variable_name IN "
                   "('wsrep_on', 'idle_write_transaction_timeout')")
    known = dict(cursor.fetchall())
    cursor.execute('SET SESSION innodb_lock_wait_timeout = %d' % PATIENCE)
    if known.get('wsrep_on') == 'ON':
        # 1 for reads, 2 for updates and deletes.
        cursor.execute('SET SESSION wsrep_sync_wait = 3')
    if 'idle_write_transaction_timeout' in known:       # MariaDB's
        cursor.execute('SET SESSION idle_write_transaction_timeout = %d'
                       % PATIENCE)


def _postgresql_session(cursor: Any) -> None:
    """Keep nobody waiting: see :data:`PATIENCE`."""
    cursor.execute("SET idle_in_transaction_session_timeout = '%ds'"
                   % PATIENCE)


def _without_password(url: str) -> str:
    try:
        return sa.engine.make_url(url).render_as_string(hide_password=True)
    except (sa.exc.ArgumentError, ValueError):
        # It is not repeated: who knows where in it the password is.
        raise exception.DatabaseUnusable(
            'what is configured as the connection of the journal is not a '
            'database URL: set [ssm] connection, or [database] connection, '
            'to e.g. mysql+pymysql://user:password@host/nova') from None


def first_line(exc: BaseException) -> str:
    """What a database says, in one line."""
    # SQLAlchemy adds links and statements in further lines.
    return str(exc).partition('\n')[0]


def _alembic(url: str) -> alembic_config.Config:
    config = alembic_config.Config()
    config.set_main_option('script_location', _MIGRATIONS)
    # configparser would interpolate a % in the password.
    config.set_main_option('sqlalchemy.url', url.replace('%', '%%'))
    return config


def head() -> str:
    """The revision of the schema that this code works with."""
    revision = alembic_script.ScriptDirectory.from_config(
        _alembic('')).get_current_head()
    assert revision is not None
    return revision


def _known_revisions() -> set[str]:
    directory = alembic_script.ScriptDirectory.from_config(_alembic(''))
    return {script.revision for script in directory.walk_revisions()}


def upgrade(url: str, revision: str = 'head') -> None:
    """Make or upgrade the tables.

    :raises DatabaseUnusable: if the database cannot be reached, or a newer
        release has made the tables
    """
    try:
        command.upgrade(_alembic(url), revision)
        if url.startswith('sqlite'):
            _write_ahead(url)
    except (sa.exc.SQLAlchemyError, alembic_util.CommandError,
            ImportError) as exc:
        raise exception.DatabaseUnusable(
            'the journal database %s cannot be upgraded: %s'
            % (_without_password(url), first_line(exc))) from exc


def _write_ahead(url: str) -> None:
    """Let SQLite write what is committed to its log, once.

    Else it writes, and waits for the disk, several times a commit. The file
    remembers it.
    """
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        connection.exec_driver_sql('PRAGMA journal_mode = WAL')
