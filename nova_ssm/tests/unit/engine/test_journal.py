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

"""What is written of a flow, and what it costs."""

import json
import zlib

from oslo_db import exception as db_exc
import pytest
import sqlalchemy as sa
from taskflow.patterns import unordered_flow
from taskflow.persistence import models
from taskflow import states as taskflow_states

from nova_ssm.engine import boards
from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import failures
from nova_ssm.engine import journal
from nova_ssm.engine import records
from nova_ssm.engine import rows
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.engine import worker
from nova_ssm.tests.unit.engine import helpers

Do, Once, Read = helpers.Do, helpers.Once, helpers.Read
Deferred = helpers.Deferred

START = {'INSERT': 2, 'COMMIT': 1}
ONE_ROW = {'INSERT': 1, 'COMMIT': 1}
#: Of the last task, with the end of the flow; or of the end alone.
END = {'INSERT': 1, 'UPDATE': 1, 'COMMIT': 1}


# -- costs -----------------------------------------------------------------

@pytest.fixture
def cost(url, world):
    """What is said to the database for a flow of these tasks."""
    def of(*tasks, **flows):
        process = helpers.Process(
            url, world, {'flow': lambda: helpers.linear(*tasks), **flows})
        assert process.runner.worker
        said, steps = helpers.Statements(process.db), []
        after = process.runner.after_commit

        def after_commit(uuid, kind, atom, state):
            after(uuid, kind, atom, state)
            steps.append((kind, atom, said.since()))

        process.runner.after_commit = after_commit
        process.run()
        assert said.since() == {}
        return steps
    return of


def test_a_flow_costs_one_insert_and_one_commit_a_task_with_an_effect(
        cost, world):
    assert cost(*(Do('t%d' % i, world) for i in range(3))) == [
        ('start', None, START),
        ('atom', 't0', ONE_ROW), ('atom', 't1', ONE_ROW),
        ('atom', 't2', END), ('end', None, {})]


def test_a_flow_that_does_not_end_with_an_effect_ends_by_itself(cost, world):
    assert cost(Do('a', world), Read('r', world))[1:] == [
        ('atom', 'a', ONE_ROW), ('end', None, END)]


def test_the_end_waits_for_the_last_of_tasks_in_no_order(cost, world):
    steps = cost(unordered_flow.Flow('parts').add(
        Do('a', world), Do('b', world)))
    assert [step[2] for step in steps] == [START, ONE_ROW, END, {}]


def test_a_task_that_only_reads_costs_nothing(cost, world):
    assert [step[1] for step in cost(
        Read('r', world), Do('a', world), Read('s', world))] == [
            None, 'a', None]


def test_a_task_may_say_afterwards_that_it_had_no_effect(cost, world):
    class Lazy(Do):
        def had_effect(self, result):
            return result != 'made a'

    assert [step[1] for step in cost(Lazy('a', world), Lazy('b', world))
            ] == [None, 'b', None]


def test_progress_costs_nothing(cost, world):
    class Works(Do):
        def execute(self):
            for i in range(10):
                self.update_progress(i / 10)
            return super().execute()

    assert cost(Works('a', world))[1:] == [
        ('atom', 'a', END), ('end', None, {})]


def test_a_task_that_runs_once_costs_one_row_more(cost, world):
    assert cost(Once('a', world))[1:] == [
        ('atom', 'a', ONE_ROW), ('atom', 'a', END), ('end', None, {})]


def test_a_deferred_task_costs_nothing(cost, world):
    assert cost(Deferred('a', world), Do('b', world), Deferred('c', world),
                Once('d', world))[1:] == [
        ('atom', 'b', ONE_ROW), ('atom', 'd', ONE_ROW), ('atom', 'd', END),
        ('end', None, {})]
    # But they are journaled: the next row has them.
    assert sorted(world.effects) == ['a', 'b', 'c', 'd']


def test_undoing_a_deferred_task_costs_one_row(cost, world):
    world.failing['do b'] = ValueError()
    assert cost(Deferred('a', world), Do('b', world))[1:] == [
        ('atom', 'b', ONE_ROW), ('atom', 'b', ONE_ROW),
        ('atom', 'a', ONE_ROW), ('end', None, END)]


def test_a_failure_and_each_undoing_cost_one_row(cost, world):
    world.failing['do c'] = ValueError()
    steps = cost(Do('a', world), Read('r', world), Do('c', world))
    assert steps[1:] == [
        ('atom', 'a', ONE_ROW), ('atom', 'c', ONE_ROW),
        ('atom', 'c', ONE_ROW), ('atom', 'a', ONE_ROW), ('end', None, END)]


def test_children_are_posted_in_the_transaction_of_their_parents_task(
        cost, world):
    steps = cost(helpers.Spawn('s', world, children=2),
                 **{'child-%d' % i: lambda: helpers.linear(Read('r', world))
                    for i in range(2)})
    # The parent's rows, the children, and their first rows; the parent ends.
    assert steps[1] == ('atom', 's', {
        'INSERT': 3, 'UPDATE': 1, 'COMMIT': 1})
    assert [step[0] for step in steps] == [
        'start', 'atom', 'end', 'end', 'end']


# -- one log ---------------------------------------------------------------

class Given:
    """A log of a flow, and what is in its journal."""

    def __init__(self, db, world, *tasks):
        self.db = db
        self.serializer = serialization.Serializer()
        self.worker = worker.Worker(db, 'host', 60)
        self.worker.renew()
        self.request = journal.FlowRequest(name='flow', store={})
        packed = journal.pack_request(self.serializer, self.request)
        db.write(lambda connection: journal.insert_flows(
            connection, [(self.request, packed)], self.worker.id))
        self.log = self.another()
        self.log.tasks = {task.name: task for task in tasks}
        self.details = {task.name: models.TaskDetail(task.name, task.name)
                        for task in tasks}
        for detail in self.details.values():
            detail.version = '1.0'

    def another(self, worker_=None, next_seq=1):
        return journal.FlowLog(
            self.db, self.serializer, self.request.uuid,
            worker_ or self.worker, boards.Board(), next_seq=next_seq)

    def note(self, name, state, **values):
        detail = self.details[name]
        detail.state = getattr(taskflow_states, state)
        for key, value in values.items():
            setattr(detail, key, value)
        self.log.note(detail)

    def rows(self):
        with self.db.transaction() as connection:
            return [(row.seq, row.kind, row.atom, row.state)
                    for row in connection.execute(sa.select(
                        schema.journal).order_by(schema.journal.c.seq))]

    def payload(self, seq):
        with self.db.transaction() as connection:
            return json.loads(zlib.decompress(connection.execute(
                sa.select(schema.journal.c.payload).where(
                    schema.journal.c.seq == seq,
                    schema.journal.c.flow_uuid == self.request.uuid)
            ).scalar()))


@pytest.fixture
def given(url, world):
    # A database of its own: the tests break its transactions.
    fresh = database.Database(url, sqlite_synchronous=False)
    yield Given(fresh, world, Do('a', world), Read('r', world),
                Once('o', world), helpers.Spawn('s', world))
    fresh.close()


def test_what_waits_goes_with_the_next_row(given):
    given.note('r', 'SUCCESS', results='read')
    given.note('r', 'SUCCESS', intention='REVERT')
    assert given.rows() == [(0, 'start', None, None)]
    given.note('a', 'SUCCESS', results='made')
    assert given.rows()[1:] == [(1, 'atom', 'a', 'SUCCESS')]
    written = given.payload(1)
    # What is so of nearly every task is not written.
    assert written == {'r': {'results': 'read', 'intention': 'REVERT'},
                       'a': {'results': 'made'}}
    given.note('a', 'SUCCESS', intention='REVERT')
    given.note('a', 'REVERTED')
    assert 'r' not in given.payload(2)


def test_a_result_is_written_as_it_was_when_the_task_ended(given):
    result = ['read']
    given.note('r', 'SUCCESS', results=result)
    result.append('changed')
    given.note('a', 'SUCCESS', results='made')
    assert given.payload(1)['r']['results'] == ['read']


def test_the_start_of_a_task_that_runs_once_is_written_once_an_attempt(
        given):
    given.note('o', 'RUNNING')
    given.note('o', 'RUNNING')
    given.note('o', 'FAILURE', failure=failures.to_failure(ValueError()))
    given.note('o', 'PENDING')
    given.note('o', 'RUNNING')
    assert [row[3] for row in given.rows()[1:]] == [
        'RUNNING', 'FAILURE', 'RUNNING']


def test_a_second_writer_meets_the_row_of_the_first(given, db):
    other = worker.Worker(db, 'other', 60)
    other.renew()
    given.another(other).write([rows.Entry('claim')])
    with pytest.raises(exception.FlowLost, match='by another worker'):
        given.note('a', 'SUCCESS', results=1)
    assert [row[1] for row in given.rows()] == ['start', 'claim']


def test_a_second_run_in_the_same_process_meets_it_too(given):
    given.another().write([rows.Entry('claim')])
    with pytest.raises(exception.FlowLost):
        given.note('a', 'SUCCESS', results=1)


def test_a_row_that_was_committed_before_the_connection_broke_is_ours(given):
    helpers.Outage(given.db, [db_exc.DBConnectionError()], after=True)
    given.note('a', 'SUCCESS', results=1)
    given.note('a', 'REVERTED')
    assert [row[0] for row in given.rows()] == [0, 1, 2]


def test_an_end_that_was_committed_before_the_connection_broke_is_ours(
        given, url):
    helpers.Outage(given.db, [db_exc.DBConnectionError()], after=True)
    given.log.end('SUCCESS')
    assert helpers.state_of(url, given.request.uuid) == ('SUCCESS', None)


def test_a_flow_that_was_taken_away_is_not_ended(given, url):
    with given.db.transaction() as connection:
        connection.execute(schema.flows.update().values(owner='other'))
    with pytest.raises(exception.FlowLost, match='taken away'):
        given.log.end('SUCCESS')
    assert helpers.state_of(url, given.request.uuid) == ('RUNNING', 'other')
    assert len(given.rows()) == 1


def test_children_and_the_row_of_their_parent_come_together_or_not_at_all(
        given):
    children = [journal.FlowRequest(name='x' * 10, store={}, uuid='same')
                for _ in range(2)]
    with pytest.raises(exception.FlowLost):
        given.note('s', 'SUCCESS', results=children)
    assert given.rows() == [(0, 'start', None, None)]
    with given.db.transaction() as connection:
        assert connection.execute(sa.select(
            schema.flows.c.uuid)).scalars().all() == [given.request.uuid]


def test_a_refused_row_is_not_waited_for(given):
    helpers.Outage(given.db, [db_exc.DBDataError('too long')])
    with pytest.raises(exception.JournalBroken, match='too long'):
        given.note('a', 'SUCCESS', results=1)


def test_nobody_waits_for_the_database_when_the_process_is_to_stop(given):
    helpers.Outage(given.db, [db_exc.DBConnectionError()] * 5)
    given.worker.suspend()
    with pytest.raises(exception.JournalBroken):
        given.note('a', 'SUCCESS', results=1)


def test_no_step_begins_when_the_process_is_to_stop(given):
    given.worker.suspend()
    with pytest.raises(exception.FlowSuspended):
        given.note('a', 'RUNNING')
    # But one that has ended is written.
    given.note('a', 'SUCCESS', results=1)


def test_ownership_is_asked_for_once_a_lapse(given):
    said = helpers.Statements(given.db)
    given.note('a', 'RUNNING')
    assert said.since() == {'SELECT': 1, 'COMMIT': 1}
    given.note('r', 'RUNNING')
    assert said.since() == {}
    given.worker.lapses += 1
    given.note('r', 'REVERTING')
    assert said.since() == {'SELECT': 1, 'COMMIT': 1}


def test_the_summary_is_text_that_every_database_takes(given):
    text = records.summary(
        ('task', ValueError('a\0b \ud800' + 'x' * 10000)))
    assert text.startswith('task: ValueError: a b ?xxx')
    assert len(text) == 4000
    assert '\0' not in text


@pytest.mark.parametrize('cls', [models.TaskDetail, models.RetryDetail])
def test_what_is_restored_is_what_was_noted(cls):
    detail = cls('a', 'some uuid')
    detail.state, detail.intention = 'SUCCESS', 'REVERT'
    detail.results = [('x', {})]
    detail.version = '1.0'
    record = records.take(detail)
    assert records.full(records.compact(record)) == record
    # As the first releases wrote it.
    assert records.full(record) == record
    back = records.restore('a', record)
    assert type(back) is cls
    assert back.version == '1.0'
    assert (back.name, back.state, back.intention, back.results) == (
        'a', 'SUCCESS', 'REVERT', [('x', {})])
