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

"""A conductor dies between any two words to the board and the database.

Each of TaskFlow's boards, and the journal, know nothing of each other. So in
each test the conductor is killed at one of the points between them, in the
life of one flow; then another one has to find the flow, end it, and leave the
board empty.
"""

import pytest
from taskflow.patterns import linear_flow

from nova_ssm.engine.coordination import holding
from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import jobboard
from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm.engine import registry
from nova_ssm.engine import schema
from nova_ssm.engine import states
from nova_ssm.engine import task
from nova_ssm.tests.boards import processes

KINDS = ('zookeeper', 'etcd', 'redis')
#: What is said to the board in the life of a flow, and to the database.
WORDS = [(holding.Claims, 'post'), (holding.Claims, 'claim'),
         (holding.Claims, 'consume'), (jobboard.SQLJobBoard, 'start')]
RESUMING = [(holding.Claims, 'claim'), (jobboard.SQLJobBoard, 'claim'),
            (holding.Claims, 'consume')]


class Killed(BaseException):
    """What a killed process does: nothing any more."""


class Point:
    """Kills one process before or after one word that it says."""

    def __init__(self, monkeypatch, victim, where, name, after):
        self.victim = victim
        self.reached = self.dead = False
        for owner, word in {*WORDS, *RESUMING, (holding.Claims, 'abandon'),
                            (holding.Claims, 'extend'),
                            (jobboard.SQLJobBoard, 'release')}:
            self._wrap(monkeypatch, owner, word,
                       (owner, word) == (where, name), after)

    def _wrap(self, monkeypatch, owner, word, here, after):
        original = getattr(owner, word)

        def said(board, *args, **kwargs):
            if not self._is_victims(board):
                return original(board, *args, **kwargs)
            if self.dead:
                raise Killed()
            if here and not after:
                self._die()
            result = original(board, *args, **kwargs)
            if here:
                self._die()
            return result

        monkeypatch.setattr(owner, word, said)

    def _is_victims(self, board):
        return board in (self.victim.board._claims, self.victim.board.sql)

    def _die(self):
        self.reached = self.dead = True
        raise Killed()


@pytest.fixture(params=KINDS)
def board_kind(request):
    return request.param


class Effects(list):
    """What the tasks have done."""


class Do(task.Task):
    """Note what it does."""

    def __init__(self, name, effects):
        super().__init__(name=name)
        self.effects = effects

    def execute(self):
        self.effects.append(self.name)


class Spawn(journal.Spawn):
    """Post a child."""

    def execute(self):
        return [journal.FlowRequest(name='flow', store={})]


@pytest.fixture
def effects():
    return Effects()


@pytest.fixture
def conductor(place, effects):
    """Makes conductors that do what they are told, and no more."""
    made = []

    def make(host, lease=60.0):
        flows = registry.Registry()
        flows.add(registry.FlowType('flow', '1.0', lambda: linear_flow.Flow(
            'flow').add(Do('a', effects), Do('b', effects))))
        flows.add(registry.FlowType('parent', '1.0', lambda: linear_flow.Flow(
            'parent').add(Do('p', effects), Spawn(name='spawn'))))
        one = place.runner(flows, host, lease)
        assert one.worker.id
        made.append(one)
        return one

    yield make
    for one in made:
        one.close(patience=0)


def die(place, one):
    """What becomes of a killed conductor: no lease, and no claims."""
    db = database.Database(place.url)
    with db.transaction() as connection:
        connection.execute(schema.workers.delete().where(
            schema.workers.c.id == one.worker.id))
    db.close()


def finish(place, dead, other):
    """Let another conductor do what there is to be done."""
    die(place, dead)
    other.board.evict(dead.worker.id)

    def over():
        for job in other.board.free_jobs(other.worker.id):
            other.resume(job)
        return not place.posted(other.board)

    processes.until(over)


def ends(place):
    db = database.Database(place.url)
    found = sorted((flow.name, flow.state) for flow in queries.flows(db))
    db.close()
    return found


@pytest.mark.parametrize('after', (False, True), ids=('before', 'after'))
@pytest.mark.parametrize('where, name', WORDS,
                         ids=[word for _owner, word in WORDS])
def test_killed_beside_a_word_of_a_flow_that_runs(
        place, conductor, effects, monkeypatch, where, name, after):
    one, other = conductor('one'), conductor('other')
    point = Point(monkeypatch, one, where, name, after)
    with pytest.raises(Killed):
        one.run(journal.FlowRequest(name='flow', store={}))
    assert point.reached
    finish(place, one, other)
    if (where, after) == (jobboard.SQLJobBoard, False):
        assert (ends(place), effects) == ([], [])   # it never was
    else:
        assert ends(place) == [('flow', states.SUCCESS)]
        assert effects == ['a', 'b']


@pytest.mark.parametrize('after', (False, True), ids=('before', 'after'))
@pytest.mark.parametrize('where, name', RESUMING,
                         ids=[word + owner.__name__
                              for owner, word in RESUMING])
@pytest.mark.parametrize('posted', (False, True), ids=('jobless', 'posted'))
def test_killed_beside_a_word_of_a_flow_that_is_resumed(
        place, conductor, effects, monkeypatch, where, name, after, posted):
    one, other = conductor('one'), conductor('other')
    request = journal.FlowRequest(name='flow', store={})
    # Without a job, as the children of a conductor that has died.
    (one.board if posted else one.board.sql).start(request, owner=None)
    [job] = list(one.board.free_jobs(one.worker.id))
    assert (job.posted is not None) == posted
    point = Point(monkeypatch, one, where, name, after)
    with pytest.raises(Killed):
        one.resume(job)
    assert point.reached
    finish(place, one, other)
    assert ends(place) == [('flow', states.SUCCESS)]
    assert effects == ['a', 'b']


@pytest.mark.parametrize('after', (False, True), ids=('before', 'after'))
@pytest.mark.parametrize('name', ('post', 'claim'))
def test_killed_beside_a_word_about_a_child(
        place, conductor, effects, monkeypatch, name, after):
    one, other = conductor('one'), conductor('other')
    spawned = []

    def committed(uuid, kind, atom, state):
        if atom == 'spawn':
            spawned.append(Point(
                monkeypatch, one, holding.Claims, name, after))

    one.after_commit = committed
    with pytest.raises(Killed):
        one.run(journal.FlowRequest(name='parent', store={}))
    assert spawned[0].reached
    finish(place, one, other)
    assert ends(place) == [('flow', states.SUCCESS),
                           ('parent', states.SUCCESS)]
    assert effects == ['p', 'a', 'b']


@pytest.mark.parametrize('name', ('post', 'claim', 'consume', 'abandon'))
def test_a_word_that_the_board_does_not_take_is_no_failure(
        place, conductor, effects, monkeypatch, name):
    """And what was not said then is said later, by whoever can."""
    one, other = conductor('one'), conductor('other')
    original, missed = getattr(holding.Claims, name), []

    def away(claims, *args):
        missed.append(name)
        raise exception.BoardUnusable('it is away')

    monkeypatch.setattr(holding.Claims, name, away)
    if name == 'abandon':
        request = journal.FlowRequest(name='flow', store={})
        one.board.start(request, one.worker.id)
        one.release(request.uuid, one.worker.id)
    else:
        outcome = one.run(journal.FlowRequest(name='flow', store={}))
        assert outcome.state == states.SUCCESS
    assert missed
    monkeypatch.setattr(holding.Claims, name, original)
    one.board.renew()
    finish(place, one, other)
    assert ends(place) == [('flow', states.SUCCESS)]
    assert effects == ['a', 'b']


def test_a_claim_that_the_server_has_lost_is_made_again(
        place, conductor, effects):
    one, other = conductor('one'), conductor('other')
    request = journal.FlowRequest(name='flow', store={})
    one.board.start(request, one.worker.id)
    assert other.board._claims.free(one.worker.id) == 1
    # Its owner is well: it is left to it for a while.
    assert list(other.board.free_jobs(other.worker.id)) == []
    one.board.renew()
    assert not one.board.holds(request.uuid)    # not without a look
    assert one.board.keep(request.uuid, one.worker.id)
    assert one.board.holds(request.uuid)
    assert [other.board._claims.owner(job)
            for job in other.board._claims.jobs()] == [one.worker.id]


def test_a_claim_that_is_not_made_again_is_made_by_another(
        place, conductor, effects):
    one, other = conductor('one'), conductor('other', lease=1.0)
    request = journal.FlowRequest(name='flow', store={})
    one.board.start(request, one.worker.id)
    other.board._claims.free(one.worker.id)

    def taken():
        other.worker.renew()
        return [other.resume(job)
                for job in other.board.free_jobs(other.worker.id)]

    [outcome] = processes.until(taken)
    assert outcome.state == states.SUCCESS
    assert not one.board.keep(request.uuid, one.worker.id) or (
        queries.flow(one.db, request.uuid).owner is None)


def test_a_board_that_was_emptied_is_filled_again(place, conductor, effects):
    one, other = conductor('one'), conductor('other')
    request = journal.FlowRequest(name='flow', store={})
    one.board.start(request, one.worker.id)
    [job] = other.board._claims.jobs()
    other.board._claims.free(one.worker.id)
    other.board._claims.retire(job, other.worker.id)
    assert place.posted(other.board) == 0
    one.board.renew()
    assert [holding.flow_of(job) for job in other.board._claims.jobs()] == [
        request.uuid]
    assert one.board.keep(request.uuid, one.worker.id)


def test_of_two_jobs_of_a_flow_one_is_taken_down(place, conductor, effects):
    one, other = conductor('one'), conductor('other')
    request = journal.FlowRequest(name='flow', store={})
    one.board.start(request, owner=None)
    other.board._claims.post(request.uuid, holding.Hold())
    [job] = list(one.board.free_jobs(one.worker.id))
    one.resume(job)
    finish(place, one, other)
    assert effects == ['a', 'b']
    assert ends(place) == [('flow', states.SUCCESS)]
