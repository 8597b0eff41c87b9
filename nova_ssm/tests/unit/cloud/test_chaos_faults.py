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
"""The list of faults."""

from nova_ssm import conf
from nova_ssm.tests.cloud import chaos_faults
from nova_ssm.tests.cloud import unruly


def test_each_fault_has_a_time_and_a_word_for_people():
    for name, fault in chaos_faults.FAULTS.items():
        least, most = fault.lasts
        assert 0 < least <= most, name
        assert fault.name == name and fault.about


def test_each_api_has_all_manners():
    for name in ('placement', 'neutron'):
        assert {f'{name}-{manner}' for manner in unruly.MANNERS} <= set(
            chaos_faults.FAULTS)


def test_a_conductor_sleeps_longer_than_its_lease():
    lease = next(option for option in conf.ssm_opts
                 if option.name == 'lease')
    assert chaos_faults.FAULTS['conductor-paused'].lasts[0] > lease.default


def test_the_database_is_away_for_half_a_minute():
    assert chaos_faults.FAULTS['database-stopped'].lasts == (30, 30)
