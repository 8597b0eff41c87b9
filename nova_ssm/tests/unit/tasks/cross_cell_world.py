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

"""A small world of two cells, for the move from one to the other.

Nova's own tasks and objects live in it, on real databases of the cells in
memory. Neutron, cinder, glance and the computes are small. A conductor can be
killed at each of its effects.
"""

import contextlib
import copy
import functools
import sqlite3
import types
from unittest import mock

import glanceclient.exc
from nova import availability_zones
from nova.compute import task_states
from nova.compute import vm_states
from nova import context as nova_context
from nova.db.main import models
from nova import exception
from nova.image import glance
from nova.network import model as network_model
from nova.network import neutron
from nova import objects
from nova.volume import cinder
from oslo_db.sqlalchemy import enginefacade
import sqlalchemy as sa
from taskflow.patterns import linear_flow

from nova_ssm import compat
from nova_ssm.engine import journal
from nova_ssm.engine import serialization
from nova_ssm import objects as ssm_objects
from nova_ssm.tasks import casts
from nova_ssm.tasks import cross_cell
from nova_ssm.tasks import cross_cell_calls
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.tasks import cross_cell_computes
from nova_ssm.tests.unit.tasks import waiting

UUID = 'a1000000-0000-4000-8000-000000000001'
CELL1 = 'c1000000-0000-4000-8000-000000000001'
CELL2 = 'c2000000-0000-4000-8000-000000000002'
MIGRATION = 'a2000000-0000-4000-8000-000000000002'
VOLUME = 'a3000000-0000-4000-8000-000000000003'
PORTS = ('a4000000-0000-4000-8000-000000000001',
         'a4000000-0000-4000-8000-000000000002')
OLD, NEW = 7, 8


class Cell:
    """A cell: its mapping and its database.

    All worlds share the connections: what SQLAlchemy has learned is kept.
    """

    def __init__(self, uuid):
        self.mapping = objects.CellMapping(
            uuid=uuid, name=uuid[:2], database_connection='sqlite://',
            transport_url='fake://', disabled=False)
        self.manager = enginefacade.transaction_context()
        self.manager.configure(connection='sqlite://')
        self.engine = self.manager.writer.get_engine()
        models.BASE.metadata.create_all(self.engine)
        self._empty = sqlite3.connect(':memory:')
        self._raw.backup(self._empty)
        self.world, self._written = None, False
        sa.event.listen(self.engine, 'before_cursor_execute', self._executes)
        sa.event.listen(self.engine, 'commit', self._commits)
        sa.event.listen(self.engine, 'rollback', self._rolls_back)

    @classmethod
    @functools.cache
    def of(cls, uuid):
        return cls(uuid)

    @property
    def _raw(self):
        return self.engine.raw_connection().driver_connection

    def join(self, world):
        """Be empty, and part of a world from now on."""
        self._raw.rollback()
        self._empty.backup(self._raw)
        self.world, self._written = world, False
        return self

    def forget(self):
        """Forget what is not committed."""
        self._raw.rollback()

    def _executes(self, connection, cursor, statement, *args):
        self._written |= statement.startswith(('INSERT', 'UPDATE', 'DELETE'))

    def _commits(self, connection):
        if self._written:
            # Who dies here has not committed yet.
            self.world.point()
            self._written = False

    def _rolls_back(self, connection):
        self._written = False

    def rows(self):
        """How many rows its tables have, those that have any.

        The group that every project has is nobody's.
        """
        with self.engine.connect() as connection:
            counts = {table.name: connection.execute(
                sa.select(sa.func.count()).select_from(table)).scalar_one()
                for table in models.BASE.metadata.sorted_tables}
        return {name: count for name, count in counts.items()
                if count and name != 'security_groups'}


class Neutron:
    """Which port is bound to which hosts; True for the active binding."""

    def __init__(self, world):
        self.world = world
        self.bound = {port: {'host1': True} for port in PORTS}
        self.broken = ()

    def has_port_binding_extension(self, context=None, client=None):
        return 'extension' not in self.broken

    def bind_ports_to_host(self, context, instance, host):
        for vif in instance.get_network_info():
            if host in self.bound[vif['id']] or vif['id'] in self.broken:
                raise exception.PortBindingFailed(port_id=vif['id'])
            self.bound[vif['id']][host] = False
            self.world.point()
        return {port: {} for port in self.bound}

    def delete_port_binding(self, context, port, host):
        if self.bound[port].pop(host, None) is not None:
            self.world.point()

    def migrate_instance_start(self, context, instance, migration):
        for vif in instance.get_network_info():
            hosts = self.bound[vif['id']]
            if hosts.get(migration.dest_compute) is False:
                hosts.update(dict.fromkeys(hosts, False))
                hosts[migration.dest_compute] = True
                self.world.point()

    def assert_bound(self, host, active):
        assert [hosts.get(host) for hosts in self.bound.values()] == [
            active] * len(PORTS)


class Cinder:
    """Attachments by id, each with its server."""

    def __init__(self, world):
        self.world = world
        self.attachments = {}
        self.broken = False
        self._made = 0

    def attachment_create(self, context, volume, uuid):
        if self.broken:
            raise exception.InvalidVolume(reason='broken')
        self._made += 1
        made = 'attachment%d' % self._made
        self.attachments[made] = uuid
        self.world.point()
        return {'id': made}

    def attachment_delete(self, context, attachment):
        if self.attachments.pop(attachment, None):
            self.world.point()

    def attachment_get_all(self, context, instance_id=None, volume_id=None):
        if context.project_id != 'project':
            return []
        return [{'id': attachment} for attachment, uuid
                in self.attachments.items() if uuid == instance_id]


class Glance:
    """Images by id. An id is never given twice."""

    def __init__(self, world):
        self.world = world
        self.data, self.ever = {}, set()
        self.broken = False

    def create(self, context, values):
        if self.broken:
            raise exception.Forbidden()
        if values['id'] in self.ever:
            raise glanceclient.exc.HTTPConflict()
        self.ever.add(values['id'])
        self.data[values['id']] = None
        self.world.point()
        return {'id': values['id'], 'name': values['name']}

    def get(self, context, image):
        if image not in self.data:
            raise exception.ImageNotFound(image_id=image)
        return {'id': image}

    def upload(self, image, data):
        assert self.data[image] is None
        self.data[image] = data

    def delete(self, context, image):
        self.get(context, image)
        del self.data[image]
        self.world.point()


class CrossCellWorld:
    """A server in a cell, a host in another, conductors that can die.

    :ivar kill_after_rows: whether conductors die after each row they write
    """

    uuid = UUID
    topic = 'compute-alt'
    kill_after_rows = False

    def __init__(self, project='project'):
        self.points, self.kill_at, self.process = 0, None, None
        self.now, self._elsewhere = 0.0, False
        self.cells = {uuid: Cell.of(uuid).join(self)
                      for uuid in (CELL1, CELL2)}
        self.hosts = {'host1': CELL1, 'host2': CELL2}
        self.neutron, self.cinder = Neutron(self), Cinder(self)
        self.glance = Glance(self)
        self.computes = cross_cell_computes.Computes(self)
        self.manager = types.SimpleNamespace(compute_rpcapi=self.computes)
        self.mapping = Mapping(self)
        self.context = nova_context.RequestContext(
            'user', project, is_admin=project != 'project',
            request_id='req-1', overwrite=False)

    # -- life and death ---------------------------------------------------

    def point(self):
        """A moment in which a conductor may die."""
        if self._elsewhere or self.process is None:
            return
        dead = self.process.db.dead
        self.points += not dead
        if dead or self.points == self.kill_at:
            for cell in self.cells.values():
                cell.forget()
            self.process.kill()

    @contextlib.contextmanager
    def elsewhere(self):
        """What is done by somebody else than the conductor."""
        before, self._elsewhere = self._elsewhere, True
        try:
            yield
        finally:
            self._elsewhere = before

    def sleep(self, seconds):
        self.point()
        self.now += seconds
        assert self.now < 100000, 'waits for ever'
        self.computes.go_on()

    # -- records ----------------------------------------------------------

    def _set_target_cell(self, context, cell):
        context.cell_uuid = cell.uuid
        context.db_connection = self.cells[cell.uuid].manager
        context.mq_connection = None

    def in_cell(self, uuid):
        copied = copy.copy(self.context)
        self._set_target_cell(copied, self.cells[uuid].mapping)
        return copied

    def context_of(self, host):
        return self.in_cell(self.hosts[host])

    @property
    def source(self):
        return self.in_cell(CELL1)

    def server(self, cell=CELL1, context=None):
        return objects.Instance.get_by_uuid(
            context or self.in_cell(cell).elevated(), UUID, expected_attrs=[
                'flavor', 'system_metadata', 'metadata', 'info_cache'])

    def volumes(self, context):
        """The attachments that the records of a cell know of."""
        return {bdm.attachment_id for bdm in
                objects.BlockDeviceMappingList.get_by_instance_uuid(
                    context, UUID)}

    def create(self):
        """What there is when a host in the other cell has been chosen."""
        context = self.source
        nics = network_model.NetworkInfo(
            network_model.VIF(id=port, vnic_type='normal', profile={})
            for port in PORTS)
        objects.Instance(
            context, uuid=UUID, project_id='project', user_id='user',
            host='host1', node='host1-node', compute_id=1,
            vm_state=vm_states.ACTIVE, task_state=task_states.RESIZE_PREP,
            flavor=flavor(OLD),
            display_name='server', system_metadata={}, metadata={},
            info_cache=objects.InstanceInfoCache(
                context, instance_uuid=UUID, network_info=nics)).create()
        objects.TagList.create(context, UUID, ['tag'])
        objects.VirtualInterface(
            context, instance_uuid=UUID, uuid=PORTS[0],
            address='fa:16:3e:00:00:01').create()
        objects.BlockDeviceMapping(
            context, instance_uuid=UUID, source_type='volume',
            destination_type='volume', volume_id=VOLUME, boot_index=1,
            attachment_id=self.cinder.attachment_create(
                context, VOLUME, UUID)['id']).create()
        objects.InstanceAction.action_start(context, UUID, 'resize')
        objects.InstanceActionEvent.event_start(
            context, UUID, 'conductor_migrate_server')
        migration = objects.Migration(
            context.elevated(), uuid=MIGRATION, instance_uuid=UUID,
            source_compute='host1', source_node='host1-node',
            status='pre-migrating', migration_type='resize',
            old_instance_type_id=OLD, new_instance_type_id=NEW)
        migration.create()
        return migration

    @contextlib.contextmanager
    def entered(self):
        """Let Nova's objects and services live in this world."""
        conf = types.SimpleNamespace(rpc_response_timeout=60,
                                     long_rpc_timeout=200)
        clock = types.SimpleNamespace(monotonic=lambda: self.now)
        replaced = (
            (nova_context, 'set_target_cell', self._set_target_cell),
            (objects.CellMapping, 'get_by_uuid',
             lambda context, uuid: self.cells[uuid].mapping),
            (objects.InstanceMapping, 'get_by_instance_uuid',
             lambda context, uuid: copy.copy(self.mapping)),
            (availability_zones, 'get_host_availability_zone',
             lambda context, host: 'zone of ' + host),
            (neutron, 'API', lambda: self.neutron),
            (cinder, 'API', lambda: self.cinder),
            (glance, 'API', lambda: self.glance),
            (compat, 'ping_compute', self.computes.answers),
            (compat, 'alt_topic',
             lambda api, context, host: self.topic),
            (casts, 'time', clock), (casts, 'CONF', conf),
            (cross_cell_calls, 'time', clock),
            (cross_cell_calls, 'CONF', conf),
            (cross_cell._patiently, 'sleep',
             lambda seconds: self.sleep(seconds)),
            *waiting.replaced(lambda seconds: self.sleep(seconds)),
        )
        with contextlib.ExitStack() as stack:
            for owner, name, new in replaced:
                stack.enter_context(mock.patch.object(owner, name, new))
            self.migration = self.create()
            yield self


class Mapping:
    """The instance mapping; a copy is what was read."""

    def __init__(self, world):
        self.world = world
        self.cell_mapping = world.cells[CELL1].mapping
        self.broken = None

    def save(self):
        if self.broken is not None:
            raise self.broken
        self.world.point()
        self.world.mapping.cell_mapping = self.cell_mapping


def flavor(number):
    return objects.Flavor(
        id=number, flavorid=str(number), name='flavor%d' % number, vcpus=1,
        memory_mb=512, root_gb=1, ephemeral_gb=0, swap=0, vcpu_weight=0,
        rxtx_factor=1.0, disabled=False, is_public=True, extra_specs={},
        description=None)


class Conductor(helpers.Process):
    """A conductor that moves servers; another reads what it journaled."""

    world_type = CrossCellWorld

    def __init__(self, url, world):
        def factory():
            return linear_flow.Flow('cross_cell_alone').add(
                cross_cell.branch(world.manager))
        super().__init__(
            url, world, {'cross_cell_alone': factory},
            serializer=ssm_objects.serializer(
                serialization.Vault([helpers.KEY])))

    def _after_commit(self, uuid, kind, atom, state):
        super()._after_commit(uuid, kind, atom, state)
        if self.world.kill_after_rows:
            self.kill()

    def move(self):
        """Do what is done when the chosen host is in the other cell."""
        world = self.world
        return self.runner.run(journal.FlowRequest(
            name='cross_cell_alone', context=world.source, subject=UUID,
            store={
                'instance': world.server(context=world.source),
                'migration': world.migration,
                'flavor': flavor(NEW), 'owner': 'project',
                'move_spec': objects.RequestSpec(
                    instance_uuid=UUID, is_bfv=False, flavor=flavor(NEW)),
                'host': objects.Selection(
                    service_host='host2', nodename='host2-node',
                    cell_uuid=CELL2, limits=None, allocation_request=None,
                    allocation_request_version=None)}))
