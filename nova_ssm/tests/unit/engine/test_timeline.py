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

"""What the journal tells of when a flow did what."""

import itertools
import time

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import pytest

from nova_ssm.engine import exception
from nova_ssm.engine import queries
from nova_ssm.engine import serialization
from nova_ssm.engine import stopwatch
from nova_ssm.engine import timeline
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers


def told(made):
    """A timeline as lines of text."""
    return ['%s %s%s%s' % (
        span.what, span.task, ' failed' if span.failed else '',
        '' if span.exact else ' somewhere') for span in made.spans]


def kill(process, flows, at, world):
    world.kill_at = at
    with pytest.raises(helpers.Killed):
        process(flows).run()


def test_tasks_in_their_order(process, world, db):
    outcome = process(examples.simple(world)).run()
    made = timeline.read(db, outcome.uuid)
    assert told(made) == ['execute a', 'execute r somewhere', 'execute b',
                          'execute s somewhere', 'execute c']


def test_one_task_begins_when_the_one_before_has_ended(process, world, db):
    outcome = process(examples.simple(world)).run()
    made = timeline.read(db, outcome.uuid)
    own = [span for span in made.spans if span.exact]
    for before, after in itertools.pairwise(own):
        assert before.ended_at <= after.began_at <= after.ended_at
    assert made.began_at <= own[0].began_at
    assert made.ended_at >= own[-1].ended_at
    assert made.last == made.ended_at


def test_each_task_tells_how_long_it_took(process, world, db):
    """Also those that leave no row of their own."""
    outcome = process(examples.simple(world)).run()
    made = timeline.read(db, outcome.uuid)
    assert len(made.spans) == 5
    for span in made.spans:
        assert span.placed
        assert span.seconds == pytest.approx(
            span.ended_at - span.began_at, abs=2e-3)    # SQLite's clock
    for before, after in itertools.pairwise(made.spans):
        assert before.began_at <= after.began_at
        assert before.ended_at <= after.ended_at


def test_a_task_that_waits_took_longer_than_one_that_does_not(
        process, world, db, monkeypatch):
    call = world.call

    def slowly(what):
        if what == 'do b':
            time.sleep(0.2)
        call(what)

    monkeypatch.setattr(world, 'call', slowly)
    outcome = process(examples.simple(world)).run()
    took = {span.task: span.seconds
            for span in timeline.read(db, outcome.uuid).spans}
    assert took['b'] >= 0.2
    assert took['b'] > sum(took.values()) / 2


def test_undoing_is_measured_by_itself(process, world, db):
    outcome = process(examples.failing(examples.simple)(world)).run()
    made = timeline.read(db, outcome.uuid)
    for what in ('execute', 'undo'):
        [span] = [span for span in made.spans
                  if (span.task, span.what) == ('b', what)]
        assert span.seconds is not None


def test_what_the_first_releases_wrote_has_no_seconds(
        process, world, db, monkeypatch):
    monkeypatch.setattr(stopwatch.Stopwatch, 'seconds',
                        lambda self, name, state: None)
    outcome = process(examples.failing(examples.simple)(world)).run()
    made = timeline.read(db, outcome.uuid)
    assert {span.seconds for span in made.spans} == {None}
    first = made.spans[0]
    assert first.began_at == made.began_at
    [reads] = [span for span in made.spans if span.task == 'r']
    assert not reads.placed
    [b] = [span for span in made.spans
           if (span.task, span.what) == ('b', 'execute')]
    assert reads.began_at <= reads.ended_at <= b.ended_at


def test_a_failure_has_its_whole_cause(process, world, db):
    outcome = process(examples.failing(examples.simple)(world)).run()
    [failure] = timeline.read(db, outcome.uuid).failures
    assert (failure.task, failure.what) == ('c', 'execute')
    assert failure.cause.endswith(type(outcome.failure).__name__)
    assert failure.message == str(outcome.failure)
    assert 'Traceback (most recent call last)' in failure.traceback
    assert failure.message in failure.traceback


def test_a_failed_undoing_has_its_cause_too(process, world, db):
    world.failing['undo b'] = ValueError('b stays')
    outcome = process(examples.failing(examples.simple)(world)).run()
    first, second = timeline.read(db, outcome.uuid).failures
    assert (first.task, second.task) == ('c', 'b')
    assert (second.what, second.message) == ('undo', 'b stays')


def test_each_failed_try_has_its_cause(process, world, db):
    outcome = process(examples.retrying(world)).run()
    failures = timeline.read(db, outcome.uuid).failures
    assert [failure.task for failure in failures] == ['c', 'c']


def test_a_failure_is_told_without_the_secrets_of_its_flow(
        process, world, db):
    world.failing['do c'] = ValueError('no login with swordfish-77')
    outcome = process(examples.simple(world)).run(
        password=serialization.Secret('swordfish-77'))
    [failure] = timeline.read(db, outcome.uuid).failures
    assert failure.message == 'no login with ***'
    assert 'swordfish' not in failure.traceback


def test_a_failure_and_what_was_undone(process, world, db):
    outcome = process(examples.failing(examples.simple)(world)).run()
    assert told(timeline.read(db, outcome.uuid))[-4:] == [
        'execute c failed', 'undo c', 'undo b', 'undo a']


def test_a_revert_that_failed(process, world, db):
    world.failing['undo b'] = ValueError('b stays')
    outcome = process(examples.failing(examples.simple)(world)).run()
    assert 'undo b failed' in told(timeline.read(db, outcome.uuid))


def test_each_try_is_there(process, world, db):
    outcome = process(examples.retrying(world)).run()
    lines = told(timeline.read(db, outcome.uuid))
    assert lines.count('execute b') == 3
    assert lines.count('undo b') == 2
    assert lines.count('execute c failed') == 2
    assert lines[-1] == 'execute c'


def test_one_that_was_begun_and_has_not_ended(process, world, db):
    """Of a task that runs once, the journal has the beginning."""
    flows = {'flow': lambda: helpers.linear(helpers.Once('o', world))}
    kill(process, flows, 2, world)
    [info] = queries.flows(db)
    [span] = timeline.read(db, info.uuid).spans
    assert (span.task, span.ended_at) == ('o', None)


def test_its_end_goes_on_with_its_beginning(process, world, db):
    flows = {'flow': lambda: helpers.linear(helpers.Once('o', world))}
    outcome = process(flows).run()
    [span] = timeline.read(db, outcome.uuid).spans
    assert span.began_at <= span.ended_at


def test_who_had_it_and_that_nobody_did(process, world, db, url):
    kill(process, examples.simple(world), 4, world)
    helpers.expire_leases(url)
    made = process(examples.simple(world))
    [outcome] = made.resume_all()
    first, nobody, second = timeline.read(db, outcome.uuid).holds
    assert nobody.writer is None
    assert first.writer != second.writer == made.runner.worker.id
    assert first.ended_at == nobody.began_at
    assert nobody.ended_at == second.began_at <= second.ended_at


def test_one_that_goes_on_has_no_end(process, world, db):
    kill(process, examples.simple(world), 4, world)
    [info] = queries.flows(db)
    made = timeline.read(db, info.uuid)
    assert made.ended_at is None
    assert made.holds[-1].ended_at is None
    assert made.last >= made.began_at


def test_one_that_nobody_has_taken_has_no_holder(process, world, db):
    made = process(examples.simple(world))
    made.runner.suspend()
    outcome = made.run()
    read = timeline.read(db, outcome.uuid)
    assert (read.holds, read.spans) == ([], [])
    assert read.began_at > 0


def test_a_damaged_journal_is_named(process, world, db):
    outcome = process(examples.simple(world)).run()
    with db.transaction() as connection:
        connection.exec_driver_sql(
            "UPDATE ssm_journal SET payload = 'x' WHERE kind = 'atom'")
    with pytest.raises(exception.DamagedJournal, match=outcome.uuid):
        timeline.read(db, outcome.uuid)


def test_what_the_flow_was_given_is_not_read(process, world, db):
    """It holds secrets, and is of no use here."""
    outcome = process(examples.simple(world)).run()
    with db.transaction() as connection:
        connection.exec_driver_sql(
            "UPDATE ssm_journal SET payload = 'x' WHERE kind = 'start'")
    assert timeline.read(db, outcome.uuid).spans


@settings(max_examples=15, deadline=None)
@given(point=strategies.integers(min_value=1, max_value=20))
def test_wherever_it_was_killed_each_effect_is_there_once(
        tmp_path_factory, point):
    """A task whose row was written has not run a second time."""
    url = 'sqlite:///%s' % (tmp_path_factory.mktemp('t') / 'journal.db')
    timeline.database.upgrade(url)
    world = helpers.World()
    world.kill_at = point
    flows = examples.simple(world)
    try:
        helpers.Process(url, world, flows).run()
    except helpers.Killed:
        helpers.expire_leases(url)
        helpers.Process(url, world, flows).resume_all()
    db = helpers.MortalDatabase.shared.pop(url)
    [info] = queries.flows(db)
    lines = told(timeline.read(db, info.uuid))
    assert [line for line in lines if 'somewhere' not in line] == [
        'execute a', 'execute b', 'execute c']
    db.close()


def test_it_can_be_read_up_to_the_last_takeover(process, world, db, url):
    """For who is told of the rest."""
    kill(process, examples.simple(world), 5, world)
    helpers.expire_leases(url)
    [outcome] = process(examples.simple(world)).resume_all()
    whole = timeline.read(db, outcome.uuid)
    before = timeline.read(db, outcome.uuid, before_claim=True)
    assert told(before) == told(whole)[:len(before.spans)]
    assert 0 < len(before.spans) < len(whole.spans)
    assert len(before.holds) == 1


def test_one_that_was_never_taken_over_is_read_wholly(process, world, db):
    outcome = process(examples.simple(world)).run()
    assert timeline.read(db, outcome.uuid, before_claim=True) == (
        timeline.read(db, outcome.uuid))
