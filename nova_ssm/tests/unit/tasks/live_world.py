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

"""A world in which servers are live migrated, by flows that can be killed.

Nova's own LiveMigrationTask runs in it. See world.py; here the records are
read as copies, as from a database, and conductors are processes that journal
their flows in SQLite.
"""

import contextlib
import copy
import datetime
import types
from unittest import mock

from nova import availability_zones
from nova.compute import power_state
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova.conductor.tasks import live_migrate as stock
from nova import exception
from nova import objects
from nova.objects import migrate_data
from nova.scheduler.client import report
from nova.scheduler import utils as scheduler_utils

from nova_ssm import compat
from nova_ssm.tasks import allocations
from nova_ssm.tasks import casts
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.tasks import waiting
from nova_ssm.tests.unit.tasks import world as world_module

CELL1 = world_module.CELL1
UUID = 'a1000000-0000-4000-8000-000000000001'
MIGRATION = 'a2000000-0000-4000-8000-000000000002'
#: The record that stock Nova makes a name for.
STOCK_MIGRATION = 'a3000000-0000-4000-8000-000000000003'
SOURCE = 'source'
PORTS = ('p1', 'p2')
CAST = 'compute_live_migration'
HELD = {'resources': {'VCPU': 1}}
HOSTS = (SOURCE, 'host1', 'host2', 'host3')
#: The resource providers of the hosts.
RP = {host: 'b%d000000-0000-4000-8000-000000000000' % number
      for number, host in enumerate(HOSTS)}
BEGAN = datetime.datetime(2020, 1, 1)


class Server(world_module.Server):
    """A server's record, as it is read."""

    def __contains__(self, name):
        return name != 'numa_topology' and super().__contains__(name)

    obj_attr_is_set = __contains__

    def _row(self):
        records = self.world.records[CELL1]
        if self.uuid not in records:
            raise exception.InstanceNotFound(instance_id=self.uuid)
        return records[self.uuid]

    def refresh(self):
        self.__dict__.update(self._row().__dict__)

    def save(self, expected_vm_state, expected_task_state):
        row = self._row()
        for expected, actual in ((expected_vm_state, row.vm_state),
                                 (expected_task_state, row.task_state)):
            if actual not in expected:
                raise exception.UnexpectedTaskStateError(
                    instance_uuid=self.uuid, expected=expected,
                    actual=actual)
        row.vm_state, row.task_state = self.vm_state, self.task_state
        self.world.step('save server')


class Spec:
    """A request: what the scheduler is told."""

    ignore_hosts = None
    requested_destination = None
    requested_resources = ()
    request_level_params = None

    def __init__(self, **values):
        self.__dict__.update(values)

    def __contains__(self, name):
        return hasattr(self, name)

    @property
    def maps_requested_resources(self):
        return bool(self.requested_resources)

    def get_request_group_mapping(self):
        return {group.requester_id: group.provider_uuids
                for group in self.requested_resources}

    def _nothing(self, *args):
        pass

    reset_forced_destinations = _nothing
    generate_request_groups_from_pci_requests = _nothing
    ensure_project_and_user_id = ensure_network_information = _nothing


class Placement(world_module.Placement):
    """Who holds what: {consumer: {provider: resources}}."""

    def move_allocations(self, context, source, target):
        if source in self.held:
            self.held[target] = self.held.pop(source)
            self.world.step('move allocations')
        return True

    def claim_resources(self, context, uuid, request, project_id, user_id,
                        allocation_request_version, consumer_generation):
        assert uuid not in self.held, 'claimed twice'
        if not request['allocations'].keys() <= {
                RP[host] for host in self.world.room}:
            return False
        self.held[uuid] = request['allocations']
        self.world.step('claim')
        return True

    def remove_provider_tree_from_instance_allocation(self, context, uuid,
                                                      provider):
        assert self.held[uuid].pop(provider, None), 'nothing there'
        if not self.held[uuid]:
            del self.held[uuid]
        self.world.step('unclaim')


class Neutron:
    """Which port is bound to which hosts; True for the active binding."""

    def __init__(self, world):
        self.world = world
        self.bound = {port: {SOURCE: True} for port in PORTS}

    def has_port_binding_extension(self, context=None, client=None):
        return True

    def get_requested_resource_for_instance(self, context, uuid):
        return self.world.groups, None

    def get_binding_profile_allocation(self, context, port, mapping):
        return None

    def bind_ports_to_host(self, context, instance, host, vnic_types,
                           port_profiles):
        for port in PORTS:
            if host in self.bound[port]:
                raise exception.PortBindingFailed(port_id=port)
            self.bound[port][host] = False
            self.world.step('bind')
        return {port: {'vnic_type': 'normal', 'profile': {'of': host},
                       'vif_type': 'ovs'} for port in PORTS}

    def list_ports(self, context, **search):
        assert context.is_admin and context.auth_token is None
        assert search['device_id'] == UUID
        return {'ports': [{'id': port} for port, hosts in self.bound.items()
                          if hosts.get(search['binding:host_id'])]}

    def delete_port_binding(self, context, port, host):
        if self.bound[port].pop(host, None) is not None:
            self.world.step('unbind')


class LiveWorld(world_module.World):
    """Servers, hosts, and conductors that can be killed at any point.

    :ivar room: hosts that have room for the server
    :ivar unfit: by host, what its check raises
    :ivar queue: casts that no compute has read yet
    :ivar kill_after_rows: whether conductors die after each row they write
    :ivar migrating: casts that a compute has read
    """

    kill_after_rows = False

    def __init__(self):
        super().__init__()
        self.cells = {CELL1: objects.CellMapping(uuid=CELL1, name='cell1')}
        self.hosts = dict.fromkeys(HOSTS, CELL1)
        self.up = set(self.hosts)
        self.room = set(HOSTS[1:])
        self.unfit, self.groups = {}, []
        self.migrations, self.queue, self.migrating = {}, [], []
        self.rows, self.attempts = {}, []
        self.now = 0.0
        self.memory_mb = 4096
        self.points, self.kill_at, self.process = 0, None, None
        self.placement = Placement(self)
        self.neutron = Neutron(self)
        self._dress(self.manager)
        world_module.set_target_cell(self.context, self.cells[CELL1])
        self._add_server()

    def _dress(self, manager):
        manager.network_api = self.neutron
        manager.servicegroup_api = types.SimpleNamespace(
            service_is_up=lambda service: service.host in self.up)
        manager.query_client.select_destinations = self._select
        rpc = manager.compute_rpcapi
        rpc.check_can_live_migrate_destination = self._check
        rpc.live_migration = self._cast

    def _add_server(self):
        self.server = Server(
            self, self.context, uuid=UUID, host=SOURCE, node='source-node',
            vm_state=vm_states.ACTIVE, task_state=task_states.MIGRATING,
            power_state=power_state.RUNNING, project_id='project',
            user_id='user', flavor=types.SimpleNamespace(id=7),
            numa_topology=None, pci_requests=None, resources=None,
            memory_mb=512, availability_zone='zone of source')
        self.records[CELL1][UUID] = self.server
        self.mappings[UUID] = types.SimpleNamespace(
            cell_mapping=self.cells[CELL1])
        self.placement.held[UUID] = {RP[SOURCE]: HELD}
        self.actions[UUID] = ['live-migration']
        self.events[UUID] = [Event('conductor_live_migrate_instance')]

    # -- life and death ---------------------------------------------------

    def step(self, name):
        self.steps.append(name)
        self.point()

    def need_life(self):
        if self.process is not None and self.process.db.dead:
            raise helpers.Killed()

    def point(self):
        """A moment in which a conductor may die."""
        self.need_life()
        self.points += 1
        if self.points == self.kill_at:
            self.process.kill()

    def sleep(self, seconds):
        self.need_life()
        self.now += seconds
        assert self.now < 100000, 'waits for ever'

    # -- hosts ------------------------------------------------------------

    def _select(self, context, spec, uuids, return_objects,
                return_alternates):
        self.attempts.append(list(spec.ignore_hosts))
        for host in HOSTS[1:]:
            if host not in spec.ignore_hosts and host in self.room:
                assert UUID not in self.placement.held, 'claimed twice'
                self.placement.held[UUID] = {RP[host]: HELD}
                self.step('claim')
                return [[selection(host)]]
        raise world_module.over_rpc(exception.NoValidHost(
            reason='none left'))

    def _check(self, context, instance, host, block_migration,
               disk_over_commit, migration, limits):
        self.step('check')
        if host in self.unfit:
            exc = self.unfit[host]
            raise (world_module.over_rpc(exc)
                   if isinstance(exc, exception.NovaException) else exc)
        return migrate_data.LibvirtLiveMigrateData(
            target_connect_addr=host, vifs=[
                migrate_data.VIFMigrateData(port_id=port, profile={})
                for port in PORTS])

    def _cast(self, context, **kwargs):
        assert self.neutron.bound == {
            port: {SOURCE: True, kwargs['dest']: False} for port in PORTS}
        self.queue.append({**kwargs, 'zone': kwargs[
            'instance'].availability_zone})
        self.step('cast')

    def compute_reads(self, context=None, host=SOURCE, timeout=None,
                      topic='compute-alt'):
        """The source takes what is in its queue; pings come behind it."""
        assert host == SOURCE
        if topic != 'compute-alt':
            return True
        for cast in self.queue:
            self.migrations[MIGRATION]['status'] = 'queued'
            self.events[UUID].append(Event(CAST, SOURCE))
            self.migrating.append(cast)
        self.queue.clear()
        return True

    # -- databases --------------------------------------------------------

    def _record(self, context, uuid, **kwargs):
        return copy.copy(super()._record(context, uuid))

    def _to_error(self, context, uuid, service, method, updates, exc, spec):
        record = super()._record(context, uuid)
        assert updates['expected_task_state'] == task_states.MIGRATING
        record.vm_state = updates['vm_state']
        record.task_state = updates['task_state']
        self.step('state')
        self.faults.setdefault(uuid, []).append(types.SimpleNamespace(
            exc=exc, details='in while_handling',
            created_at=BEGAN + datetime.timedelta(seconds=1),
            message=compute_utils.exception_to_dict(exc)['message']))
        self.step('fault')
        self.notified.append(self._notice(uuid, service, method, spec))
        self.step('notification')

    @staticmethod
    def _notice(uuid, service, method, spec):
        return uuid, service, method, spec

    def _action(self, context, uuid, request_id):
        return types.SimpleNamespace(id=uuid, start_time=BEGAN)

    def _event_finish(self, context, uuid, name, exc_val=None, **kwargs):
        for event in self.events[uuid]:
            if event.event == name:
                event.finish_time, event.error = self.now, exc_val
                self.step('event')

    def _create_migration(self, migration):
        if 'uuid' not in migration:
            migration.uuid = STOCK_MIGRATION
        assert migration.uuid not in self.migrations, 'created twice'
        migration.id = 1
        self.migrations[migration.uuid] = _row_of(migration)
        self.step('create migration')

    def _save_migration(self, migration):
        self.migrations[migration.uuid] = {
            **self.migrations[migration.uuid], **migration.obj_get_changes()}
        migration.obj_reset_changes()
        self.step('save migration')

    def _migration(self, context, uuid):
        assert context.is_admin
        row = self._get(self.migrations, uuid, exception.MigrationNotFound,
                        'migration_id')
        migration = objects.Migration(context, **row)
        migration.obj_reset_changes()
        return migration

    def _in_progress(self, context, filters):
        assert filters['instance_uuid'] == UUID
        return [self._migration(context, uuid) for uuid, row
                in self.migrations.items()
                if row['status'] in filters['status']]

    def _node(self, context, host, node=None):
        if host not in self.hosts:
            raise exception.ComputeHostNotFound(host=host)
        return types.SimpleNamespace(
            uuid=RP[host], host=host, hypervisor_hostname=host + '-node',
            hypervisor_type='QEMU', hypervisor_version=1,
            free_ram_mb=self.memory_mb, memory_mb=4096,
            ram_allocation_ratio=1.0)

    @contextlib.contextmanager
    def entered(self):
        """Let Nova's objects and services live in this world."""
        replaced = (
            (objects.Migration, 'create',
             lambda m: self._create_migration(m)),
            (objects.Migration, 'save', lambda m: self._save_migration(m)),
            (objects.Migration, 'get_by_uuid', self._migration),
            (objects.MigrationList, 'get_by_filters', self._in_progress),
            (objects.Service, 'get_by_compute_host',
             lambda c, host: types.SimpleNamespace(host=host)),
            (objects.ComputeNode, 'get_by_host_and_nodename', self._node),
            (objects.ComputeNode, 'get_first_node_by_host_for_old_compat',
             self._node),
            (report, 'report_client_singleton', lambda: self.placement),
            (stock.neutron, 'API', lambda: self.neutron),
            (availability_zones, 'get_host_availability_zone',
             lambda context, host: 'zone of ' + host),
            (scheduler_utils, 'setup_instance_group', lambda *args: None),
            (compute_utils, 'heal_reqspec_is_bfv', lambda *args: None),
            (compat, 'ping_compute', self.compute_reads),
            (compat, 'alt_topic',
             lambda api, context, host: 'compute-alt'),
            (casts, 'time', types.SimpleNamespace(
                monotonic=lambda: self.now)),
            *waiting.replaced(self.sleep),
            (casts, 'CONF', types.SimpleNamespace(rpc_response_timeout=60)),
            (allocations, 'time', types.SimpleNamespace(sleep=self.sleep)),
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(super().entered())
            for owner, name, new in replaced:
                stack.enter_context(mock.patch.object(owner, name, new))
            yield self


class Event:
    """An event of a server's action."""

    def __init__(self, event, host=None):
        self.event, self.host = event, host
        self.finish_time = self.error = self.result = None


def _row_of(migration):
    migration.obj_reset_changes()
    return values(migration)


def values(migration):
    """What is set of a record."""
    return {name: getattr(migration, name) for name in migration.fields
            if migration.obj_attr_is_set(name)}


def selection(host):
    """A host that the scheduler has chosen."""
    chosen = world_module.selection(host, RP[host])
    chosen.compute_node_uuid = RP[host]
    return chosen
