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

"""How far a flow is in its graph."""

import pytest

from nova_ssm.engine import exception
from nova_ssm.engine import graphs
from nova_ssm.engine import progress
from nova_ssm.engine import queries
from nova_ssm.engine import registry
from nova_ssm.engine import schema
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.engine import test_branches
from nova_ssm.tests.unit.engine import test_retry_crashes

Do, Once, Read = helpers.Do, helpers.Once, helpers.Read
DONE, REVERTED, NOT_REACHED = 'done', 'reverted', 'not reached'


@pytest.fixture
def states(url):
    """The states of the tasks of the only flow in the database, by name."""
    def of(flows):
        return {atom.name: atom.state for atom in marked(url, flows).atoms()}
    return of


def marked(url, flows):
    db = helpers.shared(url)
    [info] = queries.flows(db)
    graph = graphs.graph_of(registry.FlowType('flow', '1.0', flows['flow']))
    progress.mark(graph, queries.atoms(db, info.uuid), info)
    return graph


def killed(process, moment):
    process.world.kill_at = moment
    with pytest.raises(helpers.Killed):
        process.run()


# -- over ------------------------------------------------------------------

def test_a_flow_that_is_over_has_done_all_of_it(process, world, states):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), Once('b', world), Read('r', world))}
    process(flows).run()
    # That r was read is in no row.
    assert states(flows) == {'a': DONE, 'b': DONE, 'r': DONE}


def test_a_branch_that_was_not_taken_is_skipped(process, world, states):
    flows = examples.near_way(world)
    process(flows).run()
    assert states(flows) == {
        'a': DONE, 'r': DONE, 'choose': DONE, 'near-r': DONE,
        'near-b': DONE, 'near-c': DONE, 'far-b': 'skipped',
        'far-o': 'skipped', 'far-r': 'skipped', 'far-c': 'skipped',
        'b': DONE, 'c': DONE}


def test_a_flow_that_failed(process, world, states):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), Read('r', world), Do('b', world), Do('c', world),
        Do('d', world), Read('s', world))}
    world.failing['do c'] = examples.Broken('compute', code=1)
    process(flows).run()
    assert states(flows) == {
        'a': REVERTED, 'r': DONE, 'b': REVERTED, 'c': 'failed, reverted',
        'd': NOT_REACHED, 's': NOT_REACHED}


def test_what_fails_and_has_nothing_to_undo(process, world, states):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), Read('r', world), Do('b', world))}
    world.failing['read r'] = examples.Broken('compute', code=1)
    process(flows).run()
    assert states(flows) == {
        'a': REVERTED, 'r': 'failed', 'b': NOT_REACHED}


def test_what_could_not_be_undone(process, world, states):
    flows = examples.failing(examples.simple)(world)
    world.failing['undo b'] = RuntimeError('no')
    process(flows).run()
    assert states(flows) == {
        'a': DONE, 'r': DONE, 'b': 'could not be undone', 's': DONE,
        'c': 'failed, reverted'}


def test_the_tries_of_a_part(process, world, url):
    flows = examples.hopping(world)
    process(flows).run()
    graph = marked(url, flows)
    [_a, [hops], _z] = graph.whole.layers
    assert hops.tries == 3
    assert {atom.state for atom in graph.atoms()} == {DONE}


# -- under way -------------------------------------------------------------

def test_what_is_running(process, world, states):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), Read('r', world), Do('b', world), Do('c', world))}
    killed(process(flows), 7)       # in b
    assert states(flows) == {
        'a': DONE, 'r': 'running', 'b': 'running', 'c': NOT_REACHED}


def test_what_began_once_is_running(process, world, states):
    flows = {'flow': lambda: helpers.linear(
        Do('a', world), Once('b', world), Do('c', world))}
    killed(process(flows), 5)       # behind the row of its start
    assert states(flows) == {'a': DONE, 'b': 'running', 'c': NOT_REACHED}


def test_without_a_living_owner_it_is_interrupted(
        process, world, url, states):
    flows = {'flow': lambda: helpers.linear(Do('a', world), Do('b', world))}
    killed(process(flows), 5)
    helpers.expire_leases(url)
    assert states(flows) == {'a': DONE, 'b': 'interrupted'}


def test_branches_of_which_nothing_is_known_yet(process, world, states):
    flows = examples.near_way(world)
    test_branches.die_in(process(flows), 'near-b')
    told = states(flows)
    assert told['choose'] == DONE
    assert told['near-r'] == told['near-b'] == 'running or skipped'
    assert told['far-b'] == 'running or skipped'
    assert told['near-c'] == told['far-c'] == told['b'] == NOT_REACHED


def test_while_it_reverts_nothing_is_running(process, world, states):
    flows = examples.failing(examples.simple)(world)
    world.failing['undo b'] = helpers.Killed()
    with pytest.raises(helpers.Killed):
        process(flows).run()
    assert states(flows) == {
        'a': DONE, 'r': DONE, 'b': DONE, 's': DONE, 'c': 'failed, reverted'}


def test_a_new_try_has_reached_nothing_yet(process, world, url):
    flows = examples.hopping(world)
    test_retry_crashes.kill_after(process(flows), 'do b', 2)
    graph = marked(url, flows)
    assert {atom.name: atom.state for atom in graph.atoms()} == {
        'a': DONE, 'hosts': DONE, 'r': 'running', 'b': 'running',
        'o': NOT_REACHED, 'c': NOT_REACHED, 'z': NOT_REACHED}
    assert graph.whole.layers[1][0].tries == 2


def test_a_flow_that_just_began(process, world, states):
    flows = examples.hopping(world)
    killed(process(flows), 1)
    assert states(flows)['a'] == 'running'


# -- what the journal says -------------------------------------------------

def test_results_are_not_looked_at(process, world, url, db, monkeypatch):
    """So no key is needed, and nothing can be shown."""
    outcome = process(examples.simple(world), keys=()).run()
    assert set(queries.atoms(db, outcome.uuid)) == {'a', 'r', 'b', 's', 'c'}


def test_a_row_that_cannot_be_read_is_told_of(process, world, db):
    uuid = process(examples.simple(world)).run().uuid
    with db.transaction() as connection:
        connection.execute(schema.journal.update().where(
            schema.journal.c.seq == 2).values(payload=b'damaged'))
    with pytest.raises(exception.DamagedJournal,
                       match='flow %s: row 2 cannot be read' % uuid):
        queries.atoms(db, uuid)


def test_a_flow_without_rows_has_no_tasks(db):
    assert queries.atoms(db, 'none') == {}
