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

"""Conductors that are killed, stopped or beside each other, on each board."""

import time

import pytest

from nova_ssm.tests.boards import node
from nova_ssm.tests.boards import processes

KEYS = tuple('f%d' % number for number in range(4))
#: Seconds; no test waits for the longer one.
LEASE, LONG = 2.0, 600.0


@pytest.fixture
def scene(place, tmp_path):
    made = processes.Scene(place, tmp_path, LEASE)
    yield made
    made.close()


def wait_board_empty(scene):
    """Wait until the board has forgotten all flows."""
    one = scene.place.runner(node.flows(scene.world), 'looker', LEASE)
    try:
        # Who looks also takes down what others could not.
        processes.until(lambda: not (
            list(one.board.free_jobs(one.worker.id)) or
            scene.place.posted(one.board)))
    finally:
        one.close(patience=0)


def test_flows_of_a_killed_conductor_go_on_in_another(scene):
    one, _other = scene.node('one'), scene.node('other')
    scene.hold()
    one.run(*KEYS)
    scene.wait_held(*KEYS)
    one.kill()
    scene.go_on()
    scene.wait_over()
    scene.assert_each_done_once(*KEYS)
    assert {tuple(scene.kinds(key)) for key in KEYS} == {
        ('start', 'atom', 'atom', 'claim', 'atom', 'atom', 'end')}
    wait_board_empty(scene)


def test_a_restart_on_the_same_host_does_not_wait(scene):
    one = scene.node('one', lease=LONG)
    scene.hold()
    one.run(*KEYS)
    scene.wait_held(*KEYS)
    one.kill()
    scene.go_on()
    scene.node('one', lease=LONG)
    scene.wait_over()
    scene.assert_each_done_once(*KEYS)


def test_a_conductor_that_stops_hands_its_flows_over(scene):
    one = scene.node('one', lease=LONG)
    scene.hold()
    one.run(*KEYS)
    scene.wait_held(*KEYS)
    one.tell('stop')
    scene.go_on()
    one.hear('stopped')
    scene.node('other', lease=LONG)
    scene.wait_over()
    scene.assert_each_done_once(*KEYS)


def test_a_conductor_that_was_frozen_does_nothing_more(scene):
    one = scene.node('one', recover=False)
    scene.hold()
    one.run(*KEYS)
    scene.wait_held(*KEYS)
    one.freeze()
    other = scene.node('other')
    scene.go_on()
    scene.wait_over()
    one.thaw()
    assert one.ended(len(KEYS)) == dict.fromkeys(KEYS, 'LOST')
    scene.assert_each_done_once(*KEYS)
    one.stop()
    other.stop()
    wait_board_empty(scene)


def test_flows_that_nobody_runs_are_each_run_by_one(scene):
    keys = ['f%d' % number for number in range(200)]
    one = scene.place.runner(node.flows(scene.world), 'poster', LEASE)
    for key in keys:
        one.board.start(node.request(key), owner=None)
    one.close()
    workers = [scene.node(host, lease=LONG)
               for host in ('one', 'two', 'three')]
    scene.wait_over()
    scene.assert_each_done_once(*keys)
    assert {row.generation for row in scene.rows().values()} == {1}
    for worker in workers:
        worker.stop()
    wait_board_empty(scene)


def test_of_eight_who_claim_at_once_one_wins(scene):
    nodes = [scene.node('n%d' % number, recover=False) for number in range(8)]
    one = scene.place.runner(node.flows(scene.world), 'poster', LEASE)
    posted = node.request('f')
    one.board.start(posted, owner=None)
    one.close()
    for each in nodes:
        each.tell('look', posted.uuid)
    for each in nodes:
        each.hear('sees')
    at = time.monotonic() + 0.5
    for each in nodes:
        each.tell('claim', at)
    won = [each.hear('claimed')[0] for each in nodes]
    assert sorted(won) == [False] * 7 + [True]
    assert scene.rows()['f'].owner == nodes[won.index(True)].id
    assert scene.kinds('f') == ['start', 'claim']


def test_children_go_on_when_the_conductor_of_their_parent_dies(scene):
    one, _other = scene.node('one'), scene.node('other')
    scene.hold()
    one.run('f', name='parent')
    scene.wait_held('f.0')
    one.kill()
    scene.go_on()
    scene.wait_over()
    children = ['f.%d' % number for number in range(3)]
    assert set(scene.rows()) == {'f', *children}
    assert sorted(line[:2] for line in scene.world.notes('made')
                  if line[0] in children) == sorted(
        [key, step] for key in children for step in node.STEPS)
    wait_board_empty(scene)


def test_flows_go_on_when_the_server_of_the_board_was_away(
        scene, place_server):
    one, other = scene.node('one'), scene.node('other')
    scene.hold()
    one.run(*KEYS)
    scene.wait_held(*KEYS)
    place_server.kill()
    one.run('late')
    time.sleep(1.5 * LEASE)     # all that was claimed may have ended
    place_server.start()
    scene.go_on()
    keys = (*KEYS, 'late')
    processes.until(lambda: set(scene.rows()) == set(keys))
    scene.wait_over()
    scene.assert_each_done_once(*keys)
    for each in (one, other):
        each.stop()
    wait_board_empty(scene)
