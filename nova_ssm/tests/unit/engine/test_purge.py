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

"""What is over and old goes, little by little; nothing else does."""

import time

from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
from oslo_db import exception as db_exc
import pytest
import sqlalchemy as sa

from nova_ssm.engine import purge
from nova_ssm.engine import schema
from nova_ssm.tests.bench import filling
from nova_ssm.tests.unit.engine import helpers

F, J = schema.flows.c, schema.journal.c
DAY = 86400.0
WEEK = purge.Ages(7 * DAY, 90 * DAY)


@pytest.fixture
def filler(db):
    return filling.Filler(db)


def flow(db, uuid, days=None, state='SUCCESS', parent=None):
    """A flow that has been over for some days, or is not over."""
    began = time.time() - 1000 * DAY
    with db.transaction() as connection:
        connection.execute(schema.flows.insert().values(
            uuid=uuid, parent_uuid=parent, name='flow', version='1.0',
            state='RUNNING' if days is None else state, priority='NORMAL',
            generation=0, created_at=began, updated_at=began,
            finished_at=None if days is None else time.time() - days * DAY))
        for seq in range(3):
            connection.execute(schema.journal.insert().values(
                flow_uuid=uuid, seq=seq, kind='atom', writer='w',
                created_at=began, payload=b'x'))


def left(db):
    """The flows that are there; their rows are there with them."""
    with db.transaction() as connection:
        flows = set(connection.execute(sa.select(F.uuid)).scalars())
        rows = list(connection.execute(sa.select(J.flow_uuid)).scalars())
    assert sorted(rows) == sorted([*flows] * 3)
    return flows


def run(db, ages=WEEK, size=100):
    return list(purge.batches(db, ages, size))


def test_what_is_old_goes_with_its_rows(db):
    flow(db, 'old', days=8)
    flow(db, 'reverted', days=8, state='REVERTED')
    flow(db, 'young', days=6)
    flow(db, 'unfinished')
    assert run(db) == [2]
    assert left(db) == {'young', 'unfinished'}


def test_cases_for_people_stay_longer(db):
    flow(db, 'failed', days=89, state='FAILURE')
    flow(db, 'old failed', days=91, state='FAILURE')
    assert run(db) == [1]
    assert left(db) == {'failed'}


@pytest.mark.parametrize('ages, gone', (
    (purge.Ages(None, None), set()),
    (purge.Ages(DAY, None), {'done'}),
    (purge.Ages(None, DAY), {'failed'})))
def test_for_ever_is_for_ever(db, ages, gone):
    flow(db, 'done', days=5000)
    flow(db, 'failed', days=5000, state='FAILURE')
    run(db, ages)
    assert left(db) == {'done', 'failed'} - gone


def test_they_go_in_batches_the_oldest_first(db):
    for number in range(7):
        flow(db, 'flow-%d' % number, days=20 - number)
    batches = purge.batches(db, WEEK, size=3)
    assert next(batches) == 3
    assert left(db) == {'flow-%d' % number for number in range(3, 7)}
    assert list(batches) == [3, 1]
    assert left(db) == set()


def test_a_child_does_not_go_before_its_parent(db):
    flow(db, 'parent', days=6)
    flow(db, 'child', days=8, parent='parent')
    flow(db, 'grandchild', days=8, parent='child')
    flow(db, 'unfinished parent')
    flow(db, 'its child', days=8, parent='unfinished parent')
    flow(db, 'orphan', days=8, parent='gone')
    run(db)
    assert left(db) == {'parent', 'child', 'grandchild', 'unfinished parent',
                        'its child'}


def test_a_family_goes_in_one_batch(db):
    flow(db, 'grandchild', days=8, parent='child')
    flow(db, 'child', days=8.1, parent='parent')
    flow(db, 'parent', days=8.2)
    assert run(db) == [3]


def test_what_has_to_stay_does_not_hold_up_what_is_behind(db):
    flow(db, 'parent')
    for number in range(10):
        flow(db, 'child-%d' % number, days=30, parent='parent')
    flow(db, 'old', days=8)
    assert sum(run(db, size=3)) == 1
    assert 'old' not in left(db)


@settings(max_examples=25, deadline=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture])
@given(flows=st.lists(st.tuples(
    st.sampled_from((None, 1.0, 10.0, 10.0, 20.0, 100.0)),
    st.sampled_from(('SUCCESS', 'REVERTED', 'FAILURE')),
    st.none() | st.integers(0, 11)), max_size=12),
    size=st.integers(1, 5))
def test_only_what_is_old_goes_and_all_of_that_in_the_end(db, flows, size):
    with db.transaction() as connection:
        connection.execute(schema.flows.delete())
        connection.execute(schema.journal.delete())
    old = set()
    for number, (days, state, parent) in enumerate(flows):
        # A parent is posted before its children.
        parent = None if parent is None or parent >= number else parent
        flow(db, str(number), days, state,
             None if parent is None else str(parent))
        if days is not None and days > (90 if state == 'FAILURE' else 7):
            if parent is None or str(parent) in old:
                old.add(str(number))
    while sum(run(db, size=size)):
        pass
    assert left(db) == {str(n) for n in range(len(flows))} - old


#: What of flows is removed, in this order.
TABLES = ('ssm_flows', 'ssm_journal', 'ssm_orders')


def test_a_kill_in_a_batch_leaves_flows_with_all_their_rows(db, url):
    for number in range(6):
        flow(db, 'flow-%d' % number, days=20)
    mortal = helpers.MortalDatabase(url)
    original = mortal.transaction
    writes = []

    class Dying:
        """Dies when it deletes the journals of the second batch."""

        def __init__(self, connection):
            self.connection = connection

        def execute(self, statement):
            if statement.is_delete:
                writes.append(statement.table.name)
                if len(writes) == 5:
                    raise helpers.Killed()
            return self.connection.execute(statement)

    class Transaction:
        def __enter__(self):
            self.inner = original()
            return Dying(self.inner.__enter__())

        def __exit__(self, *error):
            return self.inner.__exit__(*error)

    mortal.transaction = Transaction
    with pytest.raises(helpers.Killed):
        run(mortal, size=2)
    assert writes == [*TABLES, *TABLES[:2]]
    assert len(left(db)) == 4
    assert sum(run(db)) == 4


def test_it_can_be_told_before_how_much_will_go(db):
    flow(db, 'a', days=8)
    flow(db, 'b', days=8, state='REVERTED')
    flow(db, 'c', days=1)
    flow(db, 'd', days=91, state='FAILURE')
    assert purge.count(db, WEEK) == {
        'SUCCESS': 1, 'REVERTED': 1, 'FAILURE': 1}
    assert len(left(db)) == 4


# -- who does it -------------------------------------------------------------

def test_the_worker_that_has_lived_longest_does_it(db, filler):
    [first, second] = filler.workers(2)
    with db.transaction() as connection:
        connection.execute(schema.workers.update().where(
            schema.workers.c.id == first).values(started_at=1))
    flow(db, 'old', days=8)
    assert purge.Purger(db, lambda: first, WEEK).round() == 0
    assert purge.Purger(db, lambda: second, WEEK).round() == 1
    assert left(db) == set()


def test_a_dead_worker_does_not_keep_the_others_from_it(db, filler):
    filler.workers(1, lease=-1)
    [living] = filler.workers(1)
    flow(db, 'old', days=8)
    assert purge.Purger(db, lambda: living, WEEK).round() == 1


def test_two_at_once_do_no_harm(db):
    for number in range(10):
        flow(db, 'flow-%d' % number, days=20)
    one, two = (purge.batches(db, WEEK, size=3) for _ in range(2))
    removed = []
    for pair in zip(one, two, strict=False):
        removed += pair
    removed += [*one, *two]
    assert sum(removed) == 10
    assert left(db) == set()


def test_it_goes_on_by_itself_after_trouble(db, own_db, filler, caplog):
    [me] = filler.workers(1)
    flow(db, 'old', days=8)
    helpers.Outage(own_db, [db_exc.DBConnectionError()])
    purger = purge.Purger(own_db, lambda: me, WEEK, interval=0.02)
    purger.start()
    deadline = time.monotonic() + 20
    while left(db) and time.monotonic() < deadline:
        time.sleep(0.02)
    purger.stop()
    assert left(db) == set()
    assert 'Removing old flows failed, trying again' in caplog.text


def test_it_stops_between_two_batches_when_it_is_told_to(
        db, filler, monkeypatch):
    [me] = filler.workers(1)
    for number in range(6):
        flow(db, 'flow-%d' % number, days=20)
    batches = purge.batches
    monkeypatch.setattr(purge, 'batches',
                        lambda db, ages: batches(db, ages, 2))
    purger = purge.Purger(db, lambda: me, WEEK)
    purger.stop()
    assert purger.round() == 2
    assert len(left(db)) == 4


# -- rows without a flow --------------------------------------------------

def stray(db, uuid, age=2 * purge.STRAY, rows=2):
    with db.transaction() as connection:
        for seq in range(rows):
            connection.execute(schema.journal.insert().values(
                flow_uuid=uuid, seq=seq, kind='atom', writer='w',
                created_at=time.time() - age, payload=b'x'))


def rows_of(db):
    with db.transaction() as connection:
        return sorted(connection.execute(sa.select(J.flow_uuid)).scalars())


def test_rows_of_flows_that_are_gone_go(db):
    flow(db, 'b', days=1)
    flow(db, 'd')
    for uuid in 'ace':
        stray(db, uuid)
    assert list(purge.strays(db)) == [6]
    assert left(db) == {'b', 'd'}
    assert list(purge.strays(db)) == [0]


def test_rows_are_looked_at_in_handfuls(db):
    for uuid in 'abcde':
        stray(db, uuid, rows=1)
    flow(db, 'cc')
    assert list(purge.strays(db, 2)) == [2, 1, 2]
    assert left(db) == {'cc'}


def test_rows_of_a_flow_that_begins_just_now_stay(db):
    stray(db, 'young', age=purge.STRAY - 60)
    assert list(purge.strays(db)) == [0]
    assert rows_of(db) == ['young'] * 2


def test_who_purges_looks_for_them_once_a_day(db, monkeypatch):
    monkeypatch.setattr(purge, 'eldest', lambda db: 'me')
    now = [1000.0]
    monkeypatch.setattr(purge.time, 'monotonic', lambda: now[0])
    purger = purge.Purger(db, lambda: 'me', WEEK)
    stray(db, 'first')
    purger.round()
    stray(db, 'second')
    purger.round()
    assert rows_of(db) == ['second'] * 2
    now[0] += purge.SWEEP + 1
    purger.round()
    assert rows_of(db) == []
