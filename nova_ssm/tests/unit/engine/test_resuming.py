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
from taskflow.patterns import linear_flow
from taskflow import retry

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


def test_in_another_try_it_has_not_begun(process, world, url):
    flows = {'flow': lambda: linear_flow.Flow(
        'flow', retry=retry.Times(2, name='times')).add(
            OnceWithPassword('cast', world))}
    world.kill_at = 3       # behind the row of its start
    with pytest.raises(helpers.Killed):
        process(flows, keys=()).run(password=serialization.Secret('tiger'))
    helpers.expire_leases(url)
    [outcome] = process(flows, keys=()).resume_all()
    assert (outcome.state, outcome.failed_task) == ('REVERTED', 'cast')
    assert world.count('recover cast') == 1
    assert world.count('undo cast') == 2


def test_children_have_the_version_that_is_registered(process, world, db):
    one = process({
        'flow': lambda: helpers.linear(helpers.Spawn('spawn', world, 1)),
        'child-0': lambda: helpers.linear(helpers.Do('a', world)),
    }, version='1.3')
    assert one.run().state == 'SUCCESS'
    assert {info.name: info.version for info in queries.flows(db)} == {
        'flow': '1.3', 'child-0': '1.3'}


def _reads_between(world, retrying):
    inner = [helpers.Read('r2', world), helpers.Do('b', world)]
    if retrying:
        inner = [linear_flow.Flow('again', retry=retry.Times(
            3, name='times')).add(*inner)]
    return {'flow': lambda: helpers.linear(
        helpers.Do('a', world), helpers.Read('r1', world), *inner)}


@pytest.mark.parametrize('retrying', [False, True])
def test_what_began_is_undone_behind_what_did_not_run(process, world, url,
                                                      retrying):
    """What only reads leaves no row, and fails when it runs again."""
    one = process(_reads_between(world, retrying))
    original = world.make

    def make(name):
        original(name)
        if name == 'b':
            one.kill()

    world.make = make
    with pytest.raises(helpers.Killed):
        one.run()
    world.make = original
    assert world.effects == ['a', 'b']
    world.failing['read r1'] = OSError('gone')
    helpers.expire_leases(url)
    [outcome] = process(_reads_between(world, retrying)).resume_all()
    assert outcome.state == 'REVERTED'
    assert outcome.failed_task == 'r1'
    assert world.effects == []
