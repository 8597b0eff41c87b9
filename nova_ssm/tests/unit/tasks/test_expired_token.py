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

"""A token that has expired when a flow is gone on with.

Nova's own clients, as the tasks call them, against services that refuse the
token unless Nova's comes with it, as keystone's middleware does.
"""

from cinderclient import exceptions as cinder_exc
from keystoneauth1 import token_endpoint
from nova import context as nova_context
from nova import exception
from nova.image import glance
from nova.network import neutron
from nova import service_auth
from nova.volume import cinder
from oslo_config import cfg
import pytest

from nova_ssm.engine import serialization
from nova_ssm import objects as ssm_objects
from nova_ssm.tests.unit.engine import helpers

CONF = cfg.CONF
UUID = 'a1000000-0000-4000-8000-000000000001'
#: What the tasks call, and the answer.
CALLS = {
    'neutron': (lambda context: neutron.API().list_ports(
        context, device_id=UUID), '/v2.0/ports', {'ports': []}),
    'cinder': (lambda context: cinder.API().attachment_get_all(
        context, instance_id=UUID), '/v3/project/attachments',
        {'attachments': []}),
    'glance': (lambda context: glance.API().get(context, UUID),
               '/v2/images/' + UUID,
               {'id': UUID, 'status': 'active', 'created_at':
                '2026-01-01T00:00:00Z', 'updated_at':
                '2026-01-01T00:00:00Z'}),
}


@pytest.fixture
def resumed():
    """The context of a flow that was gone on with a day later."""
    serializer = ssm_objects.serializer(serialization.Vault([helpers.KEY]))
    catalog = [{'type': kind, 'name': name, 'endpoints': [
        {'publicURL': 'http://%s%s' % (name, path),
         'internalURL': 'http://%s%s' % (name, path), 'region': 'one'}]}
        for name, kind, path in (
            ('neutron', 'network', ''), ('glance', 'image', ''),
            ('cinder', 'block-storage', '/v3/project'),
            ('cinder', 'volumev3', '/v3/project'))]
    return serializer.unpack(serializer.pack(nova_context.RequestContext(
        'user', 'project', auth_token='expired', is_admin=False,
        service_catalog=catalog, overwrite=False)))


@pytest.fixture
def services(requests_mock, monkeypatch):
    """Services that take an expired token with Nova's beside it only."""
    asked = []

    def answer(body):
        def respond(request, response):
            tokens = [request.headers.get(name) for name in (
                'X-Auth-Token', 'X-Service-Token')]
            asked.append(tokens)
            response.status_code = 200 if tokens == [
                'expired', 'nova'] else 401
            return body if response.status_code == 200 else {}
        return respond

    for name, (_call, path, body) in CALLS.items():
        requests_mock.get('http://%s%s' % (name, path), json=answer(body),
                          headers={'Content-Type': 'application/json'})
    # Which fields an image has: glance's client asks for it first.
    requests_mock.get('http://glance/v2/schemas/image', json={
        'name': 'image', 'properties': {}})
    monkeypatch.setattr(
        service_auth, 'get_service_auth_plugin',
        lambda group: token_endpoint.Token('http://keystone', 'nova'))
    for name in ('neutron', 'glance'):
        CONF.set_override('endpoint_override', 'http://' + name, group=name)
    CONF.set_override('endpoint_template', 'http://cinder/v3/%(project_id)s',
                      group='cinder')
    yield asked
    CONF.reset()
    CONF.clear()
    service_auth.reset_globals()


@pytest.mark.parametrize('name', CALLS)
def test_it_is_taken_with_novas_own_beside_it(name, resumed, services):
    CONF.set_override('send_service_user_token', True, group='service_user')
    CALLS[name][0](resumed)
    assert services == [['expired', 'nova']]


@pytest.mark.parametrize('name', CALLS)
def test_without_that_the_call_fails_and_says_why(name, resumed, services):
    CONF.set_override('send_service_user_token', False,
                      group='service_user')
    with pytest.raises((exception.Unauthorized,
                        exception.ImageNotAuthorized,
                        cinder_exc.Unauthorized)) as caught:
        CALLS[name][0](resumed)
    assert services and {tuple(tokens) for tokens in services} == {
        ('expired', None)}
    assert 'expired' not in str(caught.value)
