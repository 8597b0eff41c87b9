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

"""What tasks take and give, as JSON with versions, and back.

Plain JSON values, tuples, sets, datetimes, bytes and versioned objects of
any project that uses oslo.versionedobjects. Two kinds of value are special:

* A *reference* stands for a row that a database already holds. Its codec
  writes the row's key and reads the row afresh.
* A *secret* is encrypted before it is written. Without a key it is not
  written at all, and reading it back raises SecretUnavailable.

The engine knows no class of its user: object base class, context and
references are handed to :class:`Serializer`.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import datetime
import json
from typing import Any
import zlib

from cryptography import fernet
from oslo_versionedobjects import base as ovo_base
from taskflow.types import failure as taskflow_failure

from nova_ssm.engine import exception
from nova_ssm.engine import failures

#: Marks an encoded value; a plain dict that has such a key is escaped.
TAG = '$'

Plain = Any   # what json.dumps takes


@dataclasses.dataclass(frozen=True)
class Secret:
    """Wraps a value that must not be written in the clear."""

    value: Any

    def __repr__(self) -> str:
        return 'Secret(***)'


@dataclasses.dataclass(frozen=True)
class Codec:
    """How one class is written and read back.

    :param cls: instances of it, and of its subclasses, are written by this
    :param name: its name in the journal
    :param dump: object to a value that the serializer can write
    :param load: (that value, the loading context) back to an object
    """

    cls: type
    name: str
    dump: Callable[[Any], Any]
    load: Callable[[Any, Any], Any]


@dataclasses.dataclass
class Reading:
    """What one reading of a flow needs, and what it could not read.

    :param context: handed to the codecs and to versioned objects
    :param missing: why secrets are missing; each of them is read as None
    """

    context: Any = None
    missing: list[str] = dataclasses.field(default_factory=list)


class Vault:
    """Encrypts with the first key, decrypts with any of them."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        """:raises ValueError: if a key is not a Fernet key"""
        try:
            self._fernet = fernet.MultiFernet(
                [fernet.Fernet(key) for key in keys]) if keys else None
        except (ValueError, TypeError) as exc:
            raise ValueError(
                'not a Fernet key (44 characters of URL-safe base64); '
                '"nova-ssm key new" makes one') from exc

    def seal(self, data: bytes) -> str | None:
        """The encrypted data, None if there is no key."""
        if self._fernet is None:
            return None
        return self._fernet.encrypt(data).decode('ascii')

    def open(self, token: str | None) -> bytes:
        """:raises SecretUnavailable: if none of the keys opens it"""
        if token is None:
            raise exception.SecretUnavailable(
                'it was not journaled, because [ssm] encryption_keys was '
                'empty when the flow began')
        if self._fernet is None:
            raise exception.SecretUnavailable(
                '[ssm] encryption_keys is empty on this host')
        try:
            return self._fernet.decrypt(token)
        except fernet.InvalidToken:
            raise exception.SecretUnavailable(
                'none of the [ssm] encryption_keys of this host opens it') \
                from None


class Serializer:
    """Turns values into JSON and back.

    :param objects: (de)serializes versioned objects, e.g. Nova's
        ``NovaObjectSerializer()``
    :param codecs: the classes with a form of their own; first match wins
    :param vault: encrypts the secrets
    """

    def __init__(self,
                 objects: ovo_base.VersionedObjectSerializer | None = None,
                 codecs: Sequence[Codec] = (),
                 vault: Vault | None = None) -> None:
        self._objects = objects or ovo_base.VersionedObjectSerializer()
        self._codecs = (*codecs, _FAILURE)
        self._by_name = {codec.name: codec for codec in self._codecs}
        self._vault = vault or Vault()

    # -- writing ----------------------------------------------------------

    def pack(self, value: Any) -> bytes:
        """:raises NotSerializable: if there is a value we cannot write"""
        return self.compress(self.encode(value))

    @staticmethod
    def compress(plain: Plain) -> bytes:
        """The bytes of what :meth:`encode` has made."""
        return zlib.compress(_json(plain), 1)

    def encode(self, value: Any) -> Plain:
        if value is None or isinstance(value, (bool, int, float, str)):
            # A subclass (an enum, a translated message) is its plain value.
            return value if type(value) in _SCALARS else _scalar(value)
        for codec in self._codecs:
            if isinstance(value, codec.cls):
                return self._tagged('c', codec.name,
                                    self.encode(codec.dump(value)))
        if isinstance(value, ovo_base.VersionedObject):
            return self._tagged('o', self._objects.serialize_entity(
                None, value))
        if isinstance(value, Secret):
            return self._tagged('s', self._vault.seal(
                _json(self.encode(value.value))))
        return self._encode_container(value)

    def _encode_container(self, value: Any) -> Plain:
        if isinstance(value, list):
            return [self.encode(item) for item in value]
        if isinstance(value, Mapping):
            return self._encode_mapping(value)
        if isinstance(value, tuple):
            return self._tagged('t', [self.encode(item) for item in value])
        if isinstance(value, (set, frozenset)):
            return self._tagged(
                'S' if isinstance(value, set) else 'F',
                sorted((self.encode(item) for item in value), key=repr))
        if isinstance(value, datetime.datetime):
            return self._tagged('d', value.isoformat())
        if isinstance(value, bytes):
            return self._tagged('b', base64.b64encode(value).decode('ascii'))
        if isinstance(value, BaseException):
            return self._tagged('x', failures.dump(value, self.encode))
        raise exception.NotSerializable(
            'a value of type %s.%s cannot be journaled: give a versioned '
            'object or plain JSON' % (type(value).__module__,
                                      type(value).__qualname__))

    def _encode_mapping(self, value: Mapping) -> Plain:
        if TAG not in value and all(type(key) is str for key in value):
            return {key: self.encode(item) for key, item in value.items()}
        return self._tagged('m', [[self.encode(key), self.encode(item)]
                                  for key, item in value.items()])

    @staticmethod
    def _tagged(kind: str, *values: Plain) -> Plain:
        return {TAG: [kind, *values]}

    # -- reading ----------------------------------------------------------

    def unpack(self, data: bytes, reading: Reading | None = None) -> Any:
        """:raises DamagedJournal: if the bytes are not what was written"""
        try:
            plain = json.loads(zlib.decompress(data))
        except (zlib.error, ValueError, TypeError) as exc:
            raise exception.DamagedJournal(
                'a journal payload cannot be read: %s' % exc) from exc
        return self.decode(plain, reading or Reading())

    def decode(self, plain: Plain, reading: Reading) -> Any:
        """The value that :meth:`encode` took.

        :raises DamagedJournal: if it is of a kind that is not known here
        """
        if isinstance(plain, list):
            return [self.decode(item, reading) for item in plain]
        if not isinstance(plain, dict):
            return plain
        if TAG not in plain:
            return {key: self.decode(item, reading)
                    for key, item in plain.items()}
        try:
            kind, *values = plain[TAG]
            read = getattr(self, '_read_' + _READERS[kind])
        except (KeyError, TypeError, ValueError):
            raise exception.DamagedJournal(
                'a journal payload has a value of unknown kind %r'
                % (plain[TAG],)) from None
        return read(reading, *values)

    def _read_coded(self, reading: Reading, name: str, plain: Plain) -> Any:
        try:
            codec = self._by_name[name]
        except KeyError:
            raise exception.DamagedJournal(
                'a journal payload has a %r, which is not known here' % name) \
                from None
        return codec.load(self.decode(plain, reading), reading.context)

    def _read_object(self, reading: Reading, plain: Plain) -> Any:
        return self._objects.deserialize_entity(reading.context, plain)

    def _read_secret(self, reading: Reading, token: str | None) -> Secret:
        try:
            data = self._vault.open(token)
        except exception.SecretUnavailable as exc:
            reading.missing.append(str(exc))
            return Secret(None)
        return Secret(self.decode(json.loads(data), reading))

    def _read_tuple(self, reading: Reading, items: Plain) -> tuple:
        return tuple(self.decode(item, reading) for item in items)

    def _read_set(self, reading: Reading, items: Plain) -> set:
        return {self.decode(item, reading) for item in items}

    def _read_frozenset(self, reading: Reading, items: Plain) -> frozenset:
        return frozenset(self._read_set(reading, items))

    def _read_datetime(self, reading: Reading,
                       text: str) -> datetime.datetime:
        return datetime.datetime.fromisoformat(text)

    def _read_bytes(self, reading: Reading, text: str) -> bytes:
        return base64.b64decode(text)

    def _read_exception(self, reading: Reading,
                        plain: Plain) -> BaseException:
        return failures.load(plain, lambda item: self.decode(item, reading))

    def _read_mapping(self, reading: Reading, items: Plain) -> dict:
        return {self.decode(key, reading): self.decode(item, reading)
                for key, item in items}


_SCALARS = (type(None), bool, int, float, str)
_READERS = {'c': 'coded', 'o': 'object', 's': 'secret', 't': 'tuple',
            'S': 'set', 'F': 'frozenset', 'd': 'datetime', 'b': 'bytes',
            'x': 'exception', 'm': 'mapping'}


def _json(plain: Plain) -> bytes:
    return json.dumps(plain, separators=(',', ':')).encode('utf-8')


_FAILURE = Codec(
    taskflow_failure.Failure, 'failure', failures.exception_of,
    lambda exc, context: failures.to_failure(exc))


def _scalar(value: Any) -> Plain:
    # Not str(value): an enum says something else there than it is.
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return str.__str__(value)


def reveal(value: Any) -> Any:
    """The value inside a Secret, any other value as it is."""
    return value.value if isinstance(value, Secret) else value
