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

"""A small world for the tasks: databases, placement and a bus, in memory.

Nova's own conductor code runs in it. Every effect is a step, and the world
can crash after any of them, as a conductor does that is killed.
"""

import contextlib
import copy
import sys
import types
from unittest import mock

from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova.conductor import manager as conductor_manager
from nova import context as nova_context
from nova import exception
from nova import objects
from nova import rpc
from nova.scheduler import utils as scheduler_utils
from oslo_messaging._drivers import common

from nova_ssm.engine import failures
from nova_ssm.tasks import burial

CELL0 = objects.CellMapping.CELL0_UUID
CELL1 = 'c1000000-0000-4000-8000-000000000001'


class Crash(BaseException):
    """The conductor is killed."""


class Cell:
    """A cell mapping."""

    def __init__(self, uuid):
        self.uuid = self.identity = uuid

    def is_cell0(self):
        return self.uuid == CELL0


class Row:
    """What all records share: a context that may be of a cell."""

    def __init__(self, world, context, **values):
        self.world = world
        self._context = context
        self.__dict__.update(values)

    @contextlib.contextmanager
    def obj_alternate_context(self, context):
        before, self._context = self._context, context
        try:
            yield
        finally:
            self._context = before

    def __contains__(self, name):
        return name in self.__dict__

    obj_attr_is_set = __contains__

    def __deepcopy__(self, memo):
        return copy.copy(self)


class Server(Row):
    """A server's record; it is in the cell that its context reads from."""

    deleted = False

    def create(self):
        records = self.world.records[self._context.cell_uuid]
        assert self.uuid not in records, 'created twice'
        records[self.uuid] = self
        self.world.step('create')

    def destroy(self):
        for records in self.world.records.values():
            if records.pop(self.uuid, None) is not None:
                self.world.step('destroy')
                return
        raise exception.InstanceNotFound(instance_id=self.uuid)

    def refresh(self):
        self.save()

    def save(self):
        if all(self.uuid not in records
               for records in self.world.records.values()):
            raise exception.InstanceNotFound(instance_id=self.uuid)


class BuildRequest(Row):
    """A build request, and the server in it."""

    def get_new_instance(self, context):
        return self.world.new_server(self.instance_uuid, context)

    def destroy(self):
        if self.world.requests.pop(self.instance_uuid, None) is None:
            raise exception.BuildRequestNotFound(uuid=self.instance_uuid)
        self.world.step('build request')


class Mapping(Row):
    """An instance mapping."""

    cell_mapping = None
    queued_for_delete = False

    def save(self):
        self.world.step('mapping')

    def destroy(self):
        del self.world.mappings[self.instance_uuid]


class Placement:
    """Who holds what; also what a scheduler goes on to claim."""

    def __init__(self, world):
        self.world = world
        self.held = {}
        self.late = []

    def get_allocs_for_consumer(self, context, uuid):
        if self.late:
            self.late.pop(0)()
        return {'allocations': dict(self.held.get(uuid, {}))}

    def delete_allocation_for_instance(self, context, uuid, force=False):
        assert force
        if self.held.pop(uuid, None) is None:
            return False
        self.world.step('free')
        return True


class Manager(conductor_manager.ComputeTaskManager):
    """Nova's, with the services of the world."""

    def __init__(self, world):
        self.world = world
        self.host = 'conductor'
        for api in ('compute_rpcapi', 'volume_api', 'network_api',
                    'notifier', 'query_client'):
            setattr(self, api, mock.Mock(name=api))

    @property
    def report_client(self):
        return self.world.placement

    def _create_block_device_mapping(self, cell, flavor, uuid, disks):
        self.world.disks[uuid] = list(disks)
        self.world.step('disks')
        return self.world.disks[uuid]


class World:
    """All that the tasks can touch."""

    def __init__(self, crash_after=None):
        self.crash_after = crash_after
        self.steps = []
        self.cells = {CELL0: Cell(CELL0), CELL1: Cell(CELL1)}
        self.records = {CELL0: {}, CELL1: {}}
        self.hosts = {'host1': CELL1}
        self.requests, self.mappings, self.disks = {}, {}, {}
        self.faults, self.actions, self.events, self.tags = {}, {}, {}, {}
        self.notified = []
        self.context = nova_context.RequestContext(
            'user', 'project', is_admin=False, request_id='req-1',
            overwrite=False)
        self.placement = Placement(self)
        self.manager = Manager(self)

    def step(self, name):
        self.steps.append(name)
        if len(self.steps) == self.crash_after:
            raise Crash(name)

    def crash(self, after, work, *args):
        """Run work and kill it after so many steps, if it makes so many."""
        self.steps.clear()
        self.crash_after = after
        try:
            work(*args)
        except Crash:
            return True
        finally:
            self.crash_after = None
        return False

    def new_server(self, uuid, context=None):
        return Server(
            self, context or self.context, uuid=uuid, host=None,
            vm_state=vm_states.BUILDING, task_state='scheduling',
            flavor=types.SimpleNamespace(extra_specs={}),
            project_id='project', user_id='user', availability_zone=None)

    def add_request(self, uuid):
        """What the API leaves behind when it asks for a server."""
        request = BuildRequest(self, self.context, instance_uuid=uuid)
        request.instance = self.new_server(uuid)
        self.requests[uuid] = request
        self.mappings[uuid] = Mapping(self, self.context, instance_uuid=uuid)
        return request

    def add_record(self, uuid, cell=CELL1):
        record = self.new_server(uuid)
        self.records[cell][uuid] = record
        return record

    def reload(self, request):
        """The build request as another conductor reads it."""
        return self.requests.get(request.instance_uuid) or BuildRequest(
            self, self.context, instance_uuid=request.instance_uuid)

    # -- what replaces Nova's databases -----------------------------------

    def _get(self, table, uuid, missing, name='uuid'):
        try:
            return table[uuid]
        except KeyError:
            raise missing(**{name: uuid}) from None

    def _record(self, context, uuid, **kwargs):
        return self._get(self.records[context.cell_uuid], uuid,
                         exception.InstanceNotFound, 'instance_id')

    def _host(self, context, host):
        cell = self._get(self.hosts, host, exception.HostMappingNotFound,
                         'name')
        return types.SimpleNamespace(cell_mapping=self.cells[cell])

    def _action_start(self, context, uuid, name, want_result=True):
        self.actions.setdefault(uuid, []).append(name)
        self.step('action')

    def _action(self, context, uuid, request_id):
        found = self.actions.get(uuid)
        return types.SimpleNamespace(id=uuid) if found else None

    def _event_start(self, context, uuid, name, **kwargs):
        self.events.setdefault(uuid, []).append(types.SimpleNamespace(
            event=name, finish_time=None, **kwargs))
        self.step('event')

    def _event_finish(self, context, uuid, name, **kwargs):
        event = next(event for event in self.events[uuid]
                     if event.event == name)
        assert event.finish_time is None, 'closed twice'
        event.__dict__.update(kwargs, finish_time='now')
        self.step('event')

    def _create_tags(self, context, uuid, tags):
        self.tags[uuid] = list(tags)
        self.step('tags')
        return self.tags[uuid]

    def _fault(self, context, uuid):
        return (self.faults.get(uuid) or [None])[-1]

    def _to_error(self, context, uuid, service, method, updates, exc, spec):
        record = self._record(context, uuid)
        record.__dict__.update(updates)
        self.step('state')
        self.faults.setdefault(uuid, []).append(exc)
        self.step('fault')
        self.notified.append(self._notice(uuid, service, method, spec))
        self.step('notification')

    def _notify(self, context, event_type, payload):
        assert (payload['state'], event_type) == (
            self._record(context, payload['instance_id']).vm_state,
            'compute_task.' + payload['method'])
        self.notified.append(self._notice(
            payload['instance_id'], *event_type.split('.'),
            payload['request_spec']))
        self.step('notification')

    @staticmethod
    def _notice(uuid, service, method, spec):
        """What is remembered of a notification."""
        return uuid, method

    @contextlib.contextmanager
    def _target_cell(self, context, cell):
        yield in_cell(context, cell)

    @contextlib.contextmanager
    def entered(self):
        """Let Nova's objects live in this world."""
        replaced = (
            (objects.CellMapping, 'get_by_uuid', lambda c, uuid: self._get(
                self.cells, uuid, exception.CellMappingNotFound)),
            (objects.InstanceMapping, 'get_by_instance_uuid',
             lambda c, uuid: self._get(
                 self.mappings, uuid, exception.InstanceMappingNotFound)),
            *((objects.BuildRequest, name, lambda c, uuid: self._get(
                self.requests, uuid, exception.BuildRequestNotFound))
              for name in ('get_by_instance_uuid',
                           '_get_by_instance_uuid_from_db')),
            (burial, 'wanted', lambda c, uuids: self.requests.keys() &
             set(uuids)),
            (objects.Instance, 'get_by_uuid', self._record),
            (objects.HostMapping, 'get_by_host', self._host),
            (objects.InstanceAction, 'action_start', self._action_start),
            (objects.InstanceAction, 'get_by_request_id', self._action),
            (objects.InstanceActionEvent, 'event_start', self._event_start),
            (objects.InstanceActionEvent, 'event_finish_with_failure',
             self._event_finish),
            (objects.InstanceActionEventList, 'get_by_action',
             lambda c, uuid: self.events.get(uuid, [])),
            (objects.InstanceFault, 'get_latest_for_instance', self._fault),
            (objects.BlockDeviceMappingList, 'get_by_instance_uuid',
             lambda c, uuid: self.disks.get(uuid, [])),
            (objects.TagList, 'create', self._create_tags),
            (scheduler_utils, 'set_vm_state_and_notify', self._to_error),
            (rpc, 'get_notifier',
             lambda service: types.SimpleNamespace(error=self._notify)),
            (compute_utils, 'notify_about_compute_task_error',
             lambda *args: None),
            (nova_context, 'target_cell', self._target_cell),
            (nova_context, 'set_target_cell', set_target_cell),
        )
        with contextlib.ExitStack() as stack:
            for owner, name, new in replaced:
                stack.enter_context(mock.patch.object(owner, name, new))
            yield self


def set_target_cell(context, cell):
    context.cell_uuid = cell.uuid


def in_cell(context, cell):
    copied = copy.copy(context)
    set_target_cell(copied, cell)
    return copied


def selection(host='host1', provider='rp1', **values):
    """A host that the scheduler has chosen."""
    return objects.Selection(
        service_host=host, nodename=host + '-node', limits=None,
        allocation_request_version='1.36', allocation_request=(
            '{"allocations": {"%s": {"resources": {"VCPU": 1}}}}' % provider),
        **values)


def spec(uuid, **values):
    """A request spec of which only the names matter."""
    return mock.Mock(
        spec_set=('instance_uuid', 'project_id', 'destroy', 'name',
                  'to_legacy_request_spec_dict'),
        instance_uuid=uuid, project_id='project',
        to_legacy_request_spec_dict=dict, **values)


def over_rpc(exc):
    """An exception of Nova's, as it arrives over the message bus."""
    try:
        raise exc
    except type(exc):
        sent = common.serialize_remote_exception(sys.exc_info())
    return common.deserialize_remote_exception(sent, ['nova.exception'])


def failure(exc):
    """TaskFlow's failure around an exception that was raised."""
    try:
        raise exc
    except type(exc) as raised:
        return failures.to_failure(raised)
