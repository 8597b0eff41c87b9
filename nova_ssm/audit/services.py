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

"""What neutron, cinder and cyborg have of servers.

They are asked as the service that nova-conductor is, not as a user: what is
looked for may be anybody's.
"""

from collections.abc import Collection, Iterator
from typing import Any

from cinderclient import exceptions as cinder_exc
from keystoneauth1 import exceptions as ks_exc
from neutronclient.common import exceptions as neutron_exc
from nova import exception
from nova.network import constants
from nova.network import neutron
from nova.volume import cinder
from openstack import exceptions as sdk_exc

from nova_ssm import compat

#: What is raised if one of them cannot be asked now.
AWAY = (ks_exc.ClientException, neutron_exc.NeutronException,
        cinder_exc.ClientException, sdk_exc.SDKException,
        exception.NovaException)

_PORT = ('id', 'device_id', 'device_owner', 'project_id', 'updated_at',
         constants.BINDING_HOST_ID)
#: The version of cinder's API that Nova asks for attachments.
_ATTACHMENTS = '3.44'


def ports(context: Any, **filters: Any) -> list[dict[str, Any]]:
    """The ports of all projects."""
    return neutron.get_client(context, admin=True).list_ports(
        fields=list(_PORT), **filters)['ports']


def binding(context: Any, port: str, host: str) -> dict[str, Any] | None:
    """The binding of a port to a host, None if there is none."""
    try:
        return neutron.get_client(context, admin=True).show_port_binding(
            port, host)['binding']
    except neutron_exc.NeutronClientException as exc:
        if exc.status_code == 404:
            return None
        raise


def bind(context: Any, port: str, was: dict[str, Any]) -> None:
    """Let a port be bound to a host, but not active there, as it was."""
    neutron.get_client(context, admin=True).create_port_binding(
        port, {'binding': {name: was[name] for name in
                           ('host', 'vnic_type', 'profile')
                           if was.get(name) is not None}})


def bind_there(context: Any, port: str, wanted: dict[str, Any]) -> None:
    """Let a port be active on a host, and nowhere else.

    :param wanted: the host, and how the port is bound to it if it is not
    """
    there = binding(context, port, wanted['host'])
    if there is None:
        bind(context, port, wanted)
    if there is None or there.get('status') != 'ACTIVE':
        neutron.get_client(context, admin=True).activate_port_binding(
            port, wanted['host'])


def change_port(context: Any, port: str, values: dict[str, Any]) -> None:
    """Write values of a port."""
    neutron.get_client(context, admin=True).update_port(
        port, {'port': values})


def attachments(context: Any, only: Collection[str] | None = None
                ) -> Iterator[dict[str, Any]]:
    """The attachments of volumes of all projects, or some of them."""
    client = cinder.cinderclient(context, _ATTACHMENTS,
                                 skip_version_check=True).attachments
    if only is not None:
        for uuid in sorted(only):
            try:
                yield client.show(uuid).to_dict()
            except cinder_exc.NotFound:
                continue
        return
    marker = None
    while page := client.list(search_opts={'all_tenants': 1},
                              marker=marker):
        yield from (one.to_dict() for one in page)
        marker = page[-1].id


def accelerators(context: Any) -> list[dict[str, Any]]:
    """The accelerator requests of all projects; none without a cyborg."""
    client = compat.accelerator_client(context)
    if client is None:
        return []
    response, error = client._call_cyborg('get', client.ARQ_URL)
    if error:
        raise exception.AcceleratorRequestOpFailed(op='get', msg=error)
    return response.json().get('arqs') or []
