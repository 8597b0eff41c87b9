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

"""Who has lost a flow does nothing more for it."""

from nova_ssm.engine import runner
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

Do, Read = helpers.Do, helpers.Read


# -- ownership -------------------------------------------------------------

def test_who_was_paused_and_lost_its_flow_does_nothing_more(
        process, world, url):
    """Also if its lease is renewed before it looks."""
    flows = examples.simple(world)
    one = process(flows)
    original = world.make

    def make(name):
        original(name)
        if name == 'a' and one.world.process is one:
            # Here it is paused, and wakes up after this.
            helpers.expire_leases(url)
            process(flows).resume_all()
            one.runner.worker.renew()
            del world.calls[:]

    world.make = make
    outcome = one.run()
    assert outcome.state == runner.LOST
    assert world.calls == []
    assert world.effects == ['a', 'b', 'c']
    assert world.doubled == []
    assert helpers.state_of(url, outcome.uuid) == ('SUCCESS', None)


def test_who_was_paused_between_two_steps_begins_no_other(
        process, world, url):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), Read('r', world), Do('b', world))}
    one = process(flows)
    original = world.call

    def call(what):
        original(what)
        if what == 'read r' and world.process is one:
            helpers.expire_leases(url)
            process(flows).resume_all()
            one.runner.worker.renew()
            del world.calls[:]

    world.call = call
    assert one.run().state == runner.LOST
    assert world.calls == []
    assert world.doubled == []


def test_who_was_paused_before_its_first_step_does_not_begin(
        process, world, url):
    flows = examples.simple(world)
    one = process(flows)

    def after_commit(uuid, kind, atom, state):
        if kind == 'start':
            helpers.expire_leases(url)
            process(flows).resume_all()
            one.runner.worker.renew()
            del world.calls[:]

    one.runner.after_commit = after_commit
    assert one.run().state == runner.LOST
    assert world.calls == []


def test_who_was_paused_goes_on_if_nobody_took_the_flow(process, world, url):
    one = process(examples.simple(world))
    original = world.make

    def make(name):
        original(name)
        helpers.expire_leases(url)
        one.runner.worker._renewed -= 1000

    world.make = make
    assert one.run().state == 'SUCCESS'
    assert world.effects == ['a', 'b', 'c']


def test_a_parent_that_was_taken_away_does_not_take_its_children_with_it(
        process, world, url):
    flows = {**examples.parent(world), 'flow': lambda: helpers.linear(
        helpers.Spawn('spawn', world), helpers.Read('r', world))}
    one = process(flows)

    def after_commit(uuid, kind, atom, state):
        if atom == 'spawn':
            job = one.board.get(uuid)
            one.board.abandon(job, one.runner.worker.id)

    one.runner.after_commit = after_commit
    outcome = one.run()
    assert outcome.state == runner.LOST
    assert [child.state for child in outcome.children] == ['SUCCESS'] * 2
    [resumed] = process(flows).resume_all()
    assert resumed.state == 'SUCCESS'
    assert world.doubled == []


def test_a_flow_that_was_taken_away_does_not_end_with_its_last_task(
        process, world, url):
    def abandon():
        [job] = one.board.iterjobs()
        one.board.abandon(job, one.runner.worker.id)
        return helpers.Spawn.execute(spawn)

    spawn = helpers.Spawn('spawn', world)
    spawn.execute = abandon
    flows = {**examples.parent(world),
             'flow': lambda: helpers.linear(Do('p', world), spawn)}
    one = process(flows)
    assert one.run().state == runner.LOST
    assert helpers.state_of(url) == {'flow': 'RUNNING'}
    [resumed] = process(examples.parent(world)).resume_all()
    assert resumed.state == 'SUCCESS'
    assert [child.state for child in resumed.children] == ['SUCCESS'] * 2


def test_a_stopped_runner_hands_its_flows_over_at_their_next_step(
        process, world, url):
    flows = examples.simple(world)
    one = process(flows)
    original = world.make

    def make(name):
        original(name)
        if name == 'a':
            one.runner.worker.suspend()

    world.make = make
    outcome = one.run()
    assert outcome.state == runner.LOST
    assert helpers.state_of(url, outcome.uuid) == ('RUNNING', None)
    one.runner.close()
    process(flows).resume_all()
    assert world.effects == ['a', 'b', 'c']
    assert world.doubled == []
    assert 'recover a' not in world.calls


def test_closing_waits_for_the_step_that_is_under_way(process, world, db):
    one = process(examples.simple(world))
    original = world.make

    def make(name):
        original(name)
        if name == 'a':
            # As if another thread closed it while we are in this step.
            one.runner.close(patience=0)

    world.make = make
    assert one.run().state == runner.LOST
    # The lease is not given back: nobody may take the flow at that moment.
    with db.transaction() as connection:
        assert connection.exec_driver_sql(
            'SELECT count(*) FROM ssm_workers').scalar() == 1
