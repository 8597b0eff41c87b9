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

from collections.abc import Callable
import importlib
import traceback
from typing import Any

from oslo_log import log as logging
from taskflow.types import failure as taskflow_failure

from nova_ssm.engine import exception

LOG = logging.getLogger(__name__)


class LostException(Exception):
    """Stands for an exception whose class is not importable here."""


def dump(exc: BaseException, encode: Callable[[Any], Any]) -> dict[str, Any]:
    """Take an exception apart.

    :param encode: turns a value into JSON; what it refuses is written as text
    """
    return {
        'class': _name_of(type(exc)),
        'text': _text(exc),
        'args': [_or_text(arg, encode) for arg in _args(exc)],
        'attributes': {name: _or_text(value, encode)
                       for name, value in vars(exc).items()
                       if not name.startswith('__')},
        'traceback': format_traceback(exc),
    }


def _name_of(cls: type[BaseException]) -> str:
    """The name that a class is found by: see :func:`find_class`.

    What comes over RPC is of a class that oslo.messaging makes up on the
    spot, below the real one. Who is to find the same again, and to take it
    for the same, is told of that.
    """
    for base in cls.__mro__:
        if base.__module__ == 'builtins':
            break
        if find_class(_own_name(base)) is base:
            return _own_name(base)
    return _own_name(cls)


def _own_name(cls: type[BaseException]) -> str:
    return '%s:%s' % (cls.__module__, cls.__qualname__)


def _args(exc: BaseException) -> tuple[Any, ...]:
    """What a builtin exception is made of; the file name is not in args."""
    if isinstance(exc, OSError):
        args = OSError.__reduce__(exc)[1]
        assert isinstance(args, tuple)
        return args
    return exc.args


def format_traceback(exc: BaseException) -> str:
    """The traceback as text; of a resumed exception the original one."""
    if isinstance(exc.__cause__, exception.RemoteTraceback):
        return exc.__cause__.text
    return ''.join(traceback.format_exception(exc))


def load(plain: dict[str, Any],
         decode: Callable[[Any], Any]) -> BaseException:
    """Put an exception together again, without calling its constructor."""
    cls = find_class(plain['class'])
    exc = _rebuild(cls, plain, decode) if cls is not None else None
    if exc is None:
        exc = LostException('%s: %s' % (
            plain['class'].replace(':', '.'), plain['text']))
    exc.__cause__ = exception.RemoteTraceback(plain['traceback'])
    return exc


def _rebuild(cls: type[BaseException], plain: dict[str, Any],
             decode: Callable[[Any], Any]) -> BaseException | None:
    args = [_or_nothing(arg, decode) for arg in plain['args']]
    # Constructors of exceptions take what they like. State is enough, but
    # for that of builtin ones, which only their own constructor can set.
    builtin: Any = next(base for base in cls.__mro__
                        if base.__module__ == 'builtins')
    try:
        exc: BaseException = builtin.__new__(cls, *args)
    except (TypeError, ValueError) as error:
        LOG.debug('%s cannot be made from %s: %s', cls, args, error)
        return None
    try:
        builtin.__init__(exc, *args)
    except (TypeError, ValueError):
        # Its class has not told the builtin one what that wants to know.
        exc.args = tuple(args)
    for name, value in plain['attributes'].items():
        _set(exc, name, _or_nothing(value, decode))
    if _text(exc) != plain['text']:
        _let_say(exc, plain['text'])
    return exc


def _let_say(exc: BaseException, text: str) -> None:
    """Let an exception that has lost its words say what it said."""
    cls = type(exc)
    try:
        exc.__class__ = type(cls.__name__, (cls,), {
            '__slots__': (), '__module__': cls.__module__,
            '__qualname__': cls.__qualname__, '__str__': lambda self: text})
    except TypeError:
        LOG.debug('%s cannot be taught to say %r', cls, text)


def find_class(name: str) -> type[BaseException] | None:
    """The exception class of that name, None if there is none here.

    :param name: 'module:qualified name'
    """
    module, _, path = name.partition(':')
    try:
        cls: Any = importlib.import_module(module)
        for part in path.split('.'):
            cls = getattr(cls, part)
    except Exception as exc:  # noqa: BLE001 - whatever an import may raise
        LOG.debug('There is no %s here: %s', name, exc)
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
    except Exception:  # noqa: BLE001 - an attribute may be anything at all
        return _text(value)


def _or_nothing(plain: Any, decode: Callable[[Any], Any]) -> Any:
    try:
        return decode(plain)
    except Exception as exc:  # noqa: BLE001 - what it refers to may be gone
        LOG.debug('A part of an exception cannot be read back: %s', exc)
        return None


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as exc:  # noqa: BLE001 - some cannot say what they are
        return '%s (%s: %s)' % (type(value).__name__, type(exc).__name__, exc)


def _set(exc: BaseException, name: str, value: Any) -> None:
    try:
        setattr(exc, name, value)
    except (AttributeError, TypeError, ValueError):
        LOG.debug('%s has a read-only attribute %s', type(exc), name)
