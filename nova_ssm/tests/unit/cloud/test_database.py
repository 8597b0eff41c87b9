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

"""Who looks at a cloud's database again and again keeps its connection."""

import threading
from unittest import mock

import pymysql
import pytest

from nova_ssm.tests.cloud import database


@pytest.fixture
def connect(monkeypatch):
    made = mock.Mock(side_effect=lambda **kwargs: mock.MagicMock())
    monkeypatch.setattr(pymysql, 'connect', made)
    return made


@pytest.fixture
def db():
    return database.Database(mock.Mock())


def test_a_thread_opens_one_connection(connect, db):
    for _again in range(3):
        db('SELECT 1')
    assert connect.call_count == 1


def test_each_thread_has_its_own(connect, db):
    db('SELECT 1')
    other = threading.Thread(target=db, args=('SELECT 1',))
    other.start()
    other.join()
    assert connect.call_count == 2


def test_a_connection_that_was_killed_is_opened_again(connect, db):
    db('SELECT 1')
    db('SELECT 1')
    connection = db._kept()
    assert connection.ping.call_args == mock.call(reconnect=True)


def test_a_server_that_is_away_is_told_of(connect, db):
    connect.side_effect = pymysql.OperationalError(2003, 'away')
    for _again in range(2):
        with pytest.raises(pymysql.OperationalError):
            db('SELECT 1')
