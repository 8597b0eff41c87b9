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

"""What is done for all servers of a request: hosts, records, children."""

from unittest import mock

from nova.compute import vm_states
from nova import exception
from nova import objects
import pytest

from nova_ssm.engine import exception as engine_exc
from nova_ssm.tasks import allocations
from nova_ssm.tasks import burial
from nova_ssm.tasks import children
from nova_ssm.tasks import instances
from nova_ssm.tasks import scheduling
from nova_ssm.tests.unit.tasks import world as world_module

CELL0, CELL1 = world_module.CELL0, world_module.CELL1
UUIDS = ('a1', 'b2', 'c3')
DISKS, TAGS = ['disk'], [objects.Tag(tag='red')]


@pytest.fixture
def requests(world):
    return [world.add_request(uuid) for uuid in UUIDS]


@pytest.fixture
def specs():
    return [world_module.spec(uuid) for uuid in UUIDS]


@pytest.fixture(autouse=True)
def naps(monkeypatch):
    """Nobody really sleeps."""
    taken = []
    monkeypatch.setattr(allocations.time, 'sleep', taken.append)
    return taken


@pytest.fixture(autouse=True)
def zone(monkeypatch):
    lookup = mock.Mock(return_value='zone1')
    monkeypatch.setattr(instances.availability_zones,
                        'get_host_availability_zone', lookup)
    return lookup


# -- ScheduleInstances ----------------------------------------------------

class Scheduler:
    """Claims for each server, or says that nothing is left."""

    def __init__(self, world, exc=None):
        self.world, self.exc = world, exc

    def __call__(self, context, spec, uuids, return_alternates):
        assert return_alternates
        if self.exc is not None:
            raise self.exc
        for uuid in uuids:
            assert uuid not in self.world.placement.held, 'claimed twice'
            self.world.placement.held[uuid] = {'rp1': {}}
        return [[world_module.selection()] for _uuid in uuids]


@pytest.fixture
def schedule(world, monkeypatch):
    def _schedule(exc=None):
        monkeypatch.setattr(world.manager, '_schedule_instances',
                            Scheduler(world, exc), raising=False)
        return scheduling.ScheduleInstances(world.manager)
    return _schedule


def revert_schedule(world, task, requests, specs, result):
    task.revert(world.context, [world.reload(r) for r in requests], specs,
                DISKS, TAGS, result, {'x': world_module.failure(
                    exception.OverQuota(overs='cores'))})


def test_schedule_asks_once_for_all(world, schedule, specs):
    found = schedule().execute(world.context, specs)
    assert [[host.service_host for host in hosts] for hosts in found] == [
        ['host1']] * 3
    assert set(world.placement.held) == set(UUIDS)


def test_schedule_failure_buries_all(world, schedule, requests, specs,
                                     caplog):
    task = schedule(exception.NoValidHost(reason='full'))
    with pytest.raises(exception.NoValidHost) as caught:
        task.execute(world.context, specs)
    assert 'Failed to schedule instances' in caplog.text
    revert_schedule(world, task, requests, specs,
                    world_module.failure(caught.value))
    assert set(world.records[CELL0]) == set(UUIDS)
    assert not world.requests
    # The scheduler has undone its claims: placement is not asked.
    assert 'free' not in world.steps


@pytest.mark.parametrize('after', range(1, 30))
def test_schedule_burial_survives_a_crash(world, schedule, requests, specs,
                                          after):
    task = schedule()
    failed = world_module.failure(exception.NoValidHost(reason='full'))
    world.crash(after, revert_schedule, world, task, requests, specs, failed)
    revert_schedule(world, task, requests, specs, failed)
    for uuid in UUIDS:
        assert world.records[CELL0][uuid].vm_state == vm_states.ERROR
        assert len(world.faults[uuid]) == 1
    assert not world.requests


def test_schedule_frees_what_a_dead_conductor_had_claimed(
        world, schedule, requests, specs):
    """Not even the secrets are left: nobody can schedule again."""
    world.placement.held = {uuid: {'rp1': {}} for uuid in UUIDS}
    revert_schedule(world, schedule(), requests, specs, world_module.failure(
        engine_exc.SecretUnavailable('no key')))
    assert world.placement.held == {}
    assert set(world.records[CELL0]) == set(UUIDS)


def test_schedule_frees_nothing_of_a_server_that_lives(
        world, schedule, requests, specs):
    """The request came twice, and the first one was quicker."""
    world.placement.held = {uuid: {'rp1': {}} for uuid in UUIDS}
    world.mappings[UUIDS[0]].cell_mapping = world.cells[CELL1]
    del world.requests[UUIDS[0]]
    revert_schedule(world, schedule(), requests, specs, world_module.failure(
        exception.AllocationUpdateFailed(consumer_uuid='x', error='409')))
    assert set(world.placement.held) == {UUIDS[0]}


def test_schedule_is_undone_when_a_later_task_failed(world, schedule,
                                                     requests, specs):
    task = schedule()
    hosts = task.execute(world.context, specs)
    for _time in range(2):
        revert_schedule(world, task, requests, specs, hosts)
        assert world.placement.held == {}
    assert not world.records[CELL0]


def test_schedule_recovery_frees_and_schedules_again(world, schedule, specs):
    world.placement.held = {uuid: {'rp1': {}} for uuid in UUIDS[:2]}
    found = schedule().recover(world.context, specs)
    assert len(found) == 3
    assert set(world.placement.held) == set(UUIDS)


def test_schedule_recovery_waits_for_the_scheduler(world, schedule, specs,
                                                   naps):
    """It goes on claiming for the conductor that is dead."""
    def claim(uuid):
        world.placement.held[uuid] = {'rp1': {}}
    world.placement.late = [lambda uuid=uuid: claim(uuid) for uuid in UUIDS]
    schedule().recover(world.context, specs)
    assert not world.placement.late
    assert naps and set(naps) == {scheduling.ScheduleInstances.settle}


# -- CreateInstances ------------------------------------------------------

HOSTS = [[world_module.selection()] for _uuid in UUIDS]


def create(world, requests, specs, how='execute', hosts=None):
    task = instances.CreateInstances(world.manager)
    return getattr(task, how)(
        world.context, [world.reload(request) for request in requests],
        specs, hosts or HOSTS, DISKS, TAGS)


def revert_create(world, requests, specs, result=((), ()), hosts=None):
    instances.CreateInstances(world.manager).revert(
        world.context, [world.reload(request) for request in requests],
        specs, hosts or HOSTS, DISKS, TAGS, result,
        {'x': world_module.failure(exception.OverQuota(overs='cores'))})


def test_create(world, requests, specs, zone):
    created, cells = create(world, requests, specs)
    assert [instance.uuid for instance in created] == list(UUIDS)
    assert {cell.uuid for cell in cells} == {CELL1}
    assert set(world.records[CELL1]) == set(UUIDS)
    assert {instance.availability_zone for instance in created} == {'zone1'}
    # The journal learns from it where the record is.
    assert {instance._context.cell_uuid for instance in created} == {CELL1}
    assert zone.call_count == 1


def test_create_asks_for_some_together_who_is_wanted(
        world, requests, specs, monkeypatch):
    asked = []

    def wanted(context, uuids):
        # Right before they are created, not long before.
        asked.append((uuids, len(world.records[CELL1])))
        return set(uuids)

    monkeypatch.setattr(burial, 'wanted', wanted)
    monkeypatch.setattr(instances._Wanted, 'at_once', 2)
    created, _cells = create(world, requests, specs)
    assert all(created)
    assert asked == [(list(UUIDS[:2]), 0), (list(UUIDS[2:]), 2)]


def test_create_buries_a_server_whose_host_is_in_no_cell(
        world, requests, specs, caplog):
    hosts = [HOSTS[0], [world_module.selection('unknown')], HOSTS[2]]
    world.placement.held = {uuid: {'rp1': {}} for uuid in UUIDS}
    created, cells = create(world, requests, specs, hosts=hosts)
    assert [bool(instance) for instance in created] == [True, False, True]
    assert cells[1] is None
    assert world.records[CELL0][UUIDS[1]].vm_state == vm_states.ERROR
    assert 'No host-to-cell mapping' in caplog.text
    assert set(world.placement.held) == {UUIDS[0], UUIDS[2]}
    again, _cells = create(world, requests, specs, 'recover', hosts)
    assert [bool(instance) for instance in again] == [True, False, True]
    assert len(world.faults[UUIDS[1]]) == 1


@pytest.mark.parametrize('how', ('execute', 'recover'))
def test_create_leaves_nothing_of_a_deleted_server(world, requests, specs,
                                                   how):
    del world.requests[UUIDS[1]]
    world.placement.held = {uuid: {'rp1': {}} for uuid in UUIDS}
    for _time in range(2):
        created, _cells = create(world, requests, specs, how)
        assert [bool(instance) for instance in created] == [
            True, False, True]
        assert UUIDS[1] not in world.mappings
        assert UUIDS[1] not in world.placement.held
        assert UUIDS[1] not in world.records[CELL1]
        how = 'recover'


def test_create_leaves_a_server_that_was_taken_for_lost(world, requests,
                                                        specs):
    """It is in ERROR in a cell, where its user sees it by the mapping."""
    del world.requests[UUIDS[1]]
    world.mappings[UUIDS[1]].cell_mapping = world.cells[CELL1]
    created, _cells = create(world, requests, specs)
    assert created[1] is None
    assert world.mappings[UUIDS[1]].cell_mapping is world.cells[CELL1]


@pytest.mark.parametrize('after', range(1, 4))
def test_create_recovery_takes_what_is_there(world, requests, specs, after):
    assert world.crash(after, create, world, requests, specs)
    created, cells = create(world, requests, specs, 'recover')
    assert [instance.uuid for instance in created] == list(UUIDS)
    assert {instance._context.cell_uuid for instance in created} == {CELL1}
    assert len(cells) == 3


def test_create_reverted_leaves_all_in_error(world, requests, specs):
    result = create(world, requests, specs)
    for _time in range(2):
        revert_create(world, requests, specs, result)
        for uuid in UUIDS:
            assert world.records[CELL1][uuid].vm_state == vm_states.ERROR
            assert len(world.faults[uuid]) == 1
            assert world.mappings[uuid].cell_mapping.uuid == CELL1
    assert not world.requests


@pytest.mark.parametrize('after', range(1, 12))
def test_create_half_done_and_reverted(world, requests, specs, after):
    """Those with a record are left in ERROR, the others are buried."""
    failed = world_module.failure(engine_exc.SecretUnavailable('no key'))
    world.crash(2, create, world, requests, specs)
    world.crash(after, revert_create, world, requests, specs, failed)
    revert_create(world, requests, specs, failed)
    assert set(world.records[CELL1]) == set(UUIDS[:2])
    assert set(world.records[CELL0]) == {UUIDS[2]}
    assert {len(faults) for faults in world.faults.values()} == {1}
    assert not world.requests


def test_create_reverted_buries_no_deleted_server(world, requests, specs):
    stale = list(requests)
    del world.requests[UUIDS[0]]
    instances.CreateInstances(world.manager).revert(
        world.context, stale, specs, HOSTS, DISKS, TAGS,
        world_module.failure(exception.OverQuota(overs='x')), {})
    assert UUIDS[0] not in world.records[CELL0]
    assert set(world.records[CELL0]) == set(UUIDS[1:])


def test_create_reverted_does_what_it_can(world, requests, specs,
                                          monkeypatch, caplog):
    """One cell is down: its server is reported, the others are done."""
    result = create(world, requests, specs)
    leave = instances.burial.leave_in_error

    def _leave(manager, context, exc, instance, *args):
        if instance.uuid == UUIDS[0]:
            raise OSError('cell down')
        leave(manager, context, exc, instance, *args)
    monkeypatch.setattr(instances.burial, 'leave_in_error', _leave)
    with pytest.raises(OSError):
        revert_create(world, requests, specs, result)
    assert set(world.requests) == {UUIDS[0]}
    assert 'could not be left in ERROR' in caplog.text


# -- RecheckQuota ---------------------------------------------------------

def recheck(world, requests, specs, created):
    world.manager._recheck_quota = mock.Mock()
    instances.RecheckQuota(world.manager).execute(
        world.context, requests, specs, created)
    return world.manager._recheck_quota


def test_recheck_asks_for_all_of_the_request(world, requests, specs):
    created, _cells = create(world, requests, specs)
    recheck(world, requests, specs, created).assert_called_once_with(
        world.context, requests[-1].instance.flavor, specs[0], 3,
        project_id='project', user_id='user')


def test_recheck_after_the_last_one_was_deleted(world, requests, specs):
    created, _cells = create(world, requests, specs)
    gone = world_module.BuildRequest(world, world.context,
                                     instance_uuid=UUIDS[2])
    recheck(world, [*requests[:2], gone], specs,
            created).assert_called_once()


def test_recheck_of_nothing(world, requests, specs):
    gone = world_module.BuildRequest(world, world.context,
                                     instance_uuid=UUIDS[2])
    recheck(world, [gone], specs[:1], [None]).assert_not_called()


# -- SpawnBuilds ----------------------------------------------------------

def spawn(world, created, cells, requests, specs):
    return children.SpawnBuilds(world.manager).execute(
        world.context, requests, specs, HOSTS, created, cells,
        {'id': 'image'}, 'password', 'files', 'networks', DISKS, TAGS)


def test_spawns_one_flow_a_server(world, requests, specs):
    created, cells = create(world, requests, specs)
    posted = spawn(world, [created[0], None, created[2]],
                   [cells[0], None, cells[2]], requests, specs)
    assert [flow.subject for flow in posted] == [UUIDS[0], UUIDS[2]]
    assert {flow.name for flow in posted} == {'build_instance'}
    assert {flow.request_id for flow in posted} == {'req-1'}
    last = posted[1].store
    assert (last['instance'], last['cell'], last['build_request'],
            last['request_spec'], last['host_list']) == (
        created[2], cells[2], requests[2], specs[2], HOSTS[2])


def test_spawns_nothing_for_nobody(world, requests, specs):
    posted = spawn(world, [None] * 3, [None] * 3, requests, specs)
    assert posted == []
    assert not children.SpawnBuilds(world.manager).had_effect(posted)
