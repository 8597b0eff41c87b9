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
"""Builds servers in the cloud of processes, with and without trouble."""

import time

import pytest

from nova_ssm.tests.cloud import leftovers

#: Seconds. Generous: it ends a test that hangs, it measures nothing.
PATIENCE = 120


def statuses(found):
    return [server['status'] for server in found]


def assert_built(cloud, servers, request, found):
    """All are ACTIVE, each has one guest, nothing is left over."""
    count = request.count
    assert statuses(found) == ['ACTIVE'] * count
    guests = servers.guests()
    assert [guests[server['id']].living for server in found] == [1] * count
    assert leftovers.wait(cloud, leftovers.AT_REST, request) == {}


@pytest.mark.parametrize(('count', 'networks'), [
    (1, 'none'), (1, 'auto'), (5, 'none'), (5, 'auto')])
def test_boot(cloud, servers, count, networks):
    request = servers.boot(count, networks=networks)
    found = servers.wait(request, PATIENCE)
    assert_built(cloud, servers, request, found)
    addressed = [bool(server['addresses']) for server in found]
    assert addressed == [networks == 'auto'] * count


def test_boot_with_a_port(cloud, servers):
    network = cloud.client.network.find_network('private')
    port = cloud.client.network.create_port(network_id=network.id)
    try:
        request = servers.boot(networks=port.id)
        found = servers.wait(request, PATIENCE)
        assert_built(cloud, servers, request, found)
        port = cloud.client.network.get_port(port.id)
        assert (port.device_id, port.status) == (found[0]['id'], 'ACTIVE')
        assert servers.delete(request) == []
    finally:
        cloud.client.network.delete_port(port.id)


def test_no_valid_host(cloud, servers):
    """No host has room: the servers go to cell0, with a fault each."""
    request = servers.boot(2, flavor='m1.impossible')
    found = servers.wait(request, PATIENCE)
    assert statuses(found) == ['ERROR', 'ERROR']
    for server in found:
        assert 'No valid host' in server['fault']['message']
        rows = cloud.db('SELECT vm_state FROM nova_cell0.instances '
                        'WHERE uuid = %s', server['id'])
        assert [row['vm_state'] for row in rows] == ['error']
    assert leftovers.wait(cloud, leftovers.AT_REST, request) == {}
    assert not set(servers.guests()) & {server['id'] for server in found}


def test_delete_before_it_is_scheduled(cloud, servers):
    """The conductor comes back from the scheduler to a deleted request."""
    cloud.pause('scheduler')
    request = servers.boot(2)
    found = servers.show(request)
    assert statuses(found) == ['BUILD', 'BUILD']
    assert servers.delete(request) == []
    cloud.resume('scheduler')
    assert leftovers.wait(cloud, leftovers.EMPTY, request,
                          timeout=PATIENCE) == {}
    living = [guest.living for number, guest in servers.guests().items()
              if number in {server['id'] for server in found}]
    assert sum(living) == 0


def test_delete_while_it_spawns(cloud, servers):
    request = servers.boot(prefix='slow-8')
    limit = time.monotonic() + PATIENCE
    while (found := servers.show(request))[0][
            'OS-EXT-STS:task_state'] != 'spawning':
        assert time.monotonic() < limit, found
        time.sleep(0.2)
    assert servers.delete(request) == []
    assert leftovers.wait(cloud, leftovers.EMPTY, request,
                          timeout=PATIENCE) == {}


def test_reschedule(cloud, servers):
    """What one compute cannot build is built by another one."""
    # The scheduler takes the emptiest host, which is now cmp1. (Not several
    # servers in one request: hosts chosen for one are no alternates for
    # another.)
    for host in ('cmp2', 'cmp3'):
        filler = servers.boot(host=host)
        assert statuses(servers.wait(filler, PATIENCE)) == ['ACTIVE']
    request = servers.boot(prefix='fail-on-cmp1', networks='auto')
    found = servers.wait(request, PATIENCE)
    assert_built(cloud, servers, request, found)
    events = servers.guests()[found[0]['id']].events
    assert events[0] == ('refuse', 'cmp1')
    assert events[-1] == ('spawn', found[0]['OS-EXT-SRV-ATTR:host'])


def test_no_alternate_is_left(cloud, servers):
    """The only compute fails: the server ends in ERROR, with a fault."""
    cloud.set_compute('cmp2', enabled=False)
    cloud.set_compute('cmp3', enabled=False)
    try:
        request = servers.boot(prefix='fail-on-cmp1')
        found = servers.wait(request, PATIENCE)
    finally:
        cloud.set_compute('cmp2', enabled=True)
        cloud.set_compute('cmp3', enabled=True)
    assert statuses(found) == ['ERROR']
    assert 'fault' in found[0]
    assert leftovers.wait(cloud, leftovers.AT_REST, request) == {}


def test_conductor_is_killed(cloud, servers, working_conductor):
    """kill -9 of the conductor that works on ten servers."""
    if cloud.mode == 'stock':
        pytest.skip('stock Nova does not survive this')
    count = 10
    request = servers.boot(count)
    victim = working_conductor(request.request_id)
    cloud.kill(victim)
    found = servers.wait(request, PATIENCE)
    assert_built(cloud, servers, request, found)
