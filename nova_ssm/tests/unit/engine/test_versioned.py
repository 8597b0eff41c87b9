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

"""Versioned objects: their secrets, and those of other releases."""

import json
import zlib

from hypothesis import given
from oslo_versionedobjects import base as ovo_base
from oslo_versionedobjects import fields
import pytest

from nova_ssm.engine import exception
from nova_ssm.engine import masking
from nova_ssm.engine import payloads
from nova_ssm.engine import serialization
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.engine import test_serialization

anything, again = test_serialization.anything, test_serialization.again
Object, KEY = test_serialization.Object, helpers.KEY
serializer = test_serialization.serializer


@ovo_base.VersionedObjectRegistry.register
class Attachment(Object):
    """One that Nova's are like: a field is marked, another one is not."""

    VERSION = '1.2'
    fields = {'volume': fields.StringField(),
              'connection': fields.SensitiveStringField(nullable=True),
              'more': fields.StringField(nullable=True)}


@ovo_base.VersionedObjectRegistry.register
class Attachments(Object):
    fields = {'objects': fields.ListOfObjectsField('Attachment'),
              'root': fields.ObjectField('Attachment', nullable=True)}


def attachments(**kwargs):
    return Attachments(objects=[
        Attachment(volume='v1', connection='tiger', more='lion'),
        Attachment(volume='v2', connection=None, **kwargs)], root=None)


SENSITIVE = {'sensitive': {'Attachment': ('more',)}}


def test_what_an_object_marks_as_sensitive_is_never_in_the_clear():
    data = zlib.decompress(serializer(KEY, **SENSITIVE).pack(
        [attachments()]))
    assert b'tiger' not in data and b'lion' not in data
    assert b'v1' in data


def test_what_is_sensitive_comes_back_where_it_was():
    by = serializer(KEY, **SENSITIVE)
    before = attachments(more='leopard')
    [back] = again([before], by)
    assert primitive(back) == primitive(before)
    # What was written is a copy.
    assert before.objects[0].connection == 'tiger'


def primitive(value):
    return value.obj_to_primitive()


def test_what_is_sensitive_is_not_there_without_a_key():
    reading = serialization.Reading()
    back = serializer().unpack(
        serializer(**SENSITIVE).pack(attachments()), reading)
    assert len(reading.missing) == 1
    assert not back.objects[0].obj_attr_is_set('connection')
    assert (back.objects[0].volume, back.objects[1].connection) == (
        'v1', None)


def test_an_object_without_secrets_needs_no_key():
    reading = serialization.Reading()
    serializer().unpack(serializer().pack(Attachment(
        volume='v1', connection=None)), reading)
    assert reading.missing == []


def test_what_is_sensitive_is_known_to_the_mask():
    mask = masking.Mask()
    serializer(**SENSITIVE).pack(attachments(), mask)
    assert mask('with tiger and lion') == 'with *** and ***'
    reading = serialization.Reading()
    by = serializer(KEY)
    by.unpack(by.pack(attachments()), reading)
    assert reading.mask('with tiger') == 'with ***'


# -- other releases --------------------------------------------------------

def newer(by, value):
    """What a newer release writes: its objects are of version 1.9."""
    plain = by.expand(by.pack(value))
    text = json.dumps(plain)
    assert '"1.2"' in text
    return json.loads(text.replace('"1.2"', '"1.9"'))


@pytest.mark.parametrize('value', [
    Attachment(volume='v1'), [attachments()], {'x': (attachments(), 1)},
    {1: {'x': [attachments()]}}])
def test_an_object_of_a_newer_release_cannot_be_read_and_is_named(value):
    by = serializer()
    plain = newer(by, value)
    for read in (by.check, lambda plain: by.decode(
            plain, serialization.Reading())):
        with pytest.raises(exception.Unreadable,
                           match='Attachment 1.9 is not known .*only 1.2'):
            read(plain)


def test_an_object_that_is_not_known_is_named():
    by = serializer()
    plain = by.expand(by.pack(Attachment(volume='v1')))
    with pytest.raises(exception.Unreadable, match='there is no Detachment'):
        by.check(json.loads(json.dumps(plain).replace('Attach', 'Detach')))


@pytest.mark.parametrize('version, reads', [
    ('1.0', True), ('1.2.7', True), ('1.3', False), ('2.0', False),
    ('0.9', False)])
def test_versions_are_compared_as_objects_do(version, reads):
    by = serializer()
    plain = by.expand(by.pack(Attachment(volume='v1')))
    changed = json.loads(json.dumps(plain).replace('"1.2"',
                                                   '"%s"' % version))
    if reads:
        by.check(changed)
        by.decode(changed, serialization.Reading())
    else:
        with pytest.raises(exception.Unreadable):
            by.check(changed)


@given(anything)
def test_what_this_release_has_written_it_can_read(value):
    by = serializer(KEY)
    by.check(by.expand(by.pack([value, serialization.Secret(value),
                                ValueError(value)])))


@pytest.mark.parametrize('plain, why', [
    ({'$': ['y', 1]}, 'of unknown kind'),
    ([{'$': ['t', [{'$': ['c', 'Row', 1]}]]}], 'Row'),
    ({'$': 3}, 'not what was written'),
    ({'$': ['o', 3]}, 'not what was written'),
    ({'$': ['o', {}]}, 'not what was written')])
def test_a_payload_of_another_form_is_seen_before_it_is_read(plain, why):
    with pytest.raises(exception.DamagedJournal, match=why):
        serializer().check(plain)


def test_what_an_exception_holds_keeps_nobody_from_reading_it():
    by = serializer()
    exc = ValueError('x')
    exc.of = attachments()
    plain = newer(by, exc)
    by.check(plain)
    assert by.decode(plain, serialization.Reading()).of is None


def test_the_objects_in_a_payload_can_be_told():
    by = serializer(KEY)
    plain = by.expand(by.pack({'x': (attachments(), [Attachment()])}))
    assert payloads.object_versions(plain) == {
        ('Attachment', '1.2'), ('Attachments', '1.0')}
