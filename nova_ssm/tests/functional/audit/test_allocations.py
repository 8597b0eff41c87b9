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

"""Allocations that nobody needs: what is found, and how they are freed."""

import pytest

from nova.compute import task_states
from nova.compute import vm_states

from nova_ssm.audit import allocations
from nova_ssm.audit import survey

UNKNOWN = 'aaaaaaaa-0000-4000-8000-000000000001'


@pytest.fixture
def nodes(cloud):
    """The providers of two computes in one cell, and one in another."""
    return [cloud.node('host1', 'node1'), cloud.node('host2', 'node2'),
            cloud.node('host3', 'node3', 'cell2')]


def orphans(cloud, only=None):
    return {one.subject: one
            for one in allocations.orphans(cloud.survey(), only)}


def misplaced(cloud, only=None):
    return {one.subject: one
            for one in allocations.misplaced(cloud.survey(), only)}


def test_a_consumer_that_nova_does_not_know_is_asked_about(cloud, nodes):
    cloud.hold(UNKNOWN, nodes[0])
    [finding] = orphans(cloud).values()
    assert (finding.subject, finding.safe) == (UNKNOWN, False)
    assert 'VCPU' in finding.what and 'host1' in finding.what


def test_what_a_deleted_server_holds_is_safe_to_free(cloud, nodes):
    server = cloud.server()
    cloud.delete(server)
    cloud.hold(server, nodes[0])
    [finding] = orphans(cloud).values()
    assert (finding.server, finding.safe) == (server, True)
    assert 'deleted' in finding.why


def test_a_server_that_was_just_deleted_is_being_freed(cloud, nodes):
    server = cloud.server()
    cloud.delete(server, age=5)
    cloud.hold(server, nodes[0])
    assert not orphans(cloud)


@pytest.mark.parametrize('cell', ('cell1', 'cell2'))
def test_what_servers_hold_is_theirs(cloud, nodes, cell):
    cloud.hold(cloud.server(cell), nodes[0])
    assert not orphans(cloud)


def test_what_a_server_holds_that_is_being_built_is_its_own(cloud, nodes):
    """The scheduler claims before there is a record."""
    [server] = cloud.ask()
    cloud.hold(server, nodes[0])
    assert not orphans(cloud)


@pytest.mark.parametrize('status', (
    'accepted', 'pre-migrating', 'migrating', 'post-migrating', 'finished',
    'confirming', 'reverting', 'queued', 'preparing', 'running'))
def test_what_a_migration_holds_is_its_own(cloud, nodes, status):
    server = cloud.server()
    cloud.hold(server, nodes[0])
    cloud.hold(cloud.migration(server, status), nodes[1])
    assert not orphans(cloud)


@pytest.mark.parametrize('status', ('completed', 'error', 'failed',
                                    'confirmed', 'reverted', 'cancelled'))
def test_what_a_migration_holds_that_is_over_is_safe_to_free(
        cloud, nodes, status):
    server = cloud.server()
    cloud.hold(server, nodes[0])
    migration = cloud.migration(server, status)
    cloud.hold(migration, nodes[1])
    [finding] = orphans(cloud).values()
    assert (finding.subject, finding.server, finding.safe) == (
        migration, server, True)


def test_what_the_migration_of_a_deleted_server_holds_is_safe_to_free(
        cloud, nodes):
    """Nova deletes the record with the server, whatever its status."""
    server = cloud.server()
    migration = cloud.migration(server, 'running')
    cloud.delete(server)
    cloud.hold(migration, nodes[0])
    [finding] = orphans(cloud).values()
    assert (finding.subject, finding.safe) == (migration, True)


@pytest.mark.parametrize('busy', ('task', 'flow', 'fresh'))
def test_while_somebody_works_on_the_server_nothing_is_found(
        cloud, nodes, busy):
    server = cloud.server(task_state=task_states.RESIZE_REVERTING
                          if busy == 'task' else None)
    if busy == 'flow':
        cloud.flow('resize', server)
    cloud.hold(server, nodes[0])
    cloud.hold(cloud.migration(server, 'error',
                               age=5 if busy == 'fresh' else 5000), nodes[1])
    assert not orphans(cloud)


def test_what_the_server_needs_is_given_back_to_it(cloud, nodes):
    """A resize that failed half way: the server holds nothing itself."""
    server = cloud.server()
    cloud.hold(cloud.migration(server, 'error'), nodes[0])
    [finding] = orphans(cloud).values()
    assert not finding.safe
    assert 'give them back' in finding.remedy


def test_providers_of_others_are_not_looked_at(cloud, nodes):
    cloud.hold(UNKNOWN, 'a storage pool')
    assert not orphans(cloud)


def test_providers_below_computes_are_looked_at(cloud, nodes):
    cloud.placement.parents['vgpus'] = nodes[0]
    cloud.hold(UNKNOWN, 'vgpus')
    assert set(orphans(cloud)) == {UNKNOWN}


def test_looks_again_at_some_only(cloud, nodes):
    other = UNKNOWN.replace('1', '2')
    cloud.hold(UNKNOWN, nodes[0])
    cloud.hold(other, nodes[0])
    once = orphans(cloud)
    again = orphans(cloud, {UNKNOWN})
    assert set(again) == {UNKNOWN}
    assert again[UNKNOWN].mark == once[UNKNOWN].mark


def test_nothing_is_an_orphan_while_a_cell_cannot_be_read(
        cloud, nodes, monkeypatch):
    cloud.hold(UNKNOWN, nodes[0])
    survey = cloud.survey()
    survey.unseen['cell'] = 'away'
    assert not list(allocations.orphans(survey, None))


# -- where servers are not ------------------------------------------------

def test_what_a_server_holds_where_it_is_not_is_asked_about(cloud, nodes):
    server = cloud.server()
    cloud.hold(server, nodes[0], nodes[1])
    [finding] = misplaced(cloud).values()
    assert (finding.subject, finding.safe) == (server, False)
    assert finding.details['roots'] == [nodes[1]]
    assert 'host2' in finding.what


def test_a_server_that_holds_what_it_should_is_well(cloud, nodes):
    cloud.hold(cloud.server(), nodes[0], 'a storage pool')
    assert not misplaced(cloud)


@pytest.mark.parametrize('changed', (
    {'task_state': task_states.MIGRATING}, {'vm_state': vm_states.RESIZED},
    {'age': 5}, {'host': None}))
def test_a_server_on_the_move_may_hold_both(cloud, nodes, changed):
    cloud.hold(cloud.server(**changed), nodes[0], nodes[1])
    assert not misplaced(cloud)


@pytest.mark.parametrize('status, values', (
    ('running', {}), ('finished', {}),
    # Until the host that it has left comes back.
    ('done', {'migration_type': 'evacuation'})))
def test_a_server_with_a_migration_may_hold_both(cloud, nodes, status,
                                                 values):
    server = cloud.server()
    cloud.hold(server, nodes[0], nodes[1])
    cloud.migration(server, status, **values)
    assert not misplaced(cloud)


# -- what the conductors free by themselves ---------------------------------

def failed(cloud, nodes, vm_state=vm_states.ACTIVE, kind='live-migration',
           ago=200):
    """A move that failed lately, and still holds what the server had."""
    server = cloud.server(vm_state=vm_state)
    uuid = cloud.migration(server, 'error', migration_type=kind)
    cloud.backdate('cell1', 'migrations', 'uuid', uuid, ago,
                   also=('updated_at',))
    cloud.hold(uuid, nodes[0])
    cloud.hold(server, nodes[1])
    return uuid


@pytest.mark.parametrize('vm_state, kind, safe', (
    (vm_states.ACTIVE, 'live-migration', True),
    (vm_states.PAUSED, 'live-migration', True),
    # It may be at either host; it may be resized there.
    (vm_states.ERROR, 'live-migration', False),
    (vm_states.ACTIVE, 'resize', False)))
def test_a_server_that_goes_on_gets_back_what_it_had(cloud, nodes, vm_state,
                                                     kind, safe):
    """Its source was started again: Nova ends the record, and no more."""
    uuid = failed(cloud, nodes, vm_state, kind)
    assert {one: found.safe for one, found in orphans(cloud).items()} == {
        uuid: safe}


def test_the_conductors_look_at_what_has_failed_lately(cloud, nodes):
    uuid = failed(cloud, nodes)
    failed(cloud, nodes, ago=2 * survey.LATELY.total_seconds())
    assert [one.subject for one in allocations.orphans(cloud.quick())] == [
        uuid]


def test_so_they_do_if_the_server_was_deleted_since(cloud, nodes):
    """Nova frees what the server holds, and not what its migration does."""
    uuid = failed(cloud, nodes)
    [finding] = orphans(cloud).values()
    cloud.delete(finding.server)
    [finding] = allocations.orphans(cloud.quick(), {uuid})
    assert finding.safe
    assert uuid in {one.subject for one in allocations.orphans(cloud.quick())}


def test_where_nothing_has_failed_placement_is_not_asked(cloud, nodes):
    cloud.hold(UNKNOWN, nodes[0])
    look = cloud.quick()
    look._report = None
    assert not list(allocations.orphans(look))


@pytest.mark.parametrize('vm_state, ago, found', (
    (vm_states.ERROR, 100, False), (vm_states.ERROR, 200, True),
    (vm_states.ACTIVE, 100, True)))
def test_the_move_of_a_server_in_error_may_have_gone_well(
        cloud, nodes, vm_state, ago, found):
    """A compute that a dead conductor did not answer has ended the record.

    Who looks after that sees that another one has resized the server.
    """
    failed(cloud, nodes, vm_state, 'resize', ago)
    assert bool(orphans(cloud)) == found
