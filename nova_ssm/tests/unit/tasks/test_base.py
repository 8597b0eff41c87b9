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

"""Why a task is reverted, and how Nova's helpers are told of it."""

import sys
import traceback

from nova import exception
import pytest

from nova_ssm.engine import serialization
from nova_ssm.tasks import base
from nova_ssm.tests.unit.tasks import world as world_module


def select_destinations():
    raise exception.NoValidHost(reason='full')


def caught():
    with pytest.raises(exception.NoValidHost) as raised:
        select_destinations()
    return raised.value


def journaled(exc):
    """The exception as another conductor reads it."""
    serializer = serialization.Serializer()
    return serializer.unpack(serializer.pack(exc))


def test_cause_is_its_own_failure_first():
    own, other = ValueError('own'), ValueError('other')
    assert base.cause_of(world_module.failure(own), {
        'other': world_module.failure(other)}) is own
    assert base.cause_of('a result', {
        'other': world_module.failure(other)}) is other


def test_cause_that_is_lost_is_told_as_text():
    failure = world_module.failure(ValueError('lost'))
    failure._exception = None
    assert 'lost' in str(base.cause_of(failure, {}))


@pytest.mark.parametrize('restarted', (False, True))
def test_helpers_see_where_it_was_raised(restarted):
    exc = caught()
    if restarted:
        exc = journaled(exc)

    def helper(*args, **kwargs):
        kind, value, where = sys.exc_info()
        assert kind is exception.NoValidHost and value is exc
        lines = ''.join(traceback.format_tb(where))
        assert lines.count('in select_destinations') == 1
        assert "raise exception.NoValidHost(reason='full')" in lines
        return args, kwargs
    for _time in range(2):
        assert base.while_handling(exc, helper, 1, two=2) == (
            (1,), {'two': 2})


def _fail():
    raise OSError('no database')


def test_helpers_may_fail():
    with pytest.raises(OSError):
        base.while_handling(caught(), _fail)
