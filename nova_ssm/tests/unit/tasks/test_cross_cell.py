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

"""The move of a server to another cell, by a conductor."""

from unittest import mock

from nova.compute import vm_states
from nova import exception
from nova import objects
from oslo_db import exception as db_exc
import pytest

from nova_ssm.tasks import cross_cell
from nova_ssm.tasks import cross_cell_hosts
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.tasks import cross_cell_cases as cases
from nova_ssm.tests.unit.tasks import cross_cell_world as world_module
from nova_ssm.tests.unit.tasks import killing


@pytest.fixture
def world():
    """A world in which a host in the other cell has been chosen."""
    with world_module.CrossCellWorld().entered() as entered:
        yield entered


def test_moves(world, url):
    outcome = cases.move(world, url)
    assert outcome.state == 'SUCCESS'
    assert outcome.failure is None
    cases.assert_moved(world)


def test_closes_the_events_of_the_conductors_in_both_cells(world, url):
    cases.move(world, url)
    for cell in (cases.CELL1, cases.CELL2):
        [event] = [event for event in cases.events(world, cell)
                   if event.event == 'conductor_migrate_server']
        assert event.result == 'Success'


@pytest.mark.parametrize('case', cases.FAILING)
def test_fails(world, url, case):
    prepare, error, state = cases.FAILING[case]
    prepare(world)
    outcome = cases.move(world, url)
    assert outcome.state == 'REVERTED'
    assert type(outcome.failure) is error
    cases.assert_undone(world, state)


def test_a_fault_of_the_destination_is_seen_in_the_old_cell(world, url):
    cases.breaks('finish', cases.DestroyFailed())(world)
    cases.move(world, url)
    assert cases.faults(world, cases.CELL1) == ['no hypervisor']


def test_an_admin_moves_a_server_of_another_project(url):
    """Cinder does not show them the attachments then."""
    with world_module.CrossCellWorld('admins').entered() as world:
        cases.breaks('prep_dest', cases.DestroyFailed())(world)
        cases.move(world, url)
        cases.assert_undone(world)


def test_what_cannot_be_undone_does_not_keep_the_others(world, url,
                                                        monkeypatch, caplog):
    cases.breaks('finish', cases.DestroyFailed())(world)

    def broken(*args, **kwargs):
        raise ValueError('glance is broken')
    monkeypatch.setattr(world.glance, 'delete', broken)
    outcome = cases.move(world, url)
    assert outcome.state == 'REVERTED'
    assert type(outcome.failure) is cases.DestroyFailed
    world.glance.data.clear()
    cases.assert_undone(world, vm_states.ERROR)
    assert 'glance is broken' in caplog.text


def test_a_database_that_is_away_for_a_moment(world, url):
    """Nobody's server is destroyed since the switch has to wait."""
    world.mapping.broken = db_exc.DBConnectionError('gone')
    sleep = world.sleep

    def mend(seconds):
        sleep(seconds)
        if world.now > 20:
            world.mapping.broken = None
    world.sleep = mend
    assert cases.move(world, url).state == 'SUCCESS'
    assert world.now > 20
    cases.assert_moved(world)


# -- the switch -----------------------------------------------------------

def test_a_user_may_confirm_before_the_switch_is_journaled(world, url):
    """The old record is gone then, and nothing is to be undone."""
    save = world_module.Mapping.save

    def save_and_kill(mapping):
        save(mapping)
        world.process.kill()
    with mock.patch.object(world_module.Mapping, 'save', save_and_kill):
        with pytest.raises(helpers.Killed):
            cases.move(world, url)
    with world.elsewhere():
        world.server(cases.CELL1).destroy(hard_delete=True)
    killing.go_on(url, world)
    assert world.mapping.cell_mapping.uuid == cases.CELL2
    assert not world.server(cases.CELL2).hidden
    assert world.computes.guests == {'host2'}


def test_a_record_that_cannot_be_hidden_undoes_nothing(world, url, caplog):
    save = world_module.Mapping.save

    def save_and_break(mapping):
        save(mapping)
        world.server(cases.CELL1).destroy(hard_delete=True)
    with mock.patch.object(world_module.Mapping, 'save', save_and_break):
        outcome = cases.move(world, url)
    assert outcome.state == 'SUCCESS'
    assert 'could not be hidden' in caplog.text
    assert world.computes.guests == {'host2'}
    assert not world.server(cases.CELL2).hidden


@pytest.mark.parametrize('task', (
    cross_cell.SetUpTargetCell, cross_cell.SwitchCells,
    cross_cell_hosts.PrepareAtDestination, cross_cell_hosts.PrepareAtSource,
    cross_cell_hosts.FinishAtDestination))
def test_what_the_api_points_at_is_never_undone(world, url, task):
    outcome = cases.move(world, url)
    made = task(world.manager)
    values = {**outcome.results, 'result': None, 'flow_failures': {}}
    world.process = None
    made.revert(**{name: values[name] for name in made.revert_rebind
                   if name in values}, **{
        name: values[name] for name in ('result', 'flow_failures')})
    cases.assert_moved(world)


def test_a_copy_that_is_not_hidden_is_not_ours(world, url):
    with world.elsewhere():
        other = cases.CELL2
        copied = objects.Instance(
            world.in_cell(other), uuid=cases.UUID, project_id='project',
            user_id='user', host='host2', flavor=world_module.flavor(7))
        copied.create()
    outcome = cases.move(world, url)
    assert isinstance(outcome.failure, (exception.InstanceExists,
                                        db_exc.DBDuplicateEntry))
    assert world.cells[cases.CELL2].rows()['instances'] == 1
