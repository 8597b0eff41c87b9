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

"""Moves: from the call to the flow, and back."""

from unittest import mock

from nova import exception as nova_exc
from nova import objects
import pytest

from nova_ssm.engine import queries
from nova_ssm.engine import runner
from nova_ssm.engine import states
from nova_ssm import exception as ssm_exc
from nova_ssm.tasks import abandoned
from nova_ssm.workflows import live_migrate
from nova_ssm.workflows import resize

SERVER = '5e000000-0000-4000-8000-000000000001'


@pytest.fixture
def live():
    return live_migrate.LiveMigrate(mock.Mock(), mock.Mock())


@pytest.fixture
def cold():
    return resize.Resize(mock.Mock(), mock.Mock())


def ends(workflow, state=states.SUCCESS, task=None, exc=None):
    workflow.runner.run.return_value = runner.Outcome(
        'uuid', state, task, exc)


def request(workflow):
    (made,), _kwargs = workflow.runner.run.call_args
    return made


def server():
    return objects.Instance(uuid=SERVER, project_id='project',
                            user_id='user', instance_type_id=7,
                            vm_state='active')


CONTEXT = mock.Mock(request_id='req-1', user_id='admin')


# -- live migration -------------------------------------------------------

def migrate(workflow, host=None):
    workflow._live_migrate(CONTEXT, server(), {'host': host}, 'auto', False,
                           'spec')
    return request(workflow)


@pytest.mark.parametrize('host, name', (
    (None, 'live_migrate'), ('host1', 'live_migrate_forced')))
def test_live_migration_runs_a_flow(live, host, name):
    ends(live)
    made = migrate(live, host)
    assert (made.name, made.subject) == (name, SERVER)
    assert (made.project_id, made.user_id, made.request_id) == (
        'project', 'user', 'req-1')
    assert (made.store['destination'], made.store['owner']) == (
        host, 'project')
    assert (made.store['block_migration'], made.store['disk_over_commit'],
            made.store['request_spec']) == ('auto', False, 'spec')


def test_each_live_migration_has_a_record_of_its_own(live):
    ends(live)
    assert (migrate(live).store['migration_uuid'] !=
            migrate(live).store['migration_uuid'])


@pytest.mark.parametrize('exc, seen', (
    (nova_exc.NoValidHost(reason='full'), nova_exc.NoValidHost),
    (nova_exc.MigrationPreCheckError(reason='no'),
     nova_exc.MigrationPreCheckError),
    (ValueError('broken'), nova_exc.MigrationError)))
def test_live_migration_raises_what_nova_raises(live, exc, seen):
    ends(live, states.REVERTED, 'SelectDestination', exc)
    with pytest.raises(seen) as caught:
        migrate(live)
    assert type(caught.value) is seen
    assert str(exc) in str(caught.value)


# -- resize ---------------------------------------------------------------

def change(workflow, flavor=8, host_list=None):
    workflow._cold_migrate(
        CONTEXT, server(), objects.Flavor(id=flavor), {'retry': {}}, True,
        'spec', host_list)
    return request(workflow)


@pytest.mark.parametrize('host_list, name', (
    (None, 'resize'), ([], 'reschedule_resize'),
    (['h2'], 'reschedule_resize')))
def test_resize_runs_a_flow(cold, host_list, name):
    ends(cold)
    made = change(cold, host_list=host_list)
    assert (made.name, made.subject) == (name, SERVER)
    assert (made.project_id, made.user_id, made.request_id) == (
        'project', 'user', 'req-1')
    assert made.store.get('host_list') == host_list
    assert made.store['flavor'].id == 8
    assert made.store['owner'] == 'project'
    # The compute that sends it on is the one that waits.
    assert made.store['caller'] == (None if host_list is None else {
        'conductor': cold.manager.ssm.runner.worker.id,
        'vm_state': 'active'})


@pytest.mark.parametrize('flavor, words', (
    (8, 'No valid host found for resize'),
    (7, 'No valid host found for cold migrate')))
def test_no_host_is_told_in_novas_words(cold, flavor, words):
    ends(cold, states.REVERTED, 'ScheduleMove',
         nova_exc.MaxRetriesExceeded(reason='none is left'))
    with pytest.raises(nova_exc.NoValidHost) as caught:
        change(cold, flavor)
    assert words in str(caught.value)


def test_resize_raises_what_nova_raises(cold):
    ends(cold, states.REVERTED, 'PrepareMove',
         nova_exc.UnsupportedPolicyException(reason='no'))
    with pytest.raises(nova_exc.UnsupportedPolicyException):
        change(cold)


def test_a_compute_is_not_told_that_its_request_came_too_late(cold):
    """It would put the server into ERROR, that is as it was before."""
    ends(cold, states.REVERTED, 'PreallocateMigration',
         ssm_exc.TooLate('it is over'))
    change(cold, host_list=['h2'])


def test_resize_leaves_old_forms_to_nova(cold):
    assert cold.takes('_cold_migrate', request_spec=objects.RequestSpec())
    assert not cold.takes('_cold_migrate', request_spec=None)
    assert not cold.takes('_cold_migrate', request_spec={})


# -- both -----------------------------------------------------------------

@pytest.mark.parametrize('name', ('live', 'cold'))
def test_a_move_that_was_lost_is_quiet(name, live, cold):
    """Another conductor has it: there is nothing to be told yet."""
    workflow = {'live': live, 'cold': cold}[name]
    ends(workflow, runner.LOST)
    (migrate if name == 'live' else change)(workflow)


@pytest.mark.parametrize('name, flow', (
    ('live', 'end_abandoned_live_migrations'),
    ('cold', 'end_abandoned_resizes')))
def test_moves_of_a_dead_worker_are_looked_after(name, flow, live, cold,
                                                 monkeypatch):
    workflow = {'live': live, 'cold': cold}[name]
    monkeypatch.setattr(queries, 'has_flows', mock.Mock(return_value=True))
    monkeypatch.setattr(queries, 'clock', lambda db: 5000.0)
    monkeypatch.setattr(queries, 'lease_end', lambda db, worker: None)
    monkeypatch.setattr(abandoned, 'window', lambda: 70)
    workflow.on_worker_death('cond1:1:abc')
    (posted,), kwargs = workflow.runner.board.start.call_args
    assert (posted.name, posted.subject) == (flow, 'cond1:1:abc')
    assert kwargs == {'owner': None}
    # Nothing of the kind has ended lately.
    queries.has_flows.return_value = False
    workflow.runner.board.start.reset_mock()
    workflow.on_worker_death('cond2:1:abc')
    workflow.runner.board.start.assert_not_called()
