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

"""Which flows nobody runs, when there are many."""

import collections
import itertools

from hypothesis import given
from hypothesis import strategies as st
import pytest
import sqlalchemy as sa

from nova_ssm.engine import orphans
from nova_ssm.engine import schema
from nova_ssm.tests.bench import filling
from nova_ssm.tests.unit.engine import helpers

F = schema.flows.c


@pytest.fixture
def filler(db):
    return filling.Filler(db)


@pytest.fixture
def pages(monkeypatch):
    """Pages of ten flows, two of them in a look."""
    monkeypatch.setattr(orphans, 'PAGE', 10)
    monkeypatch.setattr(orphans, 'PAGES', 2)


def uuids(db, *conditions):
    with db.transaction() as connection:
        return set(connection.execute(
            sa.select(F.uuid).where(*conditions)).scalars())


def test_what_is_over_or_owned_by_who_lives_is_not_found(db, filler):
    [alive, other] = filler.workers(2)
    filler.unfinished(20, [alive, other])
    filler.finished(20)
    assert orphans.page(db, 100).rows == []
    assert list(orphans.every(db)) == []


def test_what_nobody_or_a_dead_worker_owns_is_found(db, filler):
    [alive] = filler.workers(1)
    [dead] = filler.workers(1, lease=-1)
    filler.unfinished(40, [alive, None, dead, 'a worker without a row'])
    filler.finished(20)
    found = orphans.page(db, 100)
    assert {row.uuid for row in found.rows} == uuids(
        db, F.finished_at.is_(None),
        sa.or_(F.owner.is_(None), F.owner != alive))
    assert (found.live, found.end) == ([alive], None)


def test_without_workers_all_that_is_not_over_is_found(db, filler):
    filler.unfinished(7, ['somebody', None])
    assert len(orphans.page(db, 100).rows) == 7


def test_the_oldest_of_each_owner_come_first(db, filler):
    filler.unfinished(30, [None, 'dead-1', 'dead-2'])
    rows = orphans.page(db, 100).rows
    owners = [owner for owner, _rows in itertools.groupby(
        row.owner for row in rows)]
    assert owners == [None, 'dead-1', 'dead-2']
    for owner in owners:
        times = [row.created_at for row in rows if row.owner == owner]
        assert times == sorted(times)


@pytest.mark.parametrize('size', (1, 7, 10, 30, 31))
def test_page_after_page_has_each_flow_once(db, filler, size):
    filler.unfinished(30, [None, 'dead-1', 'dead-2'])
    with db.transaction() as connection:
        # Also those that began at the same time.
        connection.execute(schema.flows.update().values(
            created_at=sa.func.round(F.created_at / 10)))
    found, after, turns = [], None, 0
    while turns == 0 or after is not None:
        page = orphans.page(db, size, after)
        assert len(page.rows) <= size
        found += [row.uuid for row in page.rows]
        after, turns = page.end, turns + 1
    assert len(found) == 30
    assert set(found) == uuids(db)


def test_every_one_of_them_is_read_only_as_far_as_it_is_asked_for(
        db, filler, pages):
    filler.unfinished(45, [None, 'dead'])
    said = helpers.Statements(db)
    flows = orphans.every(db)
    assert said.since() == {}
    first = list(itertools.islice(flows, 10))
    assert said.since()['SELECT'] <= 3
    assert {row.uuid for row in (*first, *flows)} == uuids(db)


def test_who_takes_nothing_comes_to_those_behind(db, filler, pages):
    """Ten thousand that no one here can run do not hide the next."""
    filler.unfinished(45, [None, 'dead'])
    looks = orphans.Looks(db)
    seen = [{row.uuid for row in looks.look('me')} for _number in range(3)]
    assert [len(one) for one in seen] == [20, 20, 5]
    assert set.union(*seen) == uuids(db)
    assert {row.uuid for row in looks.look('me')} == seen[0]


def test_who_has_no_hands_left_begins_there_again(db, filler, pages):
    filler.unfinished(45, [None, 'dead'])
    looks = orphans.Looks(db)
    one = next(looks.look('me'))
    assert next(looks.look('me')).uuid == one.uuid


def test_workers_begin_with_other_flows(db, filler):
    """Each has a share of its own, of about the same size."""
    workers = filler.workers(4)
    filler.unfinished(400, [None])
    page = orphans.page(db, 400)
    shares = [{row.uuid for row in page.share(one)} for one in workers]
    assert set.union(*shares) == uuids(db)
    assert sum(map(len, shares)) == 400
    assert min(map(len, shares)) > 50


def test_who_has_no_share_goes_another_way_than_the_others(db, filler):
    """Two that have nothing to do do not follow each other."""
    filler.unfinished(400, [None])
    page = orphans.page(db, 400)
    first = [{row.uuid for row in page.rest(one)[:40]}
             for one in ('one', 'two')]
    assert len(set.intersection(*first)) < 20


def test_what_others_have_taken_meanwhile_is_not_tried(db, filler):
    me, other = filler.workers(2)
    filler.unfinished(100, [None])
    share = {row.uuid for row in orphans.page(db, 100).share(me)}
    tried = []
    for row in orphans.Looks(db).look(me):
        if not tried:
            with db.transaction() as connection:
                connection.execute(schema.flows.update().where(
                    F.uuid.not_in(share)).values(owner=other))
        tried.append(row.uuid)
    assert set(tried) == share


@given(st.integers(1, 8), st.integers(0, 60), st.booleans())
def test_each_flow_is_in_one_share_or_the_other(workers, number, registered):
    Row = collections.namedtuple('Row', 'uuid')
    live = ['worker-%d' % index for index in range(workers)]
    page = orphans.Page([Row(str(index)) for index in range(number)], live,
                        None)
    me = live[-1] if registered else 'new'
    assert sorted(page.share(me) + page.rest(me)) == sorted(page.rows)
