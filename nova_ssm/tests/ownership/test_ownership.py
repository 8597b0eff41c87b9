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

"""Who owns a flow: real processes, which die, sleep and lose the database.

Times are printed, and bounded by multiples of the lease only.
"""

import time

import pytest

from nova_ssm.engine import schema
from nova_ssm.tests.ownership import conductor

STEPS = list(conductor.FLOWS['steps'])
LONG = list(conductor.FLOWS['long'])


def assert_done_once(world, *numbers, steps=LONG):
    """Each flow succeeded, and each of its steps has one effect."""
    for number in numbers:
        assert world.flow(number).state == 'SUCCESS'
        assert sorted(world.effects(number)) == sorted(steps)


def begin(world, process, number, name='long', step=2):
    """Ask for a flow, and wait until it has begun a step."""
    process.run(name, number)
    world.until(lambda: len(world.effects(number, what='begin')) > step)


# -- death ------------------------------------------------------------------

def test_another_process_goes_on_when_the_lease_is_over(world, figure):
    lease = 3.0
    one, other = world.start('one', lease), world.start('other', lease)
    begin(world, one, 'f1')
    killed = world.now()
    one.kill()
    world.until(lambda: world.ended('f1'))
    assert_done_once(world, 'f1')
    assert world.writers('f1') == ['one', 'other']
    [claim] = world.claims()
    took = claim.created_at - killed
    figure('SIGKILL: claimed after %.2f s, lease %.0f s', took, lease)
    assert took < 2 * (lease + 1)
    assert [row.partition(':')[0] for row in world.workers()] == ['other']
    assert other.host == 'other'


def test_a_restart_on_the_same_host_waits_for_no_lease(world, figure):
    lease = 600.0
    one = world.start('one', lease)
    begin(world, one, 'f1')
    one.kill()
    [dead] = world.workers()
    again = world.start('one', lease)
    began = world.now()
    world.until(lambda: world.ended('f1'))
    assert_done_once(world, 'f1')
    [claim] = world.claims()
    figure('restart on the same host: claimed %.2f s after its start, lease '
           '%.0f s', claim.created_at - began, lease)
    assert claim.writer != dead
    assert claim.created_at - began < lease / 10
    again.terminate()
    assert again.wait() == 0


# -- sleep ------------------------------------------------------------------

#: Each row that is committed, the middle of each task, and where it has
#: returned and nothing of that is journaled.
POINTS = [('row', 'start'),
          *((kind, step) for step in STEPS
            for kind in ('middle', 'done', 'row'))]


def test_who_slept_longer_than_its_lease_does_nothing_more(world, figure):
    """Stopped at each point of a flow, and woken when another ended it."""
    lease = 2.0
    sleepers = {}
    for number, point in enumerate(POINTS):
        name = '%s-%s' % point
        sleepers[name] = world.start('s%d' % number, lease, wait=False,
                                     freeze=point, recover=False)
    for name, sleeper in sleepers.items():
        sleeper.run('steps', name)
    world.until(lambda: all(one.frozen for one in sleepers.values()),
                patience=180)
    # Whose flow was over with the row at which it stopped needs nobody.
    world.start('other', lease)
    world.until(lambda: world.ended(*sleepers), patience=180)
    before = {name: (world.rows(name), world.flow(name)) for name in sleepers}
    for sleeper in sleepers.values():
        sleeper.thaw()
    # Time enough for all that they could do.
    time.sleep(2 * lease)
    late = 0
    for name in sleepers:
        assert (world.rows(name), world.flow(name)) == before[name], name
        done = world.effects(name)
        # An effect that had begun may not be called back; nothing follows it.
        twice = {step for step in STEPS if done.count(step) > 1}
        kind, _dash, step = name.partition('-')
        assert twice <= ({step} if kind == 'middle' else set()), name
        late += len(twice)
        assert set(done) == set(STEPS), name
        assert world.flow(name).state == 'SUCCESS', name
    figure('SIGSTOP: stopped at %d points; effects after the wake %d, all of '
           'them under way', len(POINTS), late)


def test_a_short_sleep_costs_nothing(world):
    lease = 6.0
    one = world.start('one', lease)
    world.start('other', lease)
    begin(world, one, 'f1')
    one.freeze()
    time.sleep(lease / 4)
    one.thaw()
    world.until(lambda: world.ended('f1'))
    assert_done_once(world, 'f1')
    assert world.claims() == []


# -- the database away ------------------------------------------------------

@pytest.mark.parametrize('how', ['frozen', 'killed'])
def test_a_database_that_is_away_for_longer_than_the_lease(
        world, server, figure, how):
    """Its flows wait, and go on where they were."""
    lease = 2.0
    one, other = world.start('one', lease), world.start('other', lease)
    for number in ('f1', 'f2'):
        begin(world, one, number)
    for number in ('g1', 'g2'):
        begin(world, other, number)
    if how == 'frozen':
        server.freeze()
        time.sleep(3 * lease)
        server.thaw()
    else:
        server.kill()
        time.sleep(3 * lease)
        server.start()
    numbers = ('f1', 'f2', 'g1', 'g2')
    world.until(lambda: world.ended(*numbers))
    assert_done_once(world, *numbers)
    # Nobody took the others for dead, though all leases had run out.
    assert world.claims() == []
    for number in numbers:
        assert world.writers(number) == [
            'one' if number in ('f1', 'f2') else 'other']
    figure('database %s for %.0f leases: %d flows went on, claims 0', how, 3,
           len(numbers))


def test_who_died_while_the_database_was_away_is_replaced(world, server):
    lease = 2.0
    one = world.start('one', lease)
    world.start('other', lease)
    begin(world, one, 'f1')
    server.kill()
    one.kill()
    time.sleep(2 * lease)
    server.start()
    world.until(lambda: world.ended('f1'))
    assert_done_once(world, 'f1')
    assert world.writers('f1') == ['one', 'other']


# -- clocks -----------------------------------------------------------------

def set_clock(world, seconds):
    """As if the database's clock had been set: its times are off by that."""
    c = schema.workers.c
    world.execute(schema.workers.update().values(
        expires_at=c.expires_at - seconds))


@pytest.mark.parametrize('seconds', [3600, -3600])
def test_a_clock_that_is_set_disturbs_no_flow(world, seconds):
    lease = 3.0
    one, other = world.start('one', lease), world.start('other', lease)
    begin(world, one, 'f1')
    begin(world, other, 'g1')
    set_clock(world, seconds)
    world.until(lambda: world.ended('f1', 'g1'))
    assert_done_once(world, 'f1', 'g1')
    assert world.claims() == []
