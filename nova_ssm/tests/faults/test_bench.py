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

"""The bench finds what it is there to find: each check can fail."""

import pytest
import sqlalchemy as sa

from nova_ssm.tasks import instances
from nova_ssm.tests.faults import bench
from nova_ssm.tests.faults import invariants
from nova_ssm.tests.faults import plan
from nova_ssm.tests.faults import tables
from nova_ssm.tests.faults import variants
from nova_ssm.tests.faults import world as world_module


@pytest.fixture(scope='module')
def one():
    made = bench.Bench()
    yield made
    made.close()


def _run(one, name):
    return one.run(plan.Case.parse(name))


def test_what_nobody_disturbs_holds(one):
    result = _run(one, 'build/')
    assert result.findings == []
    kinds = {seen.kind for seen in result.seen if seen.call}
    assert {'sql', 'journal', 'call', 'cast'} <= kinds


def test_a_conductor_that_dies_is_outlived(one):
    result = _run(one, 'build/build_instance.MapInstance.execute:die-after@1')
    assert result.findings == []
    assert result.struck
    tasks = [seen.spot for seen in result.seen
             if seen.spot.atom == 'MapInstance' and not seen.call]
    assert [spot.turn for spot in tasks] == [1, 2]


def test_a_step_that_fails_leaves_a_server_in_error(one):
    result = _run(one, 'build/build_instance.CreateTags.execute:raise-before')
    assert result.findings == []
    assert result.struck


def test_a_task_that_forgets_to_undo_is_found(one, monkeypatch):
    monkeypatch.setattr(instances.ServerToErrorOnRevert, 'revert',
                        lambda self, *args, **kwargs: None)
    result = _run(one, 'build/build_instance.CreateTags.execute:raise-before')
    assert any(text.startswith('states:') for text in result.findings)


def test_a_task_that_cannot_be_repeated_is_found(one, monkeypatch):
    original, done = instances.CreateTags.execute, []

    def execute(self, *args, **kwargs):
        if done:
            raise RuntimeError('it was done already')
        done.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(instances.CreateTags, 'execute', execute)
    result = _run(one, 'build/build_instance.CreateTags.execute:die-after')
    assert result.findings


def test_who_dies_leaves_a_server_as_it_was_where_a_compute_would_not(one):
    died = ('resize-in-vain/reschedule_resize.ResizeStateOnRevert.revert:'
            'die-after')
    assert _run(one, died).findings == []
    # The compute that waits for nobody has the last word.
    assert _run(one, 'resize-in-vain/').findings == []


def test_a_server_is_given_back_whose_guest_nobody_has_touched(
        one, monkeypatch):
    """Its compute was calling a conductor that died."""
    monkeypatch.setattr(variants.ResizeElsewhere, 'failed_at', {})
    result = _run(one, 'resize-elsewhere/-.-.migrate_server:die-before@1#2')
    assert result.findings == []
    assert result.struck


@pytest.mark.parametrize('name, status, host', (
    ('resize-elsewhere/reschedule_resize.ClaimNextHost.execute:raise-before',
     'ERROR', 'host1'),
    ('resize-elsewhere/-.-.migrate_server:die-before@1#2', 'ERROR', 'host1'),
    ('live-migrate/live_migrate.CheckDestination.execute:raise-after@2',
     'ACTIVE', 'host3')))
def test_where_a_failure_may_end_otherwise(name, status, host):
    def fits(name):
        case = plan.Case.parse(name)
        return any(end.fits(status, host) for end in
                   variants.VARIANTS[case.variant].may_end(case))

    assert fits(name)
    operation = name.partition('-')[0]
    for other in ('/', '/%s.SaveRequestSpec.execute:raise-before' % operation,
                  '/%s.SaveRequestSpec.execute:die-before' % operation):
        assert not fits(name.partition('/')[0] + other)


# -- each check can fail ----------------------------------------------------

@pytest.fixture
def world(one):
    world = one.world()
    world.begin(plan.Plan())
    yield world
    # What was damaged is no other test's.
    one.close()


@pytest.fixture
def server(world):
    world_module.prefer('host1')
    server, = variants.boot(world)
    world.idle()
    assert _found(world, server) == set()
    return server


def _found(world, *servers):
    texts = invariants.Look(world, servers, [
        invariants.End('ACTIVE', 'host1')]).all()
    return {text.partition(':')[0] for text in texts}


def _api(statement, **values):
    from nova.db.api import api as api_db
    with api_db.context_manager.writer.get_engine().begin() as connection:
        connection.execute(sa.text(statement), values)


def _cell(world, statement, **values):
    from nova import context as nova_context
    from nova.db.main import api as main_db
    with nova_context.target_cell(nova_context.get_admin_context(),
                                  world.case.cell_mappings['cell1']) as cctxt:
        engine = main_db.get_context_manager(cctxt).writer.get_engine()
        with engine.begin() as connection:
            connection.execute(sa.text(statement), values)


def _placement(statement, **values):
    from placement import db_api
    with db_api.get_placement_engine().begin() as connection:
        connection.execute(sa.text(statement), values)


def test_each_kind_of_leftover_is_found(world, server):
    found = []

    def damage(check, undo=None):
        assert check in _found(world, server), check
        found.append(check)
        if undo:
            undo()
            assert check not in _found(world, server), check

    _cell(world, "UPDATE instances SET vm_state = 'error'")
    damage('states', lambda: _cell(
        world, "UPDATE instances SET vm_state = 'active'"))
    _api('UPDATE instance_mappings SET cell_id = NULL')
    assert 'records' in _found(world, server)
    _api("UPDATE instance_mappings SET cell_id = (SELECT id FROM "
         "cell_mappings WHERE name = 'cell1')")
    _api("UPDATE request_specs SET spec = "
         "replace(spec, '\"m1.tiny\"', '\"m1.huge\"')")
    damage('specs', lambda: _api(
        "UPDATE request_specs SET spec = "
        "replace(spec, '\"m1.huge\"', '\"m1.tiny\"')"))
    guests = world.computes['host1'].manager.driver.instances
    guest = guests.pop(server)
    world.computes['host2'].manager.driver.instances[server] = guest
    damage('guests', lambda: guests.update({
        server: world.computes['host2'].manager.driver.instances.pop(
            server)}))
    _placement('UPDATE allocations SET used = used + 1')
    damage('allocations', lambda: _placement(
        'UPDATE allocations SET used = used - 1'))
    port = next(uuid for uuid, one in tables.ports(world).items()
                if one['server'] == server)
    bindings = world.case.neutron._port_bindings[port]
    bindings['host2'] = {'host': 'host2', 'status': 'INACTIVE'}
    damage('ports', lambda: bindings.pop('host2'))
    _cell(world, 'UPDATE instance_actions_events SET finish_time = NULL')
    damage('actions', lambda: _cell(
        world, 'UPDATE instance_actions_events SET finish_time = start_time'))
    _cell(world, 'UPDATE block_device_mapping SET boot_index = 1')
    damage('volumes', lambda: _cell(
        world, 'UPDATE block_device_mapping SET boot_index = 0'))
    with world.journal.transaction() as connection:
        connection.execute(sa.text(
            "UPDATE ssm_flows SET finished_at = NULL, state = 'RUNNING'"))
    damage('flows')
    assert len(found) == 8
    assert _found(world) >= {'states', 'records', 'guests', 'allocations',
                             'quota'}
