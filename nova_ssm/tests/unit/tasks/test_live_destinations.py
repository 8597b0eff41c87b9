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

"""Single steps of a live migration: destinations, and their retries."""

import types
from unittest import mock

from keystoneauth1 import exceptions as ks_exc
from nova import exception
from nova import objects
import oslo_messaging as messaging
import pytest
from taskflow import retry

from nova_ssm import exception as ssm_exc
from nova_ssm.tasks import destinations
from nova_ssm.tasks import live_migration
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.tasks import live_world
from nova_ssm.tests.unit.tasks import world as world_module

UUID, MIGRATION = live_world.UUID, live_world.MIGRATION
SOURCE, RP, HELD = live_world.SOURCE, live_world.RP, live_world.HELD
HOST1 = live_world.selection('host1')


@pytest.fixture
def migration(live):
    """The record, which has what the server held at its source."""
    record = live_migration.CreateLiveMigration(live.manager).execute(
        live.context, live.server, MIGRATION, None, 'project')
    live.placement.move_allocations(live.context, UUID, MIGRATION)
    live.steps.clear()
    return record


def failed(exc=None):
    return world_module.failure(exc or ValueError('x'))


def away(*args, **kwargs):
    """Placement or neutron cannot be reached."""
    raise ks_exc.ConnectFailure('away')


# -- TryHosts -------------------------------------------------------------

def history(*tries):
    return retry.History([
        (None, {'task': failed(exc)}) for exc in tries])


def unfit(host):
    return ssm_exc.DestinationUnfit(host, exception.InvalidCPUInfo(reason='x'))


def test_the_source_is_out_of_the_question(live, migration):
    assert destinations.TryHosts().execute(history(), migration) == [SOURCE]


def test_what_was_tried_is_out_of_the_question(live, migration):
    assert destinations.TryHosts().execute(
        history(unfit('host3'), unfit('host1')), migration) == [
            SOURCE, 'host3', 'host1']


@pytest.mark.parametrize('tries, decision', (
    ((unfit('host1'),), retry.RETRY),
    ((unfit('host1'), unfit('host2')), retry.RETRY),
    ((unfit('host1'), exception.NoValidHost(reason='x')), retry.REVERT_ALL),
    ((ValueError('x'),), retry.REVERT_ALL),
    ((exception.MigrationPreCheckError(reason='x'),), retry.REVERT_ALL),
))
def test_only_an_unfit_host_is_a_reason_to_try_another(live, migration,
                                                       tries, decision):
    assert destinations.TryHosts().on_failure(
        history(*tries), migration) == decision


# -- SelectDestination ----------------------------------------------------

def select(live, migration, how='execute', attempted=(SOURCE,), held=HELD):
    return getattr(destinations.SelectDestination(live.manager), how)(
        live.context, live.server, migration, live_world.Spec(), held,
        list(attempted), 'project')


def undo_select(live, migration, result, exc=None, held=HELD):
    destinations.SelectDestination(live.manager).revert(
        live.context, live.server, migration, held, result,
        {'x': failed(exc)})


def test_select_claims(live, migration):
    host = select(live, migration, attempted=(SOURCE, 'host1'))
    assert host.service_host == 'host2'
    assert live.placement.held[UUID] == {RP['host2']: HELD}


def test_select_again_frees_what_the_former_host_was_left(live, migration):
    live.placement.held[UUID] = {RP['host1']: HELD}
    select(live, migration, attempted=(SOURCE, 'host1'))
    assert live.steps == ['free', 'claim']


def test_select_does_not_free_what_is_not_claimed(live, migration):
    """The server's own allocations were never moved."""
    live.placement.held[UUID] = {RP[SOURCE]: HELD}
    live.room.clear()
    for how in ('execute', 'recover'):
        with pytest.raises(exception.NoValidHost):
            select(live, migration, how, (SOURCE, 'host1'), held=None)
    undo_select(live, migration, failed(messaging.MessagingTimeout()),
                messaging.MessagingTimeout(), held=None)
    assert live.placement.held[UUID] == {RP[SOURCE]: HELD}


def test_select_gives_up_after_too_many(live, migration, monkeypatch):
    monkeypatch.setattr(live_world.stock.CONF, 'migrate_max_retries', 1)
    with pytest.raises(exception.MaxRetriesExceeded):
        select(live, migration, attempted=(SOURCE, 'host1', 'host2'))
    assert live.migrations[MIGRATION]['status'] == 'failed'
    assert live.attempts == []


def test_select_recovered_waits_for_the_scheduler(live, migration):
    """It goes on claiming for the conductor that is dead."""
    def claim():
        live.placement.held[UUID] = {RP['host3']: HELD}
    live.placement.late = [lambda: None, claim]
    host = select(live, migration, 'recover')
    assert not live.placement.late
    assert live.placement.held[UUID] == {
        RP[host.service_host]: HELD}


def test_select_undone(live, migration):
    host = select(live, migration)
    for _time in range(2):
        undo_select(live, migration, host)
        assert UUID not in live.placement.held
    assert live.placement.held[MIGRATION] == {RP[SOURCE]: HELD}


def test_select_undone_frees_what_is_claimed_late(live, migration):
    """The scheduler was too slow for us, but it goes on."""
    def claim():
        live.placement.held[UUID] = {RP['host1']: HELD}
    live.placement.late = [lambda: None, claim]
    exc = messaging.MessagingTimeout()
    undo_select(live, migration, failed(exc), exc)
    assert UUID not in live.placement.held


def test_select_undone_does_not_wait_if_there_is_no_host(live, migration):
    live.placement.get_allocs_for_consumer = None
    exc = exception.NoValidHost(reason='x')
    undo_select(live, migration, failed(exc), exc)
    assert live.now == 0


@pytest.mark.parametrize('sure', (True, False))
def test_select_undone_as_far_as_possible(live, migration, caplog, sure):
    """The rest of the flow must be undone, whatever placement says."""
    host = select(live, migration)
    live.placement.remove_provider_tree_from_instance_allocation = away
    live.placement.delete_allocation_for_instance = away
    undo_select(live, migration, host if sure else failed())
    assert 'Something is left on a host' in caplog.text


@pytest.mark.parametrize('sure', (True, False))
@pytest.mark.parametrize('moved', (True, False))
def test_select_undone_leaves_what_is_not_ours(live, migration, sure, moved):
    """The server was moved by somebody else, or deleted."""
    host = select(live, migration)
    if moved:
        live.server.host = 'host1'
    else:
        live.records[world_module.CELL1].clear()
    live.steps.clear()
    undo_select(live, migration, host if sure else failed())
    assert live.steps == []


# -- CheckDestination -----------------------------------------------------

def check(live, migration, how='execute', spec=None, host=HOST1):
    return getattr(destinations.CheckDestination(live.manager), how)(
        live.context, live.server, migration, None, False,
        spec or live_world.Spec(), host, 'project')


def undo_check(live, migration):
    destinations.CheckDestination(live.manager).revert(
        live.context, live.server, migration, HOST1, None, {'x': failed()})


def test_check(live, migration):
    data, mapping, host, node = check(live, migration)
    assert (mapping, host, node) == ({}, 'host1', 'host1-node')
    assert [vif.profile for vif in data.vifs] == [{'of': 'host1'}] * 2
    assert all(hosts == {SOURCE: True, 'host1': False}
               for hosts in live.neutron.bound.values())


def test_check_tells_the_compute_the_limits(live, migration):
    host = live_world.selection('host1')
    host.limits = objects.SchedulerLimits(memory_mb=7)
    rpc = live.manager.compute_rpcapi
    rpc.check_can_live_migrate_destination = mock.Mock(
        side_effect=rpc.check_can_live_migrate_destination)
    check(live, migration, host=host)
    rpc.check_can_live_migrate_destination.assert_called_once_with(
        live.context, live.server, 'host1', None, False, migration,
        host.limits)


UNFIT = (exception.InvalidCPUInfo(reason='x'),
         exception.MigrationPreCheckError(reason='x'),
         exception.DestinationHypervisorTooOld(),
         messaging.MessagingTimeout())


@pytest.mark.parametrize('exc', UNFIT, ids=lambda e: type(e).__name__)
def test_check_of_an_unfit_host(live, migration, exc, caplog):
    live.unfit['host1'] = exc
    with caplog.at_level('DEBUG'), pytest.raises(
            ssm_exc.DestinationUnfit) as caught:
        check(live, migration)
    assert caught.value.host == 'host1'
    assert isinstance(caught.value.reason, exception.NovaException)
    assert 'Skipping host: host1 because' in caplog.text


def test_check_of_a_host_that_no_port_can_be_bound_to(live, migration):
    live.neutron.bound['p2']['host1'] = False
    with pytest.raises(ssm_exc.DestinationUnfit):
        check(live, migration)


def test_check_that_breaks_is_no_reason_to_try_another(live, migration):
    live.unfit['host1'] = ValueError('x')
    with pytest.raises(ValueError, match='x'):
        check(live, migration)


@pytest.mark.parametrize('after', (1, 2, 3))
def test_check_recovered_binds_anew(live, migration, after):
    """Neutron refuses to bind a port twice."""
    live.kill_at = live.points + after
    live.process = types.SimpleNamespace(
        db=types.SimpleNamespace(dead=False), kill=killed)
    with pytest.raises(helpers.Killed):
        check(live, migration)
    live.kill_at = None
    check(live, migration, 'recover')
    assert all(hosts == {SOURCE: True, 'host1': False}
               for hosts in live.neutron.bound.values())


def killed():
    raise helpers.Killed


def test_check_undone_leaves_no_binding(live, migration):
    check(live, migration)
    for _time in range(2):
        undo_check(live, migration)
        assert all(hosts == {SOURCE: True}
                   for hosts in live.neutron.bound.values())


def test_check_undone_leaves_the_binding_that_is_active(live, migration):
    """The server was moved to that very host by somebody else."""
    check(live, migration)
    for hosts in live.neutron.bound.values():
        hosts.update({SOURCE: False, 'host1': True})
    undo_check(live, migration)
    live.server.host = 'host1'
    undo_check(live, migration)
    assert all(hosts == {SOURCE: False, 'host1': True}
               for hosts in live.neutron.bound.values())


def test_another_move_of_the_server_is_not_undone(live, migration):
    """Somebody began it while nobody went on with ours."""
    host = select(live, migration)
    check(live, migration)
    other = dict(live.migrations[MIGRATION],
                 uuid=live_world.STOCK_MIGRATION)
    live.migrations[live_world.STOCK_MIGRATION] = other
    live.steps.clear()
    undo_check(live, migration)
    undo_select(live, migration, host)
    assert live.steps == []
    other['status'] = 'error'
    undo_check(live, migration)
    undo_select(live, migration, host)
    assert live.steps == ['unbind', 'unbind', 'unclaim']


@pytest.mark.parametrize('call', ('list_ports', 'delete_port_binding',
                                  'has_port_binding_extension'))
def test_check_undone_as_far_as_possible(live, migration, caplog, call):
    check(live, migration)
    setattr(live.neutron, call, away)
    undo_check(live, migration)
    assert 'Something is left on a host' in caplog.text


def test_check_undone_without_the_extension(live, migration):
    live.neutron.has_port_binding_extension = lambda context: False
    live.neutron.list_ports = None
    undo_check(live, migration)


def test_check_maps_the_claim_to_the_groups(live, migration):
    """Also after a crash, when the request is read from the journal."""
    host = live_world.selection('host1')
    host.allocation_request = '{"mappings": {"p1": ["rp7"]}}'
    device = types.SimpleNamespace(request_id='r1', requester_id='p1',
                                   spec=[{}], source=1)
    live.server.pci_requests = types.SimpleNamespace(
        requests=[device], neutron_requests=list)
    live.placement.get_resource_provider_name = (
        lambda context, uuid: 'host1:agent:eth7')
    for how in ('execute', 'recover'):
        spec = live_world.Spec(requested_resources=[types.SimpleNamespace(
            requester_id='p1', provider_uuids=[])])
        device.spec[0].clear()
        _data, mapping, _host, _node = check(live, migration, how, spec,
                                             host)
        assert mapping == {'p1': ['rp7']}
        assert device.spec == [{'parent_ifname': 'eth7'}]


# -- a forced destination -------------------------------------------------

def claim(live, migration, how='execute', held=None):
    return getattr(destinations.ClaimForcedDestination(live.manager), how)(
        live.context, live.server, migration, 'host2',
        held or {RP[SOURCE]: HELD}, RP['host2'], 'project')


def undo_claim(live, migration):
    destinations.ClaimForcedDestination(live.manager).revert(
        live.context, live.server, migration, RP['host2'], None,
        {'x': failed()})


def test_forced_destination_is_looked_at(live, migration):
    assert destinations.CheckForcedDestination(live.manager).execute(
        live.context, live.server, migration, 'host2') == (
            'host2', 'host2-node', RP['host2'])
    assert live.steps == []


def test_forced_claim_is_what_is_held_at_the_source(live, migration):
    claim(live, migration)
    assert live.placement.held == {MIGRATION: {RP[SOURCE]: HELD},
                                   UUID: {RP['host2']: HELD}}


def test_forced_claim_of_a_server_with_nested_allocations(live, migration):
    with pytest.raises(exception.NoValidHost):
        claim(live, migration, held={RP[SOURCE]: HELD, 'nested': HELD})


def test_forced_claim_recovered(live, migration):
    for _time in range(2):
        claim(live, migration, 'recover')
    assert live.steps == ['claim']


def test_forced_claim_undone(live, migration):
    claim(live, migration)
    for _time in range(2):
        undo_claim(live, migration)
    assert live.placement.held == {MIGRATION: {RP[SOURCE]: HELD}}


def test_forced_claim_undone_leaves_what_is_held_elsewhere(live, migration):
    """Nova had found nothing to be moved to the migration record."""
    live.placement.held[UUID] = {RP['host2']: HELD, RP[SOURCE]: HELD}
    undo_claim(live, migration)
    assert live.placement.held[UUID] == {RP[SOURCE]: HELD}


def test_forced_destination_in_another_cell(live, migration):
    other = objects.CellMapping(
        uuid='c2000000-0000-4000-8000-000000000002')
    live.cells[other.uuid] = other
    live.hosts['host2'] = other.uuid
    task = destinations.CheckRequestedDestination(live.manager)
    with pytest.raises(exception.MigrationPreCheckError,
                       match='across cells'):
        task.execute(live.context, live.server, migration, 'host2', None,
                     False, 'project')
    task.revert(live.context, live.server, migration, 'host2', None,
                {'x': failed()})
    assert all(hosts == {SOURCE: True}
               for hosts in live.neutron.bound.values())
