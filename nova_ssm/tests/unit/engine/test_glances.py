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

"""Whether there is anything to be done, told by one statement."""

import pytest
import sqlalchemy as sa

from nova_ssm.engine import glances
from nova_ssm.engine import orphans
from nova_ssm.engine import schema
from nova_ssm.engine import transfers
from nova_ssm.engine import worker
from nova_ssm.tests.bench import filling
from nova_ssm.tests.unit.engine import helpers


@pytest.fixture
def filler(db):
    return filling.Filler(db)


def test_one_statement_tells_that_there_is_nothing(db, filler):
    living = filler.workers(3)
    filler.unfinished(12, list(living))
    filler.finished(5)
    said = helpers.Statements(db)
    seen = glances.glance(db, living)
    assert said.since() == {'SELECT': 1, 'COMMIT': 1}
    assert (seen.wanted, seen.free) == (False, False)
    assert seen.living == set(living)


def test_the_workers_are_those_that_are_registered(db, filler):
    filler.workers(2)
    filler.workers(1, lease=-1)
    found, known = (sorted(one, key=lambda one: one.id) for one in (
        glances.glance(db, ()).workers, worker.registered(db)))
    for one, other in zip(found, known, strict=True):
        assert (one.id, one.host, one.pid, one.process_started,
                one.expires_at, one.expired) == (
            other.id, other.host, other.pid, other.process_started,
            other.expires_at, other.expired)


@pytest.mark.parametrize('owner', ['nobody', 'dead', 'silent', 'unknown'])
def test_it_is_told_that_a_flow_is_free(db, filler, owner):
    living = filler.workers(2)
    [silent] = filler.workers(1, lease=-1)
    filler.unfinished(6, list(living))
    filler.unfinished(1, [{'nobody': None, 'dead': 'without a row',
                           'silent': silent, 'unknown': 'x'}[owner]])
    assert orphans.page(db, 10).rows
    assert glances.glance(db, living).free


def test_a_flow_is_free_as_soon_as_the_lease_of_its_owner_has_run_out(
        db, filler):
    """Its owner was alive at the last glance, and is skipped by this one."""
    mine, other = filler.workers(2)
    filler.unfinished(4, [mine, other])
    assert not glances.glance(db, {mine, other}).free
    with db.transaction() as connection:
        connection.execute(schema.workers.update().where(
            schema.workers.c.id == other).values(expires_at=0))
    assert glances.glance(db, {mine, other}).free


def test_who_has_come_since_the_last_glance_is_looked_at_once_more(
        db, filler):
    mine, other = filler.workers(2)
    filler.unfinished(2, [mine, other])
    seen = glances.glance(db, {mine})
    assert seen.free and seen.living == {mine, other}
    assert not glances.glance(db, seen.living).free


def test_what_is_over_is_nobodys(db, filler):
    living = filler.workers(1)
    filler.finished(4)
    with db.transaction() as connection:
        assert connection.execute(sa.select(schema.flows.c.uuid).where(
            schema.flows.c.owner.is_(None))).first()
    assert not glances.glance(db, living).free


def test_a_flow_that_is_known_to_wait_is_no_news(db, filler):
    living = filler.workers(2)
    filler.unfinished(2, [None])
    with db.transaction() as connection:
        one, other = connection.execute(
            sa.select(schema.flows.c.uuid)).scalars()
    assert glances.glance(db, living, {one}).free
    said = helpers.Statements(db)
    assert not glances.glance(db, living, {one, other}).free
    assert said.since() == {'SELECT': 1, 'COMMIT': 1}


def test_what_waits_does_not_hide_whose_owner_has_died(db, filler):
    [mine] = filler.workers(1)
    filler.unfinished(1, ['without a row'])
    with db.transaction() as connection:
        uuid = connection.execute(sa.select(schema.flows.c.uuid)).scalar()
    assert glances.glance(db, {mine}, {uuid}).free


def test_of_very_many_that_wait_only_some_are_left_out(
        db, filler, monkeypatch):
    """Rather look once too often than ask too long a question."""
    monkeypatch.setattr(glances, 'MOST_WAITING', 3)
    living = filler.workers(1)
    filler.unfinished(4, [None])
    with db.transaction() as connection:
        uuids = list(connection.execute(
            sa.select(schema.flows.c.uuid)).scalars())
    assert glances.glance(db, living, uuids).free


def test_a_flow_that_is_wanted_elsewhere_is_told_of(db, filler):
    mine, other = filler.workers(2)
    filler.unfinished(1, [mine])
    with db.transaction() as connection:
        uuid = connection.execute(sa.select(schema.flows.c.uuid)).scalar()
    transfers.ask(db, uuid, other)
    assert glances.glance(db, {mine, other}).wanted
    transfers.done(db, uuid)
    assert not glances.glance(db, {mine, other}).wanted


def test_where_nobody_is_registered_all_is_to_be_looked_at(db, filler):
    seen = glances.glance(db, ())
    assert (seen.workers, seen.wanted, seen.free) == ([], True, True)
