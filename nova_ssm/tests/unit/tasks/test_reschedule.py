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

"""The next attempt at a server whose compute has failed to build it."""

import types
from unittest import mock

from nova.compute import vm_states
from nova import exception
from nova import objects
from nova.scheduler import utils as scheduler_utils
import pytest

from nova_ssm import exception as ssm_exc
from nova_ssm.tasks import instances
from nova_ssm.tasks import placement
from nova_ssm.tasks import scheduling
from nova_ssm.tasks import volumes
from nova_ssm.tests.unit.tasks import world as world_module

CELL1 = world_module.CELL1
UUID = 'a1'
LOST = world_module.failure(exception.CinderConnectionFailed(reason='lost'))


@pytest.fixture
def server(world):
    # It is done by the conductor of the cell, in its own database.
    world_module.set_target_cell(world.context, world.cells[CELL1])
    return world.add_record(UUID)


# -- CheckRetries ---------------------------------------------------------

@pytest.fixture
def from_primitives(monkeypatch):
    made = mock.Mock(return_value='claim spec')
    monkeypatch.setattr(objects.RequestSpec, 'from_primitives', made)
    return made


def check(world, server, retry, hosts=('host',)):
    spec = mock.Mock()
    spec.to_legacy_request_spec_dict.return_value = {'legacy': 1}
    given = {'retry': dict(retry)}
    result = scheduling.CheckRetries(world.manager).execute(
        world.context, server, spec, given, list(hosts))
    assert given == {'retry': retry}, 'it may run again'
    return result


def test_check_retries(world, server, from_primitives):
    properties, legacy, claim = check(
        world, server, {'num_attempts': 1, 'hosts': [['h1', 'h1']]})
    assert properties['retry']['num_attempts'] == 2
    assert (legacy, claim) == ({'legacy': 1}, 'claim spec')
    from_primitives.assert_called_once_with(
        world.context, {'legacy': 1}, properties)


@pytest.mark.parametrize('attempts, hosts', ((1, ()), (99, ('host',))))
def test_check_retries_gives_up(world, server, from_primitives, attempts,
                                hosts):
    with pytest.raises(exception.MaxRetriesExceeded):
        check(world, server, {'num_attempts': attempts, 'hosts': []}, hosts)


@pytest.mark.parametrize('changed', (
    {'vm_state': vm_states.ERROR}, {'vm_state': vm_states.ACTIVE},
    {'host': 'host1'}))
def test_a_server_that_does_not_wait_is_not_tried_again(
        world, server, from_primitives, changed):
    """It was taken for stuck, before the request for the next host came."""
    server.__dict__.update(changed)
    with pytest.raises(ssm_exc.TooLate):
        check(world, server, {'num_attempts': 1, 'hosts': []})


def test_a_server_that_is_gone_is_found_out_later(world, server,
                                                  from_primitives):
    world.records[CELL1].clear()
    assert check(world, server, {'num_attempts': 1, 'hosts': []})


# -- ClaimAlternate -------------------------------------------------------

HOSTS = [world_module.selection('host%d' % number, 'rp%d' % number)
         for number in (1, 2, 3)]


@pytest.fixture
def claim(world, monkeypatch):
    """Claim; ``full`` hosts have no room."""
    def _claim_resources(context, client, spec, uuid, request, version):
        assert context.is_admin and (spec, version) == ('claim', '1.36')
        provider, = request['allocations']
        world.asked.append(provider)
        if provider in world.full:
            return False
        assert uuid not in client.held, 'claimed twice'
        client.held[uuid] = {provider: {}}
        world.step('claim')
        return True
    world.asked, world.full = [], set()
    monkeypatch.setattr(scheduler_utils, 'claim_resources', _claim_resources)

    def _claim(how='execute', hosts=HOSTS):
        return getattr(placement.ClaimAlternate(world.manager), how)(
            world.context, world.new_server(UUID), hosts, 'claim',
            types.SimpleNamespace(maps_requested_resources=False))
    return _claim


def test_claim_takes_the_first_with_room(world, claim):
    world.full = {'rp1'}
    host, alternates, _spec = claim()
    assert (host, alternates) == (HOSTS[1], HOSTS[2:])
    assert world.asked == ['rp1', 'rp2']


def test_claim_on_no_host(world, claim):
    world.full = {'rp1', 'rp2', 'rp3'}
    with pytest.raises(exception.MaxRetriesExceeded):
        claim()


def test_claim_without_placement(world, claim):
    hosts = [objects.Selection(service_host='h', allocation_request=None),
             HOSTS[0]]
    for how in ('execute', 'recover'):
        assert claim(how, hosts)[:2] == (hosts[0], hosts[1:])
    assert world.asked == []


def test_claim_recovered_takes_what_is_held(world, claim):
    world.full = {'rp1'}
    world.crash(1, claim)
    host, alternates, _spec = claim('recover')
    assert (host, alternates) == (HOSTS[1], HOSTS[2:])
    assert world.asked == ['rp1', 'rp2']


def test_claim_recovered_begins_again(world, claim):
    assert claim('recover')[0] is HOSTS[0]


def test_claim_reverted(world, claim, server):
    task = placement.ClaimAlternate(world.manager)
    result = claim()
    for _time in range(2):
        task.revert(world.context, server, result, {})
        assert world.placement.held == {}


# -- SetAvailabilityZone --------------------------------------------------

def test_zone_of_the_host(world, server):
    host = world_module.selection(availability_zone='zone2')
    assert instances.SetAvailabilityZone(world.manager).execute(
        world.context, server, host) is True
    assert server.availability_zone == 'zone2'


def test_zone_is_looked_up(world, server, monkeypatch):
    monkeypatch.setattr(instances.availability_zones,
                        'get_host_availability_zone',
                        lambda context, host: host + ' zone')
    instances.SetAvailabilityZone(world.manager).execute(
        world.context, server, world_module.selection())
    assert server.availability_zone == 'host1 zone'


def test_zone_of_a_deleted_server(world, server):
    world.records[CELL1].clear()
    world.placement.held[UUID] = {'rp1': {}}
    for _time in range(2):
        assert instances.SetAvailabilityZone(world.manager).execute(
            world.context, server,
            world_module.selection(availability_zone='z')) is False
        assert world.placement.held == {}


# -- PrepareRebuild -------------------------------------------------------

def test_prepare_rebuild(world, from_primitives):
    from_primitives.return_value = mock.Mock()
    claimed = mock.Mock(requested_resources=['as claimed'])
    given = {'retry': {'num_attempts': 2, 'hosts': []}}
    spec, properties = scheduling.PrepareRebuild(world.manager).execute(
        world.context, HOSTS[0], claimed, {'legacy': 1}, given)
    assert spec.requested_resources == ['as claimed']
    assert properties['retry']['hosts'] == [['host1', 'host1-node']]
    assert given['retry']['hosts'] == [], 'it may run again'


# -- ReattachVolumes ------------------------------------------------------

class Volume(types.SimpleNamespace):
    """A record of a disk that is a volume."""

    is_volume = True
    volume_id = 'v1'

    def save(self):
        self.world.step('saved')


class Cinder:
    """Knows who has reserved what."""

    def __init__(self, world):
        self.world = world
        self.attachments = {}

    def attachment_get(self, context, uuid):
        if uuid not in self.attachments:
            raise exception.VolumeAttachmentNotFound(attachment_id=uuid)

    def attachment_create(self, context, volume, server):
        uuid = 'new%d' % len(self.world.steps)
        self.attachments[uuid] = server
        self.world.step('attachment')
        return {'id': uuid}

    def attachment_get_all(self, context, instance_id):
        return [{'id': uuid} for uuid, server in self.attachments.items()
                if server == instance_id]

    def attachment_delete(self, context, uuid):
        del self.attachments[uuid]


@pytest.fixture
def cinder(world, server):
    world.manager.volume_api = Cinder(world)
    world.disks[UUID] = [
        Volume(world=world, attachment_id='old'),
        types.SimpleNamespace(is_volume=False, attachment_id=None)]
    return world.manager.volume_api


def reattach(world, server, how='execute', wanted=True):
    return getattr(volumes.ReattachVolumes(world.manager), how)(
        world.context, server, wanted)


def test_reattach(world, server, cinder):
    cinder.attachments['of another'] = 'other'
    bdms = reattach(world, server)
    assert set(cinder.attachments) == {'of another', bdms[0].attachment_id}
    assert volumes.ReattachVolumes(world.manager).had_effect(bdms)
    assert not volumes.ReattachVolumes(world.manager).had_effect(bdms[1:])


@pytest.mark.parametrize('how', ('execute', 'recover'))
def test_reattach_takes_what_is_there(world, server, cinder, how):
    cinder.attachments['old'] = UUID
    reattach(world, server, how)
    assert set(cinder.attachments) == {'old'}
    assert world.steps == []


@pytest.mark.parametrize('after', (1, 2))
def test_reattach_recovered_leaves_one_attachment(world, server, cinder,
                                                  after):
    assert world.crash(after, reattach, world, server)
    bdms = reattach(world, server, 'recover')
    assert set(cinder.attachments) == {bdms[0].attachment_id}


@pytest.mark.parametrize('how', ('execute', 'recover'))
def test_reattach_nothing_to_a_deleted_server(world, server, cinder, how):
    assert list(reattach(world, server, how, wanted=False)) == []
    assert world.steps == []


def undo(world, server, result):
    volumes.ReattachVolumes(world.manager).revert(
        world.context, server, result, {})


@pytest.mark.parametrize('after', (1, 2))
def test_reattach_undone_leaves_no_attachment_of_no_disk(
        world, server, cinder, after):
    """Cinder has made one, and its answer was lost."""
    cinder.attachments['of another'] = 'other'
    assert world.crash(after, reattach, world, server)
    undo(world, server, LOST)
    undo(world, server, LOST)
    assert set(cinder.attachments) == {'of another'} | {
        disk.attachment_id for disk in world.disks[UUID]
        if disk.attachment_id} - {'old'}


def test_reattach_undone_behind_a_deleted_server(world, server, cinder,
                                                 monkeypatch):
    assert world.crash(1, reattach, world, server)
    monkeypatch.setattr(
        objects.BlockDeviceMappingList, 'get_by_instance_uuid',
        lambda context, uuid: (world.disks[uuid] if context.read_deleted ==
                               'yes' else []))
    undo(world, server, LOST)
    assert not cinder.attachments
    assert world.context.read_deleted == 'no'


def test_reattach_undone_later_keeps_what_disks_have(world, server, cinder):
    bdms = reattach(world, server)
    kept = dict(cinder.attachments)
    undo(world, server, bdms)
    assert cinder.attachments == kept


def test_reattach_asks_cinder_for_volumes_only(world, server, cinder):
    world.manager.volume_api = None
    del world.disks[UUID][0]
    assert len(reattach(world, server, 'recover')) == 1
    undo(world, server, LOST)


# -- RescheduleToErrorOnRevert --------------------------------------------

@pytest.fixture
def revert(world, server, monkeypatch):
    spec = mock.Mock()
    spec.to_legacy_request_spec_dict.return_value = {}
    network = mock.Mock(arq_uuid='q1')
    monkeypatch.setattr(
        'nova.compute.utils.delete_arqs_if_needed',
        lambda context, instance, uuids: world.step(tuple(uuids)))
    server.system_metadata = {}
    asked = mock.MagicMock(no_allocate=False)
    asked.__iter__.side_effect = lambda: iter([network])
    world.manager.network_api.deallocate_for_instance.side_effect = (
        lambda *args, **kwargs: world.step('networks'))

    def _revert(exc=None):
        instances.RescheduleToErrorOnRevert(world.manager).revert(
            world.context, server, spec, asked, None,
            {'x': world_module.failure(
                exc or exception.MaxRetriesExceeded(reason='no'))})
    return _revert


def assert_given_up(world):
    record = world.records[CELL1][UUID]
    assert (record.vm_state, record.task_state) == (vm_states.ERROR, None)
    assert len(world.faults[UUID]) == 1
    assert record.system_metadata == {'network_allocated': 'False'}


def test_reschedule_to_error(world, revert):
    revert()
    assert_given_up(world)
    assert world.steps == ['state', 'fault', 'notification', 'networks',
                           ('q1',)]


@pytest.mark.parametrize('after', range(1, 7))
def test_reschedule_to_error_after_a_crash(world, revert, after):
    crashed = world.crash(after, revert)
    assert crashed == (after <= 5)
    world.steps.clear()
    revert()
    assert_given_up(world)
    assert world.steps[-2:] == ['networks', ('q1',)]


def test_reschedule_to_error_of_a_deleted_server(world, revert):
    world.records[CELL1].clear()
    revert()
    assert world.steps == []


def test_reschedule_to_error_leaves_what_a_compute_has(world, revert,
                                                       server):
    server.host = 'host2'
    revert()
    assert world.steps == []
    assert server.vm_state == vm_states.BUILDING


@pytest.mark.parametrize('state', (vm_states.ERROR, vm_states.ACTIVE))
def test_who_comes_too_late_tells_nothing(world, revert, server, state):
    """Who has ended the request does, or has."""
    server.vm_state = state
    revert(ssm_exc.TooLate('it is over'))
    assert world.steps == [] and server.vm_state == state


def test_who_comes_too_late_cleans_up_what_only_it_knows(world, revert):
    """The accelerators of its ports: a repair does not know them."""
    revert()
    world.steps.clear()
    revert(ssm_exc.TooLate('it is over'))
    assert world.steps == ['networks', ('q1',)]
    assert len(world.faults[UUID]) == 1
