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
"""Service users, endpoints, flavors, images and networks."""

from typing import Any

import openstack

from nova_ssm.tests.cloud import database
from nova_ssm.tests.cloud import settings

_USERS = ('nova', 'placement', 'glance', 'neutron')
_ROLES = ('service', 'creator', 'reseller_admin')
_NAMES = {'compute': 'nova', 'placement': 'placement', 'image': 'glance',
          'network': 'neutron'}
#: name, RAM in MiB, disk in GiB, VCPUs, id
_FLAVORS = (
    ('m1.nano', 128, 1, 1, '42'),
    ('m1.micro', 256, 1, 1, '84'),
    # More than all hosts have.
    ('m1.impossible', 128, 1, 100000, '666'),
)
_MIB = 1 << 20


def connect(where: settings.Settings) -> Any:
    """Return an openstacksdk connection of the administrator."""
    return openstack.connection.Connection(
        auth={key.removeprefix('OS_').lower(): value
              for key, value in where.credentials.items()
              if key not in ('OS_IDENTITY_API_VERSION', 'OS_REGION_NAME')},
        region_name='RegionOne', identity_api_version='3',
        compute_default_microversion='2.90')


def populate(where: settings.Settings) -> None:
    """Make everything that is not there yet. The APIs must answer."""
    _identity(where, connect(where))
    # The catalog has changed.
    client = connect(where)
    _images(client)
    _flavors(client)
    _networks(client)


def _identity(where: settings.Settings, client: Any) -> None:
    service = client.get_project('service') or client.create_project(
        'service', domain_id='default')
    roles = {role.name: role for role in client.identity.roles()}
    for name in _ROLES:
        if name not in roles:
            roles[name] = client.identity.create_role(name=name)
    for name in _USERS:
        user = client.get_user(name) or client.create_user(
            name, password=where.password, domain_id='default',
            default_project=service.id)
        for role in ('admin', 'service'):
            client.identity.assign_project_role_to_user(
                service, user, roles[role])
    client.identity.assign_system_role_to_user(
        client.get_user('admin'), roles['admin'], 'all')
    for kind, name in _NAMES.items():
        _endpoints(where, client, kind, name)


def _endpoints(where: settings.Settings, client: Any, kind: str,
               name: str) -> None:
    services = {service.type: service
                for service in client.identity.services()}
    service = services.get(kind) or client.identity.create_service(
        name=name, type=kind)
    have = {endpoint.interface for endpoint
            in client.identity.endpoints(service_id=service.id)}
    for interface in {'public', 'internal', 'admin'} - have:
        client.identity.create_endpoint(
            service_id=service.id, interface=interface,
            url=where.url(*database.ENDPOINTS[kind]),
            region_id='RegionOne')


def _images(client: Any) -> None:
    for name in ('cirros', 'cirros-alt'):
        if not client.image.find_image(name):
            client.image.create_image(
                name=name, disk_format='raw', container_format='bare',
                visibility='public', data=bytes(_MIB))


def _flavors(client: Any) -> None:
    for name, ram, disk, vcpus, number in _FLAVORS:
        if not client.compute.find_flavor(name):
            client.compute.create_flavor(
                name=name, ram=ram, disk=disk, vcpus=vcpus, id=number)


def _network(client: Any, name: str, cidr: str, dhcp: bool,
             **options: Any) -> None:
    network = (client.network.find_network(name)
               or client.network.create_network(name=name, **options))
    if not client.network.find_subnet(f'{name}-subnet'):
        client.network.create_subnet(
            name=f'{name}-subnet', network_id=network.id, ip_version=4,
            cidr=cidr, is_dhcp_enabled=dhcp)


def _networks(client: Any) -> None:
    _network(client, 'public', '172.24.4.0/22', False,
             is_router_external=True, provider_network_type='flat',
             provider_physical_network='public')
    _network(client, 'private', '10.10.0.0/16', True)
