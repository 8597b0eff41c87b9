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

"""Looks into payloads as they are written, without making values of them.

So it needs neither the classes of what is in them, nor the keys.
"""

from collections.abc import Callable, Iterator
from typing import Any

#: Marks an encoded value; a plain dict that has such a key is escaped.
TAG = '$'

Plain = Any   # what json.dumps takes

#: Where the token is in the kinds that may have one.
_TOKEN = {'s': 1, 'o': 2}


def tagged(plain: Plain) -> Iterator[list[Plain]]:
    """Each encoded value: a list of its kind and of what it is made of.

    What is in an exception is left out: what cannot be read of it is read
    as None.
    """
    if isinstance(plain, list):
        for item in plain:
            yield from tagged(item)
    elif isinstance(plain, dict):
        if TAG not in plain:
            yield from tagged(list(plain.values()))
            return
        yield plain[TAG]
        if plain[TAG][0] not in ('o', 'x'):
            yield from tagged(plain[TAG][1:])


def reseal(plain: Plain, reseal_token: Callable[[str], str]) -> bool:
    """Encrypt the secrets in a payload anew, in place.

    :param reseal_token: gives a token under the newest key
    :returns: whether there is one that was not under it
    :raises SecretUnavailable: if no key opens one of them
    """
    changed = False
    for value in tagged(plain):
        at = _TOKEN.get(value[0])
        if at is None or len(value) <= at or value[at] is None:
            continue
        token = reseal_token(value[at])
        changed |= token != value[at]
        value[at] = token
    return changed


def object_versions(plain: Plain) -> set[tuple[str, str]]:
    """The names and versions of the versioned objects in a payload."""
    return {one for value in tagged(plain) if value[0] == 'o'
            for one in _versions_in(value[1])}


def _versions_in(primitive: Plain) -> Iterator[tuple[str, str]]:
    if isinstance(primitive, list):
        for item in primitive:
            yield from _versions_in(item)
    elif isinstance(primitive, dict):
        # Behind a namespace, which is one of the service's base class.
        parts = {key.rpartition('.')[2]: value
                 for key, value in primitive.items()}
        if {'name', 'version', 'data', 'namespace'} <= parts.keys():
            yield parts['name'], parts['version']
        yield from _versions_in(list(primitive.values()))
