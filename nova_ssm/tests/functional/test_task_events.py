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

"""The tasks of a flow as users see them: events of their server's action."""

from nova_ssm.tests.functional import embedded  # first: it patches

import time

from nova import exception
import pytest
import sqlalchemy
from sqlalchemy import event

from nova_ssm.tasks import resize

#: What a build does before and behind its servers have an action.
REQUEST = ['ScheduleInstances', 'CreateInstances', 'RecheckQuota',
           'SpawnBuilds']


def stock_and_ours(nova, server, action='create'):
    """Nova's events of an action, and ours, in their order."""
    found = next((one for one in nova.api.get_instance_actions(server)
                  if one['action'] == action), None)
    if found is None:
        return [], []
    events = nova.api.get_instance_action_details(
        server, found['request_id'])['events'][::-1]
    ours = [one for one in events if one['event'].startswith('ssm_')]
    return [one for one in events if one not in ours], ours


def names(ours):
    return [one['event'].removeprefix('ssm_') for one in ours]


def settled(nova, server, action, last):
    """All events of ours, once a task has ended that is the last."""
    deadline = time.monotonic() + 30
    while True:
        stock, ours = stock_and_ours(nova, server, action)
        if any(one['event'] == 'ssm_' + last and one['result']
               for one in ours):
            return stock, ours
        assert time.monotonic() < deadline, ours
        time.sleep(0.1)


@pytest.fixture(scope='module')
def nova(tmp_path_factory):
    with embedded.EmbeddedNova(
            str(tmp_path_factory.mktemp('nova')),
            workflows=['build_instances', 'resize', 'live_migrate'],
            options={'ssm': {'task_events_interval': 0.2},
                     'quota': {'instances': -1},
                     'DEFAULT': {'allow_resize_to_same_host': False}}
            ) as made:
        yield made


@pytest.fixture
def server(nova):
    """A new server, and its first events."""
    made = nova.boot('vm')['id']
    nova.wait(made)
    settled(nova, made, 'create', 'CastBuild')
    return made


def resize_to(nova, server, name):
    flavor = next(one['id'] for one in nova.api.get_flavors()
                  if one['name'] == name)
    nova.api.post_server_action(server, {'resize': {'flavorRef': flavor}})


def test_a_build_is_shown_with_what_was_done_for_its_request(nova, server):
    stock, ours = stock_and_ours(nova, server)
    done = names(ours)
    assert done[:len(REQUEST)] == REQUEST
    assert done[-1] == 'CastBuild'
    assert len(set(done)) == len(done)
    assert {one['result'] for one in ours} == {'Success'}
    assert all(one['start_time'] <= one['finish_time'] for one in ours)
    assert {one['host'] for one in ours} == {nova.host}
    assert 'compute__do_build_and_run_instance' in [
        one['event'] for one in stock]


def test_each_server_of_a_request_has_all_of_it(nova):
    before = {one['id'] for one in nova.servers()}
    nova.boot('many', 3)
    made = {one['id'] for one in nova.servers()} - before
    assert len(made) == 3
    shown = []
    for one in made:
        nova.wait(one)
        shown.append(names(settled(nova, one, 'create', 'CastBuild')[1]))
    assert shown[0] == shown[1] == shown[2]


def test_the_flow_is_named_for_who_wants_more(nova, server):
    _stock, ours = stock_and_ours(nova, server)
    flows = {one['details'] for one in ours}
    assert len(flows) == 2      # its request's, and its own
    assert all(one.startswith('flow ') for one in flows)


def test_a_failed_task_says_so_and_what_was_undone(nova, server,
                                                   monkeypatch):
    def fail(*args, **kwargs):
        raise exception.NoValidHost(reason='the racks are full')

    monkeypatch.setattr(resize.CastPrepResize, 'execute', fail)
    resize_to(nova, server, 'm1.small')
    stock, ours = settled(nova, server, 'resize', 'undo_CastPrepResize'
                          if resize.CastPrepResize.undoes()
                          else 'CastPrepResize')
    [failed] = [one for one in ours if one['result'] == 'Error']
    assert failed['event'] == 'ssm_CastPrepResize'
    assert 'the racks are full' in failed['details']
    assert 'NoValidHost' in failed['traceback']
    # Nova's own event is as it would be.
    assert [one['event'] for one in stock] == [
        'conductor_migrate_server', 'cold_migrate']


def test_the_events_of_nova_are_the_same(nova, server):
    """In their names, number and order, with ours beside them or not."""
    resize_to(nova, server, 'm1.small')
    nova.wait(server, 'VERIFY_RESIZE')
    settled(nova, server, 'resize', 'CastPrepResize')
    with_ours, ours = stock_and_ours(nova, server, 'resize')
    assert ours
    conductor = nova.services['conductor'].manager.compute_task_mgr
    listeners = conductor.ssm.runner.listeners
    told = conductor.ssm.telemetry.actions
    listeners.remove(told)
    try:
        other = nova.boot('other')['id']
        nova.wait(other)
        resize_to(nova, other, 'm1.small')
        nova.wait(other, 'VERIFY_RESIZE')
        without, ours = stock_and_ours(nova, other, 'resize')
        assert ours == []
    finally:
        listeners.add(told)
    assert [one['event'] for one in with_ours] == [
        one['event'] for one in without]


def test_a_live_migration_is_shown(nova, server):
    nova.api.post_server_action(server, {'os-migrateLive': {
        'host': None, 'block_migration': 'auto'}})
    _stock, ours = settled(nova, server, 'live-migration',
                           'CastLiveMigration')
    assert {one['result'] for one in ours} == {'Success'}


def test_how_far_it_is_is_shown_while_it_runs(nova, server, monkeypatch):
    seen = []
    execute = resize.CastPrepResize.execute

    def look(self, *args, **kwargs):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not seen:
            seen.extend(
                one for one in stock_and_ours(nova, server, 'resize')[1]
                if one['event'] == 'ssm_CastPrepResize')
            time.sleep(0.1)
        return execute(self, *args, **kwargs)

    monkeypatch.setattr(resize.CastPrepResize, 'execute', look)
    resize_to(nova, server, 'm1.small')
    nova.wait(server, 'VERIFY_RESIZE')
    assert [one['result'] for one in seen] == [None]
    _stock, ours = settled(nova, server, 'resize', 'CastPrepResize')
    assert names(ours).count('CastPrepResize') == 1


def test_many_flows_share_their_transactions(nova):
    """The number of transactions does not grow with that of the tasks."""
    said = []

    def heard(conn, cursor, statement, parameters, context, executemany):
        if 'INTO instance_actions_events' in statement:
            rows = len(parameters) if executemany else statement.count('(?')
            said.append((executemany, rows, str(parameters)))

    # Each cell has an engine of its own.
    event.listen(sqlalchemy.Engine, 'before_cursor_execute', heard)
    try:
        before = {one['id'] for one in nova.servers()}
        nova.boot('many', 4)
        shown = 0
        for one in {one['id'] for one in nova.servers()} - before:
            nova.wait(one)
            shown += len(settled(nova, one, 'create', 'CastBuild')[1])
    finally:
        event.remove(sqlalchemy.Engine, 'before_cursor_execute', heard)
    inserts = [one for one in said if 'ssm_' in one[2]]
    assert shown >= 4 * 10
    assert 0 < len(inserts) < shown / 4


def test_a_server_without_a_host_has_the_event_of_nova_only(
        nova, monkeypatch):
    """It was never built: the request's own event says all."""
    def fail(*args, **kwargs):
        raise exception.NoValidHost(reason='none')

    manager = nova.services['conductor'].manager.compute_task_mgr
    monkeypatch.setattr(manager, '_schedule_instances', fail)
    server = nova.boot('none')['id']
    with pytest.raises(RuntimeError, match='ERROR'):
        nova.wait(server)
    manager.ssm.telemetry.actions.flush()
    stock, ours = stock_and_ours(nova, server)
    assert [one['event'] for one in stock] == [
        'conductor_schedule_and_build_instances']
    assert ours == []
