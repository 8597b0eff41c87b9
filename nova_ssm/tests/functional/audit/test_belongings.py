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
