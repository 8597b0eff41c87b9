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

"""What neutron, cinder and cyborg keep for servers in vain."""

from nova.compute import task_states
from nova import objects
import pytest

from nova_ssm.audit import belongings
from nova_ssm.audit import kinds
from nova_ssm.audit import looks
from nova_ssm.audit import survey
from nova_ssm.engine import queries
from nova_ssm import exception
from nova_ssm.tests.functional.audit import test_repairs

UNKNOWN = test_repairs.UNKNOWN


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No time passes between two looks."""
    monkeypatch.setattr(looks, 'wait', lambda db, settle: None)


def found(cloud, kind, only=None):
    """Of each finding whether it is safe."""
    return {one.subject: one.safe
            for one in kinds.KINDS[kind].find(cloud.survey(), only)}


def moved(cloud, status='completed', **values):
    """A server with a port, that was live migrated to its host."""
    server = cloud.server(**values)
    cloud.migration(server, status, migration_type='live-migration',
                    source_compute='host2', dest_compute='host1')
    return server, cloud.services.port(server)


# -- bindings -------------------------------------------------------------

def test_a_binding_where_the_server_is_not_is_stale(cloud):
    server, port = moved(cloud)
    other, _port = moved(cloud)
    cloud.services.bind(port, 'host2')
    assert found(cloud, belongings.BINDING) == {server: True}
    assert found(cloud, belongings.BINDING, {server}) == {server: True}
    assert not found(cloud, belongings.BINDING, {other})


def test_the_conductors_look_at_those_that_have_failed_lately(cloud):
    late = survey.LATELY.total_seconds()
    for ago, status in ((200, 'failed'), (2 * late, 'failed'),
                        (200, 'completed')):
        server = cloud.server()
        cloud.services.bind(cloud.services.port(server), 'host2')
        cloud.backdate('cell1', 'migrations', 'uuid', cloud.migration(
            server, status, migration_type='live-migration'), ago,
            also=('updated_at',))
    assert len(list(belongings.bindings(cloud.survey()))) == 3
    assert len(list(belongings.bindings(cloud.quick()))) == 1


def test_what_belongs_to_a_move_is_not_stale(cloud):
    """Nor what may: a server that somebody works on is left alone."""
    for values in ({'task_state': task_states.MIGRATING}, {'age': 1},
                   {'vm_state': 'resized'}):
        _server, port = moved(cloud, **values)
        cloud.services.bind(port, 'host2')
    server, port = moved(cloud)
    cloud.services.bind(port, 'host2')
    cloud.migration(server, 'running', migration_type='live-migration')
    owned, port = moved(cloud)
    cloud.services.bind(port, 'host2')
    cloud.flow('live_migrate', owned)
    assert not found(cloud, belongings.BINDING)


def test_a_binding_that_works_is_not_stale(cloud):
    """The port is active elsewhere: nobody but people can tell why."""
    _server, port = moved(cloud)
    cloud.services.bind(port, 'host2')
    cloud.services.neutron.activate_port_binding(port, 'host2')
    assert not found(cloud, belongings.BINDING)


# -- bindings that are active elsewhere ------------------------------------

def elsewhere(cloud, status='confirmed', profile=None, bound=False, live=None,
              **values):
    """A server whose port is active where it was before it was resized."""
    server = cloud.server(**values)
    cloud.migration(server, status, source_compute='host2',
                    dest_compute='host1')
    if live:
        cloud.migration(server, 'completed', source_compute=live,
                        dest_compute='host1',
                        migration_type='live-migration')
    port = cloud.services.port(server, 'host2')
    if profile:
        cloud.services.neutron._port_bindings[port]['host2'][
            'profile'] = profile
    if bound:
        cloud.services.bind(port, 'host1')
    return server, port


@pytest.mark.parametrize('values, safe', (
    ({}, True), ({'bound': True}, True), ({'live': 'host3'}, True),
    ({'profile': {'migrating_to': 'host1'}}, True),
    ({'profile': {'pci_slot': '0'}}, False), ({'live': 'host2'}, False),
    ({'profile': {'pci_slot': '0'}, 'bound': True}, True)))
def test_a_port_that_is_active_elsewhere_is_bound_to_its_server(
        cloud, values, safe):
    server, port = elsewhere(cloud, **values)
    assert found(cloud, belongings.MISPLACED) == {server: safe}
    assert found(cloud, belongings.MISPLACED, {server}) == {server: safe}
    test_repairs.post(cloud)
    assert {state for _, state in cloud.run_posted()} == {'SUCCESS'}
    assert cloud.services.hosts(port) == {'host1': 'ACTIVE'}
    assert cloud.services.neutron._ports[port]['binding:host_id'] == 'host1'


@pytest.mark.parametrize('values', (
    {'vm_state': 'error'}, {'task_state': task_states.REBOOTING},
    {'age': 1}, {'status': 'migrating'}, {'host': 'host2'},
    {'vm_state': 'resized'}))
def test_one_of_a_server_that_may_be_there_is_not(cloud, values):
    elsewhere(cloud, **values)
    assert not found(cloud, belongings.MISPLACED)


def test_the_conductors_see_those_of_moves_that_have_failed_lately(cloud):
    late = survey.LATELY.total_seconds()
    servers = []
    for ago, status in ((200, 'error'), (2 * late, 'error'),
                        (200, 'confirmed')):
        server, _port = elsewhere(cloud, status)
        cloud.backdate('cell1', 'migrations', 'instance_uuid', server, ago,
                       also=('updated_at',))
        servers.append(server)
    assert set(found(cloud, belongings.MISPLACED)) == set(servers)
    assert [one.subject for one in belongings.misplaced(cloud.quick())] == (
        servers[:1])


def test_nor_is_one_on_a_host_of_which_no_move_tells(cloud):
    server = cloud.server()
    cloud.migration(server, 'error')
    cloud.services.port(server, 'host3')
    assert not found(cloud, belongings.MISPLACED)


@pytest.mark.parametrize('bound', (False, True))
def test_who_begins_to_move_meanwhile_has_them_as_they_were(
        cloud, monkeypatch, bound):
    server, port = elsewhere(cloud, bound=bound)
    before = cloud.services.hosts(port)
    test_repairs.post(cloud)
    step = cloud.step

    def begin(name):
        step(name)
        if name == 'delete_port_binding' and not queries.flows(
                cloud.db, subject=server)[0].name.startswith('live'):
            cloud.flow('live_migrate', server)

    monkeypatch.setattr(cloud.services, '_step', begin)
    cloud.sql("INSERT INTO ssm_workers VALUES "
              "('a worker', 'h/1', 1, 1, 1, 1e12)")
    [(_name, state)] = cloud.run_posted()
    assert state == 'REVERTED'
    assert cloud.services.hosts(port) == before


def test_who_begins_to_move_meanwhile_has_the_bindings(cloud, monkeypatch):
    server = test_repairs.stale_binding(cloud)
    ports = list(cloud.services.neutron._ports)
    test_repairs.post(cloud)
    delete = cloud.manager.network_api.delete_port_binding

    def begin(*args):
        delete(*args)
        if len(queries.flows(cloud.db, subject=server)) == 1:
            cloud.flow('live_migrate', server)

    cloud.sql("INSERT INTO ssm_workers VALUES "
              "('a worker', 'h/1', 1, 1, 1, 1e12)")
    monkeypatch.setattr(cloud.manager.network_api, 'delete_port_binding',
                        begin)
    assert cloud.run_posted() == [('repair_stale_binding', 'REVERTED')]
    for port in ports:
        bound = cloud.services.neutron._port_bindings[port]['host2']
        assert (bound['status'], bound['profile']) == ('INACTIVE',
                                                       {'a': 'b'})


# -- ports ----------------------------------------------------------------

def test_a_port_of_a_server_that_is_no_more_is_an_orphan(cloud):
    known = test_repairs.orphan_port(cloud)
    unknown = cloud.services.port(UNKNOWN)
    assert found(cloud, belongings.PORT) == {known: True, unknown: False}
    assert found(cloud, belongings.PORT, {unknown}) == {unknown: False}


def test_a_port_that_somebody_has_is_none(cloud):
    """A server, one that is asked for, a router, nobody."""
    cloud.services.port(cloud.server())
    cloud.services.port(cloud.ask()[0])
    cloud.services.port(cloud.server('cell0', host=None, node=None))
    cloud.services.port(UNKNOWN, owner='network:dhcp')
    cloud.services.port('')
    fresh = cloud.server()
    cloud.delete(fresh, age=1)
    cloud.services.port(fresh)
    flow = '5e000000-0000-4000-8000-000000000001'
    cloud.flow('build_instance', flow)
    cloud.services.port(flow)
    assert not found(cloud, belongings.PORT)


def test_a_server_in_a_cell_that_cannot_be_read_may_be_there(
        cloud, monkeypatch):
    test_repairs.orphan_port(cloud)
    test_repairs.orphan_accelerator(cloud)
    test_repairs.orphan_attachment(cloud)
    monkeypatch.setattr(survey.Survey, 'complete', False)
    for kind in (belongings.PORT, belongings.ACCELERATOR,
                 belongings.ATTACHMENT):
        assert not found(cloud, kind)


@pytest.mark.parametrize('damage, there', (
    (test_repairs.orphan_port,
     lambda cloud, server: server in map(cloud.services.device,
                                         cloud.services.neutron._ports)),
    (test_repairs.orphan_attachment,
     lambda cloud, server: [server] == cloud.services.attached())))
def test_a_server_that_comes_to_life_has_again_what_it_had(
        cloud, monkeypatch, damage, there):
    damage(cloud)
    [finding] = test_repairs.find(cloud)
    assert there(cloud, finding.server)
    test_repairs.post(cloud)
    step = cloud.step

    def live(name):
        step(name)
        if cloud.record(finding.server, 'cell2') is None:
            cloud.server('cell2', server=finding.server, mapped=False)

    monkeypatch.setattr(cloud.services, '_step', live)
    [(_name, state)] = cloud.run_posted()
    assert state == 'REVERTED'
    assert there(cloud, finding.server)


# -- accelerators ---------------------------------------------------------

def test_accelerators_without_a_server_are_orphans(cloud):
    known = test_repairs.orphan_accelerator(cloud)
    unknown = cloud.services.accelerate(UNKNOWN)
    unbound = cloud.services.accelerate(None)
    cloud.services.accelerate(cloud.server())
    assert found(cloud, belongings.ACCELERATOR) == {
        known: True, unknown: False, unbound: False}
    assert found(cloud, belongings.ACCELERATOR, {unbound}) == {
        unbound: False}


# -- attachments ----------------------------------------------------------

def test_attachments_without_a_server_are_orphans(cloud):
    reserved = test_repairs.orphan_attachment(cloud)
    unknown = cloud.services.attach(UNKNOWN)
    connected = cloud.services.attach(test_repairs.deleted_server(cloud),
                                      connector={'host': 'host1'})
    cloud.services.attach(cloud.server())
    cloud.services.attach(cloud.ask()[0])
    cloud.services.attach(None)
    assert found(cloud, belongings.ATTACHMENT) == {
        reserved: True, unknown: False, connected: False}
    assert found(cloud, belongings.ATTACHMENT, {unknown, 'gone'}) == {
        unknown: False}


def test_a_volume_is_not_taken_for_one_that_the_api_reserves_just_now(cloud):
    """It does so before it has written the request to build."""
    [server] = cloud.ask()
    objects.BuildRequest.get_by_instance_uuid(cloud.context, server).destroy()
    objects.InstanceMapping.get_by_instance_uuid(
        cloud.context, server).destroy()
    cloud.services.attach(server)
    assert not found(cloud, belongings.ATTACHMENT)


# -- services that are away -----------------------------------------------

@pytest.mark.parametrize('service, damage', (
    ('neutron', test_repairs.stale_binding),
    ('neutron', test_repairs.orphan_port),
    ('cyborg', test_repairs.orphan_accelerator),
    ('cinder', test_repairs.orphan_attachment)))
def test_a_service_that_is_away_is_named_and_nothing_is_changed(
        cloud, service, damage):
    subject = damage(cloud)
    test_repairs.post(cloud)
    cloud.services.away = {service}
    look = cloud.survey()
    said = []
    look.say = said.append
    for kind in kinds.KINDS.values():
        assert not list(kind.find(look, None))
    [line] = [line for line in said if ' cannot be ' in line]
    assert line.startswith(service + ' cannot be asked')
    [(name, state)] = cloud.run_posted()
    assert state == 'REVERTED'
    with pytest.raises(exception.Uncertain, match=service):
        looks.again(cloud.survey(), name[len('repair_'):].replace('_', '-'),
                    subject)
    cloud.services.away = set()
    assert len(test_repairs.find(cloud)) == 1
