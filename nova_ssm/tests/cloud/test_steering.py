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

"""People steer moves in the cloud of processes, with the command."""

import json
import subprocess
import time

import pytest

from nova_ssm.tests.cloud import journal
from nova_ssm.tests.cloud import leftovers
from nova_ssm.tests.cloud import moves
from nova_ssm.tests.cloud import moves_checks
from nova_ssm.tests.cloud import servers as servers_module
from nova_ssm.tests.cloud import services
from nova_ssm.tests.cloud import settings

#: Seconds. Generous: it ends a test that hangs, it measures nothing.
PATIENCE = 120
REASON = 'the rack is taken down'


@pytest.fixture
def mover(cloud):
    """Resizes servers. Deletes them, and looks for leftovers."""
    if cloud.mode == 'stock':
        pytest.skip('stock Nova has no flows')
    it = moves.Mover(cloud, moves.OPERATIONS['resize'])
    cloud.wait_for(*settings.CONDUCTORS)
    cloud.wait_for_computes()
    built = it.build()
    it.build = lambda: list(built)
    yield it
    cloud.resume('scheduler')
    cloud.start(*settings.CONDUCTORS)
    assert it.delete(built) == []
    assert leftovers.wait(cloud, leftovers.EMPTY, servers_module.Request(
        '', '', len(built), 0.0,
        frozenset(server.id for server in built))) == {}


@pytest.fixture
def nova_ssm(cloud):
    """Runs the command as on a conductor's host; gives what it shows."""
    etc = cloud.settings.etc / 'nova'

    def run(*args, code=0):
        done = subprocess.run(
            [str(cloud.settings.venv / 'bin/nova-ssm'),
             *(f'--config-file={etc / name}'
               for name in ('nova.conf', 'cond2.conf')), *args, '-f', 'json'],
            capture_output=True, text=True, timeout=300,
            env=services.environment(cloud.settings))
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)
    return run


def held(cloud, mover):
    """A resize whose owner waits for the scheduler, and its flow."""
    server, = mover.build()
    cloud.pause('scheduler')
    move = mover.start(server)
    limit = time.monotonic() + PATIENCE
    while True:
        flows = journal.flows(cloud, move.request_id)
        if flows and flows[0].host:
            return move, flows[0]
        assert time.monotonic() < limit, flows
        time.sleep(0.1)


def steer(nova_ssm, verb, flow, *more):
    [row] = nova_ssm('flow', verb, flow.uuid, '--yes', *more)
    return row['state'], row['result']


def let_go(cloud):
    """Wake the scheduler up when whoever waits for it knows his order."""
    time.sleep(3)       # [ssm] recovery_interval is a second
    cloud.resume('scheduler')


def wait_over(cloud, move, state):
    limit = time.monotonic() + PATIENCE
    while True:
        flow, = journal.flows(cloud, move.request_id)
        if flow.finished:
            assert flow.state == state
            return
        assert time.monotonic() < limit, flow
        time.sleep(0.2)


def assert_as_before(cloud, mover, move):
    """The server is where it was, and nothing is left of its move."""
    verdict = mover.wait([move], PATIENCE)[move.server.id]
    assert verdict.kind == moves.BACK, verdict
    assert moves_checks.by_kind(moves_checks.wait(cloud, [move])) == {}
    return verdict


@pytest.mark.parametrize('killed', [False, True], ids=['', 'owner-killed'])
def test_a_resize_is_cancelled(cloud, mover, nova_ssm, killed):
    """Its owner obeys; if that dies before, the other conductor does."""
    move, flow = held(cloud, mover)
    assert steer(nova_ssm, 'cancel', flow, '--reason', REASON)[1] == 'ordered'
    if killed:
        cloud.kill(flow.host)
    let_go(cloud)
    wait_over(cloud, move, 'REVERTED')
    assert REASON in assert_as_before(cloud, mover, move).fault
    info = nova_ssm('flow', 'show', flow.uuid)
    claims = [step['writer'].partition(':')[0] for step in info['steps']
              if step['kind'] == 'claim']
    assert claims == [name for name in settings.CONDUCTORS
                      if killed and name != flow.host]


def test_what_a_killed_flow_leaves_is_found_and_repaired(
        cloud, mover, nova_ssm):
    move, flow = held(cloud, mover)
    steer(nova_ssm, 'kill', flow)
    let_go(cloud)
    wait_over(cloud, move, 'KILLED')
    assert mover.verdict(move).kind == moves.STUCK
    found = nova_ssm('audit', '--server', move.server.id, '--older', '1',
                     code=3)
    assert {one['server'] for one in found} == {move.server.id}
    repaired = nova_ssm('audit', '--server', move.server.id, '--older', '1',
                        '--repair', '--yes', code=4)
    assert {one['result'] for one in repaired} == {'repaired'}
    assert_as_before(cloud, mover, move)
