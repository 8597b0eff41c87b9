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

"""Conductors look in turn, and repair what is safe only."""

import time
from unittest import mock

from oslo_db import exception as db_exc
import pytest

from nova_ssm.audit import auditor
from nova_ssm.audit import looks
from nova_ssm.engine import queries
from nova_ssm.tests.functional.audit import test_repairs


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No time passes between two looks."""
    monkeypatch.setattr(looks, 'wait', lambda db, settle: None)


def made(cloud):
    return auditor.Auditor(cloud.runner, 15, cloud.survey)


def test_of_all_workers_one_looks_in_each_turn(monkeypatch):
    workers = dict.fromkeys('abc', 'host')
    monkeypatch.setattr(queries, 'living', lambda db: workers)
    for turn in range(9):
        monkeypatch.setattr(queries, 'clock',
                            lambda db, turn=turn: turn * 15 + 0.3)
        assert [auditor.Auditor(
            mock.Mock(worker=mock.Mock(id=name)), 15, None).is_mine()
            for name in workers].count(True) == 1


def test_each_worker_has_its_turn(monkeypatch):
    workers = dict.fromkeys('abc', 'host')
    monkeypatch.setattr(queries, 'living', lambda db: workers)
    one = auditor.Auditor(mock.Mock(worker=mock.Mock(id='b')), 15, None)
    turns = []
    for turn in range(9):
        monkeypatch.setattr(queries, 'clock',
                            lambda db, turn=turn: turn * 15 - 0.2)
        turns.append(one.is_mine())
    assert turns.count(True) == 3


def test_it_waits_for_the_beginning_of_a_turn(monkeypatch):
    one = auditor.Auditor(mock.Mock(), 15, None)
    monkeypatch.setattr(queries, 'clock', lambda db: 151.0)
    assert one._wait() == 14
    monkeypatch.setattr(queries, 'clock', mock.Mock(
        side_effect=db_exc.DBConnectionError()))
    assert one._wait() == 15


def test_repairs_what_is_safe_and_leaves_the_rest(cloud):
    build = test_repairs.lost_build(cloud)
    move = test_repairs.lost_move(cloud)
    asked = test_repairs.orphan_allocation(cloud)
    unsafe = cloud.ask(2, first=1)
    assert made(cloud).turn() == 2
    cloud.run_posted()
    assert test_repairs.is_in_error(cloud, build, 'cell0')
    assert cloud.record(move).task_state is None
    assert asked in cloud.placement.held
    assert cloud.record(unsafe[0], 'cell0') is None


def test_a_cloud_that_is_busy_is_left_alone(cloud):
    """Builds on their way, moves under way, a compute that is slow."""
    first, *_ = cloud.ask(3)
    cloud.flow('schedule_and_build_instances', first)
    move = test_repairs.lost_move(cloud)
    cloud.flow('resize', move)
    cloud.sql("INSERT INTO ssm_workers VALUES "
              "('a worker', 'h/1', 1, 1, 1, 1e12)")
    cloud.ask(age=1)
    one = made(cloud)
    one.is_mine = lambda: True
    assert one.turn() == 0
    assert cloud.run_posted() == []


def test_who_has_not_the_turn_does_not_look(cloud, monkeypatch):
    test_repairs.lost_build(cloud)
    one = made(cloud)
    monkeypatch.setattr(one, 'is_mine', lambda: False)
    assert one.turn() == 0


def test_the_conductor_of_a_cell_looks_no_more(cloud, monkeypatch, caplog):
    one = made(cloud)
    monkeypatch.setattr(one, '_wait', lambda: 0)
    monkeypatch.setattr(one, 'turn', mock.Mock(
        side_effect=db_exc.CantStartEngineError()))
    one._run()
    one.turn.assert_called_once_with()


def test_each_worker_remembers_the_others_in_each_turn(cloud, monkeypatch):
    note = mock.Mock()
    one = auditor.Auditor(cloud.runner, 15, cloud.survey, note=note)
    monkeypatch.setattr(one, 'is_mine', lambda: False)
    one.turn()
    note.assert_called_once_with()


def test_a_look_that_fails_is_tried_again(cloud, monkeypatch):
    one = made(cloud)
    monkeypatch.setattr(one, '_wait', lambda: 0)
    tries = []

    def turn():
        tries.append(True)
        if len(tries) == 3:
            one.stop()
        raise db_exc.DBConnectionError()

    monkeypatch.setattr(one, 'turn', turn)
    one._run()
    assert len(tries) == 3


def test_it_looks_in_a_thread_until_it_is_stopped(cloud, monkeypatch):
    one = made(cloud)
    looked = mock.Mock()
    monkeypatch.setattr(one, '_wait', lambda: 0.01)
    monkeypatch.setattr(one, 'turn', looked)
    one.start()
    while not looked.call_count:
        time.sleep(0.01)
    one.stop()
    assert not one._thread.is_alive()
