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

"""The move of a server to another cell, by conductors that die."""

import itertools
from unittest import mock

from nova.compute import vm_states
from nova import exception
import oslo_messaging as messaging
import pytest

from nova_ssm import compat
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.tasks import cross_cell_cases as cases
from nova_ssm.tests.unit.tasks import cross_cell_computes
from nova_ssm.tests.unit.tasks import cross_cell_world as world_module
from nova_ssm.tests.unit.tasks import killing


@pytest.fixture
def world():
    """A world in which a host in the other cell has been chosen."""
    with world_module.CrossCellWorld().entered() as entered:
        yield entered


# -- the conductor dies ---------------------------------------------------

def kill_everywhere(url, check, prepare, moments, again):
    killing.everywhere(
        world_module.Conductor, url, lambda conductor: conductor.move(),
        check, prepare, moments, again)


@pytest.mark.parametrize('again', (False, True))
def test_a_killed_move_is_gone_on_with(url, again):
    """No compute is told twice, nothing is there twice, or left over."""
    kill_everywhere(url, cases.assert_moved, lambda world: None,
                    itertools.count(1, 3 if again else 1), again)


@pytest.mark.parametrize('again', (False, True))
@pytest.mark.parametrize('case', cases.FAILING)
def test_a_killed_move_that_fails_is_undone(url, case, again):
    # Each case has moments of its own: it takes long to try them all.
    first = 1 + list(cases.FAILING).index(case) % 5 + 2 * again
    prepare, _error, state = cases.FAILING[case]
    kill_everywhere(
        url, lambda world: cases.assert_undone(world, state), prepare,
        itertools.count(first, 13), again)


@pytest.mark.parametrize('case', (None, *cases.FAILING))
def test_each_step_is_another_conductors(world, url, case):
    prepare = cases.FAILING[case][0] if case else lambda world: None
    prepare(world)
    world.kill_after_rows = True
    try:
        cases.move(world, url)
    except helpers.Killed:
        for _time in range(40):
            killing.go_on(url, world)
    if case:
        cases.assert_undone(world, cases.FAILING[case][2])
    else:
        cases.assert_moved(world)


# -- what a compute does meanwhile ----------------------------------------

def killed_while(world, url, method, work):
    """Kill the conductor that waits for a compute, then let another go on.

    :param work: done between the two
    """
    begin = cross_cell_computes.Message.begin

    def begin_and_kill(message):
        begin(message)
        if message.method == method and world.process is not None:
            world.kill_at = world.points + 1
    with mock.patch.object(cross_cell_computes.Message, 'begin',
                           begin_and_kill):
        with pytest.raises(helpers.Killed):
            cases.move(world, url)
    world.kill_at = None
    assert (world.computes.begun[method], world.computes.ended[method]) == (
        1, 0)
    with world.elsewhere():
        work(world)
    helpers.expire_leases(url)
    [outcome] = world_module.Conductor(url, world).resume_all()
    return outcome


@pytest.mark.parametrize('method', cases.CALLS)
def test_waits_for_the_end_of_what_was_called(world, url, method):
    outcome = killed_while(world, url, method, lambda world: None)
    assert outcome.state == 'SUCCESS'
    assert world.now >= cross_cell_computes.TAKES
    cases.assert_moved(world)


def test_waits_for_the_guest_that_is_being_destroyed(world, url):
    cases.no_mapping(world)
    outcome = killed_while(world, url, 'revert', lambda world: None)
    assert outcome.state == 'REVERTED'
    assert world.computes.begun['revert'] == 1
    cases.assert_undone(world, vm_states.ERROR)


@pytest.mark.parametrize('method', cases.CALLS)
def test_gives_up_a_compute_that_is_dead(world, url, method):
    """It does not answer, so what it was to do will not be done."""
    outcome = killed_while(
        world, url, method,
        lambda world: setattr(world.computes, 'up', False))
    assert outcome.state == 'REVERTED'
    assert type(outcome.failure) in (
        messaging.MessagingTimeout, exception.MigrationPreCheckError)
    assert 60 < world.now < 200
    assert not world.cells[cases.CELL2].rows()


@pytest.mark.parametrize('method', cases.CALLS)
def test_waits_no_longer_than_nova_would(world, url, method, monkeypatch):
    monkeypatch.setattr(cross_cell_computes, 'TAKES', 1e9)
    outcome = killed_while(world, url, method, lambda world: None)
    assert outcome.state == 'REVERTED'
    assert type(outcome.failure) is messaging.MessagingTimeout
    assert 200 <= world.now < 300


@pytest.mark.parametrize('method', cases.CALLS)
def test_a_failure_that_nobody_heard_of(world, url, method):
    where = 'power off' if method == 'prep_source' else None
    outcome = killed_while(world, url, method, cases.breaks(
        method, cases.DestroyFailed(), where))
    assert outcome.state == 'REVERTED'
    assert 'no hypervisor' in str(outcome.failure)
    cases.assert_undone(world, vm_states.ERROR if method == 'finish'
                  else vm_states.ACTIVE)


def test_a_source_that_was_started_again_has_given_up(world, url):
    """It takes the task state of such servers back."""
    def start_again(world):
        world.computes.queue.clear()
        cases.reset(world)
    outcome = killed_while(world, url, 'prep_source', start_again)
    assert type(outcome.failure) is exception.MigrationError
    assert world.now < 60
    assert not world.cells[cases.CELL2].rows()
    assert not world.glance.data


def test_a_bus_that_is_away_is_no_dead_compute(world, url, monkeypatch):
    def away(*args, **kwargs):
        if world.now < 100:
            raise messaging.MessageDeliveryFailure('gone')
        return True
    monkeypatch.setattr(cross_cell_computes, 'TAKES', 150)
    monkeypatch.setattr(compat, 'ping_compute', away)
    outcome = killed_while(world, url, 'prep_source', lambda world: None)
    assert outcome.state == 'SUCCESS'
    cases.assert_moved(world)
