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

"""Builds that a compute gave up because its conductor had died."""

import types
from unittest import mock

from nova.compute import vm_states
from nova import exception
from nova import objects
from oslo_db import exception as db_exc
import pytest

from nova_ssm.engine import queries
from nova_ssm.tasks import abandoned
from nova_ssm.tests.unit.tasks import waiting
from nova_ssm.tests.unit.tasks import world as world_module

UUID = 'a1'
#: Seconds: [DEFAULT] rpc_response_timeout.
TIMEOUT = 60


@pytest.fixture
def slept(monkeypatch):
    """How long the task has waited, without waiting."""
    clock = types.SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now

    def sleep(seconds):
        clock.now += seconds

    monkeypatch.setattr(abandoned, 'time', clock)
    for what in waiting.replaced(sleep):
        monkeypatch.setattr(*what)
    # The database's clock is another one.
    monkeypatch.setattr(queries, 'clock', lambda db: 5000 + clock.now)
    monkeypatch.setattr(abandoned, 'CONF', types.SimpleNamespace(
        rpc_response_timeout=TIMEOUT))
    return clock


@pytest.fixture
def told(monkeypatch):
    """The servers whose flows have told a compute lately."""
    found = mock.Mock(return_value=[UUID])
    monkeypatch.setattr(queries, 'subjects_finished', found)
    return found


@pytest.fixture
def server(world, slept, told):
    """A server that was given up: no host, no state, no allocations."""
    world.manager.ssm = mock.Mock()
    record = world.add_record(UUID)
    record.task_state = None
    world.mappings[UUID] = world_module.Mapping(
        world, world.context, instance_uuid=UUID)
    world.mappings[UUID].cell_mapping = world.cells[world_module.CELL1]
    return record


def run(world, since=5000 - TIMEOUT, until=5000 + TIMEOUT + 10):
    abandoned.FailAbandonedBuilds(world.manager).execute(
        world.context, since, until)


def test_a_server_that_was_given_up_ends_in_error_with_a_fault(
        world, server):
    run(world)
    assert (server.vm_state, server.task_state) == (vm_states.ERROR, None)
    [fault] = world.faults[UUID]
    assert isinstance(fault, exception.BuildAbortException)
    assert 'nova-conductor' in str(fault)


def test_it_waits_until_every_compute_must_have_given_up(
        world, server, slept, told):
    told.side_effect = lambda *args: pytest.fail('too early') if (
        slept.now <= TIMEOUT) else [UUID]
    run(world)
    assert slept.now > TIMEOUT


def test_it_looks_at_servers_told_before_and_while_it_waits(
        world, server, slept, told):
    run(world, 4900, 5070)
    _db, names, since, until = told.call_args.args
    assert set(names) == {'build_instance', 'reschedule_instance'}
    assert (since, until) == (4900, 5070)


def test_who_goes_on_with_it_late_looks_at_the_same_servers_at_once(
        world, server, slept, told):
    """All who have begun before were killed."""
    slept.now = 1000
    run(world, 4900, 5070)
    assert slept.now == 1000
    assert told.call_args.args[2:] == (4900, 5070)
    assert server.vm_state == vm_states.ERROR


@pytest.mark.parametrize('change', [
    {'host': 'host1'}, {'task_state': 'scheduling'},
    {'task_state': 'spawning'}, {'vm_state': vm_states.ACTIVE},
    {'vm_state': vm_states.ERROR}])
def test_a_server_that_somebody_works_on_is_left_alone(
        world, server, change):
    server.__dict__.update(change)
    before = dict(server.__dict__)
    run(world)
    assert server.__dict__ == before
    assert not world.faults


def test_a_server_with_allocations_is_left_alone(world, server):
    """Its compute has only begun, and not yet put its name down."""
    world.placement.held[UUID] = {'rp1': {}}
    run(world)
    assert server.vm_state == vm_states.BUILDING


def test_a_deleted_server_is_left_alone(world, server):
    del world.records[world_module.CELL1][UUID]
    run(world)
    assert not world.faults


def test_a_server_without_a_mapping_is_left_alone(world, server):
    del world.mappings[UUID]
    run(world)
    assert server.vm_state == vm_states.BUILDING


def test_the_conductor_of_a_cell_needs_no_api_database(
        world, server, monkeypatch):
    monkeypatch.setattr(objects.InstanceMapping, 'get_by_instance_uuid',
                        mock.Mock(side_effect=db_exc.CantStartEngineError()))
    world.context.cell_uuid = world_module.CELL1
    run(world)
    assert server.vm_state == vm_states.ERROR


def test_looking_twice_fails_it_once(world, server):
    run(world)
    run(world)
    assert len(world.faults[UUID]) == 1
