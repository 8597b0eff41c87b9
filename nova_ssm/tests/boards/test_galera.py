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

"""The board ``sql`` on a Galera cluster, with writes to both nodes."""

import concurrent.futures
import threading
import time

import pymysql
import pytest

from nova_ssm.engine import database
from nova_ssm.engine import states
from nova_ssm.tests.boards import node
from nova_ssm.tests.boards import places
from nova_ssm.tests.boards import processes
from nova_ssm.tests.servers import base
from nova_ssm.tests.servers import galera

KEYS = tuple('f%d' % number for number in range(4))
LEASE = 3.0


@pytest.fixture(scope='module')
def cluster():
    with galera.cluster() as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster):
    """Both nodes, up."""
    for one in cluster:
        if not one.running:
            one.start()
    return cluster


@pytest.fixture
def both(nodes):
    """One journal, at each of the nodes."""
    url = nodes[0].fresh()
    database.upgrade(url)
    name = url.rpartition('/')[2].partition('?')[0]
    return [places.Place(each.url(name)) for each in nodes]


@pytest.fixture
def scene(both, tmp_path):
    made = processes.Scene(both[0], tmp_path, LEASE)
    yield made
    made.close()


def test_flows_go_from_node_to_node(scene, both):
    """Back and forth, as one conductor after the other is killed."""
    scene.hold()
    one = scene.node('one', place=both[0], lease=LEASE)
    one.run(*KEYS)
    scene.wait_held(*KEYS)
    other = scene.node('other', place=both[1])
    one.kill()
    processes.until(lambda: len(scene.world.notes('looks')) == 2 * len(KEYS))
    scene.node('third', place=both[0])
    other.kill()
    processes.until(lambda: len(scene.world.notes('looks')) == 3 * len(KEYS))
    scene.go_on()
    scene.wait_over()
    scene.assert_each_done_once(*KEYS)
    assert {row.generation for row in scene.rows().values()} == {2}


def test_flows_that_nobody_runs_are_each_run_by_one(scene, both):
    keys = ['f%d' % number for number in range(60)]
    one = both[0].runner(node.flows(scene.world), 'poster')
    for key in keys:
        one.board.start(node.request(key), owner=None)
    one.close()
    for number in range(4):
        scene.node('n%d' % number, place=both[number % 2], lease=60)
    scene.wait_over()
    scene.assert_each_done_once(*keys)
    assert {row.generation for row in scene.rows().values()} == {1}


def test_of_two_who_claim_at_both_nodes_one_wins(scene, both, nodes):
    """The other one is told by the database that it was too late."""
    before = sum(each.conflicts() for each in nodes)
    runners = [place.runner(node.flows(scene.world), 'host')
               for place in both]
    workers = [one.worker.id for one in runners]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for number in range(30):
            posted = node.request('f%d' % number)
            runners[0].board.start(posted, owner=None)
            jobs = [next(job for job in one.board.free_jobs(one.worker.id)
                         if job.uuid == posted.uuid) for one in runners]
            start = threading.Barrier(2)

            def claim(index, jobs=jobs, start=start):
                start.wait()
                try:
                    return runners[index].board.claim(
                        jobs[index], workers[index])
                except node.runner_module.Unclaimable:
                    return None

            won = list(pool.map(claim, range(2)))
            assert sorted(won, key=str) == [2, None]
            row = scene.rows()['f%d' % number]
            assert row.owner == workers[won.index(2)]
            assert scene.kinds('f%d' % number) == ['start', 'claim']
    for one in runners:
        one.close()
    # Or they were never at it at once.
    assert sum(each.conflicts() for each in nodes) > before


def test_what_is_committed_at_one_node_is_read_at_the_other(
        scene, both, nodes):
    """Also by a node that is behind: it waits until it is not."""
    runners = [place.runner(node.flows(scene.world), 'host')
               for place in both]
    posted = node.request('f')
    runners[0].board.start(posted, owner=None)
    seen = [next(one.board.free_jobs(one.worker.id)) for one in runners]
    lock = pymysql.connect(host=base.HOST, port=nodes[1].port, user='root')
    with lock, lock.cursor() as cursor:
        cursor.execute('FLUSH TABLES WITH READ LOCK')
        assert runners[0].board.claim(seen[0], 'a') == 2
        unlocked = []

        def unlock():
            unlocked.append(True)
            cursor.execute('UNLOCK TABLES')

        timer = threading.Timer(1, unlock)
        timer.start()
        plain = pymysql.connect(
            host=base.HOST, port=nodes[1].port, user='root',
            database=both[1].url.rpartition('/')[2].partition('?')[0])
        with plain, plain.cursor() as reader:
            reader.execute('SELECT count(*) FROM ssm_journal')
            behind = reader.fetchone()[0]
        assert (behind, unlocked) == (1, [])
        with runners[1].db.transaction() as connection:
            rows = connection.exec_driver_sql(
                'SELECT count(*) FROM ssm_journal').scalar()
        assert (rows, unlocked) == (2, [True])
        timer.join()
    with pytest.raises(node.runner_module.Unclaimable):
        runners[1].board.claim(seen[1], 'b')
    for one in runners:
        one.close()


def test_flows_at_a_node_that_is_killed_go_on_at_the_other(
        scene, both, nodes):
    one = scene.node('one', place=both[1])
    scene.hold()
    one.run(*KEYS)
    scene.wait_held(*KEYS)
    scene.node('other', place=both[0])
    nodes[1].kill()
    processes.until(lambda: len(scene.world.notes('looks')) == 2 * len(KEYS))
    scene.go_on()
    scene.wait_over()
    nodes[1].start()
    assert one.ended(len(KEYS)) == dict.fromkeys(KEYS, 'LOST')
    scene.assert_each_done_once(*KEYS)
    # And its conductor works again.
    one.run('late')
    assert one.ended(1) == {'late': states.SUCCESS}


def test_flows_wait_while_there_is_no_quorum(scene, both, nodes):
    """The node that is left takes nothing until it is told to go on."""
    one = scene.node('one', place=both[1])
    scene.hold()
    one.run(*KEYS)
    scene.wait_held(*KEYS)
    nodes[0].kill()
    processes.until(lambda: not nodes[1].ready())
    scene.go_on()
    one.run('late')
    time.sleep(LEASE)
    assert not one._pipe.poll()
    nodes[1].go_on_alone()
    scene.db = database.Database(both[1].url)
    assert one.ended(len(KEYS) + 1) == dict.fromkeys(
        (*KEYS, 'late'), states.SUCCESS)
    scene.assert_each_done_once(*KEYS, 'late')
    nodes[0].start()
