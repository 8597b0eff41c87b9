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
"""What is larger than a row is journaled in pieces, or told of in a test."""

import os

import hypothesis
from hypothesis import strategies as st
from oslo_db import exception as db_exc
import pytest
import sqlalchemy as sa

from nova_ssm.engine import exception
from nova_ssm.engine import queries
from nova_ssm.engine import rows
from nova_ssm.engine import schema
from nova_ssm.engine import stamps
from nova_ssm.tests.unit.engine import helpers

Do, Read = helpers.Do, helpers.Read


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A row holds little."""
    monkeypatch.setattr(rows, 'PIECE', 100)


def kinds(db, uuid):
    with db.transaction() as connection:
        return list(connection.execute(sa.select(schema.journal.c.kind).where(
            schema.journal.c.flow_uuid == uuid).order_by(
                schema.journal.c.seq)).scalars())


# -- rows ------------------------------------------------------------------

class Found:
    """A row as a database gives it."""

    def __init__(self, values):
        self.__dict__.update(values)


@hypothesis.settings(suppress_health_check=[
    hypothesis.HealthCheck.function_scoped_fixture])
@hypothesis.given(st.lists(st.one_of(st.none(), st.binary(max_size=450)),
                           max_size=4))
def test_what_was_cut_comes_back_whole(payloads):
    built = rows.build('flow', 7, 'me', [
        rows.Entry('atom', 'task %d' % number, 'SUCCESS', payload)
        for number, payload in enumerate(payloads)])
    assert [row['seq'] for row in built] == list(range(7, 7 + len(built)))
    assert all(len(row['payload'] or b'') <= rows.PIECE for row in built)
    assert len(built) == sum(
        1 if payload is None else
        -(-(len(payload) + stamps.SIZE) // rows.PIECE)
        for payload in payloads)
    back = rows.joined(map(Found, built))
    assert [(row.atom, row.payload) for row in back] == [
        ('task %d' % number, payload or b'')
        for number, payload in enumerate(payloads)]


@pytest.mark.parametrize('lost', [0, 1])
def test_a_piece_behind_a_missing_one_is_damage(lost):
    built = rows.build('flow', 0, 'me', [
        rows.Entry('start', payload=b'x' * 250)])
    del built[lost]
    with pytest.raises(exception.DamagedJournal, match='not there'):
        rows.joined(map(Found, built))


# -- flows -----------------------------------------------------------------

def large():
    return os.urandom(390).hex()


class Large(Do):
    """Give much."""

    def execute(self, **kwargs):
        super().execute(**kwargs)
        return self.world.large


def test_much_is_given_and_got_back_after_a_crash(process, world, url):
    world.large = large()
    flows = {'flow': lambda: helpers.linear(
        Large('a', world), Do('b', world))}
    given = large()
    world.kill_at = 5       # b is begun
    with pytest.raises(helpers.Killed):
        process(flows).run(given=given)
    helpers.expire_leases(url)
    two = process(flows)
    [outcome] = two.resume_all()
    assert outcome.state == 'SUCCESS'
    assert outcome.results['a'] == world.large
    assert outcome.results['given'] == given
    assert world.effects == ['a', 'b'] and world.doubled == []
    found = kinds(two.db, outcome.uuid)
    assert found.count('more') == 8
    assert [kind for kind in found if kind != 'more'] == [
        'start', 'atom', 'claim', 'atom', 'end']
    assert [step.kind for step in queries.steps(two.db, outcome.uuid)] == [
        'start', 'atom', 'claim', 'atom', 'end']
    assert set(queries.atoms(two.db, outcome.uuid)) == {'a', 'b'}


def test_it_costs_no_further_commit(process, world, url):
    world.large = large()
    one = process({'flow': lambda: helpers.linear(Large('a', world))})
    assert one.runner.worker
    said = helpers.Statements(helpers.shared(url))
    one.run(given=large())
    assert said.since() == {'INSERT': 3, 'UPDATE': 1, 'COMMIT': 2}


def test_children_may_be_given_much(process, world, url):
    class Parent(helpers.Spawn):
        def execute(self):
            found = super().execute()
            for child in found:
                child.store['large'] = large()
            return found

    one = process({'flow': lambda: helpers.linear(Parent('s', world)),
                   'child-0': lambda: helpers.linear(Do('k', world)),
                   'child-1': lambda: helpers.linear(Do('l', world))})
    outcome = one.run()
    assert [child.state for child in outcome.children] == ['SUCCESS'] * 2
    for child in outcome.children:
        assert kinds(one.db, child.uuid).count('more') > 3


@pytest.mark.parametrize('after', [False, True])
def test_pieces_are_written_all_or_none(process, world, url, own_db, after):
    world.large = large()
    one = process({'flow': lambda: helpers.linear(Large('a', world))})
    one.runner.db = one.board._db = own_db
    assert one.runner.worker
    original = world.make

    def make(name):
        original(name)
        helpers.Outage(own_db, [db_exc.DBConnectionError()], after=after)

    world.make = make
    outcome = one.run()
    assert outcome.state == 'SUCCESS'
    found = kinds(own_db, outcome.uuid)
    assert [kind for kind in found if kind != 'more'] == [
        'start', 'atom', 'end']


# -- in tests --------------------------------------------------------------

def test_a_task_that_gives_too_much_is_named_with_the_size(process, world):
    world.large = large()
    one = process({'flow': lambda: helpers.linear(
        Do('a', world), Large('b', world))})
    one.runner.largest = rows.PIECE
    outcome = one.run()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'b')
    assert isinstance(outcome.failure, exception.ResultTooLarge)
    assert str(outcome.failure).startswith(
        'task b of flow %s gives ' % outcome.uuid)
    assert 'more than 100:' in str(outcome.failure)
    assert world.effects == []


def test_what_many_tasks_give_together_is_not_too_much(process, world):
    class Some(Read):
        def execute(self):
            return os.urandom(25).hex()

    one = process({'flow': lambda: helpers.linear(
        *(Some('r%d' % number, world) for number in range(9)),
        Do('a', world))})
    one.runner.largest = rows.PIECE
    assert one.run().state == 'SUCCESS'
