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

"""Children of a flow that are run side by side."""

import threading

import pytest
import sqlalchemy as sa

from nova_ssm.engine import abreast
from nova_ssm.engine import exception
from nova_ssm.engine import journal
from nova_ssm.engine import runner
from nova_ssm.engine import schema
from nova_ssm.engine import task
from nova_ssm.tests.unit.engine import helpers

SUCCESS, REVERTED = 'SUCCESS', 'REVERTED'
COUNT = 4


class Spawn(journal.Spawn):
    """Post children that are told their numbers."""

    def execute(self):
        return [journal.FlowRequest(name='child', store={'number': number})
                for number in range(COUNT)]


class Step(task.Task):
    """Do what the test says with the number of the child."""

    def __init__(self, name, work, undo=None):
        super().__init__(name=name)
        self._work, self._undo = work, undo

    def execute(self, number):
        self._work(number)

    def revert(self, number, result, flow_failures):
        if self._undo is not None:
            self._undo(number)


@pytest.fixture
def family(process):
    """Makes a process with a parent, and children that do some work."""
    made = []

    def make(*works, undo=None):
        one = process({
            'flow': lambda: helpers.linear(Spawn('spawn')),
            'child': lambda: helpers.linear(*(
                Step('step%d' % number, work, undo)
                for number, work in enumerate(works)))})
        one.runner._helpers = abreast.Helpers(COUNT)
        made.append(one)
        return one

    yield make
    for one in made:
        one.runner._helpers.close()


def test_children_run_side_by_side(family, url):
    together = threading.Barrier(COUNT, timeout=60)
    outcome = family(lambda number: together.wait()).run()
    assert [child.state for child in outcome.children] == [SUCCESS] * COUNT
    assert set(helpers.state_of(url).values()) == {SUCCESS}


def test_their_outcomes_come_in_the_order_in_which_they_were_posted(family):
    last = threading.Event()

    def work(number):
        if number == COUNT - 1:
            last.set()
        assert last.wait(60), 'the first ends after the last'

    outcome = family(work).run()
    assert [child.results['number'] for child in outcome.children] == list(
        range(COUNT))


def test_the_first_that_failed_is_the_one_that_is_raised(family):
    third = threading.Event()

    def work(number):
        if number == 2:
            third.set()
            raise KeyError('third')
        if number == 1:
            assert third.wait(60)
            raise LookupError('second')

    undone = []
    outcome = family(work, undo=undone.append).run()
    assert [child.state for child in outcome.children] == [
        SUCCESS, REVERTED, REVERTED, SUCCESS]
    assert sorted(undone) == [1, 2], 'sisters are left alone'
    with pytest.raises(LookupError, match='second'):
        outcome.reraise()


def test_who_is_stopped_meanwhile_hands_all_of_them_over(family):
    begun = threading.Barrier(COUNT + 1, timeout=60)
    stopped = threading.Event()
    done = []

    def first(number):
        begun.wait()
        assert stopped.wait(60)
        done.append(('first', number))

    def second(number):
        done.append(('second', number))

    one = family(first, second)
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(one.run()))
    thread.start()
    begun.wait()
    one.runner.suspend()
    stopped.set()
    thread.join()
    [outcome] = outcomes
    assert [child.state for child in outcome.children] == [
        runner.LOST] * COUNT
    assert sorted(done) == [('first', n) for n in range(COUNT)]
    # Nobody has to wait for a lease.
    other = family(first, second)
    assert [found.state for found in other.resume_all()] == [SUCCESS] * COUNT
    assert sorted(done) == sorted(
        (name, n) for name in ('first', 'second') for n in range(COUNT))


def test_one_that_is_taken_away_ends_alone(family, url):
    begun = threading.Barrier(COUNT + 1, timeout=60)
    taken = threading.Event()
    done = []

    def first(number):
        begun.wait()
        assert taken.wait(60)

    one = family(first, done.append)
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(one.run()))
    thread.start()
    begun.wait()
    uuid = take_one(url)
    next(held for held in one.runner.held().values()
         if held.uuid == uuid).lapses = None    # it asks
    taken.set()
    thread.join()
    [outcome] = outcomes
    by_uuid = {child.uuid: child.state for child in outcome.children}
    assert by_uuid.pop(uuid) == runner.LOST
    assert set(by_uuid.values()) == {SUCCESS}
    assert len(done) == COUNT - 1


def take_one(url):
    """Give one of the children to another worker."""
    c = schema.flows.c
    with helpers.shared(url).transaction() as connection:
        uuid = connection.execute(sa.select(c.uuid).where(
            c.name == 'child')).scalars().first()
        connection.execute(schema.flows.update().where(
            c.uuid == uuid).values(owner='other'))
    return uuid


def test_a_process_that_ends_in_one_leaves_those_that_have_not_begun(
        family, url):
    ended = []

    def work(number):
        if number == 0:
            raise SystemExit(1)
        ended.append(number)

    one = family(work)
    one.runner._helpers = abreast.Helpers(2)
    with pytest.raises(SystemExit):
        one.run()
    # What was under way beside it has come to its end, the rest is free.
    left = family(lambda number: ended.append(number))
    assert {found.state for found in left.resume_all()} == {SUCCESS}
    assert sorted(ended) == list(range(COUNT))


def test_a_journal_that_breaks_is_reported_once_all_have_ended(
        family, monkeypatch):
    original = journal.FlowLog.write

    def write(self, *args, **kwargs):
        if 'step0' in self.tasks:
            raise exception.JournalBroken('no')
        return original(self, *args, **kwargs)

    monkeypatch.setattr(journal.FlowLog, 'write', write)
    one = family(lambda number: None)
    with pytest.raises(exception.DatabaseUnusable):
        one.run()
    assert one.runner.held() == {}
    monkeypatch.undo()
    assert {found.state for found in one.resume_all()} == {SUCCESS}


def test_children_that_have_children_do_not_wait_for_each_other(
        process, url):
    done = []
    one = process({
        'flow': lambda: helpers.linear(Spawn('spawn')),
        'child': lambda: helpers.linear(Again('again')),
        'grandchild': lambda: helpers.linear(
            Step('step', lambda number: done.append(number)))})
    one.runner._helpers = abreast.Helpers(2)
    assert one.run().state == SUCCESS
    assert sorted(done) == sorted(list(range(COUNT)) * COUNT)
    one.runner._helpers.close()


class Again(journal.Spawn):
    """Post children once more."""

    def execute(self, number):
        return [journal.FlowRequest(name='grandchild', store={'number': n})
                for n in range(COUNT)]
