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

"""Events of actions in a cell's database: what it costs, what is repeated."""

import collections
import contextlib
import types

from nova.db.main import models
from nova import objects
from oslo_db import api as oslo_db_api
from oslo_db import exception as db_exc
from oslo_db.sqlalchemy import enginefacade
import pytest
import sqlalchemy as sa

from nova_ssm.engine import events
from nova_ssm.engine import journal
from nova_ssm.telemetry import actions
from nova_ssm.telemetry import cells
from nova_ssm.telemetry import tracks
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

ACTIONS = models.InstanceAction.__table__
EVENTS = models.InstanceActionEvent.__table__


class Cell:
    """The database of a cell, which may refuse what it is told.

    :ivar said: the statements, and the commits
    :ivar refused: by a word of a statement, or COMMIT: what it is answered
        with, one by one
    :ivar slept: how long was waited before each new try
    """

    uuid = identity = 'c1000000-0000-4000-8000-000000000001'

    def __init__(self, url):
        self.said = collections.Counter()
        self.refused = collections.defaultdict(list)
        self.slept = []
        self.manager = enginefacade.transaction_context()
        self.manager.configure(connection=url)
        self.engine = self.manager.writer.get_engine()
        models.BASE.metadata.create_all(self.engine, [ACTIONS, EVENTS])
        sa.event.listen(self.engine, 'before_cursor_execute', self._execute)
        sa.event.listen(self.engine, 'commit',
                        lambda connection: self._take('COMMIT'))

    def is_cell0(self):
        return False

    def _execute(self, conn, cursor, statement, parameters, context, many):
        self._take(statement.split()[0].upper())

    def _take(self, word):
        self.said[word] += 1
        if self.refused[word]:
            raise self.refused[word].pop(0)

    def add_action(self, server):
        with self.engine.begin() as connection:
            connection.execute(ACTIONS.insert().values(
                instance_uuid=server, request_id='req-' + server,
                action='resize'))
        self.said.clear()

    def rows(self):
        with self.engine.connect() as connection:
            return [(row.event.removeprefix('ssm_'), row.result)
                    for row in connection.execute(
                        sa.select(EVENTS).order_by(EVENTS.c.id))]

    def cost(self):
        said = {word: number for word, number in self.said.items()
                if word != 'BEGIN'}
        self.said.clear()
        return said


@pytest.fixture
def cell(tmp_path, monkeypatch):
    made = Cell('sqlite:///%s' % (tmp_path / 'cell.db'))
    monkeypatch.setattr(cells.main_db, 'get_context_manager',
                        lambda context: made.manager)
    monkeypatch.setattr(
        objects.InstanceMappingList, 'get_by_instance_uuids',
        lambda context, uuids: [types.SimpleNamespace(
            instance_uuid=uuid, cell_mapping=made) for uuid in uuids])
    monkeypatch.setattr(cells.nova_context, 'target_cell',
                        lambda context, mapping: contextlib.nullcontext(
                            context))
    monkeypatch.setattr(oslo_db_api, 'time', types.SimpleNamespace(
        sleep=made.slept.append))
    yield made
    made.engine.dispose()


def track(cell, server, tasks=3, ended=True):
    """A flow that has done some tasks to a server."""
    cell.add_action(server)
    made = tracks.Track(events.Flow(
        'flow-of-' + server, 'resize', '1.0', subject=server,
        request_id='req-' + server), 'host')
    for number in range(tasks):
        begun = events.Step('task%d' % number, events.EXECUTE, 100.0 + number)
        made.began(begun)
        if ended:
            made.ended(events.Step(begun.task, begun.what, begun.began_at,
                                   0.5))
    return made


DONE = [('task%d' % number, 'Success') for number in range(3)]


def deadlock():
    return db_exc.DBDeadlock()


# -- what it costs --------------------------------------------------------

@pytest.mark.parametrize('tasks', (1, 3, 50))
def test_a_batch_is_one_transaction_however_many_tasks_it_has(cell, tasks):
    mine = track(cell, 's1', tasks)
    assert cells.write([mine]) == ({mine.flow.uuid}, set())
    assert cell.cost() == {'SELECT': 2, 'INSERT': 1, 'COMMIT': 1}
    assert len(cell.rows()) == tasks


def test_a_batch_is_one_transaction_however_many_flows_it_has(cell):
    mine = [track(cell, 's%d' % number) for number in range(20)]
    found, failed = cells.write(mine)
    assert (len(found), failed) == (20, set())
    assert cell.cost() == {'SELECT': 2, 'INSERT': 1, 'COMMIT': 1}


def test_what_ends_later_is_one_update_for_all(cell):
    mine = track(cell, 's1', ended=False)
    cells.write([mine])
    assert {result for _name, result in cell.rows()} == {None}
    cell.cost()
    for event in mine.events:
        event.ended_at = 200.0
    cells.write([mine])
    assert cell.cost() == {'SELECT': 2, 'UPDATE': 1, 'COMMIT': 1}
    assert cell.rows() == DONE


def test_what_is_there_is_not_written_again(cell):
    mine = track(cell, 's1')
    for _time in range(2):
        cells.write([mine])
    assert cell.cost() == {'SELECT': 4, 'INSERT': 1, 'COMMIT': 2}
    assert cell.rows() == DONE


@pytest.mark.parametrize('shown', (True, False))
def test_a_flow_says_no_more_to_the_journal_when_its_tasks_are_shown(
        cell, process, world, url, shown):
    """The option costs the flow itself nothing: not a commit more."""
    one = process(examples.simple(world))
    told = actions.Actions(one.db, 'host', 1.0)
    if shown:
        one.runner.listeners.add(told)
    server = 'a3000000-0000-4000-8000-000000000001'
    cell.add_action(server)
    assert one.runner.worker
    said = helpers.Statements(helpers.shared(url))
    outcome = one.runner.run(journal.FlowRequest(
        name='flow', store={}, subject=server, request_id='req-' + server))
    assert outcome.state == 'SUCCESS'
    # Of five tasks three have an effect, and one of these tells its start.
    assert said.since() == {'INSERT': 6, 'UPDATE': 1, 'COMMIT': 5}
    assert cell.cost() == {}
    told.flush()
    assert cell.cost() == ({'SELECT': 2, 'INSERT': 1, 'COMMIT': 1}
                           if shown else {})
    assert len(cell.rows()) == (5 if shown else 0)


# -- what is repeated -----------------------------------------------------

@pytest.mark.parametrize('word', ('SELECT', 'INSERT', 'COMMIT'))
@pytest.mark.parametrize('times', (1, 3, 5))
def test_a_deadlock_is_tried_again_from_the_start(cell, word, times):
    mine = track(cell, 's1')
    cell.refused[word] = [deadlock() for _time in range(times)]
    assert cells.write([mine]) == ({mine.flow.uuid}, set())
    assert len(cell.slept) == times
    # A whole transaction each time, since the database has undone it.
    assert cell.said['COMMIT'] == (times + 1 if word == 'COMMIT' else 1)
    assert cell.said['SELECT'] >= 2 * (times + 1) - (
        times if word == 'SELECT' else 0)
    assert cell.rows() == DONE


def test_a_deadlock_of_an_update_leaves_nothing_half_done(cell):
    mine = track(cell, 's1', ended=False)
    cells.write([mine])
    for event in mine.events:
        event.ended_at = 200.0
    mine.began(events.Step('last', events.EXECUTE, 300.0))
    # What it inserts before goes, too, and comes again: once.
    cell.refused['UPDATE'] = [deadlock()]
    cells.write([mine])
    assert cell.rows() == [*DONE, ('last', None)]


def test_one_that_does_not_end_is_left_for_the_next_batch(cell):
    mine = track(cell, 's1')
    cell.refused['INSERT'] = [deadlock() for _time in range(6)]
    assert cells.write([mine]) == (set(), {mine.flow.uuid})
    assert (cell.rows(), len(cell.slept)) == ([], 5)
    assert cells.write([mine]) == ({mine.flow.uuid}, set())
    assert cell.rows() == DONE


def test_a_database_that_is_away_is_not_waited_for(cell):
    mine = track(cell, 's1')
    cell.refused['SELECT'] = [db_exc.DBConnectionError()]
    assert cells.write([mine]) == (set(), {mine.flow.uuid})
    assert cell.slept == []


def test_another_cell_gets_its_events_when_one_is_away(cell, monkeypatch):
    away, there = track(cell, 's1'), track(cell, 's2')
    other = types.SimpleNamespace(uuid='c2', identity='c2',
                                  is_cell0=lambda: False)
    monkeypatch.setattr(
        objects.InstanceMappingList, 'get_by_instance_uuids',
        lambda context, uuids: [
            types.SimpleNamespace(instance_uuid='s1', cell_mapping=other),
            types.SimpleNamespace(instance_uuid='s2', cell_mapping=cell)])

    @contextlib.contextmanager
    def target(context, mapping):
        if mapping is other:
            raise db_exc.DBConnectionError()
        yield context

    monkeypatch.setattr(cells.nova_context, 'target_cell', target)
    assert cells.write([away, there]) == ({there.flow.uuid},
                                          {away.flow.uuid})
    assert cell.rows() == DONE


def test_what_has_no_action_yet_is_looked_for_again(cell):
    mine = track(cell, 's1')
    with cell.engine.begin() as connection:
        connection.execute(ACTIONS.delete())
    assert cells.write([mine]) == (set(), set())
    assert cell.rows() == []
