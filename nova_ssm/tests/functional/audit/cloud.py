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

"""Nova's own databases, with a placement and a journal: to be damaged.

The records are made as Nova's services make them, with Nova's objects in
SQLite; so what an audit asks is asked of the real thing.
"""

import datetime
import types
from unittest import mock
import uuid

from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import vm_states
from nova.conductor import manager as conductor_manager
from nova import context as nova_context
from nova import exception
from nova.network import neutron
from nova import objects
from nova import test
from nova.volume import cinder
from oslo_utils import timeutils

from nova_ssm.audit import survey
from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.flows import audit as flows
from nova_ssm import objects as ssm_objects
from nova_ssm import runtime
from nova_ssm.tests.functional.audit import services

PROJECT, USER = 'project', 'user'
#: Seconds: far older than any finding has to be.
LONG = 100000.0


class Case(test.TestCase):
    """What sets Nova up, and clears it away."""

    NUMBER_OF_CELLS = 2

    def runTest(self):
        pass


class Crash(BaseException):
    """The conductor is killed."""


class Placement:
    """What consumers hold, as placement has it.

    :ivar step: told of each change
    """

    def __init__(self, step):
        self.held = {}
        self.parents = {}
        self._step = step

    def get(self, url, **kwargs):
        assert url == '/resource_providers', url
        providers = {provider for one in self.held.values()
                     for provider in one} | set(self.parents)
        return types.SimpleNamespace(json=lambda: {'resource_providers': [
            {'uuid': one, 'name': 'name of ' + one,
             'root_provider_uuid': self.parents.get(one, one)}
            for one in sorted(providers)]})

    def get_allocations_for_resource_provider(self, context, provider):
        return types.SimpleNamespace(allocations={
            consumer: {'resources': held[provider]}
            for consumer, held in self.held.items() if provider in held})

    def get_allocs_for_consumer(self, context, consumer):
        held = self.held.get(consumer, {})
        if not held:
            return {'allocations': {}}
        return {'project_id': PROJECT, 'user_id': USER,
                'consumer_generation': 1, 'allocations': {
                    provider: {'generation': 7, 'resources': dict(resources)}
                    for provider, resources in held.items()}}

    def delete_allocation_for_instance(self, context, consumer, force=False):
        assert force
        if self.held.pop(consumer, None) is not None:
            self._step('free')

    def put_allocations(self, context, consumer, payload):
        assert 'generation' not in str(payload['allocations'])
        self.held[consumer] = {
            provider: one['resources']
            for provider, one in payload['allocations'].items()}
        self._step('put')

    def move_allocations(self, context, source, target):
        if source in self.held:
            self.held[target] = self.held.pop(source)
            self._step('move')
        return True

    def remove_provider_tree_from_instance_allocation(
            self, context, consumer, root):
        self.held[consumer] = {
            provider: resources
            for provider, resources in self.held[consumer].items()
            if self.parents.get(provider, provider) != root}
        self._step('remove')
        return True


class Manager(conductor_manager.ComputeTaskManager):
    """Nova's, on the small cloud."""

    def __init__(self, cloud):
        self.host = 'conductor'
        self.cloud = cloud
        for api in ('compute_rpcapi', 'notifier', 'query_client',
                    'image_api'):
            setattr(self, api, mock.Mock(name=api))
        self.network_api = neutron.API()
        self.volume_api = cinder.API()

    @property
    def report_client(self):
        return self.cloud.placement


class Cloud:
    """One to be damaged.

    :ivar sure: raises if it cannot be said that no conductor has a request
    """

    def __init__(self, case, url, vault):
        self.case = case
        self.context = nova_context.get_admin_context()
        self.cells = {cell.name: cell for cell in
                      objects.CellMappingList.get_all(self.context)}
        self.placement = Placement(self.step)
        self.services = services.Services(case, self.step)
        self.manager = Manager(self)
        self.sure = mock.Mock()
        self.steps = []
        self.crash_after = None
        self.db = database.Database(url)
        self.runner = self.process(vault)
        self.manager.ssm = mock.Mock(runner=self.runner)
        inquiry = mock.Mock(make_sure=lambda *args: self.sure())
        for flow_type in flows.flow_types(self.manager, inquiry):
            self.runner.registry.add(flow_type)

    def process(self, vault):
        return runner.Runner(self.db, ssm_objects.serializer(vault),
                             registry.Registry(), 'conductor', renew=False)

    def step(self, name):
        self.steps.append(name)
        if len(self.steps) == self.crash_after:
            raise Crash(name)

    def survey(self, age=60.0):
        return survey.Survey(self.db, age, lambda: self.placement,
                             thorough=True)

    def quick(self, age=60.0):
        """A look as the conductors take it, by themselves."""
        return survey.Survey(self.db, age, lambda: self.placement)

    # -- what Nova's services leave ---------------------------------------

    def ask(self, count=1, age=LONG, first=0):
        """The API asks for servers: their build requests."""
        reservation = 'r-' + uuid.uuid4().hex[:8]
        return [self._ask_one(reservation, index, count, age)
                for index in range(first, count)]

    def _ask_one(self, reservation, index, count, age):
        server = str(uuid.uuid4())
        flavor = self.flavor()
        instance = objects.Instance(
            self.context, uuid=server, project_id=PROJECT, user_id=USER,
            reservation_id=reservation, launch_index=index,
            vm_state=vm_states.BUILDING, task_state=task_states.SCHEDULING,
            display_name='one', flavor=flavor, old_flavor=None,
            new_flavor=None, tags=objects.TagList(),
            info_cache=objects.InstanceInfoCache(
                network_info='[]', instance_uuid=server),
            pci_requests=objects.InstancePCIRequests(
                instance_uuid=server, requests=[]),
            security_groups=objects.SecurityGroupList(),
            keypairs=objects.KeyPairList(objects=[]), metadata={},
            system_metadata={}, image_ref='', host=None,
            numa_topology=None, device_metadata=None, trusted_certs=None,
            vcpu_model=None, ec2_ids=objects.EC2Ids(), resources=None)
        self.spec(server, count)
        objects.BuildRequest(
            self.context, instance=instance, instance_uuid=server,
            project_id=PROJECT, tags=objects.TagList(),
            block_device_mappings=objects.BlockDeviceMappingList(objects=[
                objects.BlockDeviceMapping(
                    source_type='image', destination_type='local',
                    boot_index=0, device_type='disk', volume_size=0,
                    guest_format=None, no_device=False,
                    device_name=None)])).create()
        objects.InstanceMapping(
            self.context, instance_uuid=server, project_id=PROJECT,
            user_id=USER, cell_mapping=None, queued_for_delete=False
        ).create()
        self.backdate('api', 'build_requests', 'instance_uuid', server, age)
        return server

    def spec(self, server, count=1):
        """What a server is asked for with."""
        objects.RequestSpec(
            self.context, instance_uuid=server, flavor=self.flavor(),
            image=objects.ImageMeta.from_dict({}), num_instances=count,
            project_id=PROJECT, user_id=USER, ignore_hosts=None,
            force_hosts=None, force_nodes=None, instance_group=None,
            numa_topology=None, pci_requests=None, retry=None,
            requested_destination=None, limits=None, scheduler_hints={},
            availability_zone=None, is_bfv=False,
            security_groups=objects.SecurityGroupList(objects=[]),
            requested_resources=[]).create()

    @staticmethod
    def flavor():
        return objects.Flavor(
            id=1, name='small', memory_mb=64, vcpus=1, root_gb=0,
            ephemeral_gb=0, flavorid='1', swap=0, rxtx_factor=1.0,
            vcpu_weight=0, disabled=False, is_public=True, extra_specs={},
            projects=[], description=None)

    def server(self, cell='cell1', age=LONG, mapped=True, server=None,
               **values):
        """A server's record in a cell."""
        server = server or str(uuid.uuid4())
        values = {'vm_state': vm_states.ACTIVE, 'task_state': None,
                  'host': 'host1', 'node': 'node1', 'compute_id': 1, **values}
        with self.at(cell) as context:
            instance = objects.Instance(
                context, uuid=server, project_id=PROJECT, user_id=USER,
                flavor=self.flavor(), **values)
            instance.create()
        if mapped:
            objects.InstanceMapping(
                self.context, instance_uuid=server, project_id=PROJECT,
                user_id=USER, cell_mapping=self.cells[cell],
                queued_for_delete=False).create()
        self.backdate(cell, 'instances', 'uuid', server, age)
        return server

    def delete(self, server, cell='cell1', age=LONG):
        """Delete a server as Nova does; its record stays for a while."""
        with self.at(cell) as context:
            objects.Instance.get_by_uuid(context, server).destroy()
        mapping = objects.InstanceMapping.get_by_instance_uuid(
            self.context, server)
        mapping.queued_for_delete = True
        mapping.save()
        self.backdate(cell, 'instances', 'uuid', server, age)

    def action(self, server, name=instance_actions.RESIZE, cell='cell1',
               age=LONG):
        """The API begins an action; returns the id of the request."""
        with self.at(cell) as context:
            context.request_id = 'req-' + str(uuid.uuid4())
            action = objects.InstanceAction.action_start(
                context, server, name)
            self.backdate(cell, 'instance_actions', 'id', action.id, age,
                          also=('start_time',))
            return context.request_id

    def migration(self, server, status, cell='cell1', age=LONG, **values):
        """A migration record."""
        values = {'migration_type': 'resize', 'source_compute': 'host1',
                  'source_node': 'node1', 'dest_compute': 'host2',
                  'dest_node': 'node2', 'dest_compute_id': 2, **values}
        with self.at(cell) as context:
            migration = objects.Migration(
                context, uuid=str(uuid.uuid4()), instance_uuid=server,
                status=status, **values)
            migration.create()
        self.backdate(cell, 'migrations', 'uuid', migration.uuid, age)
        return migration.uuid

    def node(self, host, name, cell='cell1', up=True):
        """A compute with its node; returns the uuid of its provider."""
        with self.at(cell) as context:
            service = objects.Service(
                context, host=host, binary='nova-compute', topic='compute',
                forced_down=not up)
            service.create()
            service.last_seen_up = timeutils.utcnow()
            service.save()
            node = objects.ComputeNode(
                context, uuid=str(uuid.uuid4()), service_id=service.id,
                host=host, hypervisor_hostname=name, vcpus=1, memory_mb=1,
                local_gb=1, vcpus_used=0, memory_mb_used=0, local_gb_used=0,
                hypervisor_type='fake', hypervisor_version=1, cpu_info='')
            node.create()
        self.placement.parents[node.uuid] = node.uuid
        return node.uuid

    def hold(self, consumer, *providers):
        self.placement.held[consumer] = {
            provider: {'VCPU': 1} for provider in providers}

    def flow(self, name, subject, finished=False, flow_uuid=None, **values):
        """A flow that somebody runs."""
        request = journal.FlowRequest(name=name, store={}, subject=subject,
                                      project_id=PROJECT, **values)
        request.uuid = flow_uuid or request.uuid
        self.runner.board.start(request, owner='a worker')
        if finished:
            self.sql('UPDATE ssm_flows SET finished_at = 1, state = '
                     "'SUCCESS' WHERE uuid = '%s'" % request.uuid)
        return request.uuid

    # -- looking ----------------------------------------------------------

    def at(self, cell):
        return nova_context.target_cell(self.context.elevated(),
                                        self.cells[cell])

    def record(self, server, cell='cell1'):
        with self.at(cell) as context:
            try:
                return objects.Instance.get_by_uuid(context, server)
            except exception.InstanceNotFound:
                return None

    def faults(self, server, cell='cell1'):
        with self.at(cell) as context:
            return [fault.message for fault in
                    objects.InstanceFaultList.get_by_instance_uuids(
                        context, [server])]

    def sql(self, statement):
        with self.db.transaction() as connection:
            connection.exec_driver_sql(statement)

    def backdate(self, where, table, column, value, age, also=()):
        """Let a row have been written so many seconds ago."""
        when = timeutils.utcnow() - datetime.timedelta(seconds=age)
        names = ('created_at', *also)
        statement = 'UPDATE %s SET updated_at = NULL, %s WHERE %s = ?' % (
            table, ', '.join('%s = ?' % name for name in names), column)
        values = tuple(str(when) for _ in names) + (value,)
        from nova.db.api import api as api_db
        if where == 'api':
            engine = api_db.context_manager.writer.get_engine()
        else:
            from nova.db.main import api as main_db
            with self.at(where) as context:
                engine = main_db.get_context_manager(
                    context).writer.get_engine()
        with engine.begin() as connection:
            connection.exec_driver_sql(statement, values)

    # -- repairing --------------------------------------------------------

    def run_posted(self):
        """Run what is posted, until nothing is; names and states."""
        outcomes = []
        while True:
            jobs = list(self.runner.board.iterjobs(only_unclaimed=True))
            if not jobs:
                return outcomes
            for job in jobs:
                outcome = self.runner.resume(job)
                outcomes.append((job.name, outcome.state))


def vault():
    return runtime.serialization.Vault([])
