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

"""What there is to know of versioned objects in their written form."""

from collections.abc import Collection, Iterator, Mapping
import functools
from typing import Any

from oslo_versionedobjects import base as ovo_base
from oslo_versionedobjects import exception as ovo_exc
from oslo_versionedobjects import fields as ovo_fields

from nova_ssm.engine import exception

Plain = Any   # what json.dumps takes

#: Of each secret where it was in the written form, and the secret.
Secrets = list[tuple[list[str | int], Plain]]


class Objects:
    """Looks through the written form of an object and of those in it.

    :param sensitive: fields that are secrets though they are not marked so,
        by the name of the object
    """

    def __init__(self, sensitive: Mapping[str, Collection[str]]) -> None:
        self._sensitive = sensitive
        self._secrets_of = functools.cache(self._find_secrets)

    def take_secrets(self, primitive: Plain) -> Secrets:
        """Take the sensitive fields out of a written form."""
        found: Secrets = []
        for path, name, _version, data in _objects(primitive):
            for field in self._secrets_of(name):
                if data.get(field) is not None:
                    found.append(([*path, field], data.pop(field)))
        return found

    @staticmethod
    def put_secrets(primitive: Plain, secrets: Secrets) -> None:
        """Put them back to where they were."""
        for path, value in secrets:
            place = primitive
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = value

    @staticmethod
    def check(primitive: Plain) -> None:
        """See whether all objects in a written form are known here.

        :raises Unreadable: if one is not, or is newer
        """
        for _path, name, version, _data in _objects(primitive):
            _check_known(name, version)

    def _find_secrets(self, name: str) -> list[str]:
        marked = set(self._sensitive.get(name, ()))
        for cls in ovo_base.VersionedObjectRegistry.obj_classes().get(
                name, [])[:1]:
            marked.update(
                field for field, kind in cls.fields.items()
                if isinstance(getattr(kind, 'AUTO_TYPE', None),
                              ovo_fields.SensitiveString))
        return sorted(marked)


def _objects(primitive: dict[str, Any]) -> Iterator[tuple[
        list[str | int], str, str, dict[str, Any]]]:
    """Each object: the way to its fields, name, version, and the fields."""
    # The namespace is one of the service whose objects these are.
    [named] = (key for key in primitive if key.endswith('.name'))
    namespace = named.removesuffix('name')
    waiting: list[tuple[list[str | int], Plain]] = [([], primitive)]
    while waiting:
        path, plain = waiting.pop()
        if isinstance(plain, list):
            waiting.extend(([*path, number], item)
                           for number, item in enumerate(plain)
                           if isinstance(item, (dict, list)))
            continue
        if namespace + 'name' in plain:
            yield ([*path, namespace + 'data'], plain[namespace + 'name'],
                   plain[namespace + 'version'], plain[namespace + 'data'])
        waiting.extend(([*path, key], item) for key, item in plain.items()
                       if isinstance(item, (dict, list)))


def _check_known(name: str, version: str) -> None:
    known = ovo_base.VersionedObjectRegistry.obj_classes().get(name)
    if not known:
        raise exception.Unreadable('there is no %s here' % name)
    # As it is read: what is behind the second dot does not matter.
    asked = '.'.join(version.split('.')[:2])
    try:
        ovo_base.VersionedObject.obj_class_from_name(name, asked)
    except ovo_exc.IncompatibleObjectVersion:
        raise exception.Unreadable(
            '%s %s is not known here, only %s'
            % (name, version, known[0].VERSION)) from None
