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
* A *secret* is encrypted before it is written, and so is what a versioned
  object marks as sensitive. Without a key it is not written at all, and is
  missing when it is read back.

What cannot be encrypted without being lost, an exception, is written without
the secrets that its flow knows of (see :mod:`nova_ssm.engine.masking`).

The engine knows no class of its user: object base class, context and
references are handed to :class:`Serializer`.
"""

import base64
from collections.abc import Callable, Collection, Mapping, Sequence
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
from nova_ssm.engine import masking
from nova_ssm.engine import payloads
from nova_ssm.engine import primitives
from nova_ssm.engine import versioned

TAG = payloads.TAG

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
    :param secrets: what of an object must not be read in any text, though
        it is not journaled
    """

    cls: type
    name: str
    dump: Callable[[Any], Any]
    load: Callable[[Any, Any], Any]
    secrets: Callable[[Any], Any] | None = None


@dataclasses.dataclass
class Reading:
    """What one reading of a flow needs, and what it could not read.

    :param context: handed to the codecs and to versioned objects
    :param missing: why secrets are missing; each of them is read as None
    :param mask: knows those that could be read
    """

    context: Any = None
    missing: list[str] = dataclasses.field(default_factory=list)
    mask: masking.Mask = dataclasses.field(default_factory=masking.Mask)


class Vault:
    """Encrypts with the first key, decrypts with any of them."""

    def __init__(self, keys: Sequence[str] = ()) -> None:
        """:raises ValueError: if a key is not a Fernet key"""
        try:
            made = [fernet.Fernet(key) for key in keys]
        except (ValueError, TypeError) as exc:
            raise ValueError(
                'not a Fernet key (44 characters of URL-safe base64); '
                '"nova-ssm key new" makes one') from exc
        self._first = made[0] if made else None
        self._fernet = fernet.MultiFernet(made) if made else None

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

    def reseal(self, token: str) -> str:
        """The token under the first key; the same if it is already.

        :raises SecretUnavailable: if none of the keys opens it
        """
        if self._fernet is None or self._first is None:
            raise exception.SecretUnavailable('[ssm] encryption_keys is empty')
        try:
            self._first.decrypt(token)
        except fernet.InvalidToken:
            return self._first.encrypt(self.open(token)).decode('ascii')
        return token


class Serializer:
    """Turns values into JSON and back.

    :param objects: makes versioned objects of their written form, e.g. Nova's
        ``NovaObjectSerializer()``
    :param codecs: the classes with a form of their own; first match wins
    :param vault: encrypts the secrets
    :param sensitive: fields of versioned objects that are secrets though
        they are not marked so, by the name of the object
    """

    def __init__(self,
                 objects: ovo_base.VersionedObjectSerializer | None = None,
                 codecs: Sequence[Codec] = (),
                 vault: Vault | None = None,
                 sensitive: Mapping[str, Collection[str]] | None = None
                 ) -> None:
        self._objects = objects or ovo_base.VersionedObjectSerializer()
        self._versioned = versioned.Objects(sensitive or {})
        self._codecs = (*codecs, _FAILURE)
        self._by_name = {codec.name: codec for codec in self._codecs}
        self._vault = vault or Vault()

    # -- writing ----------------------------------------------------------

    def pack(self, value: Any, mask: masking.Mask | None = None) -> bytes:
        """:raises NotSerializable: if there is a value we cannot write"""
        return self.compress(self.encode(value, mask))

    @staticmethod
    def compress(plain: Plain) -> bytes:
        """The bytes of what :meth:`encode` has made."""
        return zlib.compress(_json(plain), 1)

    def encode(self, value: Any, mask: masking.Mask | None = None) -> Plain:
        """The value as JSON.

        :param mask: learns the secrets in it, and takes them out of
            exceptions
        :raises NotSerializable: if there is a value we cannot write
        """
        if value is None or isinstance(value, (bool, int, float, str)):
            # A subclass (an enum, a translated message) is its plain value.
            return value if type(value) in _SCALARS else _scalar(value)
        if mask is None:
            mask = masking.Mask()
        if type(value) is dict:
            # Most of what is not a plain value: nobody else is asked.
            return self._encode_mapping(value, mask)
        for codec in self._codecs:
            if isinstance(value, codec.cls):
                if codec.secrets is not None:
                    mask.learn(codec.secrets(value))
                return self._tagged('c', codec.name,
                                    self.encode(codec.dump(value), mask))
        if isinstance(value, ovo_base.VersionedObject):
            return self._encode_object(value, mask)
        if isinstance(value, Secret):
            return self._tagged('s', self._seal(
                self.encode(value.value, mask), mask))
        return self._encode_container(value, mask)

    def _encode_object(self, value: ovo_base.VersionedObject,
                       mask: masking.Mask) -> Plain:
        primitive = primitives.primitive(value)
        secrets = self._versioned.take_secrets(primitive)
        if not secrets:
            return self._tagged('o', primitive)
        return self._tagged('o', primitive, self._seal(secrets, mask))

    def _seal(self, plain: Plain, mask: masking.Mask) -> str | None:
        mask.learn(plain)
        return self._vault.seal(_json(plain))

    def _encode_container(self, value: Any, mask: masking.Mask) -> Plain:
        if isinstance(value, list):
            return [self.encode(item, mask) for item in value]
        if isinstance(value, Mapping):
            return self._encode_mapping(value, mask)
        if isinstance(value, tuple):
            return self._tagged('t', [self.encode(item, mask)
                                      for item in value])
        if isinstance(value, (set, frozenset)):
            return self._tagged(
                'S' if isinstance(value, set) else 'F',
                sorted((self.encode(item, mask) for item in value),
                       key=repr))
        if isinstance(value, datetime.datetime):
            return self._tagged('d', value.isoformat())
        if isinstance(value, bytes):
            return self._tagged('b', base64.b64encode(value).decode('ascii'))
        if isinstance(value, BaseException):
            return self._tagged('x', mask.plain(failures.dump(
                value, lambda item: self.encode(item, mask))))
        raise exception.NotSerializable(
            'a value of type %s.%s cannot be journaled: give a versioned '
            'object or plain JSON' % (type(value).__module__,
                                      type(value).__qualname__))

    def _encode_mapping(self, value: Mapping, mask: masking.Mask) -> Plain:
        if TAG not in value and all(type(key) is str for key in value):
            return {key: self.encode(item, mask)
                    for key, item in value.items()}
        return self._tagged('m', [[self.encode(key, mask),
                                   self.encode(item, mask)]
                                  for key, item in value.items()])

    # -- looking ----------------------------------------------------------

    def has_codec(self, cls: type) -> bool:
        """Whether instances of a class are written by a codec."""
        return any(issubclass(cls, codec.cls) for codec in self._codecs)

    def check(self, plain: Plain) -> None:
        """See whether a payload could be read, without reading it.

        :raises Unreadable: if something in it is not known here
        """
        try:
            for kind, *values in payloads.tagged(plain):
                if kind not in _READERS:
                    raise exception.Unreadable(
                        'a journal payload has a value of unknown kind %r'
                        % kind)
                if kind == 'c':
                    self._codec(values[0])
                elif kind == 'o':
                    self._versioned.check(values[0])
        except (LookupError, TypeError, ValueError, AttributeError) as exc:
            raise exception.DamagedJournal(
                'a journal payload is not what was written: %r' % exc) from exc

    @staticmethod
    def _tagged(kind: str, *values: Plain) -> Plain:
        return {TAG: [kind, *values]}

    # -- reading ----------------------------------------------------------

    def unpack(self, data: bytes | None,
               reading: Reading | None = None) -> Any:
        """:raises DamagedJournal: if the bytes are not what was written"""
        return self.decode(self.expand(data), reading or Reading())

    @staticmethod
    def expand(data: bytes | None) -> Plain:
        """What :meth:`compress` was given.

        :raises DamagedJournal: if the bytes are not what was written
        """
        try:
            return json.loads(zlib.decompress(data or b''))
        except (zlib.error, ValueError, TypeError) as exc:
            raise exception.DamagedJournal(
                'a journal payload cannot be read: %s' % exc) from exc

    def decode(self, plain: Plain, reading: Reading) -> Any:
        """The value that :meth:`encode` took.

        :raises Unreadable: if it is of a kind that is not known here
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
            raise exception.Unreadable(
                'a journal payload has a value of unknown kind %r'
                % (plain[TAG],)) from None
        return read(reading, *values)

    def _read_coded(self, reading: Reading, name: str, plain: Plain) -> Any:
        codec = self._codec(name)
        value = codec.load(self.decode(plain, reading), reading.context)
        if codec.secrets is not None:
            reading.mask.learn(codec.secrets(value))
        return value

    def _codec(self, name: str) -> Codec:
        try:
            return self._by_name[name]
        except KeyError:
            raise exception.Unreadable(
                'a journal payload has a %r, which is not known here' % name) \
                from None

    def _read_object(self, reading: Reading, plain: Plain,
                     *token: str | None) -> Any:
        self._versioned.check(plain)
        for sealed in token:
            self._versioned.put_secrets(
                plain, self._open(reading, sealed) or [])
        return self._objects.deserialize_entity(reading.context, plain)

    def _read_secret(self, reading: Reading, token: str | None) -> Secret:
        return Secret(self.decode(self._open(reading, token), reading))

    def _open(self, reading: Reading, token: str | None) -> Plain:
        """What was sealed, None if it cannot be had."""
        try:
            plain = json.loads(self._vault.open(token))
        except exception.SecretUnavailable as exc:
            reading.missing.append(str(exc))
            return None
        reading.mask.learn(plain)
        return plain

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
