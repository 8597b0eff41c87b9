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

"""What the tasks themselves log of a move has no secrets in it.

The engine's part is looked at for every flow that is installed: see
nova_ssm/tests/unit/flows/test_secrets.py.
"""

import logging

import pytest

from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.flows import rehearsal
from nova_ssm.tests.unit.flows import test_secrets
from nova_ssm.tests.unit.tasks import cross_cell_cases
from nova_ssm.tests.unit.tasks import cross_cell_world
from nova_ssm.tests.unit.tasks import live_conductor
from nova_ssm.tests.unit.tasks import resize_world
from nova_ssm.tests.unit.tasks import test_live_flows
from nova_ssm.tests.unit.tasks import test_resize_flows


@pytest.fixture
def logged(caplog):
    """All that is logged, as it would be written."""
    # A command that ran in this process keeps the libraries quiet.
    for name in (None, 'nova', 'nova_ssm', 'taskflow', 'stevedore'):
        caplog.set_level(logging.DEBUG, name)
    caplog.handler.setFormatter(logging.Formatter('%(name)s %(message)s'))
    return lambda: caplog.text


def plant(world):
    """The token of the request, and what Nova has of the server."""
    world.context.auth_token = rehearsal.TOKEN
    if hasattr(world, 'server') and not callable(world.server):
        world.server.user_data = rehearsal.USER_DATA
        world.server.admin_pass = rehearsal.PASSWORD


def assert_nothing_in(text):
    assert text
    assert rehearsal.MARKED not in text


@pytest.mark.parametrize('case', [
    *test_live_flows.SUCCEEDING, *test_live_flows.FAILING])
def test_a_live_migration_logs_no_secret(live, url, case, logged):
    destination, prepare, *_expected = (
        test_live_flows.SUCCEEDING.get(case) or
        test_live_flows.FAILING[case])
    prepare(live)
    plant(live)
    live_conductor.Conductor(url, live).migrate(destination)
    assert_nothing_in(logged())


@pytest.mark.parametrize('case', [
    *test_resize_flows.SUCCEEDING, *test_resize_flows.FAILING])
def test_a_resize_logs_no_secret(url, case, logged):
    with resize_world.ResizeWorld().entered() as world:
        conductor = resize_world.Conductor(url, world)
        if case in test_resize_flows.SUCCEEDING:
            hosts, new, prepare, *_expected = (
                test_resize_flows.SUCCEEDING[case])
        else:
            new = test_resize_flows.NEW
            hosts, prepare, *_expected = test_resize_flows.FAILING[case]
        prepare(world)
        plant(world)
        conductor.resize(hosts, new)
    assert_nothing_in(logged())


@pytest.mark.parametrize('case', [None, *cross_cell_cases.FAILING])
def test_a_move_to_another_cell_logs_no_secret(url, case, logged):
    with cross_cell_world.CrossCellWorld().entered() as world:
        if case is not None:
            prepare, *_expected = cross_cell_cases.FAILING[case]
            prepare(world)
        plant(world)
        cross_cell_world.Conductor(url, world).move()
    assert_nothing_in(logged())
    # Here the journal is written as a conductor writes it.
    test_secrets.assert_nothing_in_tables(helpers.shared(url))
