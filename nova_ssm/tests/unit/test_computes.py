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

"""What the conductor says to computes is what Nova would say."""

import json
from unittest import mock

from nova.compute import rpcapi
from nova import context as nova_context
from nova import objects
from nova.objects import base
from nova import rpc
from oslo_config import cfg
import oslo_messaging
import pytest

from nova_ssm import computes
from nova_ssm.tests.unit.flows import rehearsal

CONF = cfg.CONF


@pytest.fixture
def said(monkeypatch):
    """What is sent on a bus to computes that may all do the same."""
    sent = []
    transport = oslo_messaging.get_rpc_transport(CONF, 'fake://')
    monkeypatch.setattr(rpc, 'TRANSPORT', transport)
    monkeypatch.setattr(
        type(transport), '_send',
        lambda self, target, context, message, **kwargs: sent.append(
            (target.topic, target.server, {**context, 'timestamp': None},
             message)))
    monkeypatch.setattr(rpcapi, '_ROUTER', None)
    monkeypatch.setattr(rpcapi, 'LAST_VERSION', None)
    CONF.set_override('compute', '6.0', 'upgrade_levels')
    yield sent
    CONF.clear_override('compute', 'upgrade_levels')


def build(api):
    """Tell a compute to build, with something of each kind."""
    instance = rehearsal.instance()
    instance.flavor = objects.Flavor(name='m1', extra_specs={'a': 'b'})
    instance.flavor.extra_specs['c'] = 'd'
    api.build_and_run_instance(
        rehearsal.context(), instance=instance, host='host1', image={},
        request_spec=objects.RequestSpec(flavor=instance.flavor),
        filter_properties={'limits': {}, 'pci': objects.PciDeviceList(
            objects=[])},
        requested_networks=objects.NetworkRequestList(objects=[
            objects.NetworkRequest(network_id=rehearsal.UUID)]),
        block_device_mapping=rehearsal._disks(), node='node1',
        limits=objects.SchedulerLimits(
            vcpu=1, disk_gb=1, memory_mb=None, numa_topology=None), host_list=[
            rehearsal.sample(objects.Selection)], accel_uuids=['a'])


def in_order(plain):
    """As JSON, with what has changed, which is a set, in an order."""
    if isinstance(plain, dict):
        return {key: sorted(value) if key.endswith('.changes')
                else in_order(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [in_order(value) for value in plain]
    return plain


def test_a_compute_is_told_the_same_as_by_nova(said):
    for api in (rpcapi.ComputeAPI(), computes.ComputeAPI()):
        build(api)
    novas, ours = (in_order(json.loads(json.dumps(one))) for one in said)
    assert ours == novas
    assert novas[3]['args']['instance']['nova_object.data']['flavor']


def test_objects_are_written_in_one_walk(said):
    with mock.patch.object(base.NovaObject, 'obj_to_primitive',
                           side_effect=AssertionError):
        build(computes.ComputeAPI())
    assert len(said) == 1


def test_the_router_is_made_once_and_anew_with_novas(said):
    api = computes.ComputeAPI()
    first = api.router
    assert api.router is first
    assert first.version_cap == '6.0'
    rpcapi.reset_globals()
    assert api.router is not first


def test_a_cell_with_a_bus_of_its_own_is_told_by_the_same_serializer(said):
    context = nova_context.RequestContext('user', 'project', is_admin=False,
                                          overwrite=False)
    context.mq_connection = rpc.TRANSPORT
    client = computes.ComputeAPI().router.client(context)
    assert isinstance(client.serializer._base, computes.ObjectSerializer)
