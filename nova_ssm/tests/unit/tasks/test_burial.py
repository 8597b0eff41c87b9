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

"""A server that no host was found for is buried in cell0, exactly once."""

from nova.compute import vm_states
from nova import exception
from nova import objects
import pytest

from nova_ssm.tasks import burial
from nova_ssm.tests.unit.tasks import world as world_module

UUIDS = ('a1', 'b2')
DISKS, TAGS = ['disk'], [objects.Tag(tag='red')]
#: The steps of the burial of two servers.
STEPS = 22


def bury(world, requests):
    burial.bury(world.manager, world.context,
                exception.NoValidHost(reason='full'),
                [world.reload(request) for request in requests],
                world_module.spec(UUIDS[0]), DISKS, TAGS)


def assert_buried(world, uuid):
    record = world.records[world_module.CELL0][uuid]
    assert (record.vm_state, record.task_state) == (vm_states.ERROR, None)
    assert [type(exc) for exc in world.faults[uuid]] == [
        exception.NoValidHost]
    assert (uuid, 'build_instances') in world.notified
    assert world.mappings[uuid].cell_mapping.is_cell0()
    assert uuid not in world.requests
    assert_action_failed(world, uuid)
    assert (world.disks[uuid], world.tags[uuid]) == (DISKS, ['red'])


def assert_action_failed(world, uuid):
    assert world.actions[uuid] == ['create']
    [event] = world.events[uuid]
    assert (event.event, event.host) == (
        'conductor_schedule_and_build_instances', 'conductor')
    assert event.finish_time is not None
    assert isinstance(event.exc_val, exception.NoValidHost)
    # Without one Nova takes it for a success.
    assert event.exc_tb is not None


def test_buries(world):
    bury(world, [world.add_request(uuid) for uuid in UUIDS])
    for uuid in UUIDS:
        assert_buried(world, uuid)


def test_twice_is_once(world):
    requests = [world.add_request(uuid) for uuid in UUIDS]
    bury(world, requests)
    world.steps.clear()
    bury(world, requests)
    assert world.steps == []


@pytest.mark.parametrize('after', range(1, STEPS + 3))
def test_finishes_what_a_crash_left(world, after):
    requests = [world.add_request(uuid) for uuid in UUIDS]
    crashed = world.crash(after, bury, world, requests)
    assert crashed == (after <= STEPS)
    bury(world, requests)
    for uuid in UUIDS:
        assert_buried(world, uuid)


@pytest.mark.parametrize('second', range(1, 10))
@pytest.mark.parametrize('first', range(1, 10))
def test_finishes_after_two_crashes(world, first, second):
    requests = [world.add_request(UUIDS[0])]
    world.crash(first, bury, world, requests)
    world.crash(second, bury, world, requests)
    bury(world, requests)
    assert_buried(world, UUIDS[0])


def test_a_server_that_its_user_deleted_is_not_buried(world):
    request = world.add_request(UUIDS[0])
    del world.requests[UUIDS[0]]
    bury(world, [request])
    assert world.steps == []
    assert not world.records[world_module.CELL0]


@pytest.mark.parametrize('after', (1, 2, 3, 4, 5))
def test_a_server_deleted_after_a_crash_leaves_no_record(world, after):
    request = world.add_request(UUIDS[0])
    assert world.crash(after, bury, world, [request])
    del world.requests[UUIDS[0]]
    bury(world, [request])
    assert not world.records[world_module.CELL0]
    # Its user can read what was done with it still.
    assert_action_failed(world, UUIDS[0])


def test_a_server_deleted_in_the_middle_leaves_no_record(world):
    request = world.add_request(UUIDS[0])
    stale = world.reload(request)
    del world.requests[UUIDS[0]]
    burial.bury(world.manager, world.context, exception.NoValidHost(),
                [stale], world_module.spec(UUIDS[0]), DISKS, TAGS)
    assert not world.records[world_module.CELL0]


def test_a_server_that_runs_is_not_buried(world, caplog):
    """A message that came twice: Nova says so, and leaves it alone."""
    request = world.add_request(UUIDS[0])
    running = world.add_record(UUIDS[0])
    world.mappings[UUIDS[0]].cell_mapping = world.cells[world_module.CELL1]
    bury(world, [request])
    assert 'already mapped' in caplog.text
    assert running.vm_state == vm_states.BUILDING
    assert not world.records[world_module.CELL0]


def test_without_cell0_nova_says_what_is_missing(world, caplog):
    request = world.add_request(UUIDS[0])
    del world.cells[world_module.CELL0]
    bury(world, [request])
    assert 'Setup is incomplete' in caplog.text
    assert UUIDS[0] in world.requests


# -- leaving a server in ERROR, in its own cell ---------------------------

def leave(world, request, exc=None):
    burial.leave_in_error(
        world.manager, world.context, exc or exception.OverQuota(overs='x'),
        world.new_server(request.instance_uuid),
        world.cells[world_module.CELL1], world.reload(request),
        world_module.spec(request.instance_uuid), DISKS, TAGS)


def assert_left(world, uuid, faults=1):
    record = world.records[world_module.CELL1][uuid]
    assert (record.vm_state, record.task_state) == (vm_states.ERROR, None)
    assert len(world.faults[uuid]) == faults
    assert (uuid, 'build_instances') in world.notified
    assert world.mappings[uuid].cell_mapping.uuid == world_module.CELL1
    assert uuid not in world.requests
    assert (world.disks[uuid], world.tags[uuid]) == (DISKS, ['red'])


@pytest.fixture
def request_(world):
    world.add_record(UUIDS[0])
    return world.add_request(UUIDS[0])


def test_leaves_in_error(world, request_):
    leave(world, request_)
    assert_left(world, UUIDS[0])


@pytest.mark.parametrize('after', range(1, 10))
def test_leaves_in_error_after_a_crash(world, request_, after):
    crashed = world.crash(after, leave, world, request_)
    assert crashed == (after <= 7)
    leave(world, request_)
    assert_left(world, UUIDS[0])


def test_left_in_error_twice_is_once(world, request_):
    leave(world, request_)
    leave(world, request_)
    assert_left(world, UUIDS[0])
    # Whether it went out the first time is not to be seen.
    assert set(world.notified) == {(UUIDS[0], 'build_instances')}


def test_who_listens_is_told_once_if_nobody_dies(world, request_):
    leave(world, request_)
    assert world.notified == [(UUIDS[0], 'build_instances')]


def test_disks_are_not_created_twice(world, request_):
    world.disks[UUIDS[0]] = ['as the flow created them']
    leave(world, request_)
    assert world.disks[UUIDS[0]] == ['as the flow created them']


def test_a_deleted_server_is_left_alone(world, request_):
    del world.records[world_module.CELL1][UUIDS[0]]
    leave(world, request_)
    assert world.steps == []


def test_a_server_that_a_compute_has_is_left_alone(world, request_, caplog):
    world.records[world_module.CELL1][UUIDS[0]].host = 'host1'
    leave(world, request_)
    assert world.steps == []
    assert 'left as it is' in caplog.text
