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

"""A world in which servers are resized and cold migrated, within a cell.

Nova's own MigrationTask runs in it. See live_world.py.
"""

import contextlib
import types
from unittest import mock

from nova.compute import rpcapi
from nova.compute import task_states
from nova.compute import vm_states
from nova import objects
from oslo_utils import uuidutils

from nova_ssm.engine import journal
from nova_ssm.flows import resize
from nova_ssm.tasks import abandoned
from nova_ssm.tasks import callers
from nova_ssm.tests.unit.tasks import live_conductor
from nova_ssm.tests.unit.tasks import live_world

UUID, CELL1, SOURCE = live_world.UUID, live_world.CELL1, live_world.SOURCE
OLD, NEW = 7, 8
HOSTS = ('host1', 'host2', 'host3')
#: Seconds: [DEFAULT] rpc_response_timeout.
TIMEOUT = 60


class ResizeWorld(live_world.LiveWorld):
    """One server, three hosts that it may go to.

    :ivar saved: the flavor in the request spec's row
    :ivar prepared: casts that a compute has read
    :ivar patience: for how many seconds the compute that has sent the server
        on waits for its dead conductor; None: it is dead itself
    :ivar died_at: when its conductor has died
    :ivar request: the id of the request that moves the server, if it is not
        that of the test
    :ivar told_before: whether that one has told the next host
    """

    patience = died_at = None
    told_before = gave_up = False
    request = None

    def __init__(self):
        super().__init__()
        self.server.__dict__.update(
            task_state=task_states.RESIZE_PREP, instance_type_id=OLD,
            flavor=flavor(OLD), image_meta=objects.ImageMeta(
                properties=objects.ImageMetaProps()))
        self.events[UUID] = [live_world.Event('conductor_migrate_server'),
                             live_world.Event('cold_migrate')]
        self.actions[UUID] = ['resize']
        self.saved, self.prepared = OLD, []
        self.cell_of = dict.fromkeys(HOSTS, CELL1)
        self.neutron.get_requested_resource_for_instance = (
            lambda context, uuid: ([], objects.RequestLevelParams()))
        self.manager.compute_rpcapi.prep_resize = self._prep_resize

    def _prep_resize(self, context, instance, image, new, host, migration,
                     **kwargs):
        assert instance.availability_zone == 'zone of ' + host
        self.queue.append({'host': host, 'flavor': new.id,
                           'migration': migration.uuid,
                           'state': instance.vm_state, **kwargs})
        self.step('cast')

    def dies(self):
        """The conductor that was called has died."""
        if self.died_at is None:
            self.died_at = self.now
            self.told_before = bool(self.queue or self.prepared)
            self._give_up()

    def sleep(self, seconds):
        super().sleep(seconds)
        self._give_up()

    def _give_up(self):
        """The compute that has called it does not wait any longer."""
        if (self.gave_up or self.patience is None or self.died_at is None or
                self.now < self.died_at + self.patience):
            return
        self.gave_up = True
        self.server.vm_state = vm_states.ERROR
        self.server.task_state = None
        for row in self.migrations.values():
            row['status'] = 'error'

    def compute_reads(self, context=None, host=None, timeout=None,
                      topic=rpcapi.RPC_TOPIC):
        """A destination takes what is in its queue."""
        assert topic == rpcapi.RPC_TOPIC
        for cast in [c for c in self.queue if host in (None, c['host'])]:
            self.queue.remove(cast)
            self.events[UUID].append(live_world.Event(
                'compute_prep_resize', cast['host']))
            self.prepared.append(cast)
        return True

    def _select(self, context, spec, uuids, return_objects,
                return_alternates):
        [chosen] = super()._select(context, types.SimpleNamespace(
            ignore_hosts=()), uuids, return_objects, return_alternates)
        assert return_alternates
        others = [host for host in HOSTS if host in self.room and
                  host != chosen[0].service_host]
        return [[self.selection(host.service_host) for host in chosen] +
                [self.selection(host) for host in others]]

    def selection(self, host):
        chosen = live_world.selection(host)
        chosen.cell_uuid = self.cell_of[host]
        chosen.availability_zone = 'zone of ' + host
        return chosen

    def _filtered(self, context, filters, **sorting):
        return objects.MigrationList(objects=[
            self._migration(context.elevated(), uuid)
            for uuid, row in self.migrations.items()
            if all(row[name] in ([value] if isinstance(value, str) else value)
                   for name, value in filters.items())])

    def _create_migration(self, migration):
        # As Nova does.
        if 'uuid' not in migration:
            migration.uuid = uuidutils.generate_uuid()
        super()._create_migration(migration)

    def _save_spec(self, spec):
        self.saved = spec.flavor.id
        self.step('save spec')

    def _to_error(self, context, uuid, service, method, updates, exc, spec):
        super()._to_error(context, uuid, service, method, {
            **updates, 'expected_task_state': task_states.MIGRATING}, exc,
            spec)

    @contextlib.contextmanager
    def entered(self):
        """Let Nova's objects live in this world."""
        replaced = (
            (objects.MigrationList, 'get_by_filters', self._filtered),
            (objects.InstanceActionList, 'get_by_instance_uuid',
             lambda context, uuid: [types.SimpleNamespace(
                 action=name, request_id=self.request or context.request_id)
                 for name in self.actions[UUID]]),
            (callers, 'time', types.SimpleNamespace(
                monotonic=lambda: self.now)),
            (abandoned, 'CONF', types.SimpleNamespace(
                rpc_response_timeout=TIMEOUT)),
            (objects.RequestSpec, 'get_by_instance_uuid',
             lambda context, uuid: spec(self.saved)),
            (objects.RequestSpec, 'save', lambda s: self._save_spec(s)),
            (objects.RequestSpec, 'ensure_network_information',
             lambda *args: None),
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(super().entered())
            for owner, name, new in replaced:
                stack.enter_context(mock.patch.object(owner, name, new))
            yield self


def flavor(number):
    return objects.Flavor(id=number, name='flavor%d' % number, vcpus=1,
                          memory_mb=512, root_gb=1, ephemeral_gb=0, swap=0,
                          extra_specs={})


def spec(number=OLD):
    """A request spec as the API reads it."""
    made = objects.RequestSpec(
        instance_uuid=UUID, project_id='project', user_id='user',
        flavor=flavor(number), image=objects.ImageMeta(), num_instances=1,
        ignore_hosts=None, force_hosts=['source'], force_nodes=None,
        requested_destination=None, retry=None, limits=None,
        instance_group=None, scheduler_hints={}, numa_topology=None,
        security_groups=objects.SecurityGroupList(objects=[]),
        requested_resources=[], availability_zone=None,
        pci_requests=objects.InstancePCIRequests(requests=[]))
    made.obj_reset_changes(recursive=True)
    return made


class Conductor(live_conductor.Conductor):
    """A conductor that resizes."""

    flow_types = staticmethod(resize.flow_types)
    world_type = ResizeWorld

    def __init__(self, url, world):
        super().__init__(url, world)
        world.manager.ssm = types.SimpleNamespace(runner=self.runner)

    def resume_all(self):
        self.world.dies()
        return super().resume_all()

    def resize(self, hosts=None, new=NEW):
        """Do what the workflow does.

        :param hosts: the alternates that are left, of a reschedule
        """
        store = {
            'instance': self.world._record(self.world.context, UUID),
            'flavor': flavor(new), 'filter_properties': {},
            'clean_shutdown': True, 'owner': 'project',
            'caller': None,
            'request_spec': spec(NEW if hosts is not None else OLD)}
        if hosts is not None:
            store['caller'] = callers.caller(self.world.manager,
                                             store['instance'])
            store['host_list'] = [self.world.selection(h) for h in hosts]
        return self.runner.run(journal.FlowRequest(
            name='resize' if hosts is None else 'reschedule_resize',
            context=self.world.context, subject=UUID, store=store))

