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

"""Nova's own fixtures of neutron, cinder and cyborg, and what they lack.

They stand in the place of Nova's clients. An audit lists also what belongs to
no server, which Nova itself never does: that is read from their state here.
"""

import copy
import functools
import types
from unittest import mock
import uuid

from cinderclient import exceptions as cinder_exc
import fixtures
from nova.tests import fixtures as nova_fixtures
from nova.tests.fixtures import cyborg as cyborg_fixture
from openstack import exceptions as sdk_exc

OWNER = 'compute:nova'


class Services:
    """What other services have of servers.

    :param step: told of each change
    :ivar away: the names of those that do not answer
    """

    def __init__(self, case, step):
        self._step = step
        self.away = set()
        self.requests = []
        self.neutron = case.useFixture(nova_fixtures.NeutronFixture(case))
        self.neutron._ports.clear()
        self.cinder = case.useFixture(nova_fixtures.CinderFixture(case))
        case.useFixture(cyborg_fixture.CyborgFixture())
        self._watch(case)

    def _watch(self, case):
        """Let each change be a place where a conductor may die."""
        for service, names in (
                (self.neutron, ('create_port_binding', 'delete_port_binding',
                                'activate_port_binding', 'update_port')),):
            for name in names:
                setattr(service, name, self._stepping(
                    getattr(service, name), name))
        listing = self.neutron.list_ports
        self.neutron.list_ports = lambda *args, **kwargs: (
            self._ask('neutron'), listing(*args, **kwargs))[1]
        patch = functools.partial(fixtures.MockPatch, autospec=False)
        for name in ('create', 'delete'):
            call = 'nova.volume.cinder.API.attachment_' + name
            case.useFixture(patch(call, side_effect=self._stepping(getattr(
                self.cinder, 'fake_attachment_' + name), name)))
        case.useFixture(patch('nova.volume.cinder.cinderclient',
                              side_effect=lambda *args, **kwargs: self))
        client = 'nova.accelerator.cyborg._CyborgClient.'
        case.useFixture(patch(client + '_call_cyborg',
                              side_effect=self._requests))
        case.useFixture(patch(client + 'delete_arqs_by_uuid',
                              side_effect=self._stepping(
                                  self._delete_requests, 'delete')))

    def _stepping(self, call, name):
        def change(*args, **kwargs):
            result = call(*args, **kwargs)
            self._step(name)
            return result
        return change

    def _ask(self, service):
        if service in self.away:
            raise sdk_exc.SDKException('%s is away' % service)

    # -- neutron ----------------------------------------------------------

    def port(self, server, host='host1', owner=OWNER):
        """A port of a server, bound to its host."""
        port = copy.deepcopy(self.neutron.port_1)
        port.update(id=str(uuid.uuid4()), device_id='', device_owner='',
                    tenant_id='project', project_id='project')
        self.neutron._ports[port['id']] = port
        update = type(self.neutron).update_port
        update(self.neutron, port['id'], {'port': {
            'device_id': server, 'device_owner': owner,
            'binding:host_id': host}})
        return port['id']

    def bind(self, port, host):
        """Bind a port to another host, too, as for a live migration."""
        type(self.neutron).create_port_binding(
            self.neutron, port, {'binding': {
                'host': host, 'vnic_type': 'normal', 'profile': {'a': 'b'}}})

    def hosts(self, port):
        """The hosts that a port is bound to, and whether it is active."""
        return {host: binding['status'] for host, binding in
                self.neutron._port_bindings[port].items()}

    def device(self, port):
        return self.neutron._ports[port]['device_id']

    # -- cinder -----------------------------------------------------------

    def attach(self, server, volume='volume', connector=None):
        """Reserve a volume for a server, or let a host be connected."""
        made = self.cinder.fake_attachment_create(None, volume, server,
                                                  connector)
        return made['id']

    @property
    def attachments(self):
        """The client's manager of attachments: this very object."""
        return self

    def list(self, search_opts, marker):
        assert search_opts == {'all_tenants': 1}
        self._ask('cinder')
        found = sorted(self._each(), key=lambda one: one.id)
        # One a page: who does not turn it sees the first one only.
        return [one for one in found if marker is None or one.id > marker][:1]

    def show(self, one):
        self._ask('cinder')
        for attachment in self._each():
            if attachment.id == one:
                return attachment
        raise cinder_exc.NotFound(404)

    def _each(self):
        for volume, known in self.cinder.volume_to_attachment.items():
            for one in known.values():
                values = {'id': one['id'], 'volume_id': volume,
                          'instance': one['instance_uuid'],
                          'status': 'attached' if one['connector']
                          else 'reserved'}
                yield types.SimpleNamespace(
                    id=one['id'], to_dict=lambda values=values: values)

    def attached(self):
        """The servers that volumes are attached to."""
        return sorted(one.to_dict()['instance'] for one in self._each())

    # -- cyborg -----------------------------------------------------------

    def accelerate(self, server, host='host1'):
        """An accelerator request of a server, or of none."""
        [request, *_], [bound, *_] = cyborg_fixture.get_arqs('profile')
        one = {**(bound if server else request), 'uuid': str(uuid.uuid4()),
               'instance_uuid': server, 'hostname': server and host}
        self.requests.append(one)
        return one['uuid']

    def _requests(self, method, url):
        assert (method, url) == ('get', '/accelerator_requests')
        if 'cyborg' in self.away:
            return None, 'cyborg is away'
        return mock.Mock(json=lambda: {
            'arqs': copy.deepcopy(self.requests)}), None

    def _delete_requests(self, uuids):
        self.requests = [one for one in self.requests
                         if one['uuid'] not in uuids]
