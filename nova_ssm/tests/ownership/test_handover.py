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

"""A conductor is stopped: its flows go on elsewhere. Real processes."""

import os
import subprocess
import sys

from nova_ssm.tests.ownership import conductor
from nova_ssm.tests.ownership import test_ownership

LONG = list(conductor.FLOWS['long'])
begin = test_ownership.begin
assert_done_once = test_ownership.assert_done_once


def test_a_stopped_conductor_hands_its_flows_over(world, figure):
    """Those it runs, those that only wait, and those it has resumed."""
    lease = 600.0
    first = world.start('first', lease)
    begin(world, first, 'w', name='waits', step=1)
    one = world.start('one', lease, pace=0.5)
    first.terminate()
    assert first.wait() == 0
    world.until(lambda: (world.flow('w').owner or '').startswith('one:'))
    world.start('other', lease, interval=1.0)
    numbers = ['f%d' % number for number in range(8)]
    for number in numbers:
        one.run('long', number)
    world.until(lambda: world.effects(what='begin').count(LONG[0]) == 8)
    told = world.now()
    one.terminate()
    assert one.wait() == 0
    gone = world.now()
    world.until(lambda: len(world.claims()) == 10)
    world.go()
    world.until(lambda: world.ended('w', *numbers))
    assert_done_once(world, *numbers)
    assert_done_once(world, 'w', steps=conductor.FLOWS['waits'])
    assert world.writers('w') == ['first', 'one', 'other']
    claims = [row.created_at - told for row in world.claims()
              if row.writer.startswith('other:')]
    figure('SIGTERM: %d flows claimed elsewhere after %.2f to %.2f s (steps '
           'of 0.5 s), the process was gone after %.2f s', len(claims),
           min(claims), max(claims), gone - told)
    assert len(claims) == 9
    assert max(claims) < lease / 20
    assert [row.partition(':')[0] for row in world.workers()] == ['other']


def test_the_flows_of_the_only_conductor_go_on_when_it_is_back(world):
    lease = 600.0
    one = world.start('one', lease, pace=0.5)
    begin(world, one, 'f1')
    one.terminate()
    assert one.wait() == 0
    assert world.flow('f1').owner is None
    assert world.workers() == {}
    done = world.effects('f1')
    world.start('one', lease)
    world.until(lambda: world.ended('f1'))
    assert_done_once(world, 'f1')
    assert world.effects('f1')[:len(done)] == done


def test_waiting_flows_keep_no_other_from_being_resumed(world):
    """32 that wait for a compute, and as many places."""
    first = world.start('first', 2.0, recover=False)
    for number in range(32):
        first.run('waits', 'w%d' % number)
    world.until(lambda: world.effects(what='begin').count(
        'down-waits') == 32)
    first.run('long', 'f1')
    world.until(lambda: world.effects('f1'))
    first.kill()
    world.start('other', 2.0, concurrency=4)
    world.until(lambda: world.ended('f1'))
    assert_done_once(world, 'f1')
    assert world.writers('w0')[0] == 'first'
    world.until(lambda: all(
        world.writers('w%d' % number)[-1] == 'other'
        for number in range(32)))
    assert not any(world.ended('w%d' % number) for number in range(32))
    world.go()
    world.until(lambda: world.ended(*('w%d' % number
                                      for number in range(32))))


def transfer(world, tmp_path, *args):
    """Run the command; returns its status and what it said."""
    conf = tmp_path / 'nova.conf'
    conf.write_text('[ssm]\nconnection = %s\n' % world.url)
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c',
         'import sys; from nova_ssm.cmd import main; sys.exit(main.main())',
         '--config-file', str(conf), 'flow', 'transfer', '--yes', *args],
        capture_output=True, text=True, env=os.environ, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_a_flow_is_moved_by_hand(world, tmp_path):
    one, other = world.start('one', 600.0), world.start('other', 600.0)
    world.start('third', 600.0)
    begin(world, one, 'f1', name='waits', step=1)
    status, said = transfer(world, tmp_path, world.flow('f1').uuid,
                            '--to', other.host, '--wait')
    assert status == 0, said
    world.go()
    world.until(lambda: world.ended('f1'))
    assert_done_once(world, 'f1', steps=conductor.FLOWS['waits'])
    assert world.writers('f1') == ['one', 'other']
