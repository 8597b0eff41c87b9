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

"""What people ask about flows."""

import pytest

from nova_ssm.engine import exception
from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm.engine import schema
from nova_ssm.engine import troubles
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.engine import test_versioned

Do = helpers.Do


@pytest.fixture
def process(url, world):
    return helpers.Process(url, world, {'flow': lambda: helpers.linear(
        Do('a', world), Do('b', world))})


def test_a_finished_flow_tells_how_it_ended(process, world):
    world.failing['do b'] = LookupError('no room')
    outcome = process.runner.run(journal.FlowRequest(
        name='flow', store={}, subject='server', project_id='p',
        user_id='u', request_id='req-1'))
    info = queries.flow(process.db, outcome.uuid)
    assert (info.name, info.version, info.state) == (
        'flow', '1.0', 'REVERTED')
    assert (info.subject, info.project_id, info.user_id,
            info.request_id) == ('server', 'p', 'u', 'req-1')
    assert (info.owner, info.owner_alive) == (None, False)
    assert (info.task, info.task_state) == ('a', 'REVERTED')
    assert info.failure == 'b: LookupError: no room'
    assert info.created_at <= info.since <= info.finished_at


def test_a_running_flow_tells_who_runs_it_and_how_far_it_is(
        process, world, url):
    world.kill_at = 4       # behind the row of a
    with pytest.raises(helpers.Killed):
        process.run()
    process.db.dead = False
    [info] = queries.flows(process.db)
    assert (info.state, info.task, info.task_state) == (
        'RUNNING', 'a', 'SUCCESS')
    assert (info.owner, info.owner_alive) == (
        process.runner.worker.id, True)
    assert (info.finished_at, info.failure, info.claims) == (None, None, 0)
    helpers.expire_leases(url)
    [info] = queries.flows(process.db)
    assert (info.owner, info.owner_alive) == (
        process.runner.worker.id, False)


def test_a_flow_that_has_only_been_posted_is_shown_too(process):
    uuid = process.board.post('flow').uuid
    info = queries.flow(process.db, uuid)
    assert (info.state, info.task, info.owner) == ('PENDING', None, None)


def test_flows_are_listed_newest_first_and_may_be_chosen(process):
    uuids = [process.runner.run(journal.FlowRequest(
        name='flow', store={}, subject='server-%d' % (i % 2),
        request_id='req-%d' % i)).uuid for i in range(4)]
    uuids.append(process.board.post('flow').uuid)

    def listed(**kwargs):
        return [info.uuid for info in queries.flows(process.db, **kwargs)]

    assert listed() == uuids[::-1]
    assert listed(limit=2) == uuids[:-3:-1]
    assert listed(unfinished=True) == [uuids[4]]
    assert listed(subject='server-1') == [uuids[3], uuids[1]]
    assert listed(request_id='req-2') == [uuids[2]]
    assert listed(request_id='req-2', unfinished=True) == []


def test_claims_are_counted(process, url):
    uuid = process.board.post('flow').uuid
    process.resume_all()
    assert queries.flow(process.db, uuid).claims == 1


def test_what_has_succeeded_between_two_times(process, world):
    """A flow that was killed is one that runs; one that failed is none."""
    def run(subject):
        return process.runner.run(journal.FlowRequest(
            name='flow', store={}, subject=subject))

    def subjects(*times):
        return queries.subjects_finished(process.db, ['flow'], *times)

    before = queries.clock(process.db)
    assert not queries.has_flows(process.db, ['flow'], before - 1)
    run('server')
    between = queries.clock(process.db)
    run('other')
    world.failing['do b'] = LookupError('no room')
    run('failed')
    after = queries.clock(process.db)
    assert subjects(before - 1, between) == ['server']
    assert set(subjects(before - 1)) == {'server', 'other'}
    assert subjects(after) == []
    assert not queries.subjects_finished(process.db, ['another'], before)
    assert queries.has_flows(process.db, ['another', 'flow'], before)
    assert not queries.has_flows(process.db, ['another'], before)
    assert not queries.has_flows(process.db, ['flow'], after)
    process.board.start(journal.FlowRequest(name='flow', store={}), None)
    assert queries.has_flows(process.db, ['flow'], after)


def test_when_the_lease_of_a_worker_ends(process, url):
    worker = process.runner.worker
    ends = queries.lease_end(process.db, worker.id)
    assert ends > queries.clock(process.db)
    helpers.expire_leases(url)
    assert queries.lease_end(process.db, worker.id) < ends
    worker.stop()
    assert queries.lease_end(process.db, worker.id) is None


def test_the_steps_of_a_flow_are_its_journal(process, world):
    world.failing['do b'] = LookupError('no room')
    uuid = process.run().uuid
    steps = queries.steps(process.db, uuid)
    assert [(step.kind, step.task, step.state) for step in steps] == [
        ('start', None, None), ('atom', 'a', 'SUCCESS'),
        ('atom', 'b', 'FAILURE'), ('atom', 'b', 'REVERTED'),
        ('atom', 'a', 'REVERTED'), ('end', None, 'REVERTED')]
    assert [step.seq for step in steps] == list(range(6))
    assert {step.writer for step in steps} == {process.runner.worker.id}
    assert [step.at for step in steps] == sorted(step.at for step in steps)


def test_an_unknown_flow_is_not_found(process):
    with pytest.raises(exception.FlowNotFound, match='there is no flow x'):
        queries.flow(process.db, 'x')
    assert queries.steps(process.db, 'x') == []


def test_no_secret_is_touched(process, monkeypatch):
    """Whoever has no key may look all the same."""
    process.run()

    def unpack(*args):
        raise AssertionError('a payload was read')

    monkeypatch.setattr(process.serializer, 'unpack', unpack)
    assert queries.flows(process.db)


# -- troubles and objects ----------------------------------------------------

def test_a_trouble_is_shown_while_nobody_runs_the_flow(process, url, world):
    """What was written by others may stay there when a flow goes on."""
    job = process.board.post('flow')

    def shown():
        return queries.flow(process.db, job.uuid).trouble

    assert shown() is None
    troubles.tell(process.db, job.uuid, troubles.text('h1', 'no key'))
    assert shown() == 'host h1 cannot go on: no key'
    me = process.runner.worker.id
    next_seq = process.board.claim(job, me)
    assert shown() is None
    helpers.expire_leases(url)
    assert shown() == 'host h1 cannot go on: no key'
    process.runner.resume_claimed(job.uuid, 'flow', next_seq)
    assert shown() is None
    troubles.tell(process.db, job.uuid, 'late')
    assert shown() is None


def test_a_trouble_has_no_secrets_and_fits():
    text = troubles.text('h1', 'mysql://nova:tiger@h/nova\0' + 2000 * 'x')
    assert 'tiger' not in text and '\0' not in text
    assert len(text) == 1000


def test_the_objects_of_a_flow_are_told_with_their_versions(url, world):
    one = helpers.Process(url, world, {'flow': lambda: helpers.linear(
        Do('a', world))})
    uuid = one.run(disk=test_versioned.Attachment(
        volume='v', connection='tiger')).uuid
    assert queries.objects(one.db, uuid) == ['Attachment 1.2']
    damage = schema.journal.update().where(schema.journal.c.seq == 0)
    with one.db.transaction() as connection:
        connection.execute(damage.values(payload=b'damaged'))
    assert queries.objects(one.db, uuid) == []
    assert queries.objects(one.db, 'none') == []
