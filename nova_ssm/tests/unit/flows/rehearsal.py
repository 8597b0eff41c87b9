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

"""Runs any flow without its world: each task gives what it says it gives.

The graph, the engine, the journal and what is in it are the real ones; only
the work of the tasks is left out. What they take and give is made after the
types in their signatures, with a secret wherever there can be one, so a new
flow needs no word here.
"""

import base64
import contextlib
import json
import types
import typing
from typing import Any
from unittest import mock

from nova import context as nova_context
from nova import objects
from nova.objects import base as nova_base
from nova.objects import migrate_data
from taskflow.engines.action_engine import compiler
from taskflow import retry

from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm.engine import serialization
from nova_ssm import objects as ssm_objects
from nova_ssm.tests.unit.engine import helpers

UUID = 'a1000000-0000-4000-8000-000000000001'
CELL = 'c1000000-0000-4000-8000-000000000001'

#: What must not be found anywhere. Each is distinct, to tell where it leaked.
TOKEN, PASSWORD, PATH, FILE, USER_DATA, CONNECTION, VTPM, URL, DRIVER = (
    'marked-%s-zq8q' % name for name in (
        'token', 'password', 'path', 'file', 'user-data', 'connection',
        'vtpm', 'url', 'driver'))
MARKED = 'zq8q'


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Leak(Exception):
    """A driver's exception that says all it knows.

    :param known: the secrets that its flow was given; what it was not given
        it cannot know, but some of that looks like what it is
    """

    def __init__(self, task: str, known: list[str]) -> None:
        self.kwargs = {'password': DRIVER, 'words': [{'x': known}]}
        super().__init__(
            '%s cannot use %s auth_password=%s {"vtpm_password": "%s"} at '
            'mysql+pymysql://nova:%s@host/nova, with %r' % (
                task, ' and '.join(known), CONNECTION, VTPM, URL,
                self.kwargs), known, *known)


# -- samples ----------------------------------------------------------------

def context() -> nova_context.RequestContext:
    return nova_context.RequestContext(
        'user', 'project', is_admin=False, request_id='req-1',
        auth_token=TOKEN, overwrite=False)


def instance() -> objects.Instance:
    return objects.Instance(
        context(), uuid=UUID, project_id='project', user_id='user',
        user_data=_base64(USER_DATA))


def _cell() -> objects.CellMapping:
    return objects.CellMapping(
        uuid=CELL, name='cell1', transport_url='rabbit://a:%s@h' % URL,
        database_connection='mysql+pymysql://a:%s@h/nova' % URL)


def _disks() -> objects.BlockDeviceMappingList:
    return objects.BlockDeviceMappingList(objects=[objects.BlockDeviceMapping(
        volume_id=UUID, source_type='volume', destination_type='volume',
        attachment_id=UUID, device_name='vda', boot_index=0,
        connection_info=json.dumps(
            {'data': {'auth_password': CONNECTION}}))])


def _migrate_data() -> migrate_data.LiveMigrateData:
    return migrate_data.LibvirtLiveMigrateData(
        vtpm_secret_value=VTPM, bdms=[migrate_data.LibvirtLiveMigrateBDMInfo(
            serial=UUID, bus='virtio', dev='vda', type='disk',
            connection_info_json=json.dumps({'password': CONNECTION}))])


_MADE = {
    nova_context.RequestContext: context,
    objects.Instance: instance,
    objects.CellMapping: _cell,
    objects.BlockDeviceMappingList: _disks,
    migrate_data.LiveMigrateData: _migrate_data,
    objects.BuildRequest: lambda: objects.BuildRequest(
        context(), instance_uuid=UUID, instance=instance()),
    objects.Migration: lambda: objects.Migration(
        context(), uuid=UUID, source_compute='host1', source_node='node1'),
    objects.Selection: lambda: objects.Selection(
        service_host='host1', nodename='node1', limits=None,
        allocation_request_version='1.36', allocation_request='{}'),
    serialization.Secret: lambda: serialization.Secret(
        [PASSWORD, [PATH, _base64(FILE)]]),
    bool: lambda: True, str: lambda: 'text', int: lambda: 1,
    float: lambda: 1.5,
    Any: lambda: 'anything',
}


def sample(hint: Any) -> Any:
    """A value of a type, with secrets in it if it can have any."""
    if hint in _MADE:
        return _MADE[hint]()
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return sample(args[0])
    if origin is list:
        return [sample(args[0])]
    if origin is tuple:
        return tuple(sample(arg) for arg in args)
    if origin is dict:
        return {'key': sample(args[1])}
    if hint is type(None) or hint is None:
        return None
    if isinstance(hint, type) and issubclass(hint, nova_base.NovaObject):
        return _object(hint)
    raise TypeError('say in %s what a sample of %s is' % (__file__, hint))


def _object(cls: type[nova_base.NovaObject]) -> nova_base.NovaObject:
    """An object of which all that is marked as sensitive is set."""
    made = cls()
    for name, field in cls.fields.items():
        if type(field).__name__ == 'SensitiveStringField':
            setattr(made, name, CONNECTION)
    if 'objects' in cls.fields:
        made.objects = []
    return made


# -- flows --------------------------------------------------------------------

def atoms(factory: Any) -> list[Any]:
    graph = compiler.PatternCompiler(factory()).compile().execution_graph
    return [node for node in graph.topological_sort()
            if graph.nodes[node]['kind'] in compiler.ATOMS]


def inputs(flow_type: registry.FlowType) -> dict[str, Any]:
    """What a flow is given: all that its tasks take and none provides."""
    hints: dict[str, Any] = {}
    provided: set[str] = set()
    for atom in atoms(flow_type.factory):
        provided |= set(atom.provides)
        if isinstance(atom, retry.Retry):
            continue
        for method, rebind in ((atom.execute, atom.rebind),
                               (atom.revert, atom.revert_rebind)):
            told = typing.get_type_hints(method)
            for argument, symbol in rebind.items():
                if argument in told:
                    hints.setdefault(symbol, told[argument])
    return {symbol: sample(hint) for symbol, hint in hints.items()
            if symbol not in provided | {'context', 'result',
                                         'flow_failures'}}


class Rehearsal:
    """What happens when flows are run without their world.

    :param way: what a task says that is to choose between branches
    :ivar known: the secrets that what fails knows of
    :ivar failing: the task that raises, None if none does
    :ivar calls: what was called: ('execute', the name of a task) and so on
    """

    def __init__(self, way: bool = True) -> None:
        self.way = way
        self.failing: str | None = None
        self.known: list[str] = []
        self.calls: list[tuple[str, str]] = []

    def stand_in(self, task: Any) -> None:
        """Let a task say what it would do, and do nothing."""
        if isinstance(task, (retry.Retry, journal.Spawn)):
            return
        cls = type(task)
        gives = typing.get_type_hints(cls.execute).get('return')

        def execute(this: Any, *args: Any, **kwargs: Any) -> Any:
            self._called('execute', this.name)
            return self._given(gives)

        def recover(this: Any, *args: Any, **kwargs: Any) -> Any:
            self._called('recover', this.name)
            return self._given(gives)

        def revert(this: Any, *args: Any, **kwargs: Any) -> None:
            self.calls.append(('revert', this.name))

        methods = {'execute': execute, 'recover': recover}
        if cls.undoes():
            methods['revert'] = revert
        task.__class__ = type(cls.__name__, (cls,), methods)

    def _called(self, what: str, name: str) -> None:
        self.calls.append((what, name))
        if name == self.failing:
            raise Leak(name, self.known)

    def _given(self, hint: Any) -> Any:
        if hint is bool:
            return self.way
        made = sample(hint)
        if isinstance(made, tuple):
            return tuple(self.way if item is True else item for item in made)
        return made

    def factory(self, flow_type: registry.FlowType) -> Any:
        def make() -> Any:
            flow = flow_type.factory()
            for node, _data in _nodes(flow):
                self.stand_in(node)
            return flow
        return make

    def conductor(self, url: str, flow_types: Any,
                  keys: tuple[str, ...] = (helpers.KEY,)) -> helpers.Process:
        """A conductor that knows these flows."""
        made = helpers.Process(
            url, helpers.World(), {}, serializer=ssm_objects.serializer(
                serialization.Vault(keys)))
        for flow_type in flow_types:
            made.registry.add(registry.FlowType(
                flow_type.name, flow_type.version, self.factory(flow_type)))
        return made


def _nodes(flow: Any) -> Any:
    for node, data in flow.iter_nodes():
        if hasattr(node, 'iter_nodes'):
            yield from _nodes(node)
        else:
            yield node, data


def secrets_in(value: Any) -> list[str]:
    """The secrets in what a flow is given."""
    if isinstance(value, dict):
        return [secret for item in value.values()
                for secret in secrets_in(item)]
    if isinstance(value, list):
        return [secret for item in value for secret in secrets_in(item)]
    if isinstance(value, serialization.Secret):
        return [PASSWORD, PATH, FILE, _base64(FILE)]
    if isinstance(value, (objects.Instance, objects.BuildRequest)):
        return [_base64(USER_DATA), USER_DATA]
    if isinstance(value, objects.BlockDeviceMappingList):
        return [CONNECTION]
    return []


def request(flow_type: registry.FlowType) -> journal.FlowRequest:
    return journal.FlowRequest(
        name=flow_type.name, context=context(), subject=UUID,
        project_id='project', user_id='user', request_id='req-1',
        store=inputs(flow_type))


@contextlib.contextmanager
def references() -> Any:
    """What is journaled as a reference is found again."""
    def target(context_: Any, cell: Any) -> None:
        context_.cell_uuid = cell.uuid

    def read(cls: Any) -> Any:
        return lambda *args, **kwargs: sample(cls)

    with contextlib.ExitStack() as stack:
        for owner, name, new in (
                (objects.CellMapping, 'get_by_uuid',
                 read(objects.CellMapping)),
                (objects.Instance, 'get_by_uuid', read(objects.Instance)),
                (objects.Migration, 'get_by_uuid', read(objects.Migration)),
                (objects.BuildRequest, 'get_by_instance_uuid',
                 read(objects.BuildRequest)),
                (nova_context, 'set_target_cell', target)):
            stack.enter_context(mock.patch.object(owner, name, new))
        yield


