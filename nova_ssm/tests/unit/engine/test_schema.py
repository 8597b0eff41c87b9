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

"""The clock of the database."""

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite

from nova_ssm.engine import schema


def clock(db):
    with db.transaction() as connection:
        return connection.execute(sa.select(
            schema.now(), sa.func.strftime('%s', 'now'))).one()


def test_now_is_seconds_since_the_epoch(db):
    now, whole = clock(db)
    assert isinstance(now, float)
    assert abs(now - int(whole)) <= 1


def test_now_is_asked_anew_each_time_and_never_goes_back(db):
    times = [clock(db)[0] for _ in range(50)]
    assert times == sorted(times)
    assert len(set(times)) > 1


def test_now_can_be_reckoned_with(db):
    with db.transaction() as connection:
        assert connection.execute(sa.select(
            schema.now() + 10.5 > schema.now())).scalar()


def test_each_database_is_asked_in_its_own_words():
    def words(dialect):
        return str(sa.select(schema.now()).compile(dialect=dialect))

    assert 'julianday' in words(sqlite.dialect())
    assert 'UTC_TIMESTAMP(6)' in words(mysql.dialect())
    assert 'statement_timestamp()' in words(postgresql.dialect())


@pytest.mark.parametrize('dialect, order', (
    (sqlite.dialect(), 'NULL DESC, ssm_flows.uuid'),
    (mysql.dialect(), 'NULL DESC, ssm_flows.uuid'),
    (postgresql.dialect(), 'ssm_flows.owner DESC, ssm_flows.uuid')))
def test_what_is_all_alike_is_ordered_by_where_that_helps(dialect, order):
    c = schema.flows.c
    query = sa.select(c.uuid).order_by(schema.alike(c.owner).desc(), c.uuid)
    assert str(query.compile(dialect=dialect)).endswith('ORDER BY ' + order)


def test_two_columns_that_are_alike_are_not_taken_for_the_same():
    """SQLAlchemy keeps what it has compiled."""
    c = schema.flows.c
    one, two = (sa.select(c.uuid).order_by(schema.alike(column))
                for column in (c.owner, c.finished_at))
    assert one._generate_cache_key() != two._generate_cache_key()


def test_statements_with_the_clock_in_them_are_compiled_once_only():
    one, two = (schema.journal.insert().values(
        flow_uuid=uuid, created_at=schema.now()) for uuid in 'xy')
    key = one._generate_cache_key()
    assert key is not None
    assert key == two._generate_cache_key()
