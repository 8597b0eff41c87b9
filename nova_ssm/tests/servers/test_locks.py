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

"""A process that is stopped in the middle of a transaction."""

from oslo_db import exception as db_exc
import pytest
from taskflow import exceptions as taskflow_exc

from nova_ssm.engine import database
from nova_ssm.engine import jobboard
from nova_ssm.engine import journal
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.tests.servers import mariadb
from nova_ssm.tests.servers import postgresql


@pytest.fixture(scope='module', params=(mariadb.MariaDB,
                                        postgresql.PostgreSQL))
def server(request):
    with request.param() as one:
        yield one


@pytest.fixture
def databases(server, monkeypatch):
    """That of a process which is stopped, and that of another one."""
    monkeypatch.setattr(database, 'PATIENCE', 1)
    url = server.fresh()
    database.upgrade(url)
    both = database.Database(url), database.Database(url)
    yield both
    for one in both:
        one.close()


def begin(db):
    """Begin a flow whose owner is dead.

    :returns: the board of that database, and the uuid of the flow
    """
    board = jobboard.SQLJobBoard('board', {
        'database': db, 'serializer': serialization.Serializer()})
    request = journal.FlowRequest(name='flow', store={})
    board.start(request, owner='the dead')
    return board, request.uuid


def claim(board, uuid, tries=30):
    """Look for a flow until it is ours, as each worker does."""
    for number in range(tries):
        try:
            board.claim(board.get(uuid), 'me')
            return number
        except taskflow_exc.UnclaimableJob:
            pass
    raise AssertionError('it was kept from us all the time')


def test_its_flow_goes_on_elsewhere(databases):
    stopped, other = databases
    board, uuid = begin(other)
    mine = schema.flows.c.uuid == uuid
    with pytest.raises(db_exc.DBError):
        with stopped.transaction() as connection:
            connection.execute(schema.flows.update().where(mine).values(
                failure='never seen'))
            claim(board, uuid)
            # It wakes up, and finds that its transaction was given up.
            connection.execute(schema.flows.update().where(mine).values(
                failure='never seen, too'))
    assert board.get(uuid).row.owner == 'me'
    assert board.get(uuid).row.failure is None


def test_it_writes_again_when_it_wakes_up(databases):
    """What is tried until it works does not mind."""
    stopped, other = databases
    board, uuid = begin(other)
    tries = []

    def work(connection):
        tries.append(connection)
        connection.execute(schema.flows.update().where(
            schema.flows.c.uuid == uuid).values(failure='seen'))
        if len(tries) == 1:
            claim(board, uuid)
        connection.execute(schema.flows.update().where(
            schema.flows.c.uuid == uuid).values(state='SEEN'))

    stopped.write(work)
    assert len(tries) == 2
    row = board.get(uuid).row
    assert (row.owner, row.failure, row.state) == ('me', 'seen', 'SEEN')


def test_a_server_is_set_up_for_it(databases):
    """Else the tests above would only show what the server does by itself."""
    for db in databases:
        with db.transaction() as connection:
            if connection.dialect.name == 'postgresql':
                value = connection.exec_driver_sql(
                    'SHOW idle_in_transaction_session_timeout').scalar()
                assert value == '1s'
            else:
                assert connection.exec_driver_sql(
                    'SELECT @@innodb_lock_wait_timeout, '
                    '@@idle_write_transaction_timeout').one() == (1, 1)
