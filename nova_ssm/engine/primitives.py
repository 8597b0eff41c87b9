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
"""The written form of a versioned object, made in one walk.

It is what ``obj_to_primitive()`` gives. That asks at each level of nested
objects, twice, what has changed in it and all below; of a request spec, which
nests deeply and has hundreds of fields, that is most of the work.
"""

import dataclasses
import enum
import functools
from typing import Any

from oslo_versionedobjects import base as ovo_base
from oslo_versionedobjects import fields as ovo_fields

Plain = Any   # what json.dumps takes


class _Kind(enum.Enum):
    """What the value of a field is written as."""

    ITSELF = enum.auto()
    OBJECT = enum.auto()
    OBJECTS = enum.auto()
    OTHER = enum.auto()


@dataclasses.dataclass(frozen=True)
class _Form:
    """How the objects of a class are written.

    :param fields: of each its name, that of the attribute that holds it, its
        type and its kind
    :param is_list: whether it has changed if one of its objects has
    """

    fields: tuple[tuple[str, str, Any, _Kind], ...]
    is_list: bool


def primitive(obj: ovo_base.VersionedObject) -> Plain:
    """The same as ``obj.obj_to_primitive()``."""
    return _written(obj)[0]


def _written(obj: Any) -> tuple[Plain, bool]:
    """The written form, and whether the object has changed."""
    cls: Any = type(obj)
    form = _form(cls)
    if form is None:
        return obj.obj_to_primitive(), bool(obj.obj_what_changed())
    data: dict[str, Plain] = {}
    changed: set[str] = set()
    held = vars(obj)
    for name, attribute, field, kind in form.fields:
        if attribute not in held:
            continue
        value = held[attribute]
        if value is None or kind is _Kind.ITSELF:
            data[name] = value
        elif kind is _Kind.OBJECT:
            data[name], has_changed = _written(value)
            if has_changed and not form.is_list:
                changed.add(name)
        elif kind is _Kind.OBJECTS:
            written = [_NOTHING if one is None else _written(one)
                       for one in value]
            data[name] = [one for one, _has_changed in written]
            if (form.is_list and name == 'objects' and
                    any(has_changed for _one, has_changed in written)):
                changed.add(name)
        else:
            data[name] = field.to_primitive(obj, name, value)
            if (isinstance(value, _BASE) and not form.is_list and
                    value.obj_what_changed()):
                changed.add(name)
    changed |= _own_changes(obj, form)
    return _whole(obj, data, changed), bool(changed)


def _own_changes(obj: Any, form: _Form) -> set[str]:
    """What has changed in an object, but for the objects in it."""
    if form.is_list:
        return set(obj._changed_fields)
    if type(obj).obj_what_changed is not _BASE.obj_what_changed:
        return obj.obj_what_changed()
    return {name for name in obj._changed_fields if name in obj.fields}


def _whole(obj: Any, data: dict[str, Plain], changed: set[str]) -> Plain:
    key = obj._obj_primitive_key
    whole = {key('name'): obj.obj_name(),
             key('namespace'): obj.OBJ_PROJECT_NAMESPACE,
             key('version'): obj.VERSION,
             key('data'): data}
    if changes := [name for name in changed if name in data]:
        whole[key('changes')] = changes
    return whole


@functools.cache
def _form(cls: Any) -> _Form | None:
    """How a class is written; None if it has ways of its own."""
    if any(getattr(cls, name) is not getattr(_BASE, name)
           for name in ('obj_to_primitive', 'obj_attr_is_set')):
        return None
    if not all(_is_held(cls, name) for name in cls.fields):
        return None
    return _Form(
        tuple((name, ovo_base._get_attrname(name), field, _kind(field))
              for name, field in cls.fields.items()),
        cls.obj_what_changed is ovo_base.ObjectListBase.obj_what_changed)


def _is_held(cls: Any, name: str) -> bool:
    """Whether a field has the value that the object holds for it.

    To ask the object takes six calls, of some five hundred fields a build.
    """
    found = getattr(cls, name)
    return (isinstance(found, property) and
            getattr(found.fget, '__module__', '') == ovo_base.__name__)


def _kind(field: Any) -> _Kind:
    way = _way(field)
    if way is ovo_fields.FieldType.to_primitive:
        return _Kind.ITSELF
    if way is ovo_fields.Object.to_primitive:
        return _Kind.OBJECT
    if (way is ovo_fields.List.to_primitive and
            _way(field._type._element_type) is
            ovo_fields.Object.to_primitive):
        return _Kind.OBJECTS
    return _Kind.OTHER


def _way(field: Any) -> Any:
    """What writes the values of a field; None if the field does."""
    if type(field).to_primitive is not ovo_fields.Field.to_primitive:
        return None
    return type(field._type).to_primitive


_BASE = ovo_base.VersionedObject
_NOTHING: tuple[Plain, bool] = (None, False)
