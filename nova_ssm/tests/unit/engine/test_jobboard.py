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

"""Who runs which flow: TaskFlow's job board in the journal's tables."""

import threading
import time

from oslo_db import exception as db_exc
import pytest
from taskflow import exceptions as taskflow_exc
from taskflow.jobs import backends
from taskflow.jobs import base

from nova_ssm.engine import jobboard
from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm.engine import serialization
from nova_ssm.engine import worker
from nova_ssm.tests.unit.engine import helpers


@pytest.fixture
def board(own_db):
    """As TaskFlow makes it, by its name."""
    made = backends.fetch('nova_ssm', {
        'board': 'sql', 'database': own_db,
        'serializer': serialization.Serializer()})
    made.connect()
    assert made.connected
    yield made
    made.close()
    assert not made.connected


@pytest.fixture
def me(own_db):
    return registered(own_db, 'me')


def registered(db, host):
    made = worker.Worker(db, host, 60)
    made.renew()
    return made.id


def test_it_is_one_of_taskflows_boards(board):
    assert isinstance(board, jobboard.SQLJobBoard)
    assert isinstance(board, base.JobBoard)


def test_a_posted_flow_is_free(board):
    job = board.post('flow', details={'x': 1})
    assert isinstance(job, base.Job)
    assert (job.name, job.state) == ('flow', 'UNCLAIMED')
    assert board.find_owner(job) is None
    assert job.priority == base.JobPriority.NORMAL
    assert job.created_on <= job.last_modified
    assert job.details['flow_uuid'] == job.uuid
    assert board.job_count == 1


def test_a_posted_request_keeps_what_it_says(board, own_db):
    job = board.post('flow', details={'request': journal.FlowRequest(
        name='flow', store={}, subject='server', request_id='req-1')})
    assert job.details['subject'] == 'server'
    assert queries.flow(own_db, job.uuid).request_id == 'req-1'


def test_flows_are_looked_through_oldest_first(board, me):
    jobs = []
    for i in range(3):
        jobs.append(board.post('flow-%d' % i))
        # The clock of SQLite counts milliseconds.
        time.sleep(0.002)
    assert [job.uuid for job in board.iterjobs()] == [
        job.uuid for job in jobs]
    board.claim(jobs[1], me)
    assert [job.uuid for job in board.iterjobs(only_unclaimed=True)] == [
        jobs[0].uuid, jobs[2].uuid]
    assert board.job_count == 3


def test_a_claimed_flow_has_an_owner_until_it_is_abandoned(board, me):
    job = board.post('flow')
    assert board.claim(job, me) == 2
    assert board.find_owner(job) == me
    assert board.get(job.uuid).state == 'CLAIMED'
    board.abandon(job, me)
    assert board.find_owner(job) is None
    assert board.claim(board.get(job.uuid), me) == 3


def test_a_claimed_flow_is_not_claimed_again(board, me, own_db):
    job = board.post('flow')
    board.claim(job, me)
    for who in (me, registered(own_db, 'other')):
        for view in (job, board.get(job.uuid)):
            with pytest.raises(taskflow_exc.UnclaimableJob):
                board.claim(view, who)


def test_a_claim_needs_to_have_seen_the_last_one(board, me):
    """What was seen of the flow may be long over."""
    seen = board.post('flow')
    board.claim(seen, me)
    board.abandon(seen, me)
    with pytest.raises(taskflow_exc.UnclaimableJob):
        board.claim(seen, me)


def test_a_flow_is_free_again_when_its_owners_lease_has_run_out(
        board, me, own_db, url):
    job = board.post('flow')
    board.claim(job, me)
    helpers.expire_leases(url)
    assert board.find_owner(job) is None
    other = registered(own_db, 'other')
    assert board.claim(board.get(job.uuid), other) == 3
    assert board.find_owner(job) == other


def test_nobody_claims_its_own_flow_when_its_lease_has_run_out(
        board, me, url):
    """Another thread of the same process may be at it."""
    job = board.post('flow')
    board.claim(job, me)
    helpers.expire_leases(url)
    with pytest.raises(taskflow_exc.UnclaimableJob):
        board.claim(board.get(job.uuid), me)


def test_of_many_who_claim_at_once_exactly_one_wins(board, own_db):
    workers = [registered(own_db, str(i)) for i in range(8)]
    for _ in range(5):
        job, won = board.post('flow'), []
        start = threading.Barrier(len(workers))

        def claim(who, job=job, won=won, start=start):
            start.wait()
            try:
                board.claim(job, who)
            except taskflow_exc.UnclaimableJob:
                return
            won.append(who)

        threads = [threading.Thread(target=claim, args=(who,))
                   for who in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [board.find_owner(job)]
        assert len(queries.steps(own_db, job.uuid)) == 2


@pytest.mark.parametrize('end, state', [
    ('consume', 'SUCCESS'), ('trash', 'FAILURE')])
def test_a_flow_that_is_over_is_not_claimed(board, me, url, end, state):
    job = board.post('flow')
    board.claim(job, me)
    getattr(board, end)(job, me)
    assert helpers.state_of(url, job.uuid) == (state, None)
    assert board.get(job.uuid).state == 'COMPLETE'
    assert board.job_count == 0
    with pytest.raises(taskflow_exc.UnclaimableJob):
        board.claim(board.get(job.uuid), me)


@pytest.mark.parametrize('what', ['abandon', 'consume', 'trash'])
def test_only_its_owner_decides_about_a_flow(board, me, own_db, what):
    job = board.post('flow')
    board.claim(job, me)
    with pytest.raises(taskflow_exc.NotFound, match='does not own'):
        getattr(board, what)(job, registered(own_db, 'other'))
    assert board.find_owner(job) == me


def test_to_release_what_one_does_not_own_is_no_matter(board, me):
    job = board.post('flow')
    board.claim(job, me)
    board.release(job.uuid, 'other')
    assert board.find_owner(job) == me
    board.release(job.uuid, me)
    assert board.find_owner(job) is None


def test_waiting_ends_with_the_first_free_flow(board):
    posted = threading.Timer(0.05, board.post, args=('flow',))
    posted.start()
    [job] = board.wait(timeout=60)
    posted.join()
    assert job.name == 'flow'


def test_waiting_ends_when_the_time_is_over(board, me):
    board.claim(board.post('flow'), me)
    with pytest.raises(taskflow_exc.NotFound, match='no job came'):
        board.wait(timeout=0)


def test_an_unknown_flow_is_not_found(board):
    with pytest.raises(taskflow_exc.NotFound):
        board.get('none')


def test_the_same_flow_is_not_posted_twice(board):
    request = journal.FlowRequest(name='flow', store={})
    board.post('flow', details={'request': request})
    with pytest.raises(db_exc.DBDuplicateEntry):
        board.post('flow', details={'request': request})


# The connection breaks after the commit: what was done is not done again,
# and not taken for somebody else's.

@pytest.fixture
def broken(own_db):
    return lambda: helpers.Outage(
        own_db, [db_exc.DBConnectionError()], after=True)


def test_a_post_is_known_again(board, broken, me, own_db):
    broken()
    request = journal.FlowRequest(name='flow', store={})
    board.start(request, me)
    assert queries.flow(own_db, request.uuid).owner == me


def test_a_claim_is_known_again(board, broken, me, own_db):
    job = board.post('flow')
    broken()
    assert board.claim(job, me) == 2
    assert board.find_owner(job) == me
    assert [step.kind for step in queries.steps(own_db, job.uuid)] == [
        'start', 'claim']


def test_an_abandoning_is_known_again(board, broken, me):
    job = board.post('flow')
    board.claim(job, me)
    broken()
    board.abandon(job, me)
    assert board.find_owner(job) is None
