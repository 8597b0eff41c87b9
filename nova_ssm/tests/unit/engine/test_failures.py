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

"""Exceptions that come back as what they were."""

import builtins
import json
import string
import sys
import traceback

import hypothesis
from hypothesis import given
from hypothesis import strategies as st
from oslo_messaging._drivers import common
import pytest
from taskflow.types import failure as taskflow_failure

from nova_ssm.engine import exception
from nova_ssm.engine import failures
from nova_ssm.engine import masking
from nova_ssm.engine import serialization

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.text(), inner, max_size=3), max_leaves=5)
names = st.text(string.ascii_lowercase, min_size=1, max_size=8).filter(
    lambda name: name not in ('args', 'code', 'words'))


class Simple(Exception):
    """One that takes anything."""


class Odd(Exception):
    """One whose constructor wants what is not in its args."""

    def __init__(self, *, code, words=''):
        self.code = code
        self.words = words
        super().__init__('%s (%s)' % (words, code))


class Formatted(Exception):
    """One that makes its message of its attributes."""

    def __init__(self, **kwargs):
        super().__init__()
        self.kwargs = kwargs

    def __str__(self):
        return 'no %(what)s on %(host)s' % self.kwargs


class Slotted(Exception):
    """One whose message is lost with its slots."""

    __slots__ = ('what',)

    def __init__(self, what):
        self.what = what

    def __str__(self):
        return 'no %s' % getattr(self, 'what', '?')


class New(Exception):
    """One that is not even made like others."""

    def __new__(cls, *, code):
        return super().__new__(cls)

    def __init__(self, *, code):
        super().__init__(code)


class Outer:
    """Where a class may be, too."""

    class Inner(Exception):
        pass


class Mute(Exception):
    """One that cannot say what it is."""

    def __str__(self):
        raise KeyError('kwargs')


def is_harmless(value):
    """Whether nothing in it looks like a secret, as "password=..." does."""
    text = str(value)
    return masking.Mask().plain([value, text]) == [value, text]


def again(exc):
    """Through the journal, and back."""
    serializer = serialization.Serializer()
    return serializer.unpack(serializer.pack(exc))


@given(st.lists(plain, max_size=3), st.dictionaries(names, plain))
def test_class_args_and_attributes_survive(args, attributes):
    hypothesis.assume(is_harmless([args, attributes]))
    exc = Simple(*args)
    vars(exc).update(attributes)
    back = again(exc)
    assert type(back) is Simple
    assert back.args == exc.args
    assert vars(back) == vars(exc)
    assert str(back) == str(exc)


@given(plain, st.text())
def test_a_constructor_may_want_what_it_likes(code, words):
    hypothesis.assume(is_harmless([code, words]))
    back = again(Odd(code=code, words=words))
    assert type(back) is Odd
    assert (back.code, back.words) == (code, words)
    assert str(back) == '%s (%s)' % (words, code)


@pytest.mark.parametrize('exc', [
    Formatted(what='room', host='a'), New(code=3), Outer.Inner('x'),
    KeyError('x'), OSError(2, 'gone'), FileNotFoundError(2, 'gone', 'name'),
    ImportError('x'), UnicodeDecodeError('utf-8', b'\xff', 0, 1, 'bad'),
    ConnectionResetError(), StopIteration(3), ZeroDivisionError('x', 1),
    SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_many_kinds_of_exceptions_survive(exc):
    back = again(exc)
    assert type(back) is type(exc)
    assert str(back) == str(exc)
    assert back.args == exc.args


def test_a_group_brings_its_members():
    group = again(ExceptionGroup('two', [Odd(code=1), ValueError('x')]))
    assert [type(exc) for exc in group.exceptions] == [Odd, ValueError]


def test_a_system_error_keeps_its_number():
    back = again(FileNotFoundError(2, 'gone', 'name'))
    assert (back.errno, back.filename) == (2, 'name')


def test_a_message_that_is_lost_with_its_parts_is_kept():
    back = again(Slotted('room'))
    assert isinstance(back, Slotted)
    assert str(back) == 'no room'
    assert type(back).__name__ == 'Slotted'
    # And when it is journaled once more.
    assert str(again(back)) == 'no room'


def test_what_cannot_be_journaled_is_kept_as_text():
    exc = Simple('x', object)
    exc.connection = {1: object}
    back = again(exc)
    assert back.args == ('x', str(object))
    assert back.connection == str({1: object})


def test_what_refers_to_itself_is_kept_as_text():
    exc = Simple()
    exc.loop = []
    exc.loop.append(exc.loop)
    assert again(exc).loop == '[[...]]'


def test_who_cannot_say_what_it_is_does_no_harm():
    back = again(Mute('x'))
    assert isinstance(back, Mute)
    assert back.args == ('x',)


def test_what_it_refers_to_may_be_gone():
    class Row:
        pass

    def load(value, context):
        raise LookupError()

    serializer = serialization.Serializer(codecs=[
        serialization.Codec(Row, 'row', lambda row: 1, load)])
    exc = Simple('x')
    exc.row = Row()
    back = serializer.unpack(serializer.pack(exc))
    assert (str(back), back.row) == ('x', None)


def test_its_traceback_becomes_its_cause():
    try:
        raise Simple('here')
    except Simple as exc:
        raised = exc
    back = again(raised)
    assert isinstance(back.__cause__, exception.RemoteTraceback)
    shown = ''.join(traceback.format_exception(back))
    assert "raise Simple('here')" in shown
    # It is still the first one when it is journaled once more.
    assert again(back).__cause__.text == back.__cause__.text


@pytest.mark.parametrize('times', (1, 2))
def test_what_came_over_rpc_is_of_the_class_that_was_sent(times):
    """Of the one that is there, not of the one made up below it."""
    try:
        raise Simple('far away')
    except Simple:
        sent = common.serialize_remote_exception(sys.exc_info())
    back = received = common.deserialize_remote_exception(sent, [__name__])
    assert type(received) is not Simple
    for _time in range(times):
        back = again(back)
    assert isinstance(back, Simple)
    assert (back.args, str(back)) == (received.args, str(received))
    assert type(back).__qualname__ == Simple.__qualname__


def test_a_class_that_cannot_be_found_again_is_one_of_its_base():
    class Local(Simple):
        pass

    back = again(Local('x'))
    assert isinstance(back, Simple)
    assert str(back) == 'x'


def test_a_class_without_a_base_to_be_found_is_told_of_by_its_name():
    class Local(Exception):
        pass

    back = again(Local('x'))
    assert isinstance(back, failures.LostException)
    assert 'Local' in str(back) and str(back).endswith(': x')


def test_a_class_that_is_not_here_is_told_of_by_its_name():
    lost = failures.load({
        'class': 'no.such.module:Thing', 'text': 'it broke', 'args': [],
        'attributes': {}, 'traceback': ''}, lambda value: value)
    assert isinstance(lost, failures.LostException)
    assert str(lost) == 'no.such.module.Thing: it broke'


@pytest.mark.parametrize('name', [
    'os:system', 'builtins:eval', 'subprocess:Popen', 'builtins:object',
    'builtins:type', 'nothing', '', ':', 'os:', 'os.path:join'])
def test_nothing_but_exceptions_is_made_from_a_journal(name):
    assert failures.find_class(name) is None


def test_every_builtin_exception_is_found():
    for name, cls in vars(builtins).items():
        if isinstance(cls, type) and issubclass(cls, BaseException):
            assert failures.find_class('builtins:' + name) is cls


def test_it_is_plain_json():
    taken = failures.dump(Odd(code=1), serialization.Serializer().encode)
    assert json.loads(json.dumps(taken)) == taken


def test_taskflows_failure_holds_the_exception_itself():
    exc = Simple('x')
    failure = failures.to_failure(exc)
    assert failures.exception_of(failure) is exc
    read = taskflow_failure.Failure.from_dict(failure.to_dict())
    assert str(failures.exception_of(read)) == 'x'
