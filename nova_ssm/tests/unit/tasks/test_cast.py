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

"""The cast to the compute: once, and not twice."""

import types
from unittest import mock

from nova.compute import vm_states
from nova import objects
from oslo_db import exception as db_exc
import oslo_messaging as messaging
import pytest

from nova_ssm import compat
from nova_ssm.engine import serialization
from nova_ssm.tasks import casts
from nova_ssm.tasks import compute
from nova_ssm.tests.unit.tasks import waiting
from nova_ssm.tests.unit.tasks import world as world_module

UUID = 'a1'
#: Seconds: [DEFAULT] rpc_response_timeout.
TIMEOUT = 60


class Compute:
    """What a conductor sees of a compute, on a clock of its own.

    :ivar happens: what is to happen at which second
    """

    def __init__(self, world):
        self.world = world
        self.now = 1000.0
        self.began = self.now
        self.up = True
        self.pings = []
        self.building = 0
        self.happens = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.now += seconds
        assert self.passed < 100000, 'waits for ever'
        for when, what in list(self.happens):
            if self.passed >= when:
                self.happens.remove((when, what))
                what()

    @property
    def passed(self):
        return self.now - self.began

    def ping(self, context, host, timeout):
        assert host == 'host1'
        self.now += 0 if self.up else timeout
        if self.up:
            self.pings.append(self.passed)
        return self.up

    def builds(self, context, host, expected_attrs):
        return [types.SimpleNamespace(vm_state=vm_states.BUILDING)
                ] * self.building + [
            types.SimpleNamespace(vm_state=vm_states.ACTIVE)]


@pytest.fixture
def server(world):
    return world.add_record(UUID)


@pytest.fixture
def node(world, monkeypatch):
    fake = Compute(world)
    monkeypatch.setattr(casts, 'time', fake)
    for what in waiting.replaced(fake.sleep):
        monkeypatch.setattr(*what)
    monkeypatch.setattr(casts, 'CONF', types.SimpleNamespace(
        rpc_response_timeout=TIMEOUT))
    monkeypatch.setattr(compat, 'ping_compute', fake.ping)
    monkeypatch.setattr(objects.InstanceList, 'get_by_host', fake.builds)
    return fake


def run(world, server, how, wanted=True):
    getattr(compute.CastBuild(world.manager), how)(
        world.context, server, world.cells[world_module.CELL1],
        {'id': 'image'}, 'spec', {'retry': {}},
        serialization.Secret('password'), serialization.Secret('files'),
        'networks', ['default'], 'disks', world_module.selection(),
        ['alternate'], ['q1'], wanted)
    return world.manager.compute_rpcapi.build_and_run_instance


def test_tells_all_that_nova_tells(world, server):
    cast = run(world, server, 'execute')
    cast.assert_called_once_with(
        mock.ANY, instance=server, image={'id': 'image'},
        request_spec='spec', filter_properties={'retry': {}},
        admin_password='password', injected_files='files',
        requested_networks='networks', security_groups=['default'],
        block_device_mapping='disks', host='host1', node='host1-node',
        limits=None, host_list=['alternate'], accel_uuids=['q1'])
    assert cast.call_args.args[0].cell_uuid == world_module.CELL1


@pytest.mark.parametrize('how', ('execute', 'recover'))
def test_a_deleted_server_is_not_cast(world, server, node, how):
    run(world, server, how, wanted=False).assert_not_called()


def test_its_begin_is_journaled():
    assert compute.CastBuild.once


# -- signs of the compute -------------------------------------------------

def _event(world, event=compute.BUILD_EVENT, host='host1'):
    world.actions[UUID] = ['create']
    world.events[UUID] = [types.SimpleNamespace(event=event, host=host)]


SIGNS = {
    'it began to build': lambda world, server: setattr(
        server, 'task_state', None),
    'it has claimed': lambda world, server: setattr(server, 'host', 'host1'),
    'it has built': lambda world, server: setattr(
        server, 'vm_state', vm_states.ACTIVE),
    'it has failed': lambda world, server: setattr(
        server, 'vm_state', vm_states.ERROR),
    'it opened its event': lambda world, server: _event(world),
    'its user deletes it': lambda world, server: setattr(
        server, 'task_state', 'deleting'),
    'it is deleted': lambda world, server: world.records[
        world_module.CELL1].clear(),
}


@pytest.mark.parametrize('sign', SIGNS)
def test_taken(world, server, node, sign):
    SIGNS[sign](world, server)
    run(world, server, 'recover').assert_not_called()
    assert node.passed == 0


@pytest.mark.parametrize('sign', SIGNS)
def test_taken_while_we_look(world, server, node, sign):
    node.happens = [(TIMEOUT / 2, lambda: SIGNS[sign](world, server))]
    run(world, server, 'recover').assert_not_called()
    assert not node.happens


@pytest.mark.parametrize('sign', SIGNS)
def test_taken_at_the_last_moment(world, server, node, sign, monkeypatch):
    """Between the last look at the server and the last at its builds."""
    def builds(*args, **kwargs):
        if node.passed > TIMEOUT + 5:
            SIGNS[sign](world, server)
        return []
    monkeypatch.setattr(objects.InstanceList, 'get_by_host', builds)
    run(world, server, 'recover').assert_not_called()


@pytest.mark.parametrize('event', (
    {'host': 'host2'}, {'event': 'conductor_schedule'}))
def test_what_another_did_is_no_sign(world, server, node, event):
    _event(world, **event)
    run(world, server, 'recover').assert_called_once()


# -- no sign --------------------------------------------------------------

def test_casts_again_when_it_is_certain(world, server, node):
    run(world, server, 'recover').assert_called_once()
    assert len(node.pings) == 1
    assert node.passed > TIMEOUT


def test_waits_for_a_compute_that_is_down(world, server, node):
    node.up = False
    node.happens = [(5000, lambda: setattr(node, 'up', True))]
    run(world, server, 'recover').assert_called_once()
    assert node.passed > 5000


def test_a_compute_that_comes_back_may_have_the_message(world, server, node):
    node.up = False
    node.happens = [(5000, lambda: setattr(server, 'task_state', None))]
    run(world, server, 'recover').assert_not_called()


def test_waits_while_a_message_may_wait_for_a_slot(world, server, node):
    """As many builds as ever: others may be waiting behind them."""
    node.building = 10
    node.happens = [(5000, lambda: setattr(node, 'building', 9))]
    run(world, server, 'recover').assert_called_once()
    assert node.passed > 5000


def test_a_short_gap_is_not_a_free_slot(world, server, node):
    """A build that has its slot is not seen at once."""
    node.building = 10
    node.happens = [(5000, lambda: setattr(node, 'building', 9)),
                    (5002, lambda: setattr(node, 'building', 10)),
                    (9000, lambda: setattr(server, 'task_state', None))]
    run(world, server, 'recover').assert_not_called()


def test_one_long_build_holds_up_nobody_for_ever(world, server, node):
    node.building = 2
    node.happens = [(100, lambda: setattr(node, 'building', 1))]
    run(world, server, 'recover').assert_called_once()
    assert node.passed < 200


@pytest.mark.parametrize('error', (
    db_exc.DBConnectionError('gone'), db_exc.CantStartEngineError('gone'),
    messaging.MessageDeliveryFailure('gone')), ids=lambda e: type(e).__name__)
@pytest.mark.parametrize('way', ('ping', 'server'))
def test_who_cannot_look_waits(world, server, node, monkeypatch, caplog,
                               way, error):
    """To give up would leave a server in ERROR that is being built."""
    def broken(*args, **kwargs):
        raise error
    with monkeypatch.context() as patch:
        if way == 'ping':
            patch.setattr(compat, 'ping_compute', broken)
        else:
            patch.setattr(objects.Instance, 'get_by_uuid', broken)

        def mend():
            patch.undo()
            server.task_state = None
        node.happens = [(500, mend)]
        run(world, server, 'recover').assert_not_called()
    assert node.passed >= 500
    assert caplog.text.count('looking until it can') == 1


def test_the_user_who_deletes_ends_the_waiting(world, server, node):
    node.up = False
    node.happens = [(60, world.records[world_module.CELL1].clear)]
    run(world, server, 'recover').assert_not_called()
    assert node.passed < 120
