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

"""From the finding to the end of its repair, killed anywhere."""

import pytest

from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import vm_states
from nova import objects

from nova_ssm.audit import kinds
from nova_ssm.audit import looks
from nova_ssm.audit import repairs
from nova_ssm import compat
from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm import exception
from nova_ssm.tasks import audit_moves
from nova_ssm.tests.functional.audit import cloud as cloud_module

UNKNOWN = 'aaaaaaaa-0000-4000-8000-000000000001'


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No time passes between two looks."""
    monkeypatch.setattr(looks, 'wait', lambda db, settle: None)
    for ping in ('ping_compute', 'ping_alt'):
        monkeypatch.setattr(compat, ping, lambda *args: True)


def find(cloud):
    return looks.find(cloud.survey, kinds.KINDS.values(), 5)


def post(cloud, **kwargs):
    return repairs.post(cloud.runner.board, find(cloud), cloud.db, **kwargs)


def lost_build(cloud):
    return cloud.ask(2)[0]


def stuck_build(cloud):
    return cloud.server(vm_state=vm_states.BUILDING, host=None, node=None,
                        task_state=task_states.SCHEDULING)


def lost_move(cloud):
    server = cloud.server(task_state=task_states.RESIZE_PREP)
    cloud.action(server)
    return server


def stuck_move(cloud):
    server = lost_move(cloud)
    cloud.hold(cloud.migration(server, 'pre-migrating'),
               cloud.node('host1', 'node1'))
    cloud.hold(server, cloud.node('host2', 'node2'))
    return server


def stuck_live_migration(cloud):
    server = cloud.server(task_state=task_states.MIGRATING)
    cloud.action(server, instance_actions.LIVE_MIGRATION)
    cloud.spec(server)
    cloud.hold(cloud.migration(server, 'error',
                               migration_type='live-migration'),
               cloud.node('host1', 'node1'))
    cloud.hold(server, cloud.node('host2', 'node2'))
    return server


def stuck_resize(cloud):
    server = cloud.server(task_state=task_states.RESIZE_MIGRATED,
                          host='host2', node='node2')
    cloud.action(server)
    cloud.hold(cloud.migration(server, 'post-migrating'),
               cloud.node('host1', 'node1'))
    cloud.hold(server, cloud.node('host2', 'node2'))
    return server


def untold_failure(cloud):
    server = cloud.server(vm_state=vm_states.ERROR)
    cloud.action(server, instance_actions.CREATE)
    return server


def endless_event(cloud):
    server = cloud.server()
    with cloud.at('cell1') as context:
        context.request_id = cloud.action(server)
        event = objects.InstanceActionEvent.event_start(
            context, server, 'compute_prep_resize', host='host2')
    for table, column, value in (
            ('instance_actions_events', 'id', event.id),
            ('instance_actions', 'instance_uuid', server)):
        cloud.backdate('cell1', table, column, value, cloud_module.LONG,
                       also=('start_time',))
    return server


def is_shown_as_failed(cloud, server):
    with cloud.at('cell1') as context:
        [action] = objects.InstanceActionList.get_by_instance_uuid(
            context, server)
        [event] = objects.InstanceActionEventList.get_by_action(context,
                                                                action.id)
    return (action.message, event.result) == ('Error', 'Error')


def cut_short(cloud):
    """Its source was started again."""
    server = cloud.server()
    migration = cloud.migration(server, 'preparing',
                                migration_type='live-migration')
    cloud.hold(migration, cloud.node('host1', 'node1'))
    cloud.hold(server, cloud.node('host2', 'node2'))
    return migration


def is_ended_and_given_back(cloud, migration):
    with cloud.at('cell1') as context:
        record = objects.Migration.get_by_uuid(context, migration)
        return (record.status == 'error' and
                set(cloud.placement.held) == {record.instance_uuid})


def is_as_before(cloud, server):
    [(provider, _)] = cloud.placement.held[server].items()
    with cloud.at('cell1') as context:
        [node] = [node for node in objects.ComputeNodeList.get_all(context)
                  if node.uuid == provider]
        [migration] = objects.MigrationList.get_by_filters(
            context, {'instance_uuid': server})
    return (cloud.record(server).task_state, len(cloud.faults(server)),
            node.host, migration.status, len(cloud.placement.held)) == (
        None, 1, 'host1', 'error', 1)


def orphan_allocation(cloud):
    cloud.hold(UNKNOWN, cloud.node('host1', 'node1'))
    return UNKNOWN


def given_back(cloud):
    server = cloud.server()
    cloud.hold(cloud.migration(server, 'error'),
               cloud.node('host1', 'node1'))
    return server


def misplaced(cloud):
    server = cloud.server()
    cloud.hold(server, cloud.node('host1', 'node1'),
               cloud.node('host2', 'node2'))
    return server


def orphan_mapping(cloud):
    [server] = cloud.ask()
    objects.BuildRequest.get_by_instance_uuid(cloud.context, server).destroy()
    cloud.backdate('api', 'instance_mappings', 'instance_uuid', server,
                   cloud_module.LONG)
    return server


def is_unmapped(cloud, server):
    return not list(objects.InstanceMappingList.get_by_instance_uuids(
        cloud.context, [server]))


def endless_migration(cloud):
    server = cloud.server()
    cloud.delete(server)
    migration = cloud.migration(server, 'running')
    cloud.hold(migration, cloud.node('host1', 'node1'))
    return migration


def is_ended(cloud, migration):
    with cloud.at('cell1') as context:
        return (objects.Migration.get_by_uuid(context, migration).status
                == 'error' and not cloud.placement.held)


def stale_binding(cloud):
    server = cloud.server()
    cloud.migration(server, 'error', migration_type='live-migration')
    for port in (cloud.services.port(server), cloud.services.port(server)):
        cloud.services.bind(port, 'host2')
    return server


def misplaced_binding(cloud):
    server = cloud.server()
    cloud.migration(server, 'error')
    for _ in range(2):
        cloud.services.port(server, 'host2')
    return server


def deleted_server(cloud):
    server = cloud.server()
    cloud.delete(server)
    return server


def orphan_port(cloud):
    return cloud.services.port(deleted_server(cloud))


def orphan_accelerator(cloud):
    return cloud.services.accelerate(deleted_server(cloud))


def orphan_attachment(cloud):
    return cloud.services.attach(deleted_server(cloud))


def is_in_error(cloud, server, cell='cell1'):
    record = cloud.record(server, cell)
    return (record.vm_state, record.task_state, len(cloud.faults(
        server, cell))) == ('error', None, 1)


#: Of each damage how it looks when it is repaired.
DAMAGES = {
    lost_build: lambda cloud, one: is_in_error(cloud, one, 'cell0'),
    stuck_build: is_in_error,
    lost_move: lambda cloud, one: (
        cloud.record(one).task_state is None and
        len(cloud.faults(one)) == 1),
    stuck_move: is_as_before,
    stuck_live_migration: is_as_before,
    stuck_resize: lambda cloud, one: (
        is_in_error(cloud, one) and set(cloud.placement.held) == {one}),
    untold_failure: is_in_error,
    endless_event: is_shown_as_failed,
    cut_short: is_ended_and_given_back,
    orphan_allocation: lambda cloud, one: not cloud.placement.held,
    given_back: lambda cloud, one: set(cloud.placement.held) == {one},
    orphan_mapping: is_unmapped,
    endless_migration: is_ended,
    misplaced: lambda cloud, one: len(cloud.placement.held[one]) == 1,
    stale_binding: lambda cloud, one: all(
        cloud.services.hosts(port) == {'host1': 'ACTIVE'}
        for port in cloud.services.neutron._ports),
    misplaced_binding: lambda cloud, one: all(
        cloud.services.hosts(port) == {'host1': 'ACTIVE'}
        for port in cloud.services.neutron._ports),
    orphan_port: lambda cloud, one: (
        cloud.services.device(one), cloud.services.hosts(one)) == ('', {}),
    orphan_accelerator: lambda cloud, one: not cloud.services.requests,
    orphan_attachment: lambda cloud, one: not cloud.services.attached(),
}

each = pytest.mark.parametrize('damage', DAMAGES,
                               ids=lambda damage: damage.__name__)


@each
def test_is_found_repaired_and_not_found_again(cloud, damage):
    subject = damage(cloud)
    assert post(cloud)
    outcomes = cloud.run_posted()
    assert outcomes and {state for _, state in outcomes} == {'SUCCESS'}
    assert DAMAGES[damage](cloud, subject)
    assert not find(cloud)


@each
def test_every_kind_says_what_it_is_about(cloud, damage):
    damage(cloud)
    for one in find(cloud):
        assert one.what and one.why and one.remedy
        assert not {'\n', '%'} & set(one.what + one.why + one.remedy)
        assert one.details['group']


@each
def test_is_repaired_though_each_row_is_the_last_of_a_conductor(
        cloud, damage):
    """Killed behind each row, again and again, by one conductor a row."""
    subject = damage(cloud)
    post(cloud)
    kills = 0
    while True:
        jobs = list(cloud.runner.board.iterjobs(only_unclaimed=True))
        if not jobs:
            break
        killed = kill_behind_the_next_row(cloud, jobs[0])
        kills += killed
    assert kills
    assert DAMAGES[damage](cloud, subject)
    assert not find(cloud)


def kill_behind_the_next_row(cloud, job):
    """Let a worker die when it has written a row, but the last one."""
    def die(uuid, kind, atom, state):
        if kind != 'end':
            raise cloud_module.Crash(atom)

    cloud.runner.after_commit = die
    try:
        cloud.runner.resume(job)
    except cloud_module.Crash:
        return True
    finally:
        cloud.runner.after_commit = None
        cloud.sql('UPDATE ssm_flows SET owner = NULL')
    return False


@each
def test_is_repaired_though_killed_behind_each_change(cloud, damage):
    """In the middle of a task: what was changed is not in the journal."""
    subject = damage(cloud)
    post(cloud)
    after = 0
    while True:
        after += 1
        cloud.steps.clear()
        cloud.crash_after = 1 if after < 20 else None
        try:
            cloud.run_posted()
            break
        except cloud_module.Crash:
            cloud.sql('UPDATE ssm_flows SET owner = NULL')
    cloud.crash_after = None
    assert after < 20
    assert DAMAGES[damage](cloud, subject)


@each
def test_is_left_alone_if_it_is_none_any_more(cloud, damage):
    """What has been put right between finding and repair."""
    subject = damage(cloud)
    held = dict(cloud.placement.held)
    owned = {subject, *held, *(one.server for one in find(cloud))} - {None}
    post(cloud)
    for one in owned:
        cloud.flow('resize', one)
    cloud.sql("UPDATE ssm_flows SET owner = 'x' WHERE name = 'resize'")
    cloud.sql("INSERT INTO ssm_workers VALUES ('x', 'h/1', 1, 1, 1, 1e12)")
    if damage is lost_build:
        assert {name for name, _ in cloud.run_posted()} == {
            'repair_lost_build'}
        assert objects.BuildRequest.get_by_instance_uuid(
            cloud.context, subject)
        return
    cloud.run_posted()
    assert cloud.placement.held == held
    if cloud.record(subject):
        assert not cloud.faults(subject)


def test_two_who_find_the_same_post_it_once(cloud):
    lost_build(cloud)
    stuck_build(cloud)
    first, second = post(cloud), post(cloud)
    assert first == second
    assert len(list(cloud.runner.board.iterjobs())) == 2


def test_it_is_repaired_once_more_if_it_is_still_there_later(cloud):
    lost_build(cloud)
    [first] = post(cloud).values()
    cloud.sure.side_effect = exception.Uncertain('nobody answers')
    assert cloud.run_posted() == [('repair_lost_build', 'REVERTED')]
    assert not post(cloud, patient=True)
    cloud.sql('UPDATE ssm_flows SET created_at = created_at - %d' %
              (repairs.AGAIN + 1))
    [second] = post(cloud, patient=True).values()
    assert first != second
    cloud.sure.side_effect = None
    cloud.run_posted()
    assert not find(cloud)


def test_without_certainty_nothing_is_changed(cloud):
    server = lost_build(cloud)
    post(cloud)
    cloud.sure.side_effect = exception.Uncertain('worker x did not answer')
    cloud.run_posted()
    assert find(cloud)
    [flow] = queries.flows(cloud.db, subject=server)
    assert 'worker x did not answer' in flow.failure


@pytest.mark.parametrize('damage', (lost_build, lost_move))
def test_what_begins_while_the_conductors_are_asked_is_left_alone(
        cloud, damage):
    """One of them had it in its hands."""
    subject = damage(cloud)
    post(cloud)
    cloud.sure.side_effect = lambda: cloud.flow('resize', subject)
    cloud.sql("INSERT INTO ssm_workers VALUES "
              "('a worker', 'h/1', 1, 1, 1, 1e12)")
    assert {name for name, _ in cloud.run_posted()} == {
        'repair_' + damage.__name__}
    for flow in queries.flows(cloud.db, subject=subject):
        assert not flow.name.startswith('end_')


@pytest.mark.parametrize('damage', (lost_build, lost_move))
def test_who_writes_the_first_row_has_the_request(cloud, damage,
                                                  monkeypatch):
    """A message that comes at the very last moment wins, or loses."""
    damage(cloud)
    [finding] = find(cloud)[:1]
    post(cloud)
    start = cloud.runner.board.start

    def late(request, owner):
        if request.name.startswith('end_'):
            monkeypatch.undo()
            start(journal.FlowRequest(
                name='resize', store={}, subject=request.subject,
                uuid=finding.details['fence']), owner='a worker')
        return start(request, owner)

    cloud.sql("INSERT INTO ssm_workers VALUES "
              "('a worker', 'h/1', 1, 1, 1, 1e12)")
    monkeypatch.setattr(cloud.runner.board, 'start', late)
    assert {name for name, _ in cloud.run_posted()} == {
        'repair_' + damage.__name__}
    assert queries.flow(cloud.db, finding.details['fence']).name == 'resize'


def test_a_compute_that_does_not_answer_may_have_been_told(
        cloud, monkeypatch):
    server = stuck_move(cloud)
    post(cloud)
    monkeypatch.setattr(compat, 'ping_compute', lambda *args: False)
    assert cloud.run_posted() == [('repair_stuck_move', 'REVERTED')]
    assert cloud.record(server).task_state == task_states.RESIZE_PREP


def test_what_a_failed_flow_has_left_is_repaired_beside_it(cloud):
    """Its row is there and cannot be taken."""
    [server] = cloud.ask()
    [finding] = find(cloud)
    cloud.flow('schedule_and_build_instances', server, finished=True,
               flow_uuid=finding.details['fence'])
    post(cloud)
    cloud.run_posted()
    assert is_in_error(cloud, server, 'cell0')


def test_what_a_consumer_held_is_in_the_journal_and_can_be_had_again(cloud):
    """Somebody comes to need it while it is being removed."""
    orphan_allocation(cloud)
    held = dict(cloud.placement.held)
    post(cloud)
    delete = cloud.placement.delete_allocation_for_instance

    def race(context, consumer, force=False):
        delete(context, consumer, force)
        cloud.server(server=consumer)

    cloud.placement.delete_allocation_for_instance = race
    [(_, state)] = cloud.run_posted()
    assert state == 'REVERTED'
    assert cloud.placement.held == held


def test_what_does_not_help_is_tried_more_and_more_seldom(cloud):
    lost_build(cloud)
    cloud.sure.side_effect = exception.Uncertain('nobody answers')
    tried = []
    for minute in range(64):
        cloud.sql('UPDATE ssm_flows SET created_at = created_at - 60')
        if post(cloud, patient=True):
            tried.append(minute)
            cloud.run_posted()
    gaps = [later - one for one, later in zip(
        tried, tried[1:], strict=False)]
    assert 4 < len(tried) < 10
    assert gaps == sorted(gaps)


def test_an_end_that_failed_is_begun_once_more(cloud, monkeypatch):
    server = lost_build(cloud)
    with monkeypatch.context() as broken:
        broken.setattr(objects.BuildRequest, 'get_by_instance_uuid',
                       lambda *args: {}['broken'])
        post(cloud)
        assert ('end_lost_build', 'REVERTED') in cloud.run_posted()
    post(cloud)
    assert ('end_lost_build', 'SUCCESS') in cloud.run_posted()
    assert is_in_error(cloud, server, 'cell0')


def test_servers_of_one_request_may_be_stuck_in_several_ways(cloud):
    """The first one had come to a cell, the others not."""
    reservation = 'r-12345678'
    first = cloud.server(reservation_id=reservation, launch_index=0,
                         vm_state=vm_states.BUILDING, host=None, node=None,
                         task_state=task_states.SCHEDULING)
    other = cloud._ask_one(reservation, 1, 2, cloud_module.LONG)
    assert len(post(cloud)) == 2
    cloud.run_posted()
    # While the request is ended, nobody else touches its servers.
    post(cloud)
    cloud.run_posted()
    assert is_in_error(cloud, first)
    assert is_in_error(cloud, other, 'cell0')


def test_the_flow_of_a_repair_is_shown_with_its_subject(cloud):
    server = lost_move(cloud)
    [uuid] = post(cloud).values()
    cloud.run_posted()
    names = {flow.name: flow for flow in
             queries.flows(cloud.db, subject=server)}
    assert set(names) == {'repair_lost_move', 'end_lost_move'}
    assert names['end_lost_move'].parent_uuid == uuid
    assert names['repair_lost_move'].project_id == cloud_module.PROJECT


def come_late(cloud, name, server, monkeypatch):
    """Let a request to try the next host begin, when nobody expects it.

    Its row is there when the repair has looked at the server.
    """
    save = objects.Instance.save if name == 'reschedule_instance' else (
        objects.Migration.save)
    owner = objects.Instance if name == 'reschedule_instance' else (
        objects.Migration)

    def late(self, *args, **kwargs):
        monkeypatch.setattr(owner, 'save', save)
        cloud.flow(name, server)
        return save(self, *args, **kwargs)

    cloud.sql("INSERT INTO ssm_workers VALUES "
              "('a worker', 'h/1', 1, 1, 1, 1e12)")
    monkeypatch.setattr(owner, 'save', late)


def test_a_stuck_server_that_is_tried_again_after_all_is_put_back(
        cloud, monkeypatch):
    server = stuck_build(cloud)
    cloud.hold(server, cloud.node('host1', 'node1'))
    post(cloud)
    held = dict(cloud.placement.held)
    come_late(cloud, 'reschedule_instance', server, monkeypatch)
    cloud.run_posted()
    record = cloud.record(server)
    assert (record.vm_state, record.task_state) == ('building', 'scheduling')
    assert not cloud.faults(server) and cloud.placement.held == held


def test_a_stuck_move_that_is_tried_again_after_all_goes_on(
        cloud, monkeypatch):
    server = stuck_move(cloud)
    post(cloud)
    held = dict(cloud.placement.held)
    come_late(cloud, 'reschedule_resize', server, monkeypatch)
    cloud.run_posted()
    with cloud.at('cell1') as context:
        [migration] = objects.MigrationList.get_by_filters(
            context, {'instance_uuid': server})
    assert (cloud.record(server).task_state, migration.status) == (
        'resize_prep', 'pre-migrating')
    assert not cloud.faults(server) and cloud.placement.held == held


def test_a_stuck_move_that_cannot_be_given_up_is_found_again(
        cloud, monkeypatch):
    stuck_move(cloud)
    post(cloud)
    with monkeypatch.context() as broken:
        broken.setattr(audit_moves, '_add_fault', lambda *args: {}['broken'])
        assert cloud.run_posted() == [('repair_stuck_move', 'REVERTED')]
    assert [one.kind for one in find(cloud)] == ['stuck-move']


def test_a_server_that_a_compute_takes_at_the_last_moment_is_its_own(
        cloud, monkeypatch):
    server = stuck_build(cloud)
    post(cloud)
    save = objects.Instance.save

    def late(self, *args, **kwargs):
        monkeypatch.setattr(objects.Instance, 'save', save)
        now = cloud.record(server)
        now.vm_state, now.host = 'active', 'host1'
        now.save()
        return save(self, *args, **kwargs)

    monkeypatch.setattr(objects.Instance, 'save', late)
    assert cloud.run_posted() == [('repair_stuck_build', 'SUCCESS')]
    assert cloud.record(server).vm_state == 'active'
