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

import pytest

from nova_ssm.engine import exception
from nova_ssm.engine import queries
from nova_ssm.engine import serialization
from nova_ssm.tests.unit.engine import helpers


class OnceWithPassword(helpers.Once):

    def execute(self, password, **kwargs):
        return super().execute()

    def recover(self, password, **kwargs):
        return super().recover(password=password)


def _kill_in(world, url, process, keys, moment):
    flows = {'flow': lambda: helpers.linear(
        helpers.Do('a', world), OnceWithPassword('cast', world))}
    world.kill_at = moment
    with pytest.raises(helpers.Killed):
        process(flows, keys=keys).run(password=serialization.Secret('tiger'))
    helpers.expire_leases(url)
    [outcome] = process(flows, keys=keys).resume_all()
    return outcome


@pytest.fixture
def process(url, world):
    return lambda flows, **kwargs: helpers.Process(
        url, world, flows, **kwargs)


def test_what_was_done_once_is_found_done_without_its_secret(
        process, world, url):
    # Behind the effect of the cast, before its row.
    outcome = _kill_in(world, url, process, (), 7)
    assert world.effects == ['a', 'cast']
    assert world.count('recover cast') == 1
    assert outcome.state == 'SUCCESS'


def test_what_was_not_done_is_not_begun_without_its_secret(
        process, world, url):
    # Behind the row of its start, before its effect.
    outcome = _kill_in(world, url, process, (), 6)
    assert world.count('recover cast') == 1
    assert outcome.state == 'REVERTED'
    assert isinstance(outcome.failure, exception.SecretUnavailable)
    assert world.effects == []


def test_children_have_the_version_that_is_registered(process, world, db):
    one = process({
        'flow': lambda: helpers.linear(helpers.Spawn('spawn', world, 1)),
        'child-0': lambda: helpers.linear(helpers.Do('a', world)),
    }, version='1.3')
    assert one.run().state == 'SUCCESS'
    assert {info.name: info.version for info in queries.flows(db)} == {
        'flow': '1.3', 'child-0': '1.3'}
