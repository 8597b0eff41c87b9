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

"""What is done for one server that has a host and a record."""

from unittest import mock

from nova.accelerator import cyborg
from nova.compute import vm_states
from nova import exception
from nova import notifications
from nova import objects
import pytest

from nova_ssm.engine import exception as engine_exc
from nova_ssm.tasks import accelerators
from nova_ssm.tasks import instances
from nova_ssm.tasks import scheduling
from nova_ssm.tasks import volumes
from nova_ssm.tests.unit.tasks import world as world_module

CELL0, CELL1 = world_module.CELL0, world_module.CELL1
UUID = 'a1'
TAGS = [objects.Tag(tag='red')]


@pytest.fixture
def server(world):
    world.add_request(UUID)
    return world.add_record(UUID)


@pytest.fixture
def cell(world):
    return world.cells[CELL1]


# -- ServerToErrorOnRevert ------------------------------------------------

def revert(world, server, failed='CreateArqs', exc=None):
    instances.ServerToErrorOnRevert(world.manager).revert(
        world.context, server, world.cells[CELL1],
        world_module.BuildRequest(world, world.context, instance_uuid=UUID),
        world_module.spec(UUID), ['disk'], TAGS, None,
        {failed: world_module.failure(
            exc or exception.AcceleratorRequestBindingFailed(
                arqs=[], msg='no'))})


def test_error_on_revert(world, server):
    world.placement.held[UUID] = {'rp1': {}}
    for _time in range(2):
        revert(world, server)
        assert world.records[CELL1][UUID].vm_state == vm_states.ERROR
        assert [type(exc) for exc in world.faults[UUID]] == [
            exception.AcceleratorRequestBindingFailed]
        assert world.placement.held == {}


@pytest.mark.parametrize('after', range(1, 10))
def test_error_on_revert_after_a_crash(world, server, after):
    world.placement.held[UUID] = {'rp1': {}}
    world.crash(after, revert, world, server)
    revert(world, server)
    assert world.records[CELL1][UUID].vm_state == vm_states.ERROR
    assert len(world.faults[UUID]) == 1
    assert world.placement.held == {}


def test_error_on_revert_keeps_what_a_compute_may_use(world, server):
    world.placement.held[UUID] = {'rp1': {}}
    revert(world, server, 'CastBuild', engine_exc.SecretUnavailable('x'))
    assert world.placement.held == {UUID: {'rp1': {}}}


def test_error_on_revert_does_nothing_before(world):
    task = instances.ServerToErrorOnRevert(world.manager)
    assert task.execute() is None
    assert not task.had_effect(None)


# -- PrepareBuild ---------------------------------------------------------

def test_prepare_build():
    groups = [objects.SecurityGroup(uuid=world_module.CELL1)]
    spec = mock.Mock(security_groups=groups, maps_requested_resources=False)
    spec.to_legacy_filter_properties_dict.return_value = {}
    hosts = [world_module.selection(name) for name in ('h1', 'h2', 'h3')]
    build_spec, properties, host, alternates, names = (
        scheduling.PrepareBuild(None).execute(
            mock.Mock(uuid=UUID), spec, hosts))
    assert build_spec is spec
    assert (host, alternates) == (hosts[0], hosts[1:])
    assert names == [world_module.CELL1]
    assert properties['retry'] == {'num_attempts': 1,
                                   'hosts': [['h1', 'h1-node']]}
    assert len(hosts) == 3, 'it may run again, and must find all of them'


def test_prepare_build_says_which_providers_were_claimed():
    group = mock.Mock(requester_id='port')
    spec = mock.Mock(security_groups=[], requested_resources=[group],
                     maps_requested_resources=True)
    spec.to_legacy_filter_properties_dict.return_value = {}
    host = world_module.selection()
    host.allocation_request = '{"mappings": {"port": ["rp7"]}}'
    scheduling.PrepareBuild(None).execute(mock.Mock(uuid=UUID), spec, [host])
    assert group.provider_uuids == ['rp7']


# -- StartBuildAction -----------------------------------------------------

@pytest.fixture
def told(monkeypatch):
    send = mock.Mock()
    monkeypatch.setattr(notifications, 'send_update_with_states', send)
    return send


def test_start_action(world, server, cell, told):
    instances.StartBuildAction(world.manager).execute(server, cell)
    told.assert_called_once_with(mock.ANY, server, None, vm_states.BUILDING,
                                 None, None, service='conductor')
    assert told.call_args.args[0].cell_uuid == CELL1
    assert world.actions == {UUID: ['create']}


def test_start_action_recovered(world, server, cell, told):
    task = instances.StartBuildAction(world.manager)
    for _time in range(2):
        task.recover(server, cell)
    assert told.call_count == 1
    assert world.actions == {UUID: ['create']}


# -- CreateBlockDeviceMappings --------------------------------------------

class Disk:
    """A record of a disk that can be deleted."""

    def __init__(self, world):
        self.world = world

    def destroy(self):
        self.world.disks[UUID].remove(self)


def test_create_disks(world, server, cell):
    task = volumes.CreateBlockDeviceMappings(world.manager)
    created = task.execute(server, cell, ['root', 'swap'])
    assert created == world.disks[UUID] == ['root', 'swap']


def test_create_disks_recovered_takes_them_all(world, server, cell):
    world.disks[UUID] = there = ['root', 'swap']
    assert volumes.CreateBlockDeviceMappings(world.manager).recover(
        server, cell, ['r', 's']) is there
    assert world.steps == []


def test_create_disks_recovered_creates_some_anew(world, server, cell):
    world.disks[UUID] = [Disk(world)]
    assert volumes.CreateBlockDeviceMappings(world.manager).recover(
        server, cell, ['root', 'swap']) == ['root', 'swap']
    assert world.steps == ['disks']


# -- CreateTags -----------------------------------------------------------

def test_create_tags(world, server, cell):
    task = instances.CreateTags(world.manager)
    created = task.execute(server, cell, TAGS)
    assert created == ['red'] and server.tags == ['red']
    assert task.had_effect(created)
    task.recover(server, cell, TAGS)
    assert world.tags == {UUID: ['red']}


def test_create_no_tags(world, server, cell):
    """The instance has an empty list then, that nobody has to look for."""
    task = instances.CreateTags(world.manager)
    assert task.execute(server, cell, None) is None
    assert list(server.tags) == []
    assert not task.had_effect(None)


# -- MapInstance ----------------------------------------------------------

@pytest.mark.parametrize('how', ('execute', 'recover'))
def test_map(world, server, cell, how):
    getattr(instances.MapInstance(world.manager), how)(
        world.context, server, cell)
    assert world.mappings[UUID].cell_mapping is cell


def test_map_recovered_skips_what_is_done(world, server, cell):
    task = instances.MapInstance(world.manager)
    task.execute(world.context, server, cell)
    world.steps.clear()
    task.recover(world.context, server, cell)
    assert world.steps == []


# -- DeleteBuildRequest ---------------------------------------------------

@pytest.fixture
def delete(world, server, cell, monkeypatch):
    """Delete the build request, as a conductor that has read it before."""
    @mock.patch('nova.compute.utils.notify_about_instance_delete')
    def _delete(how, notify):
        notify.return_value.__enter__ = notify.return_value.__exit__ = (
            mock.Mock(return_value=None))
        return getattr(instances.DeleteBuildRequest(world.manager), how)(
            world.context, world_module.BuildRequest(
                world, world.context, instance_uuid=UUID),
            server, cell, [], None)
    world.mappings[UUID].cell_mapping = cell
    world.placement.held[UUID] = {'rp1': {}}
    return _delete


@pytest.mark.parametrize('how', ('execute', 'recover'))
def test_delete_request(world, delete, how):
    assert delete(how) is True
    assert not world.requests
    assert UUID in world.records[CELL1]
    assert UUID in world.placement.held


def test_delete_request_recovered_after_it_was_done(world, delete):
    delete('execute')
    assert delete('recover') is True
    assert UUID in world.records[CELL1]


@pytest.mark.parametrize('how', ('execute', 'recover'))
def test_delete_request_of_a_deleted_server(world, delete, how):
    """Its user was faster: the mapping, not set then, says so."""
    del world.requests[UUID]
    world.mappings[UUID].queued_for_delete = True
    for _time in range(2):
        assert delete(how) is False
        assert not world.records[CELL1]
        assert not world.placement.held


def test_delete_request_of_a_server_that_the_api_has_deleted(world, delete):
    del world.requests[UUID]
    del world.records[CELL1][UUID]
    assert delete('recover') is False
    assert not world.placement.held


# -- CreateArqs -----------------------------------------------------------

@pytest.fixture
def client(monkeypatch):
    fake = mock.Mock()
    monkeypatch.setattr(cyborg, 'get_client', lambda context: fake)
    return fake


def networks(**values):
    values = {'arq_uuid': None, 'device_profile': None, **values}
    return [mock.Mock(spec_set=tuple(values), **values)]


@pytest.fixture
def arqs(world):
    world.manager._create_and_bind_arq_for_instance = mock.Mock(
        return_value=['q1'])

    def _arqs(how, server, wanted=True, asked=None):
        return getattr(accelerators.CreateArqs(world.manager), how)(
            world.context, server, world_module.selection(), 'spec', asked,
            wanted)
    return _arqs


def test_arqs(world, server, arqs):
    assert arqs('execute', server) == (['q1'], None)
    world.manager._create_and_bind_arq_for_instance.assert_called_once_with(
        world.context, server, 'host1-node', 'spec', None)


@pytest.mark.parametrize('how', ('execute', 'recover'))
def test_arqs_of_a_deleted_server(world, server, arqs, client, how):
    assert arqs(how, server, wanted=False) == ([], None)
    world.manager._create_and_bind_arq_for_instance.assert_not_called()
    client.delete_arqs_for_instance.assert_not_called()


def test_arqs_of_a_flavor_recovered(server, arqs, client):
    server.flavor.extra_specs['accel:device_profile'] = 'gpu'
    assert arqs('recover', server) == (['q1'], None)
    client.delete_arqs_for_instance.assert_called_once_with(UUID)


def test_arqs_of_a_port_recovered(server, arqs, client):
    arqs('recover', server, asked=networks(device_profile='nic'))
    client.delete_arqs_for_instance.assert_called_once_with(UUID)


def test_no_arqs_recovered(server, arqs, client):
    arqs('recover', server, asked=networks())
    client.delete_arqs_for_instance.assert_not_called()


def test_arqs_effect(world):
    task = accelerators.CreateArqs(world.manager)
    assert task.had_effect((['q1'], None))
    assert not task.had_effect(([], None))


def test_arqs_reverted(world, server, client):
    task = accelerators.CreateArqs(world.manager)
    asked = networks(arq_uuid='q2')
    task.revert(world.context, server, asked, (['q1'], asked), {})
    client.delete_arqs_by_uuid.assert_called_once_with(['q1', 'q2'])
    # Failed half way: those of the ports are known.
    task.revert(world.context, server, asked,
                world_module.failure(ValueError()), {})
    client.delete_arqs_by_uuid.assert_called_with(['q2'])


def test_no_arqs_reverted(world, server, client):
    accelerators.CreateArqs(world.manager).revert(
        world.context, server, None, ([], None), {})
    assert client.mock_calls == []
