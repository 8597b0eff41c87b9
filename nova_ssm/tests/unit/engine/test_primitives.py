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
"""Versioned objects are written as they would write themselves."""

import datetime
import gc
import itertools
import sys

from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings
from hypothesis import strategies as st
from oslo_versionedobjects import base as ovo_base
from oslo_versionedobjects import fields
import pytest

from nova_ssm.engine import primitives
from nova_ssm.tests.unit.engine import test_serialization

Object = test_serialization.Object


@ovo_base.VersionedObjectRegistry.register
class Leaf(Object):
    """Nothing is in it but values."""

    VERSION = '1.3'
    fields = {'number': fields.IntegerField(nullable=True),
              'time': fields.DateTimeField(nullable=True),
              'words': fields.DictOfStringsField(),
              'names': fields.SetOfIntegersField()}


@ovo_base.VersionedObjectRegistry.register
class Ruminant(Object):
    """Knows by itself what has changed in it, as Nova's flavors do."""

    fields = {'hay': fields.ListOfStringsField()}

    def obj_what_changed(self):
        changes = super().obj_what_changed()
        if self.obj_attr_is_set('hay') and 'much' in self.hay:
            changes.add('hay')
        return changes


@ovo_base.VersionedObjectRegistry.register
class Stubborn(Object):
    """Writes itself."""

    fields = {'leaf': fields.ObjectField('Leaf')}

    def obj_to_primitive(self, *args, **kwargs):
        whole = super().obj_to_primitive(*args, **kwargs)
        whole[self._obj_primitive_key('data')] = {'mine': 'only'}
        return whole


@ovo_base.VersionedObjectRegistry.register
class Leaves(ovo_base.ObjectListBase, Object):
    """A list has changed if one of its objects has, and by nothing else."""

    fields = {'objects': fields.ListOfObjectsField('Leaf'),
              'first': fields.ObjectField('Leaf', nullable=True)}


@ovo_base.VersionedObjectRegistry.register
class Tree(Object):
    """All ways in which objects are in others."""

    VERSION = '2.1'
    fields = {
        'leaf': fields.ObjectField('Leaf', nullable=True),
        'stubborn': fields.ObjectField('Stubborn', nullable=True),
        'ruminant': fields.ObjectField('Ruminant'),
        'leaves': fields.ObjectField('Leaves'),
        'plain': fields.ListOfObjectsField('Leaf'),
        'some': fields.Field(fields.List(
            fields.Object('Leaf'), nullable=True)),
        'named': fields.Field(fields.Dict(fields.Object('Leaf'))),
        'tree': fields.ObjectField('Tree', nullable=True)}


@st.composite
def made(draw, cls, **parts):
    """An object of which any part may be missing, or have changed."""
    obj = cls(**{name: draw(part) for name, part in parts.items()
                 if draw(st.booleans())})
    if draw(st.booleans()):
        obj.obj_reset_changes()
    for name in draw(st.sets(st.sampled_from(sorted(parts)))):
        if obj.obj_attr_is_set(name):
            obj._changed_fields.add(name)
            if draw(st.booleans()):
                # It has changed, and is gone.
                delattr(obj, name)
    return obj


leaf = made(
    Leaf, number=st.none() | st.integers(), time=st.none() | st.just(
        datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)),
    words=st.dictionaries(st.text(max_size=3), st.text(max_size=3),
                          max_size=2),
    names=st.sets(st.integers(), max_size=2))
ruminant = made(Ruminant, hay=st.lists(st.sampled_from(['much', 'little']),
                                       max_size=2))
leaves = made(Leaves, objects=st.lists(leaf, max_size=2),
              first=st.none() | leaf).filter(
                  lambda found: found.obj_attr_is_set('objects'))
parts = {
    'leaf': st.none() | leaf, 'stubborn': st.none() | made(
        Stubborn, leaf=leaf),
    'ruminant': ruminant, 'leaves': leaves,
    'plain': st.lists(leaf, max_size=1),
    'some': st.lists(st.none() | leaf, max_size=1),
    'named': st.dictionaries(st.text(max_size=2), leaf, max_size=1)}
tree = st.recursive(
    made(Tree, **parts),
    lambda inner: made(Tree, **parts, tree=st.none() | inner), max_leaves=3)


def same(obj):
    """Whether we write an object as it does."""
    return (test_serialization._ordered(primitives.primitive(obj)) ==
            test_serialization._ordered(obj.obj_to_primitive()))


@settings(max_examples=30, deadline=None, suppress_health_check=[
    HealthCheck.too_slow, HealthCheck.data_too_large])
@given(tree | leaves | leaf | ruminant)
def test_an_object_is_written_as_it_writes_itself(obj):
    assert same(obj)


def test_an_object_is_left_as_it_was():
    obj = Tree(leaf=Leaf(number=1), plain=[Leaf(words={'a': 'b'})])
    before = obj.obj_to_primitive()
    primitives.primitive(obj)['versioned_object.data'].clear()
    assert obj.obj_to_primitive() == before


@pytest.mark.parametrize('cls', [Leaf, Tree, Leaves])
def test_nothing_of_an_object_is_asked_for_that_it_does_not_have(cls):
    obj = cls() if cls is not Leaves else Leaves(objects=[])
    obj.obj_reset_changes()
    assert same(obj)


@ovo_base.VersionedObjectRegistry.register
class Deep(Object):

    fields = {'deep': fields.ObjectField('Deep', nullable=True)}


def calls(work, *args):
    """How many functions are called for some work.

    The garbage collector is kept out: what it runs, such as the callbacks
    that hypothesis has put there, would count where it happens to come.
    """
    counted = []
    gc.disable()
    sys.setprofile(lambda frame, event, arg: counted.append(event))
    try:
        work(*args)
    finally:
        sys.setprofile(None)
        gc.enable()
    return counted.count('call')


def test_the_work_grows_with_the_objects_not_with_their_depth():
    obj, needed = Deep(deep=None), []
    primitives.primitive(obj)       # it learns how they are written
    for _level in range(8):
        obj = Deep(deep=obj)
        needed.append(calls(primitives.primitive, obj))
    steps = {after - before for before, after in itertools.pairwise(needed)}
    assert len(steps) == 1
    assert needed[-1] < calls(obj.obj_to_primitive) / 3


class Whisper(Leaf):
    """Says something else than it holds; it is not registered."""

    @property
    def number(self):
        return 7


def test_a_field_that_is_worked_out_is_asked_for():
    one = Whisper()
    one._obj_number = 1
    assert one.obj_to_primitive()['versioned_object.data'] == {'number': 7}
    assert primitives.primitive(one) == one.obj_to_primitive()
