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

"""Rows of the journal that something else than the engine has changed.

Whatever it is, the flow stays as it is, with the reason where people look,
and the others go on.
"""

import json
import zlib

from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
import pytest
import sqlalchemy as sa

from nova_ssm.engine import exception
from nova_ssm.engine import loading
from nova_ssm.engine import queries
from nova_ssm.engine import recovery
from nova_ssm.engine import schema
from nova_ssm.engine import stamps
from nova_ssm.tests.unit.engine import helpers

J = schema.journal.c
#: Rows: what it was given, a, b; the process died in c.
KILLED_AT = 8


@pytest.fixture
def flows(world):
    return {name: lambda: helpers.linear(
        helpers.Do('a', world), helpers.Do('b', world),
        helpers.Do('c', world)) for name in ('one', 'two')}


@pytest.fixture
def stopped(url, flows):
    """Two flows of a dead conductor that have come as far as each other."""
    uuids = []
    for name in flows:
        world = helpers.World()
        world.kill_at = KILLED_AT
        one = helpers.Process(url, world, {name: lambda world=world: (
            helpers.linear(helpers.Do('a', world), helpers.Do('b', world),
                           helpers.Do('c', world)))})
        with pytest.raises(helpers.Killed):
            one.run(name)
    with helpers.shared(url).transaction() as connection:
        uuids = list(connection.execute(sa.select(
            schema.flows.c.uuid).order_by(schema.flows.c.name)).scalars())
    helpers.expire_leases(url)
    return uuids


def change(seq, **values):
    def work(connection, uuid, other):
        assert connection.execute(schema.journal.update().where(
            J.flow_uuid == uuid, J.seq == seq).values(**values)).rowcount
    return work


def cut(seq, size):
    def work(connection, uuid, other):
        payload = connection.execute(sa.select(J.payload).where(
            J.flow_uuid == uuid, J.seq == seq)).scalar()
        change(seq, payload=payload[:size])(connection, uuid, other)
    return work


def lose(seq):
    def work(connection, uuid, other):
        connection.execute(schema.journal.delete().where(
            J.flow_uuid == uuid, J.seq == seq))
    return work


def lose_all(connection, uuid, other):
    connection.execute(schema.journal.delete().where(J.flow_uuid == uuid))


def take_from(other_flow, seq):
    """The payload of the next row of this flow, or the same of another."""
    def work(connection, uuid, other):
        payload = connection.execute(sa.select(J.payload).where(
            J.flow_uuid == (other if other_flow else uuid),
            J.seq == (seq if other_flow else seq + 1))).scalar()
        change(seq, payload=payload)(connection, uuid, other)
    return work


def write_text(connection, uuid, other):
    connection.execute(sa.text(
        "UPDATE ssm_journal SET payload = 'text' WHERE seq = 1 AND "
        'flow_uuid = :uuid'), {'uuid': uuid})


def say(seq, value):
    """Something that can be read, but is not what was written."""
    return change(seq, payload=zlib.compress(json.dumps(value).encode()))


DAMAGES = {
    'truncated': (cut(1, 10), 'row 1: '),
    'truncated by its end': (cut(1, -12), 'row 1: '),
    'emptied': (change(1, payload=None), 'row 1: '),
    'text': (write_text, 'row 1: '),
    'garbage': (change(2, payload=b'\x00\xffgarbage'), 'row 2: '),
    'wrong JSON': (change(1, payload=zlib.compress(b'{"a": ')), 'row 1: '),
    'no text': (change(1, payload=zlib.compress(b'\xff\xfe')), 'row 1: '),
    'a list for a step': (say(1, [1, 2]), 'row 1 does not hold'),
    'a number': (say(0, 7), 'row 0 does not hold'),
    'too much': (say(0, [None, {}, 3]), 'row 0 does not hold'),
    'a word for an input': (say(0, 'ab'), 'row 0 does not hold'),
    'a word for a record': (say(1, {'a': 'done'}), 'row 1 does not hold'),
    'a failure without one': (say(1, {'a': {'state': 'FAILURE'}}),
                              'row 1 does not hold'),
    'no kind of task': (say(1, {'a': {'kind': 'x'}}), 'row 1 does not hold'),
    'another task': (say(1, {'z': {}}), 'row 1 does not hold'),
    'an unknown kind of value': (say(1, {'a': {'results': {'$': ['?', 1]}}}),
                                 'row 1: '),
    'a broken value': (say(1, {'a': {'results': {'$': 5}}}), 'row 1: '),
    'an unknown kind of row': (change(1, kind='strange'),
                               'row 1 is of a kind that is not known here'),
    'no beginning': (lose(0), 'row 0, which holds what the flow was given'),
    'a gap': (lose(1), 'row 1 is missing'),
    'nothing left': (lose_all, 'row 0, which holds'),
    'another flow': (take_from(True, 1), 'row 1 does not hold what was'),
    'what another was given': (take_from(True, 0),
                               'row 0 does not hold what was'),
    'another row': (take_from(False, 1), 'row 1 does not hold what was'),
}


@pytest.fixture(params=DAMAGES)
def damaged(request, url, stopped):
    work, reason = DAMAGES[request.param]
    with helpers.shared(url).transaction() as connection:
        work(connection, *stopped)
    return stopped[0], stopped[1], reason


def test_the_flow_stays_the_others_go_on(damaged, url, world, flows, caplog):
    uuid, other, reason = damaged
    process = helpers.Process(url, world, flows)
    world.effects += ['a', 'b']
    one = recovery.Recovery(process.runner, 'host')
    one.look()
    for _number in range(4):
        one._slots.acquire()
    assert helpers.state_of(url, other)[0] == 'SUCCESS'
    # Nothing was dropped, begun or ended; nobody owns it in vain.
    info = queries.flow(process.db, uuid)
    assert (info.state, info.claims, info.finished_at) == ('RUNNING', 0, None)
    assert reason in info.trouble
    assert 'Traceback' not in caplog.text
    [warning] = [record.getMessage() for record in caplog.records
                 if uuid in record.getMessage() and
                 record.levelname in ('WARNING', 'ERROR')]
    assert reason in warning


def test_who_reads_it_is_told_flow_and_row(damaged, url, world, flows):
    uuid, _other, reason = damaged
    process = helpers.Process(url, world, flows)
    with pytest.raises(exception.DamagedJournal) as caught:
        loading.load(process.db, process.serializer, uuid, 'one')
    assert str(caught.value).startswith('flow %s: %s' % (uuid, reason))


def test_it_can_be_listed_and_shown(damaged, url):
    uuid, other, _reason = damaged
    db = helpers.shared(url)
    assert {info.uuid for info in queries.flows(db)} == {uuid, other}
    queries.steps(db, uuid)
    try:
        queries.atoms(db, uuid)
    except exception.DamagedJournal as exc:
        assert str(exc).startswith('flow %s: row ' % uuid)


def test_what_was_put_right_goes_on(url, stopped, world, flows):
    """As from a backup: nothing has been added behind it meanwhile."""
    process = helpers.Process(url, world, flows)
    with process.db.transaction() as connection:
        kept = connection.execute(sa.select(J.payload).where(
            J.flow_uuid == stopped[0], J.seq == 1)).scalar()
        change(1, payload=b'garbage')(connection, *stopped)
    recovery.Recovery(process.runner, 'host').look()
    with process.db.transaction() as connection:
        change(1, payload=kept)(connection, *stopped)
    world.effects += ['a', 'b']
    one = recovery.Recovery(process.runner, 'host')
    one.look()
    for _number in range(4):
        one._slots.acquire()
    assert helpers.state_of(url, stopped[0])[0] == 'SUCCESS'
    assert queries.flow(process.db, stopped[0]).trouble is None


# -- stamps ------------------------------------------------------------------

@given(st.binary(max_size=300))
def test_a_stamp_is_taken_off_again(payload):
    stamped = stamps.stamped('flow', 3, payload)
    assert len(stamped) == len(payload) + stamps.SIZE
    assert stamps.opened(stamped) == payload
    assert stamps.checked('flow', 3, stamped) == payload


@given(st.binary(min_size=1, max_size=300))
def test_who_knows_no_stamps_reads_what_has_one(payload):
    packed = zlib.compress(payload)
    assert zlib.decompress(stamps.stamped('flow', 3, packed)) == payload


def test_what_an_older_release_wrote_is_read():
    packed = zlib.compress(b'{}')
    assert stamps.checked('flow', 3, packed) == packed


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=50), st.binary(max_size=50),
       st.tuples(st.sampled_from(('flow', 'other')), st.integers(2, 4)))
def test_another_payload_or_place_is_noticed(one, two, place):
    stamped = stamps.stamped('flow', 3, one)
    forged = two + stamped[-stamps.SIZE:]
    if (two, place) == (one, ('flow', 3)):
        assert stamps.checked(*place, forged) == one
    else:
        with pytest.raises(exception.DamagedJournal, match='row'):
            stamps.checked(*place, forged)
