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

"""What every board has to do, asked of each of them."""

import pytest
from taskflow import exceptions as taskflow_exc
from taskflow.patterns import linear_flow

from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm.engine import registry
from nova_ssm.engine import states
from nova_ssm.engine import task


class Say(task.Task):
    """Provide a word."""

    default_provides = 'word'

    def execute(self):
        return 'said'


@pytest.fixture
def worker(place):
    """Makes workers, each with connections of its own."""
    made = []

    def make(host='host', lease=60):
        flows = registry.Registry()
        flows.add(registry.FlowType(
            'say', '1.0', lambda: linear_flow.Flow('say').add(Say())))
        one = place.runner(flows, host, lease)
        made.append(one)
        assert one.worker.id
        return one

    yield make
    for one in made:
        one.close(patience=0)


def request(**store):
    return journal.FlowRequest(name='say', store=store)


def orphans(one):
    return {job.uuid: job for job in one.board.free_jobs(one.worker.id)}


def test_a_flow_runs_and_leaves_nothing_on_the_board(worker):
    one, other = worker(), worker()
    outcome = one.run(request())
    assert outcome.state == states.SUCCESS
    assert outcome.results['word'] == 'said'
    assert orphans(other) == {}
    assert queries.flow(one.db, outcome.uuid).owner is None


def test_a_flow_that_nobody_owns_is_claimed_by_one(worker):
    one, other = worker(), worker()
    posted = request()
    one.board.start(posted, owner=None)
    job, seen = orphans(other)[posted.uuid], orphans(one)[posted.uuid]
    assert other.board.claim(job, other.worker.id) == 2
    assert queries.flow(one.db, posted.uuid).owner == other.worker.id
    with pytest.raises(taskflow_exc.UnclaimableJob):
        one.board.claim(seen, one.worker.id)
    assert orphans(one) == {}
