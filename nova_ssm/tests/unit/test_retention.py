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

"""For how long flows are kept that are over."""

import pytest

from nova_ssm import exception
from nova_ssm import retention
from nova_ssm.tasks import abandoned


def test_a_week_and_three_months(conf):
    ages = retention.ages(conf())
    assert (ages.finished, ages.failed) == (7 * 86400, 90 * 86400)


def test_zero_is_for_ever(conf):
    ages = retention.ages(conf('[ssm]\nkeep_finished = 0\nkeep_failed = 0\n'))
    assert (ages.finished, ages.failed) == (None, None)


@pytest.mark.parametrize('name', ('keep_finished', 'keep_failed'))
def test_what_conductors_look_back_at_is_kept(conf, name):
    text = '[DEFAULT]\nrpc_response_timeout = 90\n[ssm]\n%s = %d\n'
    retention.ages(conf(text % (name, 300)))
    with pytest.raises(exception.ConfigurationError, match=(
            r'\[ssm\] %s is too short \(299 seconds\).*for 300 seconds.*'
            'rpc_response_timeout' % name)):
        retention.ages(conf(text % (name, 299)))


def test_that_is_as_long_as_they_look_back():
    """The tasks look back for three windows."""
    assert retention.look_back(abandoned.CONF) == 3 * abandoned.window()
