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
"""Each check of moved servers finds what it is for, and nothing else."""

import json
import uuid

import pytest

from nova_ssm.tests.cloud import moves
from nova_ssm.tests.cloud import moves_checks

_NOBODY = str(uuid.uuid4())
_COPY = ('INSERT INTO placement.allocations (resource_provider_id, '
         'consumer_id, resource_class_id, used) ')
#: kind -> how to make it, how to undo that
BREAKAGES = {
    moves_checks.ALLOCATION: (
        'UPDATE placement.allocations SET used = used + 1 '
        "WHERE consumer_id = '{server}' AND resource_class_id = 0",
        'UPDATE placement.allocations SET used = used - 1 '
        "WHERE consumer_id = '{server}' AND resource_class_id = 0"),
    moves_checks.HELD_TWICE: (
        "UPDATE nova_cell1.migrations SET status = 'error' "
        "WHERE uuid = '{migration}'",
        "UPDATE nova_cell1.migrations SET status = 'finished' "
        "WHERE uuid = '{migration}'"),
    moves_checks.SOURCE: (
        'UPDATE placement.allocations SET used = used + 1 '
        "WHERE consumer_id = '{migration}' AND resource_class_id = 0",
        'UPDATE placement.allocations SET used = used - 1 '
        "WHERE consumer_id = '{migration}' AND resource_class_id = 0"),
    moves_checks.NOBODY: (
        f"{_COPY} SELECT resource_provider_id, '{_NOBODY}', "
        'resource_class_id, used FROM placement.allocations '
        "WHERE consumer_id = '{server}' AND resource_class_id = 0",
        'DELETE FROM placement.allocations '
        f"WHERE consumer_id = '{_NOBODY}'"),
    moves_checks.BINDING: (
        'INSERT INTO neutron.ml2_port_bindings (port_id, host, vif_type, '
        'vnic_type, profile, vif_details, status) SELECT port_id, '
        "'elsewhere', vif_type, vnic_type, profile, vif_details, 'INACTIVE' "
        'FROM neutron.ml2_port_bindings JOIN neutron.ports '
        "ON ports.id = port_id WHERE device_id = '{server}'",
        "DELETE FROM neutron.ml2_port_bindings WHERE host = 'elsewhere'"),
    moves_checks.EVENT: (
        'UPDATE nova_cell1.instance_actions_events SET finish_time = NULL '
        "WHERE event = 'conductor_migrate_server' AND {event}",
        'UPDATE nova_cell1.instance_actions_events SET finish_time = '
        "start_time WHERE event = 'conductor_migrate_server' AND {event}"),
    moves_checks.SPEC: (
        'UPDATE nova_api.request_specs SET spec = '
        "REPLACE(spec, '\"name\": \"{flavor}\"', '\"name\": \"other\"') "
        "WHERE instance_uuid = '{server}'",
        'UPDATE nova_api.request_specs SET spec = '
        "REPLACE(spec, '\"name\": \"other\"', '\"name\": \"{flavor}\"') "
        "WHERE instance_uuid = '{server}'"),
}


@pytest.fixture(scope='module')
def resized(cloud):
    """A server between its resize and the confirmation."""
    mover = moves.Mover(cloud, moves.OPERATIONS['resize'])
    server, = mover.build()
    move = mover.start(server)
    assert mover.wait([move], 120)[server.id].kind == moves.DONE
    assert moves_checks.by_kind(moves_checks.wait(cloud, [move])) == {}
    yield move
    assert mover.delete([server]) == []


def _fill(cloud, move, sql):
    migration, = moves.Mover(cloud, move.operation).migrations(move)
    action, = cloud.db('SELECT id FROM nova_cell1.instance_actions '
                       'WHERE request_id = %s', move.request_id)
    return sql.format(server=move.server.id, migration=migration['uuid'],
                      event=f'action_id = {action["id"]}',
                      flavor=move.flavor)


@pytest.mark.parametrize('kind', BREAKAGES)
def test_a_breakage_is_found(cloud, resized, kind):
    breakage, repair = (_fill(cloud, resized, sql)
                        for sql in BREAKAGES[kind])
    try:
        cloud.db(breakage)
        assert list(moves_checks.checks(cloud, [resized])) == [kind]
    finally:
        cloud.db(repair)
    assert moves_checks.checks(cloud, [resized]) == {}


def test_a_migration_without_an_end_is_found(cloud, resized):
    """It holds an allocation, too, that only one with an end may hold."""
    sql = "UPDATE nova_cell1.migrations SET status = '%s' WHERE uuid = '%s'"
    migration, = moves.Mover(cloud, resized.operation).migrations(resized)
    try:
        cloud.db(sql % ('post-migrating', migration['uuid']))
        assert set(moves_checks.checks(cloud, [resized])) == {
            moves_checks.UNENDED, moves_checks.HELD_TWICE}
    finally:
        cloud.db(sql % ('finished', migration['uuid']))
    assert moves_checks.checks(cloud, [resized]) == {}


def test_a_guest_elsewhere_is_found(cloud, resized):
    path = cloud.settings.var / 'cmp1/guests.jsonl'

    def note(event):
        with open(path, 'a') as stream:
            stream.write(json.dumps({
                'event': event, 'uuid': resized.server.id,
                'host': 'elsewhere', 'time': 1e12, 'request_id': ''}) + '\n')

    note('arrive')
    try:
        assert list(moves_checks.checks(cloud, [resized])) == [
            moves_checks.GUEST]
    finally:
        note('leave')
    assert moves_checks.checks(cloud, [resized]) == {}


def test_a_verdict_is_not_good_while_the_server_is_on_the_way(cloud, resized):
    mover = moves.Mover(cloud, resized.operation)
    sql = 'UPDATE nova_cell1.instances SET {} WHERE uuid = %s'
    kinds = []
    for broken, mended in (
            ("task_state = 'resize_prep'", 'task_state = NULL'),
            ("vm_state = 'error'", "vm_state = 'resized'"),
            (f"host = '{resized.server.host}'",
             f"host = '{_host(mover, resized)}'")):
        try:
            cloud.db(sql.format(broken), resized.server.id)
            kinds.append(mover.verdict(resized).kind)
        finally:
            cloud.db(sql.format(mended), resized.server.id)
    assert kinds == [moves.STUCK, moves.ERROR, moves.ODD]
    assert mover.verdict(resized).kind == moves.DONE


def _host(mover, move):
    server, = mover.refresh([move.server])
    return server.host
