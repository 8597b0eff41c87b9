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

"""What the databases and the stand-ins of other services hold now."""

from typing import Any

from nova import context as nova_context
from nova.db.api import api as api_db
from nova.db.main import api as main_db
from placement import db_api as placement_db
import sqlalchemy as sa

from nova_ssm.tests.faults import world as world_module

Row = dict[str, Any]


def api(query: str, **values: Any) -> list[Row]:
    """Ask the API database."""
    return _ask(api_db.context_manager.writer.get_engine(), query, values)


def placement(query: str, **values: Any) -> list[Row]:
    """Ask the database of placement."""
    return _ask(placement_db.get_placement_engine(), query, values)


def cells(world: world_module.World, query: str,
          **values: Any) -> list[Row]:
    """Ask each cell database; each row tells its ``cell`` too."""
    found = []
    for name, cell in world.case.cell_mappings.items():
        context = nova_context.get_admin_context()
        with nova_context.target_cell(context, cell) as cctxt:
            engine = main_db.get_context_manager(cctxt).writer.get_engine()
            found += [{**row, 'cell': name}
                      for row in _ask(engine, query, values)]
    return found


def _ask(engine: sa.Engine, query: str, values: Row) -> list[Row]:
    with engine.connect() as connection:
        rows = connection.execute(sa.text(query), values)
        return [dict(row._mapping) for row in rows]


def guests(world: world_module.World) -> dict[str, set[str]]:
    """Of each guest the hosts that have it."""
    found: dict[str, set[str]] = {}
    for host, compute in world.computes.items():
        for uuid in compute.manager.driver.list_instance_uuids():
            found.setdefault(uuid, set()).add(host)
    return found


def held() -> dict[str, dict[str, dict[str, int]]]:
    """Of each consumer what it holds, by host and resource class."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for row in placement(
            'SELECT consumer_id AS consumer, provider.name AS host, '
            'class.name AS what, used FROM allocations '
            'JOIN resource_providers AS provider '
            'ON provider.id = resource_provider_id '
            'JOIN resource_classes AS class ON class.id = '
            'resource_class_id'):
        found.setdefault(row['consumer'], {}).setdefault(
            row['host'], {})[row['what']] = row['used']
    return found


def attachments(world: world_module.World) -> dict[str, str]:
    """Of each attachment of a volume the server."""
    return {one['id']: one['instance_uuid']
            for volume in world.case.cinder.volume_to_attachment.values()
            for one in volume.values()}


def ports(world: world_module.World) -> dict[str, dict[str, Any]]:
    """Of each port the server, the hosts it is bound to, and the active."""
    neutron = world.case.neutron
    return {uuid: {'server': port.get('device_id') or None,
                   'hosts': set(neutron._port_bindings.get(uuid, {})),
                   'host': (neutron._get_active_binding(uuid) or (None,))[0]}
            for uuid, port in neutron._ports.items()}
