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

"""A job board beside the database, without its server.

With real servers: nova_ssm/tests/boards.
"""

import threading

import pytest

from nova_ssm.engine.coordination import base
from nova_ssm.engine.coordination import board
from nova_ssm.engine.coordination import connection
from nova_ssm.engine import database
from nova_ssm.engine import serialization


@pytest.fixture
def board_of(url):
    def make(lease):
        return board.TaskflowBoard(
            database.Database(url), serialization.Serializer(),
            base.Server('zookeeper', ('127.0.0.1:1',)), lease)

    return make


def test_a_client_that_hangs_does_not_keep_the_process(
        board_of, monkeypatch, caplog):
    woken = threading.Event()
    monkeypatch.setattr(connection.Connection, 'close',
                        lambda self: woken.wait(60))
    board_of(lease=0.1).detach(idle=True)
    assert not woken.is_set()
    assert 'could not be closed' in caplog.text
    woken.set()


def test_a_connection_is_closed_in_peace(board_of, monkeypatch, caplog):
    closed = []
    monkeypatch.setattr(connection.Connection, 'close',
                        lambda self: closed.append(self))
    board_of(lease=30).detach(idle=True)
    assert len(closed) == 1
    assert not caplog.records


def test_a_step_under_way_keeps_its_claim(board_of, monkeypatch):
    closed = []
    monkeypatch.setattr(connection.Connection, 'close',
                        lambda self: closed.append(self))
    board_of(lease=30).detach(idle=False)
    assert not closed
