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

"""Builds: from the call to the flow, and back."""

from unittest import mock

from nova import exception as nova_exc
from nova import objects
from oslo_db import exception as db_exc
import pytest

from nova_ssm.engine import queries
from nova_ssm.engine import runner
from nova_ssm.engine import serialization
from nova_ssm.engine import states
from nova_ssm import keys
from nova_ssm.tasks import abandoned
from nova_ssm.workflows import build_instances


@pytest.fixture
def workflow():
    return build_instances.BuildInstances(mock.Mock(), mock.Mock())


def ends(workflow, state=states.SUCCESS, task=None, exc=None, children=()):
    workflow.runner.run.return_value = runner.Outcome(
        'uuid', state, task, exc, children=list(children))


# -- schedule_and_build_instances -----------------------------------------

def build(workflow):
    workflow.schedule_and_build_instances(
        mock.Mock(user_id='user', request_id='req-1'), ['build request'],
        [mock.Mock(instance_uuid='a1', project_id='project')],
        {'id': 'image'}, 'password', ['file'], 'networks', 'disks', 'tags')
    (request,), _kwargs = workflow.runner.run.call_args
    return request


def test_build_runs_a_flow(workflow):
    ends(workflow)
    request = build(workflow)
    assert (request.name, request.subject) == (
        'schedule_and_build_instances', 'a1')
    assert (request.project_id, request.user_id, request.request_id) == (
        'project', 'user', 'req-1')
    assert request.store['admin_password'] == serialization.Secret('password')
    assert request.store['injected_files'] == serialization.Secret(['file'])


def test_build_without_a_host_is_quiet(workflow):
    """The server is in cell0 and its fault says why: Nova raises nothing."""
    ends(workflow, states.REVERTED, 'ScheduleInstances',
         nova_exc.NoValidHost(reason='full'))
    build(workflow)


def test_build_raises_what_nova_raises(workflow):
    ends(workflow, states.REVERTED, 'RecheckQuota',
         nova_exc.TooManyInstances(overs='instances', req=1, used=1,
                                   allowed=1))
    with pytest.raises(nova_exc.TooManyInstances):
        build(workflow)


def test_build_raises_what_a_child_raised(workflow):
    ends(workflow, children=[
        runner.Outcome('one', states.SUCCESS),
        runner.Outcome('two', states.REVERTED, 'CreateArqs',
                       nova_exc.AcceleratorRequestBindingFailed(
                           arqs=[], msg='no'))])
    with pytest.raises(nova_exc.AcceleratorRequestBindingFailed):
        build(workflow)


def test_build_that_was_lost_is_quiet(workflow):
    """Another conductor has it: there is nothing to be told yet."""
    ends(workflow, runner.LOST)
    build(workflow)


# -- build_instances: another try -----------------------------------------

def retry(**changed):
    kwargs = {
        'instances': [mock.Mock(uuid='a1'), mock.Mock(uuid='b2')],
        'image': {}, 'filter_properties': {'retry': {'num_attempts': 1}},
        'admin_password': 'password', 'injected_files': [],
        'requested_networks': None, 'security_groups': ['default'],
        'block_device_mapping': None, 'legacy_bdm': False,
        'request_spec': mock.Mock(), 'host_lists': [['h1'], ['h2']]}
    return {**kwargs, **changed}


def test_retry_runs_a_flow_a_server(workflow):
    ends(workflow)
    workflow.build_instances(mock.Mock(), **retry())
    requests = [call.args[0] for call in workflow.runner.run.mock_calls]
    assert [request.subject for request in requests] == ['a1', 'b2']
    assert [request.store['host_list'] for request in requests] == [
        ['h1'], ['h2']]
    assert requests[0].store['cell'] is None
    assert requests[0].store['admin_password'].value == 'password'


@pytest.mark.parametrize('task', (
    'CheckRetries', 'ClaimAlternate', 'SetAvailabilityZone', 'CreateArqs'))
def test_retry_fails_quietly(workflow, task, caplog):
    ends(workflow, states.REVERTED, task,
         nova_exc.NoValidHost(reason='none is left'))
    workflow.build_instances(mock.Mock(), **retry())
    assert workflow.runner.run.call_count == 2
    # As Nova does: the others are told of by the server's fault only.
    logged = 'Failed to reschedule. Reason: No valid host' in caplog.text
    assert logged == (task == 'CreateArqs')


def test_retry_raises_what_nova_raises(workflow):
    ends(workflow, states.REVERTED, 'CastBuild', OSError('bus'))
    with pytest.raises(OSError):
        workflow.build_instances(mock.Mock(), **retry())


@pytest.mark.parametrize('changed, taken', (
    ({}, True),
    ({'requested_networks': objects.NetworkRequestList()}, True),
    ({'filter_properties': {'retry': {'num_attempts': 1},
                            'instance_type': objects.Flavor()}}, True),
    # A compute older than Queens says less, or says it in another form.
    ({'request_spec': None}, False),
    ({'host_lists': None}, False),
    ({'filter_properties': {}}, False),
    ({'filter_properties': {'retry': {'num_attempts': 1},
                            'instance_type': {'id': 1}}}, False),
    ({'requested_networks': [('net', None, None)]}, False),
))
def test_retry_takes_what_it_knows(workflow, changed, taken):
    assert workflow.takes('build_instances', **retry(**changed)) is taken


def test_takes_every_build(workflow):
    assert workflow.takes('schedule_and_build_instances')


# -- after the death of a worker -------------------------------------------

@pytest.fixture
def builds(monkeypatch):
    found = mock.Mock(return_value=True)
    monkeypatch.setattr(queries, 'has_flows', found)
    monkeypatch.setattr(queries, 'clock', lambda db: 5000.0)
    monkeypatch.setattr(queries, 'lease_end', lambda db, worker: 5020.0)
    # Nova's option is there in a service only.
    monkeypatch.setattr(abandoned, 'window', lambda: 70)
    return found


def posted(workflow):
    return [call.args[0] for call in
            workflow.runner.board.start.call_args_list]


def test_builds_of_a_dead_worker_are_looked_after(workflow, builds):
    workflow.runner.registry.get.return_value.version = '1.0'
    workflow.runner.worker.lease = 30.0
    workflow.on_worker_death('cond1:1:abc')
    workflow.on_worker_death('cond2:1:abc')
    first, second = posted(workflow)
    assert first.name == 'fail_abandoned_builds'
    assert first.subject == 'cond1:1:abc'
    assert first.context.is_admin
    assert first.uuid != second.uuid


@pytest.mark.parametrize('lease_end, died_after', (
    # It has renewed its lease up to that long before it ends.
    (5020.0, 4990.0), (4900.0, 4870.0),
    # Somebody else has buried it meanwhile.
    (None, 5000.0),
    # With a longer lease than ours.
    (5600.0, 5000.0)))
def test_when_it_died_is_kept(workflow, builds, monkeypatch, lease_end,
                              died_after):
    monkeypatch.setattr(queries, 'lease_end', lambda db, worker: lease_end)
    workflow.runner.worker.lease = 30.0
    workflow.on_worker_death('cond1:1:abc')
    [flow] = posted(workflow)
    # Two timeouts before that for those it was to answer, one behind.
    assert flow.store == {'told_since': died_after - 140,
                          'told_until': 5070.0}
    assert builds.call_args.args[2] == died_after - 140


def test_all_who_notice_a_death_post_the_same_flow(workflow, builds):
    workflow.runner.worker.lease = 30.0
    workflow.runner.board.start.side_effect = [
        None, db_exc.DBDuplicateEntry()]
    workflow.on_worker_death('cond1:1:abc')
    workflow.on_worker_death('cond1:1:abc')
    first, second = posted(workflow)
    assert first.uuid == second.uuid


def test_nothing_is_posted_if_nothing_was_built(workflow, builds):
    workflow.runner.worker.lease = 30.0
    builds.return_value = False
    workflow.on_worker_death('cond1:1:abc')
    assert posted(workflow) == []


# -- a request that comes twice -------------------------------------------

def test_the_flow_of_a_request_follows_from_its_first_server(workflow):
    ends(workflow)
    assert build(workflow).uuid == build(workflow).uuid == keys.build('a1')


@pytest.mark.parametrize('there', ('schedule_and_build_instances',
                                   'end_lost_build'))
def test_a_request_that_comes_twice_or_too_late_is_dropped(
        workflow, monkeypatch, there):
    workflow.runner.run.side_effect = db_exc.DBDuplicateEntry()
    found = mock.Mock(return_value=mock.Mock())
    found.return_value.name = there
    monkeypatch.setattr(queries, 'flow', found)
    build(workflow)
    assert found.call_args.args[1] == keys.build('a1')
