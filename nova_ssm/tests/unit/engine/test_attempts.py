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

"""What fails is not given up at once: undone again, or looked at."""

import logging

import pytest
from taskflow.patterns import linear_flow

from nova_ssm.engine import attempts
from nova_ssm.engine import queries
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Tries again twice, and waits for that no longer than a test does."""
    monkeypatch.setattr(attempts, 'PATIENCE', (0, 0))


@pytest.fixture
def process(url):
    def make(flows, world):
        return helpers.Process(url, world, flows)
    return make


class Flaky(helpers.World):
    """A world in which something fails a number of times."""

    def __init__(self, **times):
        super().__init__()
        self.times = {what.replace('_', ' '): left
                      for what, left in times.items()}

    def call(self, what):
        super().call(what)
        self.fail(what)

    def make(self, name):
        super().make(name)
        self.fail('made ' + name)

    def fail(self, what):
        if self.times.get(what):
            self.times[what] -= 1
            raise ConnectionError('the secret bus is away')


def _last_fails(world):
    return {'flow': lambda: linear_flow.Flow('flow').add(
        helpers.Do('a', world), helpers.Do('b', world), Fails('c', world))}


class Fails(helpers.Do):

    def execute(self, **kwargs):
        super().execute(**kwargs)
        raise examples.Broken('compute', code=7)

    recover = execute


# -- what is undone ---------------------------------------------------------

@pytest.mark.parametrize('times', [1, 2])
def test_what_cannot_be_undone_is_tried_again(process, db, times):
    world = Flaky(undo_b=times)
    outcome = process(_last_fails(world), world).run()
    assert (outcome.state, world.effects) == ('REVERTED', [])
    assert type(outcome.failure) is examples.Broken
    assert [world.count('undo ' + name) for name in 'cba'] == [
        1, times + 1, 1]


def test_it_is_given_up_in_the_end(process, db):
    world = Flaky(undo_b=100)
    outcome = process(_last_fails(world), world).run()
    assert outcome.state == 'FAILURE'
    assert world.count('undo b') == 3
    assert 'undoing b: ConnectionError' in (
        queries.flow(db, outcome.uuid).failure)


def test_who_tries_again_may_die_at_each_moment(url):
    moment = 0
    while True:
        moment += 1
        world = Flaky(undo_b=1)
        one = helpers.Process(url, world, _last_fails(world))
        world.kill_at = moment
        try:
            one.run()
        except helpers.Killed:
            pass
        else:
            break
        world.kill_at = None
        helpers.expire_leases(url)
        helpers.Process(url, world, _last_fails(world)).resume_all()
        assert world.effects == []
    assert moment > 8


def test_the_log_tells_no_more_than_the_kind_of_what_failed(process, caplog):
    caplog.set_level(logging.WARNING)
    world = Flaky(undo_b=1)
    process(_last_fails(world), world).run()
    [said] = [record.getMessage() for record in caplog.records
              if 'could not be undone' in record.getMessage()]
    assert 'Task b could not be undone: ConnectionError' in said
    assert 'secret' not in said


def test_a_flow_that_is_let_go_of_does_not_wait_for_another_try(
        process, url, monkeypatch):
    monkeypatch.setattr(attempts, 'PATIENCE', (0, 0, 600))
    world = Flaky(undo_b=100)
    one = process(_last_fails(world), world)
    call = world.call

    def stop(what):
        if what == 'undo b':
            one.runner.worker.suspend()
        call(what)

    world.call = stop
    assert one.run().state == 'LOST'
    assert world.count('undo b') == 1
    world.call, world.times = call, {}
    helpers.expire_leases(url)
    other = helpers.Process(url, world, _last_fails(world))
    assert [outcome.state for outcome in other.resume_all()] == ['REVERTED']
    assert world.effects == []


# -- what may have been done ------------------------------------------------

class Cast(helpers.Once):

    def in_doubt(self, exc):
        return not isinstance(exc, LookupError)


def _casts(world):
    return {'flow': lambda: linear_flow.Flow('flow').add(
        helpers.Do('a', world), Cast('b', world))}


def test_what_was_done_though_it_failed_counts_as_done(process):
    world = Flaky(made_b=1)
    outcome = process(_casts(world), world).run()
    assert (outcome.state, world.effects) == ('SUCCESS', ['a', 'b'])
    assert (world.count('do b'), world.count('recover b')) == (1, 1)
    assert not world.doubled


def test_what_was_not_done_is_done_again(process):
    world = Flaky(do_b=1)
    outcome = process(_casts(world), world).run()
    assert (outcome.state, world.effects) == ('SUCCESS', ['a', 'b'])
    assert (world.count('do b'), world.count('recover b')) == (2, 1)


def test_what_fails_again_has_failed(process):
    world = Flaky(do_b=2)
    outcome = process(_casts(world), world).run()
    assert (outcome.state, world.effects) == ('REVERTED', [])
    assert world.count('recover b') == 1


def test_others_that_fail_are_undone_at_once(process):
    world = Flaky(made_a=1)
    outcome = process(_casts(world), world).run()
    assert (outcome.state, world.effects) == ('REVERTED', [])
    assert world.count('recover a') == 0


class Refused(Flaky):
    """A world whose bus was not even asked."""

    def fail(self, what):
        if self.times.get(what):
            raise LookupError('no such compute')


def test_what_cannot_have_been_done_is_undone_at_once(process):
    world = Refused(do_b=1)
    outcome = process(_casts(world), world).run()
    assert (outcome.state, world.effects) == ('REVERTED', [])
    assert world.count('recover b') == 0
