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
"""Moves servers in the cloud of processes, with and without trouble."""

import pytest

from nova_ssm.tests.cloud import leftovers
from nova_ssm.tests.cloud import moves
from nova_ssm.tests.cloud import moves_checks
from nova_ssm.tests.cloud import servers as servers_module
from nova_ssm.tests.cloud import settings
from nova_ssm.tests.cloud import traces

#: Seconds. Generous: it ends a test that hangs, it measures nothing.
PATIENCE = 120


@pytest.fixture(params=list(moves.OPERATIONS))
def mover(request, cloud):
    """Moves servers in each way. Deletes them, and looks for leftovers."""
    it = moves.Mover(cloud, moves.OPERATIONS[request.param])
    built = []
    build = it.build

    def remember(count=1):
        built.extend(build(count))
        return list(built)

    it.build = remember
    # What a test before this one killed.
    cloud.wait_for(*settings.CONDUCTORS)
    cloud.wait_for_computes()
    yield it
    cloud.start(*settings.CONDUCTORS)
    assert it.delete(built) == []
    assert leftovers.wait(cloud, leftovers.EMPTY, servers_module.Request(
        '', '', len(built), 0.0,
        frozenset(server.id for server in built))) == {}


def kinds(verdicts):
    return [verdict.kind for verdict in verdicts.values()]


def assert_nothing_left(cloud, started):
    assert moves_checks.by_kind(moves_checks.wait(cloud, started)) == {}


def assert_moved(cloud, mover, started):
    """All are where they should be, hold what they should, then rest."""
    verdicts = mover.wait(started, PATIENCE)
    assert kinds(verdicts) == [moves.DONE] * len(started), verdicts
    assert_nothing_left(cloud, started)
    assert mover.finish(started) == []
    assert_nothing_left(cloud, started)
    now = mover.refresh([move.server for move in started])
    assert [server.flavor for server in now] == [
        move.flavor for move in started]


def test_move(cloud, mover):
    started = [mover.start(server) for server in mover.build(2)]
    assert_moved(cloud, mover, started)
    refused = [len(mover.refusals(move)) for move in started]
    assert refused == [int(mover.operation.refused)] * 2


def test_conductor_is_killed(cloud, mover, working_conductor):
    """kill -9 of the conductor that moves a server."""
    if cloud.mode == 'stock':
        pytest.skip('stock Nova does not survive this')
    server, = mover.build()
    computes = traces.Logs(cloud, settings.COMPUTES)
    move = mover.start(server)
    victim = working_conductor(move.request_id)
    cloud.kill(victim)
    cloud.start(victim, wait=False)
    verdicts = mover.wait([move], PATIENCE)
    if kinds(verdicts) == [moves.ERROR]:
        # A compute that was calling it gives up: nothing but the compute
        # could go on then.
        assert server.id in computes.timed_out(), verdicts
    else:
        assert_moved(cloud, mover, [move])
