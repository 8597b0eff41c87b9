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

import inspect
import json
import pathlib
from unittest import mock

from nova.conductor import manager as conductor_manager
import pytest
import stevedore
from taskflow.engines.action_engine import compiler
from taskflow.engines.action_engine import engine as action_engine
from taskflow import retry

from nova_ssm.engine import journal
from nova_ssm.engine import task as ssm_task
from nova_ssm import plugins

FINGERPRINTS = pathlib.Path(__file__).with_name('fingerprints.json')

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
    'fail_abandoned_builds': set(),
    'live_migrate': {
        'instance', 'migration_uuid', 'destination', 'block_migration',
        'disk_over_commit', 'request_spec', 'owner'},
    'live_migrate_forced': {
        'instance', 'migration_uuid', 'destination', 'block_migration',
        'disk_over_commit', 'request_spec', 'owner'},
    'end_abandoned_live_migrations': set(),
    'resize': {
        'instance', 'flavor', 'filter_properties', 'clean_shutdown',
        'request_spec', 'owner'},
    'reschedule_resize': {
        'instance', 'flavor', 'filter_properties', 'clean_shutdown',
        'request_spec', 'owner', 'host_list'},
    'end_abandoned_resizes': set(),
}


def flow_types():
    manager = mock.Mock(spec=conductor_manager.ComputeTaskManager)
    return [
        flow_type
        for extension in stevedore.ExtensionManager(plugins.NAMESPACE)
        for flow_type in extension.plugin(manager, mock.Mock()).flow_types()]


TYPES = {flow_type.name: flow_type for flow_type in flow_types()}


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
    assert len(TYPES) == len(flow_types()), 'two flows have one name'


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
    return [{'name': task.name, 'requires': sorted(task.requires),
             'reverts with': sorted(reverts_with(task)),
             'provides': sorted(task.provides),
             'effect': getattr(task, 'effect', True),
             'once': getattr(task, 'once', False)}
            for task in compiled(flow_type)]


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


if __name__ == '__main__':
    print(json.dumps({
        name: {flow_type.version: fingerprint(flow_type)}
        for name, flow_type in sorted(TYPES.items())}, indent=1))
