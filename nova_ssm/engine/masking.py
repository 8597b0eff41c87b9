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

"""Keeps secrets out of what people read: failures, troubles, logs.

Whatever is a secret to the journal is known here for as long as its flow is
run, and is found in any text. What only looks like one (``password=...``, a
token in JSON, the password of a database's URL) is masked as well.
"""

import base64
import binascii
from collections.abc import Mapping
import json
import logging
import re
from typing import Any

from oslo_utils import strutils
from taskflow.types import failure

from nova_ssm.engine import failures

MASK = '***'

#: Shorter ones would be found in any text.
_SHORTEST = 4
#: Of a URL with one host, or with several as those of a message bus.
_URL_PASSWORD = re.compile(r'((?:\w://|,)[^\s:/@,]*:)[^\s/@,]+(@)')

#: As in the repr() of a text that has a repr() in it, which strutils does
#: not know.
_QUOTED = re.compile(
    r'(\w*(?:pass|token|secret)\w*\\+["\']\s*:\s*\\+["\']).*?(\\+["\'])',
    re.IGNORECASE)


class Mask:
    """Knows the secrets of one flow.

    Called with a text, it gives the text without them.
    """

    def __init__(self) -> None:
        self._known: set[str] = set()

    def learn(self, plain: Any) -> None:
        """Take in a secret: plain JSON, of which each text is one."""
        if isinstance(plain, str):
            self._learn_text(plain)
        elif isinstance(plain, Mapping):
            for value in plain.values():
                self.learn(value)
        elif isinstance(plain, (list, tuple)):
            for value in plain:
                self.learn(value)

    def _learn_text(self, text: str) -> None:
        if len(text) >= _SHORTEST:
            self._known.add(text)
            inner = _decoded(text)
            if len(inner) >= _SHORTEST:
                self._known.add(inner)
            self._learn_named(_parsed(text))

    def _learn_named(self, plain: Any) -> None:
        """Learn what is secret by its key only, e.g. of a connection."""
        if isinstance(plain, Mapping):
            for key, value in plain.items():
                if _of_key(key, value) != value:
                    self.learn(value)
                self._learn_named(value)
        elif isinstance(plain, list):
            for value in plain:
                self._learn_named(value)

    def __call__(self, text: str) -> str:
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, MASK)
            # As repr() writes it, in a list of arguments.
            text = text.replace(repr(secret)[1:-1], MASK)
        return masked(text)

    def plain(self, plain: Any) -> Any:
        """Plain JSON without the secrets; keys tell of them too."""
        if isinstance(plain, str):
            return self(plain)
        if isinstance(plain, Mapping):
            return {key: _of_key(key, self.plain(value))
                    for key, value in plain.items()}
        if isinstance(plain, list):
            return [self.plain(value) for value in plain]
        return plain

    def traceback(self, exc: BaseException) -> str:
        """The traceback of an exception, for a log."""
        return self(failures.format_traceback(exc))


class NoFailures(logging.Filter):
    """Takes out of log records what a task has raised, but for its class.

    TaskFlow logs failures on their way, word by word.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _class_of(arg) if isinstance(arg, failure.Failure) else arg
                for arg in record.args)
        return True


def _class_of(failed: failure.Failure) -> str:
    return next(iter(failed), 'failure')


def masked(text: str) -> str:
    """A text without what looks like a secret."""
    text = strutils.mask_password(text, MASK)
    for pattern in (_QUOTED, _URL_PASSWORD):
        text = pattern.sub(r'\g<1>%s\g<2>' % MASK, text)
    return text


def _of_key(key: str, value: Any) -> Any:
    """The value, masked if its key is the name of a secret."""
    if not isinstance(value, str):
        return value
    return strutils.mask_dict_password({key: value}, MASK)[key]


def _parsed(text: str) -> Any:
    """What a text is in JSON; None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _decoded(text: str) -> str:
    """What stands in the base64 of an injected file, if it is text."""
    try:
        return base64.b64decode(text, validate=True).decode('utf-8')
    except (binascii.Error, ValueError):
        return ''
