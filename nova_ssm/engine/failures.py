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

"""Exceptions that survive the process that raised them.

TaskFlow keeps of a failure its text only, so that whoever resumes a flow
raises something else than what happened. Here an exception is written with
its class, arguments and attributes, and comes back as the same class with
the same message; its traceback, which cannot be rebuilt, becomes its cause.
"""

import traceback
from typing import Any, Callable

from oslo_log import log as logging
from oslo_utils import importutils
from taskflow.types import failure as taskflow_failure

from nova_ssm.engine import exception

LOG = logging.getLogger(__name__)


class LostException(Exception):
    """Stands for an exception whose class is not importable here."""


def dump(exc: BaseException, encode: Callable[[Any], Any]) -> dict[str, Any]:
    """Take an exception apart.

    :param encode: turns a value into JSON; what it refuses is written as text
    """
    cls = type(exc)
    return {
        'class': '%s.%s' % (cls.__module__, cls.__qualname__),
        'text': str(exc),
        'args': [_or_text(arg, encode) for arg in exc.args],
        'attributes': {name: _or_text(value, encode)
                       for name, value in vars(exc).items()
                       if not name.startswith('__')},
        'traceback': format_traceback(exc),
    }


def format_traceback(exc: BaseException) -> str:
    """The traceback as text; of a resumed exception the original one."""
    if isinstance(exc.__cause__, exception.RemoteTraceback):
        return exc.__cause__.text
    return ''.join(traceback.format_exception(exc))


def load(plain: dict[str, Any],
         decode: Callable[[Any], Any]) -> BaseException:
    """Put an exception together again, without calling its constructor."""
    cls = importutils_class(plain['class'])
    args = [decode(arg) for arg in plain['args']]
    if cls is None:
        exc: BaseException = LostException(
            '%s: %s' % (plain['class'], plain['text']))
    else:
        # Constructors of exceptions take what they like; state is enough.
        exc = cls.__new__(cls, *args)
        exc.args = tuple(args)
        for name, value in plain['attributes'].items():
            _set(exc, name, decode(value))
    exc.__cause__ = exception.RemoteTraceback(plain['traceback'])
    return exc


def importutils_class(name: str) -> type[BaseException] | None:
    """The exception class of that name, None if there is none here."""
    module, _, attribute = name.rpartition('.')
    try:
        cls = importutils.import_class(
            name if module != 'builtins' else 'builtins.' + attribute)
    except (ImportError, ValueError):
        return None
    # Nothing but exceptions is ever made from what a journal says.
    if isinstance(cls, type) and issubclass(cls, BaseException):
        return cls
    return None


def to_failure(exc: BaseException) -> taskflow_failure.Failure:
    """TaskFlow's failure around an exception, with its exc_info."""
    return taskflow_failure.Failure(
        exc_info=(type(exc), exc, exc.__traceback__))


def exception_of(failure: taskflow_failure.Failure) -> BaseException:
    """The exception in TaskFlow's failure."""
    if failure.exception is not None:
        return failure.exception
    return LostException(failure.exception_str)


def _or_text(value: Any, encode: Callable[[Any], Any]) -> Any:
    try:
        return encode(value)
    except exception.NotSerializable:
        return str(value)


def _set(exc: BaseException, name: str, value: Any) -> None:
    try:
        setattr(exc, name, value)
    except AttributeError:
        LOG.debug('%s has a read-only attribute %s', type(exc), name)
