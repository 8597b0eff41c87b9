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

"""What every flow owes, whatever it does: none of them is named here.

The flows come from the workflows that are installed, so that a new one is
looked at without a word in this file.
"""

import base64
import inspect
import json
import pathlib
import sys
import typing
from unittest import mock

from nova.conductor import manager as conductor_manager
from nova import objects
from oslo_versionedobjects import base as ovo_base
from oslo_versionedobjects import fixture
import pytest
import stevedore
from taskflow.engines.action_engine import compiler
from taskflow.engines.action_engine import engine as action_engine
from taskflow import retry

from nova_ssm.engine import journal
from nova_ssm.engine import payloads
from nova_ssm.engine import serialization
from nova_ssm.engine import task as ssm_task
from nova_ssm import plugins

objects.register_all()

FINGERPRINTS = pathlib.Path(__file__).with_name('fingerprints.json')
OBJECTS = pathlib.Path(__file__).with_name('objects.json')

#: What a flow is given by its plugin, or by the flow that posts it.
GIVEN = {
    'schedule_and_build_instances': {
        'build_requests', 'request_specs', 'image', 'admin_password',
        'injected_files', 'requested_networks', 'block_device_mapping',
        'tags'},
    'build_instance': {
        'build_request', 'request_spec', 'host_list', 'instance', 'cell',
        'image', 'admin_password', 'injected_files', 'requested_networks',
        'block_device_mapping', 'tags'},
    'reschedule_instance': {
        'instance', 'cell', 'image', 'filter_properties', 'admin_password',
        'injected_files', 'requested_networks', 'security_groups',
        'request_spec', 'host_list'},
    'fail_abandoned_builds': {'told_since', 'told_until'},
    'live_migrate': {
        'instance', 'migration_uuid', 'destination', 'block_migration',
        'disk_over_commit', 'request_spec', 'owner'},
    'live_migrate_forced': {
        'instance', 'migration_uuid', 'destination', 'block_migration',
        'disk_over_commit', 'request_spec', 'owner'},
    'end_abandoned_live_migrations': {'told_since', 'told_until'},
    'resize': {
        'instance', 'flavor', 'filter_properties', 'clean_shutdown',
        'request_spec', 'owner', 'caller'},
    'reschedule_resize': {
        'instance', 'flavor', 'filter_properties', 'clean_shutdown',
        'request_spec', 'owner', 'caller', 'host_list'},
    'end_abandoned_resizes': {'told_since', 'told_until'},
}


def _parts(version):
    return tuple(map(int, version.split('.')))


def flow_types():
    manager = mock.Mock(spec=conductor_manager.ComputeTaskManager)
    return [
        flow_type
        for extension in stevedore.ExtensionManager(plugins.NAMESPACE)
        for flow_type in extension.plugin(manager, mock.Mock()).flow_types()]


#: The newest version of each flow; older ones have their journals only.
TYPES = {}
for _one in flow_types():
    if (_one.name not in TYPES or
            _parts(_one.version) > _parts(TYPES[_one.name].version)):
        TYPES[_one.name] = _one


def compiled(flow_type):
    graph = compiler.PatternCompiler(flow_type.factory()).compile(
        ).execution_graph
    return [node for node in graph.topological_sort()
            if graph.nodes[node]['kind'] in compiler.ATOMS]


def reverts_with(task):
    return set(task.revert_rebind.values()) - {'result', 'flow_failures'}


ATOMS = [pytest.param(atom, id='%s:%s' % (name, atom.name))
         for name, flow_type in TYPES.items() for atom in compiled(flow_type)]
TASKS = [param for param in ATOMS
         if not isinstance(param.values[0], retry.Retry)]


def test_there_are_flows():
    assert TYPES
    known = [(one.name, one.version.partition('.')[0])
             for one in flow_types()]
    assert len(set(known)) == len(known), 'two flows have one name'


@pytest.mark.parametrize('name', TYPES)
def test_names_do_not_change(name):
    """The journal has them: a resumed flow finds its tasks by name."""
    first, second = (
        [task.name for task in compiled(TYPES[name])] for _time in range(2))
    assert first == second
    assert len(set(first)) == len(first)
    assert TYPES[name].factory().name == name


@pytest.mark.parametrize('name', TYPES)
def test_every_input_is_there(name):
    """What a task takes, to be done or undone, is given or provided."""
    assert name in GIVEN, 'say here what the flow %s is given' % name
    store = dict.fromkeys(GIVEN[name] | {'context'})
    detail = journal.new_detail(name, name, store)
    engine = action_engine.SerialActionEngine(
        TYPES[name].factory(), detail, None, {})
    engine.compile()
    engine.prepare()
    engine.validate()
    there = set(store)
    for task in compiled(TYPES[name]):
        assert task.requires <= there
        there |= task.provides
        # A task that failed has provided nothing.
        assert reverts_with(task) <= there - task.provides


@pytest.mark.parametrize('task', TASKS)
def test_a_task_is_one_of_ours(task):
    assert isinstance(task, ssm_task.Task)


@pytest.mark.parametrize('atom', ATOMS)
def test_an_atom_has_the_name_of_its_class(atom):
    assert atom.name == type(atom).__name__
    assert inspect.getdoc(type(atom)) and type(atom).__doc__


@pytest.mark.parametrize('task', TASKS)
def test_a_task_says_what_it_does(task):
    said = inspect.getdoc(type(task))
    assert said and type(task).__doc__
    if task.undoes():
        assert 'Reversion strategy:' in said
        assert task.reversion, 'one line for people'
    if type(task).recover is not ssm_task.Task.recover:
        assert 'Recovery:' in said


@pytest.mark.parametrize('task', TASKS)
def test_recover_takes_what_execute_takes(task):
    """TaskFlow asks the signature of execute only, and defaults hide."""
    execute, recover = (
        list(inspect.signature(method).parameters.values())
        for method in (task.execute, task.recover))
    if type(task).recover is not ssm_task.Task.recover:
        assert [p.name for p in recover] == [p.name for p in execute]
    assert {p.default for p in execute} <= {inspect.Parameter.empty}


@pytest.mark.parametrize('task', TASKS)
def test_what_has_no_effect_has_nothing_to_recover(task):
    if not task.effect:
        assert type(task).recover is ssm_task.Task.recover
        assert not task.once


def fingerprint(flow_type):
    """What a journal of this flow relies on."""
    return {'given': sorted(GIVEN[flow_type.name]),
            'tasks': [fingerprint_of(atom) for atom in compiled(flow_type)],
            'edges': edges(flow_type)}


def fingerprint_of(atom):
    kind = 'retry' if isinstance(atom, retry.Retry) else (
        'spawn' if isinstance(atom, journal.Spawn) else 'task')
    cls = type(atom)
    return {
        'name': atom.name, 'kind': kind, 'version': '%d.%d' % atom.version,
        'takes': dict(sorted(types_of(atom.execute, atom.rebind).items())),
        'gives': dict(sorted(atom.save_as.items())),
        'result': str(typing.get_type_hints(cls.execute).get('return')),
        'reverts with': sorted(reverts_with(atom)),
        'undoes': kind == 'retry' or atom.undoes(),
        'effect': getattr(atom, 'effect', True),
        'sometimes': kind != 'retry' and (
            cls.had_effect is not ssm_task.Task.had_effect),
        **({'deferred': True} if getattr(atom, 'deferred', False) else {}),
        'once': getattr(atom, 'once', False)}


def types_of(method, rebind):
    hints = typing.get_type_hints(method)
    return {symbol: str(hints.get(argument))
            for argument, symbol in rebind.items()}


def edges(flow_type):
    """What comes before what, and who chooses."""
    graph = compiler.PatternCompiler(flow_type.factory()).compile(
        ).execution_graph
    return sorted('%s -> %s%s' % (
        before.name, after.name,
        ' if %s' % data['decider'].__name__ if 'decider' in data else '')
        for before, after, data in graph.edges(data=True))


@pytest.mark.parametrize('name', TYPES)
def test_fingerprint(name):
    """A flow that changes gets a new version, as a versioned object does.

    A conductor of the old release must not go on with a flow of the new
    one, nor take a row of its journal for something else.
    """
    known = json.loads(FINGERPRINTS.read_text())
    version = TYPES[name].version
    assert known.get(name, {}).get(version) == fingerprint(TYPES[name]), (
        'The flow %s is not what %s has of its version %s. If a release has '
        'that version: bump the version of the flow and add the new '
        'fingerprint. If none has: put the new one in its place. This '
        'prints it:\n  python -m nova_ssm.tests.unit.flows.test_flows'
        % (name, FINGERPRINTS.name, version))


# -- what the payloads are made of -------------------------------------------

def unpacked(payload):
    """A payload of a kept journal as JSON."""
    return payload and serialization.Serializer.expand(
        base64.b64decode(payload))


def form_of(payload):
    """The keys and kinds in a payload, without the values."""
    return sorted(set(_forms(unpacked(payload), ''))) if payload else None


def _forms(plain, where):
    if isinstance(plain, dict) and payloads.TAG in plain:
        kind, *values = plain[payloads.TAG]
        if kind == 'o':
            kind = 'o ' + _root(values[0])
        elif kind == 'c':
            kind = 'c ' + values[0]
            yield from _forms(values[1], '%s/%s' % (where, kind))
        elif kind in ('t', 'S', 'F'):
            yield from _forms(values[0], where + '/' + kind)
        yield '%s/%s' % (where, kind)
    elif isinstance(plain, dict):
        for key, value in plain.items():
            # Added by a later release, and of no account to any.
            if key != 'seconds':
                yield from _forms(value, '%s/%s' % (where, key))
    elif isinstance(plain, list):
        for value in plain:
            yield from _forms(value, where + '/*')
    else:
        yield where


def _root(primitive):
    return next(value for key, value in primitive.items()
                if key.endswith('.name'))


def journaled_objects():
    """The objects that flows journal whole, with their fingerprints."""
    names = {name for path in pathlib.Path(__file__).with_name(
        'journals').glob('*.json')
        for row in json.loads(path.read_text())['rows'] if row['payload']
        for name, _version in payloads.object_versions(
            unpacked(row['payload']))}
    classes = ovo_base.VersionedObjectRegistry.obj_classes()
    checker = fixture.ObjectVersionChecker(
        {name: classes[name] for name in names})
    return dict(sorted(checker.get_hashes().items()))


def test_what_is_journaled_whole_is_known():
    """Nova bumps the versions of its objects; a new Nova gets a new entry.

    An object that changed without a new version would be read as another.
    """
    known = json.loads(OBJECTS.read_text())
    assert journaled_objects() in known.values(), (
        'add what  python -m nova_ssm.tests.unit.flows.test_flows objects  '
        'prints to %s, under the series of Nova' % OBJECTS.name)


if __name__ == '__main__':
    print(json.dumps(
        journaled_objects() if 'objects' in sys.argv else {
            name: {flow_type.version: fingerprint(flow_type)}
            for name, flow_type in sorted(TYPES.items())}, indent=1))
