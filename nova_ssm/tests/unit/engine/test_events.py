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

"""What listeners are told of the flows that a process runs."""

import pytest

from nova_ssm.engine import journal
from nova_ssm.engine import serialization
from nova_ssm.engine import task
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.engine import listening

SIMPLE = ['flow began', 'execute a', 'execute a: done', 'execute r',
          'execute r: done', 'execute b', 'execute b: done', 'execute s',
          'execute s: done', 'execute c', 'execute c: done', 'flow SUCCESS']


@pytest.fixture
def listened(process):
    """Makes a process with a listener."""
    def make(flows):
        made, scribe = process(flows), listening.Scribe()
        made.runner.listeners.add(scribe)
        return made, scribe
    return make


def test_each_step_and_the_end_are_told(listened, world):
    made, scribe = listened(examples.simple(world))
    made.run()
    assert scribe.lines == SIMPLE


def test_which_flow_it_is_is_told(listened, world):
    made, scribe = listened(examples.simple(world))
    outcome = made.runner.run(journal.FlowRequest(
        name='flow', store={'a secret': 'x'}, subject='server',
        project_id='project', user_id='user', request_id='req-1'))
    flow = scribe.flows[outcome.uuid]
    assert (flow.subject, flow.project_id, flow.user_id, flow.request_id,
            flow.name, flow.version, flow.parent_uuid) == (
                'server', 'project', 'user', 'req-1', 'flow', '1.0', None)
    assert not hasattr(flow, 'store')


def test_a_failure_and_what_is_undone_are_told(listened, world):
    made, scribe = listened(examples.failing(examples.simple)(world))
    made.run()
    assert scribe.lines[-8:] == [
        'execute c: failed', 'undo c', 'undo c: done', 'undo b',
        'undo b: done', 'undo a', 'undo a: done', 'flow REVERTED by c']
    failed = next(step for step in scribe.steps if step.failure)
    assert failed.failure is world.failing['do c']
    assert scribe.failures == ['Broken: compute is broken']


def test_a_revert_that_fails_is_told(listened, world):
    world.failing['undo b'] = ValueError('b stays')
    made, scribe = listened(examples.failing(examples.simple)(world))
    made.run()
    assert 'undo b: failed' in scribe.lines
    assert scribe.lines[-1] == 'flow FAILURE by c'


def test_of_a_flow_that_goes_on_only_the_rest_is_told(
        listened, process, world, url):
    world.kill_at = 4
    with pytest.raises(helpers.Killed):
        process(examples.simple(world)).run()
    helpers.expire_leases(url)
    made, scribe = listened(examples.simple(world))
    made.resume_all()
    assert scribe.lines[0] == 'flow resumed'
    assert scribe.lines[-1] == 'flow SUCCESS'
    assert 'execute a' not in scribe.lines
    assert 'execute c: done' in scribe.lines


def test_a_flow_that_goes_on_is_the_same_to_listeners(
        listened, process, world, url):
    request = journal.FlowRequest(
        name='flow', store={}, subject='server', project_id='project',
        user_id='user', request_id='req-1')
    world.kill_at = 4
    with pytest.raises(helpers.Killed):
        process(examples.simple(world)).runner.run(request)
    helpers.expire_leases(url)
    made, scribe = listened(examples.simple(world))
    made.resume_all()
    flow = scribe.flows[request.uuid]
    assert (flow.subject, flow.project_id, flow.user_id,
            flow.request_id) == ('server', 'project', 'user', 'req-1')


def test_children_are_told_with_their_parent(listened, world):
    made, scribe = listened(examples.parent(world))
    outcome = made.run()
    parents = {flow.parent_uuid for flow in scribe.flows.values()
               if flow.uuid != outcome.uuid}
    assert parents == {outcome.uuid}
    assert len(scribe.flows) == 1 + len(outcome.children)


def test_one_that_is_taken_away_is_left(listened, world, db):
    class Stolen(helpers.Do):
        def execute(self):
            with db.transaction() as connection:
                connection.exec_driver_sql(
                    "UPDATE ssm_flows SET owner = 'another'")
            made.runner.held()[self.uuid_of_flow()].let_go('stolen')
            return super().execute()

        def uuid_of_flow(self):
            return next(iter(made.runner.held()))

    made, scribe = listened({'flow': lambda: helpers.linear(
        Stolen('a', world), helpers.Do('b', world))})
    assert made.run().state == 'LOST'
    assert scribe.lines[-1] in ('flow lost', 'flow suspended')
    assert 'execute b: done' not in scribe.lines


def test_one_that_is_suspended_is_left(listened, world):
    class Stops(helpers.Do):
        def execute(self):
            made.runner.suspend()
            return super().execute()

    made, scribe = listened({'flow': lambda: helpers.linear(
        Stops('a', world), helpers.Do('b', world))})
    assert made.run().state == 'LOST'
    assert scribe.lines == ['flow began', 'execute a', 'execute a: done',
                            'flow suspended']


def test_one_whose_process_dies_is_left_once(listened, world):
    made, scribe = listened(examples.simple(world))
    world.kill_at = 4
    with pytest.raises(helpers.Killed):
        made.run()
    assert scribe.lines.count('flow broken') == 1
    assert scribe.lines[-1] == 'flow broken'


def test_a_step_is_told_when_the_journal_has_it(listened, world):
    """Or a listener would tell of what never happened."""
    made, scribe = listened(examples.simple(world))
    seen = []
    made.runner.after_commit = lambda uuid, kind, atom, state: seen.append(
        (atom, len(scribe.steps)))
    made.run()
    assert ('a', 0) in seen     # its row came before it was told


@pytest.mark.parametrize('flows', [
    examples.simple, examples.failing(examples.simple)])
def test_a_listener_that_fails_hurts_no_flow(listened, world, flows, caplog):
    made, scribe = listened(flows(world))
    made.runner.listeners.add(listening.Deaf())
    alone = listening.Scribe()
    made.runner.listeners.add(alone)
    outcome = made.run()
    assert outcome.state in ('SUCCESS', 'REVERTED')
    assert alone.lines == scribe.lines
    assert 'Deaf failed when it was told of flow' in caplog.text


def test_who_is_removed_is_told_no_more(listened, world):
    made, scribe = listened(examples.simple(world))
    made.run()
    made.runner.listeners.remove(scribe)
    made.run()
    assert scribe.lines == SIMPLE


def test_a_failure_is_told_without_the_secrets_of_the_flow(listened, world):
    class Tells(task.Task):
        def execute(self, password):
            raise ValueError('cannot log in with %s'
                             % serialization.reveal(password))

    made, scribe = listened({'flow': lambda: helpers.linear(Tells('t'))})
    made.run(password=serialization.Secret('correct horse'))
    [failure] = scribe.failures
    assert 'cannot log in' in failure
    assert 'correct horse' not in failure
    failed = scribe.steps[0]
    assert 'correct horse' not in failed.mask(str(failed.failure))


def test_a_task_that_undoes_nothing_is_not_told_as_undone(listened, world):
    world.failing['do b'] = ValueError('no b')
    made, scribe = listened({'flow': lambda: helpers.linear(
        helpers.Read('r', world), helpers.Do('b', world))})
    made.run()
    assert 'undo b: done' in scribe.lines
    assert 'undo r' not in scribe.lines


def test_each_try_of_a_retry_is_told(listened, world):
    made, scribe = listened(examples.retrying(world))
    made.run()
    assert scribe.lines.count('execute c: failed') == 2
    assert scribe.lines[-1] == 'flow SUCCESS'
