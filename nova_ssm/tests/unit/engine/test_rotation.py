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

"""Secrets are put under another key, beside running workers."""

from cryptography import fernet
import pytest
import sqlalchemy as sa

from nova_ssm.engine import exception
from nova_ssm.engine import loading
from nova_ssm.engine import rotation
from nova_ssm.engine import rows
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

OLD = helpers.KEY
NEW, OTHER = (fernet.Fernet.generate_key().decode() for _ in range(2))


class Gives(helpers.Do):
    """Provides a secret."""

    def execute(self, **kwargs):
        super().execute(**kwargs)
        return serialization.Secret('lion')


@pytest.fixture
def conductor(url, world):
    """A conductor with these keys, and a flow that needs its secret."""
    def make(*keys):
        return helpers.Process(url, world, {'flow': lambda: helpers.linear(
            Gives('a', world), helpers.Do('b', world),
            examples.UsesPassword('c', world))}, keys=keys)
    return make


def begun(conductor, world, *keys):
    """A flow that was killed when it had done its first task."""
    world.kill_at = world.points + 4
    one = conductor(*keys)
    with pytest.raises(helpers.Killed):
        one.run(password=serialization.Secret('tiger'))
    world.kill_at = None
    return one


def rotate(db, *keys, **kwargs):
    return rotation.rotate(db, serialization.Vault(keys), **kwargs)


def payloads(db):
    with db.transaction() as connection:
        return connection.execute(sa.select(schema.journal.c.payload).where(
            schema.journal.c.payload.is_not(None)).order_by(
                schema.journal.c.flow_uuid,
                schema.journal.c.seq)).scalars().all()


def test_the_old_key_can_be_taken_out_afterwards(conductor, world, db, url):
    begun(conductor, world, OLD)
    done = rotate(db, NEW, OLD)
    assert (done.looked_at, done.changed) == (2, 2)
    assert (done.closed, done.unreadable) == ({}, [])
    helpers.expire_leases(url)
    [outcome] = conductor(NEW).resume_all()
    assert outcome.state == 'SUCCESS'
    assert 'password tiger' in world.calls


def test_without_rotation_it_cannot(conductor, world, db, url):
    begun(conductor, world, OLD)
    helpers.expire_leases(url)
    [outcome] = conductor(NEW).resume_all()
    assert isinstance(outcome.failure, exception.SecretUnavailable)
    assert 'none of the [ssm] encryption_keys' in str(outcome.failure)


def test_it_is_done_once(conductor, world, db):
    begun(conductor, world, OLD)
    rotate(db, NEW, OLD)
    before = payloads(db)
    assert rotate(db, NEW, OLD).changed == 0
    assert rotate(db, NEW).changed == 0
    assert payloads(db) == before


def test_flows_that_are_over_are_left_unless_asked_for(
        conductor, world, db):
    conductor(OLD).run(password=serialization.Secret('tiger'))
    before = payloads(db)
    assert rotate(db, NEW, OLD) == rotation.Rotated()
    assert payloads(db) == before
    done = rotate(db, NEW, OLD, finished=True)
    # The rows of b and c have no secret.
    assert (done.looked_at, done.changed) == (4, 2)


@pytest.mark.parametrize('batch', [1, 2, 3, 100])
def test_all_flows_are_found_in_batches(conductor, world, db, batch):
    for _time in range(3):
        begun(conductor, world, OLD)
    assert rotate(db, NEW, OLD, batch=batch).changed == 6
    assert rotate(db, NEW, batch=batch).closed == {}


def test_what_no_key_opens_is_told_of_and_left(conductor, world, db):
    uuid = begun(conductor, world, OTHER).rows and _only(db)
    begun(conductor, world, OLD)
    done = rotate(db, NEW, OLD)
    assert done.changed == 2
    assert done.closed == {uuid: 2}
    assert rotate(db, NEW, OTHER, OLD).changed == 2


def _only(db):
    with db.transaction() as connection:
        return connection.execute(sa.select(schema.flows.c.uuid)).scalar_one()


def test_a_damaged_flow_keeps_no_other_from_it(conductor, world, db):
    for _time in range(2):
        begun(conductor, world, OLD)
    damaged = min(_uuids(db))
    with db.transaction() as connection:
        connection.execute(schema.journal.update().where(
            schema.journal.c.flow_uuid == damaged,
            schema.journal.c.seq == 0).values(payload=b'damaged'))
    done = rotate(db, NEW, OLD)
    assert (done.changed, done.unreadable) == (2, [damaged])


def _uuids(db):
    with db.transaction() as connection:
        return connection.execute(
            sa.select(schema.flows.c.uuid)).scalars().all()


def test_nothing_is_journaled_without_a_key_so_nothing_is_rotated(
        conductor, world, db):
    begun(conductor, world)
    assert rotate(db, NEW).changed == 0


def test_what_changed_meanwhile_is_not_written_over(
        conductor, world, db, monkeypatch):
    """Two rotations at once: the later one finds nothing to change."""
    begun(conductor, world, OLD)
    expand = serialization.Serializer.expand
    quicker = []

    def other_first(data):
        if not quicker:
            quicker.append(True)
            quicker.append(rotate(db, NEW, OLD).changed)
        return expand(data)

    monkeypatch.setattr(serialization.Serializer, 'expand',
                        staticmethod(other_first))
    # The first row was read before, the second is read by both.
    assert rotate(db, NEW, OLD).changed == 0
    assert quicker == [True, 2]


def test_every_moment_of_a_rotation_may_be_the_last(
        conductor, world, db, url, monkeypatch):
    begun(conductor, world, OLD)
    write, writes = db.write, []

    def dies(*args, **kwargs):
        if writes:
            raise helpers.Killed()
        writes.append(True)
        return write(*args, **kwargs)

    monkeypatch.setattr(db, 'write', dies)
    with pytest.raises(helpers.Killed):
        rotate(db, NEW, OLD)
    monkeypatch.undo()
    helpers.expire_leases(url)
    # One row is under the new key, one under the old.
    loaded = loading.load(db, conductor(NEW, OLD).serializer, _only(db),
                          'flow')
    assert (loaded.missing, loaded.incomplete) == ({}, {})
    assert rotate(db, NEW, OLD).changed == 1


def test_a_flow_goes_on_while_its_rows_are_rotated(conductor, world, db):
    """At each of its rows."""
    one = conductor(NEW, OLD)
    changed = []
    one.runner.after_commit = lambda *args: changed.append(
        rotate(db, NEW, OLD).changed)
    begun_by_old = conductor(OLD).board.post(
        'flow', details={'password': serialization.Secret('tiger')})
    outcome = one.runner.resume(one.board.get(begun_by_old.uuid))
    assert outcome.state == 'SUCCESS'
    assert sum(changed) == 1
    assert rotate(db, NEW, finished=True).closed == {}


def test_what_is_too_large_for_a_row_is_rotated_as_one(
        conductor, world, db, url, monkeypatch):
    monkeypatch.setattr(rows, 'PIECE', 50)
    begun(conductor, world, OLD)
    before = payloads(db)
    assert len(before) > 4
    done = rotate(db, NEW, OLD)
    assert (done.looked_at, done.changed) == (2, 2)
    assert len(payloads(db)) == len(before)
    helpers.expire_leases(url)
    [outcome] = conductor(NEW).resume_all()
    assert outcome.state == 'SUCCESS'


def test_of_what_is_in_pieces_all_are_swapped_or_none(
        conductor, world, db, monkeypatch):
    monkeypatch.setattr(rows, 'PIECE', 50)
    uuid = begun(conductor, world, OLD).rows and _only(db)
    grouped = rows.grouped

    def changed_meanwhile(found):
        groups = grouped(found)
        with db.transaction() as connection:
            connection.execute(schema.journal.update().where(
                schema.journal.c.flow_uuid == uuid,
                schema.journal.c.seq == groups[0][-1].seq).values(
                    payload=b'changed'))
        return groups

    monkeypatch.setattr(rows, 'grouped', changed_meanwhile)
    before = payloads(db)[:-1]
    rotate(db, NEW, OLD)
    first = len(grouped(rotation._rows(db, uuid))[0])
    assert payloads(db)[:first - 1] == before[:first - 1]
