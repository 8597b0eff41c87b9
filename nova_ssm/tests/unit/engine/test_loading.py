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

"""A flow is read back from its journal."""

import pytest
import sqlalchemy as sa

from nova_ssm.engine import exception
from nova_ssm.engine import loading
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.tests.unit.engine import helpers

Do, Once, Read = helpers.Do, helpers.Once, helpers.Read


@pytest.fixture
def stopped(url, world):
    """A flow that was killed at some moment, and read back."""
    def at(moment, *tasks, keys=(helpers.KEY,), **store):
        process = helpers.Process(
            url, world, {'flow': lambda: helpers.linear(*tasks)}, keys=keys)
        world.kill_at = moment
        with pytest.raises(helpers.Killed):
            process.run(**store)
        process.db.dead = False
        [job] = process.board.iterjobs()
        return process, job.uuid
    return at


def load(process, uuid):
    return loading.load(process.db, process.serializer, uuid, 'flow')


def by_name(loaded):
    return {detail.name: detail for detail in loaded.detail}


def test_inputs_results_and_states_are_what_they_were(stopped, world):
    process, uuid = stopped(
        8, Read('r', world), Do('a', world), Do('b', world),
        Do('c', world), x=[1, 2])
    loaded = load(process, uuid)
    details = by_name(loaded)
    assert details['_TaskFlow_INJECTOR'].results == {
        'x': [1, 2], 'context': None}
    assert set(details) == {'_TaskFlow_INJECTOR', 'r', 'a', 'b'}
    assert details['r'].results == 'read r'
    assert details['b'].results == 'made b'
    assert loaded.seen['a'] == ('SUCCESS', 'EXECUTE')
    assert (loaded.failed, loaded.ended, loaded.missing) == (None, None, {})


def test_what_began_only_is_known_to_have_begun(stopped, world):
    process, uuid = stopped(4, Once('o', world))
    assert load(process, uuid).started == {'o'}


def test_what_ended_is_not_taken_for_begun(stopped, world):
    process, uuid = stopped(5, Once('o', world), Do('a', world))
    assert load(process, uuid).started == set()


def test_the_first_failure_is_the_flows(stopped, world):
    world.failing['do b'] = LookupError('no room')
    process, uuid = stopped(7, Do('a', world), Do('b', world))
    task, exc = load(process, uuid).failed
    assert (task, type(exc), str(exc)) == ('b', LookupError, 'no room')


def test_a_missing_secret_is_told_of(stopped, world):
    process, uuid = stopped(2, Do('a', world), keys=(),
                            password=serialization.Secret('tiger'))
    loaded = load(process, uuid)
    [(name, why)] = loaded.missing.items()
    assert (name, loaded.incomplete) == ('password', {})
    assert 'encryption_keys was empty' in why


def test_a_flow_that_is_not_there_is_not_found(stopped, world):
    process, _uuid = stopped(2, Do('a', world))
    with pytest.raises(exception.FlowNotFound, match='there is no flow none'):
        load(process, 'none')


@pytest.mark.parametrize('seq', [0, 1])
@pytest.mark.parametrize('payload', [b'damaged', None])
def test_damage_is_reported_with_flow_and_row(stopped, world, seq, payload):
    process, uuid = stopped(5, Do('a', world), Do('b', world))
    with process.db.transaction() as connection:
        connection.execute(schema.journal.update().where(
            schema.journal.c.seq == seq).values(payload=payload))
    with pytest.raises(exception.DamagedJournal,
                       match='flow %s: row %d' % (uuid, seq)):
        load(process, uuid)


def test_the_end_is_read_too(url, world):
    process = helpers.Process(
        url, world, {'flow': lambda: helpers.linear(Do('a', world))})
    uuid = process.run().uuid
    assert load(process, uuid).ended == 'SUCCESS'
    with process.db.transaction() as connection:
        assert connection.execute(sa.select(sa.func.max(
            schema.journal.c.seq))).scalar() == 2


def test_a_kind_of_row_that_is_not_known_is_of_a_newer_release(
        stopped, world):
    process, uuid = stopped(5, Do('a', world), Do('b', world))
    with process.db.transaction() as connection:
        connection.execute(schema.journal.update().where(
            schema.journal.c.seq == 1).values(kind='verdict'))
    why = 'row 1 is of a kind that is not known here: verdict'
    assert loading.unreadable(process.db, process.serializer, uuid) == why
    with pytest.raises(exception.Unreadable, match=why):
        load(process, uuid)


def test_what_can_be_read_is_not_called_unreadable(stopped, world):
    process, uuid = stopped(6, Read('r', world), Do('a', world),
                            Do('b', world), x=[1, 2])
    assert loading.unreadable(process.db, process.serializer, uuid) is None
