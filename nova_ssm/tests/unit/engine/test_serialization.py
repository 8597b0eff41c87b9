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

"""Values go into the journal, and come out as they were."""

import datetime
import enum
import re
import zlib

from cryptography import fernet
from hypothesis import given
from hypothesis import strategies as st
from oslo_versionedobjects import base as ovo_base
from oslo_versionedobjects import fields
import pytest

from nova_ssm.engine import exception
from nova_ssm.engine import failures
from nova_ssm.engine import serialization

KEYS = [fernet.Fernet.generate_key().decode() for _ in range(3)]

keys = st.none() | st.booleans() | st.integers() | st.text() | st.just('$')
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() |
    st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.text() | st.just('$'), inner, max_size=4), max_leaves=10)
hashable = st.recursive(
    st.none() | st.integers() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.tuples(inner) | st.tuples(inner, inner) | st.frozensets(
        inner, max_size=3), max_leaves=5)
anything = st.recursive(
    hashable | plain | st.datetimes(timezones=st.just(datetime.UTC)),
    lambda inner: st.lists(inner, max_size=4) |
    st.tuples(inner, inner) | st.sets(hashable, max_size=4) |
    st.dictionaries(keys | hashable, inner, max_size=4), max_leaves=10)


class Registry(ovo_base.VersionedObjectRegistry):
    """For the objects of this test only."""


class Object(ovo_base.VersionedObject):

    OBJ_PROJECT_NAMESPACE = 'ssm-test'

    def __eq__(self, other):
        return (type(self) is type(other) and
                _ordered(self.obj_to_primitive()) ==
                _ordered(other.obj_to_primitive()))


def _ordered(plain):
    """A primitive with its changes, which are a set, in one order.

    In which order a set is walked depends on the hash seed of the process
    and on its history.
    """
    if isinstance(plain, list):
        return [_ordered(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    return {key: sorted(item) if key.endswith('.changes') else _ordered(item)
            for key, item in plain.items()}


@Registry.register
class Disk(Object):

    VERSION = '1.2'
    fields = {'size': fields.IntegerField(),
              'made': fields.DateTimeField(nullable=True)}


@Registry.register
class Server(Object):

    VERSION = '1.0'
    fields = {'name': fields.StringField(),
              'disk': fields.ObjectField('Disk', nullable=True),
              'disks': fields.ListOfObjectsField('Disk')}


class Objects(ovo_base.VersionedObjectSerializer):

    OBJ_BASE_CLASS = Object


disks = st.builds(Disk, size=st.integers(), made=st.none() | st.datetimes(
    datetime.datetime(1970, 1, 1), timezones=st.just(datetime.UTC)).map(
        lambda time: time.replace(microsecond=0)))
servers = st.builds(Server, name=st.text(), disk=st.none() | disks,
                    disks=st.lists(disks, max_size=3))


def serializer(*keys_, **kwargs):
    return serialization.Serializer(
        objects=Objects(), vault=serialization.Vault(keys_), **kwargs)


def again(value, by=None):
    by = by or serializer()
    return by.unpack(by.pack(value))


def same(one, other):
    """Equal, and of the same types all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return (one == other and [type(key) for key in one] ==
                [type(key) for key in other] and all(
                    same(one[key], other[key]) for key in one))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@given(anything)
def test_a_value_comes_back_as_it_was(value):
    assert same(again(value), value)


@given(servers | st.lists(servers, max_size=3) | st.dictionaries(
    st.text(), servers, max_size=3))
def test_versioned_objects_come_back_with_all_that_is_in_them(value):
    assert again(value) == value


def test_versioned_objects_are_written_with_their_versions():
    written = zlib.decompress(serializer().pack(
        Server(name='a', disk=None, disks=[Disk(size=1)])))
    assert b'"versioned_object.version":"1.2"' in written


@pytest.mark.parametrize('value', [
    {'$': 1}, {'$': ['t', [1]]}, {'$': {'$': {}}}, {1: 2, '1': 3},
    {None: 1, False: 2}, {(1, 'x'): [set()]}, float('inf'), '\ud800', ''])
def test_odd_values_come_back_too(value):
    assert same(again(value), value)


def test_an_enum_is_written_as_the_value_that_it_is():
    class Colour(str, enum.Enum):   # noqa: UP042 - as in older code
        RED = 'red'

    class Number(enum.IntEnum):
        ONE = 1

    assert same(again([Colour.RED, Number.ONE]), ['red', 1])


@pytest.mark.parametrize('value', [
    object(), [object()], {'a': object}, {object(): 1}, datetime.timedelta(1),
    (x for x in ())])
def test_what_is_not_to_be_written_is_refused_by_its_type(value):
    with pytest.raises(exception.NotSerializable,
                       match='cannot be journaled: give a versioned object'):
        serializer().pack(value)


# -- references ------------------------------------------------------------

class Row:
    """A row of some database."""

    def __init__(self, key):
        self.key = key


class SpecialRow(Row):
    pass


def test_a_row_is_written_as_its_key_and_read_afresh():
    read = []

    def load(value, context):
        read.append((value, context))
        return 'row %s' % value['key']

    by = serializer(codecs=[serialization.Codec(
        Row, 'Row', lambda row: {'key': row.key}, load)])
    data = by.pack({'rows': [Row('a'), SpecialRow('b')]})
    assert read == []
    assert by.unpack(data, serialization.Reading(context='me')) == {
        'rows': ['row a', 'row b']}
    assert read == [({'key': 'a'}, 'me'), ({'key': 'b'}, 'me')]


def test_the_first_codec_that_fits_is_taken():
    by = serializer(codecs=[
        serialization.Codec(SpecialRow, 'Special', lambda row: 1,
                            lambda value, context: 'special'),
        serialization.Codec(Row, 'Row', lambda row: 1,
                            lambda value, context: 'any')])
    assert again([SpecialRow('a'), Row('b')], by) == ['special', 'any']


def test_a_codec_that_is_not_here_is_named():
    by = serializer(codecs=[serialization.Codec(
        Row, 'Row', lambda row: 1, lambda value, context: 1)])
    with pytest.raises(exception.DamagedJournal,
                       match="a 'Row', which is not known here"):
        serializer().unpack(by.pack(Row('a')))


# -- secrets ---------------------------------------------------------------

def test_a_secret_is_never_in_the_clear():
    data = serializer(KEYS[0]).pack(
        {'password': serialization.Secret({'inner': 'tiger'})})
    assert b'tiger' not in zlib.decompress(data)
    assert b'inner' not in zlib.decompress(data)
    assert 'tiger' not in repr(serialization.Secret('tiger'))


@given(anything)
def test_a_secret_comes_back_as_it_was(value):
    back = again(serialization.Secret(value), serializer(KEYS[0]))
    assert same(serialization.reveal(back), value)


def test_revealing_leaves_other_values_alone():
    assert serialization.reveal('x') == 'x'
    assert serialization.reveal(serialization.Secret('x')) == 'x'


@pytest.mark.parametrize('written_by, read_by, why', [
    ((), (), 'encryption_keys was empty when the flow began'),
    ((), (KEYS[0],), 'encryption_keys was empty when the flow began'),
    ((KEYS[0],), (), 'encryption_keys is empty on this host'),
    ((KEYS[0],), (KEYS[1],), 'none of the .* of this host opens it')])
def test_a_missing_secret_is_none_and_said_to_be_missing(
        written_by, read_by, why):
    data = serializer(*written_by).pack([1, serialization.Secret('tiger')])
    assert b'tiger' not in zlib.decompress(data)
    reading = serialization.Reading()
    value = serializer(*read_by).unpack(data, reading)
    assert value == [1, serialization.Secret(None)]
    [said] = reading.missing
    assert re.search(why, said)


def test_keys_are_rotated_by_putting_the_new_one_first():
    old = serializer(KEYS[0]).pack(serialization.Secret('tiger'))
    both = serializer(KEYS[1], KEYS[0])
    assert both.unpack(old).value == 'tiger'
    new = both.pack(serialization.Secret('tiger'))
    assert serializer(KEYS[1]).unpack(new).value == 'tiger'
    reading = serialization.Reading()
    serializer(KEYS[0]).unpack(new, reading)
    assert reading.missing


def test_what_is_no_key_is_refused_in_words():
    with pytest.raises(ValueError, match='"nova-ssm key new" makes one'):
        serialization.Vault(['short'])


# -- damage ----------------------------------------------------------------

@given(st.binary(max_size=50))
def test_bytes_that_nobody_wrote_are_damaged(data):
    with pytest.raises(exception.DamagedJournal, match='cannot be read'):
        serializer().unpack(data)


@given(plain.filter(lambda value: value is not None), st.data())
def test_a_changed_byte_is_found_or_does_not_matter(value, data):
    packed = bytearray(serializer().pack(value))
    where = data.draw(st.integers(2, len(packed) - 1))
    packed[where] ^= data.draw(st.integers(1, 255))
    try:
        assert serializer().unpack(bytes(packed)) == value
    except exception.DamagedJournal as exc:
        assert 'cannot be read' in str(exc)


@pytest.mark.parametrize('value', [
    {'$': ['z', 1]}, {'$': []}, {'$': 3}, {'$': None}, {'$': [['t'], 1]}])
def test_a_kind_of_value_that_is_not_known_is_damage(value):
    with pytest.raises(exception.DamagedJournal, match='unknown kind'):
        serializer().decode(value, serialization.Reading())


def test_no_payload_at_all_is_damage():
    with pytest.raises(exception.DamagedJournal):
        serializer().unpack(None)


def test_failures_of_taskflow_are_their_exceptions():
    failure = failures.to_failure(ValueError('x'))
    back = again({'history': [('y', {'task': failure})]})
    [(result, by_task)] = back['history']
    assert result == 'y'
    assert type(by_task['task'].exception) is ValueError
