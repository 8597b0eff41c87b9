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

"""Tasks as events of actions: each once, wherever a conductor dies."""

from hypothesis import example
from hypothesis import given
from hypothesis import Phase
from hypothesis import settings
from hypothesis import strategies
from nova import exception
import pytest

from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm.engine import serialization
from nova_ssm.engine import task
from nova_ssm.telemetry import actions
from nova_ssm.telemetry import tracks
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

SERVER = '2d0b3ad5-2a4a-4b0e-9f5e-1d1b7b4f6a11'


class Cell:
    """Where the events are, and whether its actions are.

    :ivar rows: as the database would have them
    :ivar writes: how often it was written
    """

    def __init__(self):
        self.rows = []
        self.writes = 0
        self.has_action = True
        self.away = False

    def write(self, wanted):
        self.writes += 1
        flows = {track.flow.uuid for track in wanted}
        if self.away:
            return set(), flows
        if not self.has_action:
            return set(), set()
        for track in wanted:
            changes = tracks.compare(track, self.rows, 0.0)
            for row_id, event in changes.ends.items():
                self.rows[row_id].update(
                    finish_time=event.ended_at, result=event.result,
                    details=event.details)
            for event in changes.new:
                self.rows.append({
                    'id': len(self.rows), 'event': event.name,
                    'finish_time': event.ended_at, 'result': event.result,
                    'details': event.details, 'host': event.host,
                    'traceback': event.traceback})
        return flows, set()

    def events(self):
        return [(row['event'].removeprefix('ssm_'), row['result'])
                for row in self.rows]

    def names(self):
        return [name for name, _result in self.events()]


class Conductor:
    """A process that writes what its flows tell into a cell.

    :param flush_at: before which of its posts all that is there is written
    """

    def __init__(self, process, cell, interval=1.0, flush_at=()):
        self.process = process
        self.told = actions.Actions(process.db, 'host', interval, cell.write)
        process.runner.listeners.add(self.told)
        posts, post = [], self.told._mailbox.post

        def counted(work):
            posts.append(1)
            if len(posts) in flush_at:
                self.told.flush()
            post(work)
        self.told._mailbox.post = counted

    def run(self, name='flow', **store):
        outcome = self.process.runner.run(journal.FlowRequest(
            name=name, store=store, subject=SERVER, request_id='req-1'))
        self.told.flush()
        return outcome

    def resume_all(self):
        outcomes = self.process.resume_all()
        self.told.flush()
        return outcomes


@pytest.fixture
def cell():
    return Cell()


@pytest.fixture
def conductor(process, cell):
    def make(flows, **kwargs):
        return Conductor(process(flows), cell, **kwargs)
    return make


SIMPLE = [(name, 'Success') for name in ('a', 'r', 'b', 's', 'c')]


def test_each_task_is_an_event(conductor, cell, world):
    conductor(examples.simple(world)).run()
    assert cell.events() == SIMPLE


def test_a_flow_is_written_at_once_however_many_tasks_it_has(
        conductor, cell, world):
    conductor(examples.simple(world)).run()
    assert cell.writes == 1


def test_who_wants_no_thread_writes_when_a_flow_ends(process, cell, world):
    made = process(examples.simple(world))
    told = actions.Actions(made.db, 'host', 0, cell.write)
    made.runner.listeners.add(told)
    told.start()
    made.runner.run(journal.FlowRequest(
        name='flow', store={}, subject=SERVER, request_id='req-1'))
    assert (cell.events(), cell.writes) == (SIMPLE, 1)
    assert told._mailbox._thread is None


def test_a_thread_writes_them_soon(process, cell, world):
    made = process(examples.simple(world))
    told = actions.Actions(made.db, 'host', 0.01, cell.write)
    told.start()
    made.runner.listeners.add(told)
    made.runner.run(journal.FlowRequest(
        name='flow', store={}, subject=SERVER, request_id='req-1'))
    told.stop()
    assert cell.events() == SIMPLE


def test_what_is_under_way_has_no_result(conductor, cell, world):
    class Looks(helpers.Do):
        def execute(self):
            made.told.flush()
            seen.extend(cell.events())
            return super().execute()

    seen = []
    made = conductor({'flow': lambda: helpers.linear(
        helpers.Do('a', world), Looks('b', world))})
    made.run()
    assert seen == [('a', 'Success'), ('b', None)]
    assert cell.events() == [('a', 'Success'), ('b', 'Success')]


def test_a_failure_and_what_is_undone(conductor, cell, world):
    conductor(examples.failing(examples.simple)(world)).run()
    assert cell.events()[4:] == [
        ('c', 'Error'), ('undo_c', 'Success'), ('undo_b', 'Success'),
        ('undo_a', 'Success')]


def test_each_try_is_an_event(conductor, cell, world):
    conductor(examples.retrying(world)).run()
    assert cell.names().count('b') == 3
    assert cell.names().count('undo_b') == 2
    assert [result for name, result in cell.events() if name == 'c'] == [
        'Error', 'Error', 'Success']


@pytest.mark.parametrize('exc, said', (
    (exception.NoValidHost(reason='the racks are full'),
     'No valid host was found. the racks are full'),
    # As with Nova's own events: what it says may be for nobody.
    (KeyError('internals'), 'KeyError')))
def test_users_see_of_a_failure_what_nova_shows_them(
        conductor, cell, world, exc, said):
    world.failing['do a'] = exc
    conductor(examples.simple(world)).run()
    [row] = [row for row in cell.rows if row['event'] == 'ssm_a']
    assert row['details'].endswith(': ' + said)
    assert type(exc).__name__ in row['traceback']


def test_no_secret_of_a_flow_is_shown(conductor, cell):
    class Tells(task.Task):
        def execute(self, password):
            raise exception.NoValidHost(
                reason='with ' + serialization.reveal(password))

    conductor({'flow': lambda: helpers.linear(Tells('t'))}).run(
        password=serialization.Secret('correct horse'))
    assert 'correct horse' not in str(cell.rows)
    assert 'No valid host' in cell.rows[0]['details']


def test_a_flow_of_no_server_is_left_out(conductor, cell, world):
    conductor(examples.simple(world)).process.run()
    assert cell.writes == 0


def test_the_flow_of_each_event_is_named(conductor, cell, world):
    outcome = conductor(examples.simple(world)).run()
    assert {row['details'] for row in cell.rows} == {'flow ' + outcome.uuid}


def test_two_flows_of_one_request_do_not_mix(conductor, cell, world):
    """As those of a build, and of a second try of it."""
    made = conductor(examples.simple(world))
    made.run()
    made.run()
    assert cell.events() == SIMPLE * 2


# -- who has children --------------------------------------------------------

@pytest.fixture
def family(world):
    class Posts(journal.Spawn):
        def execute(self):
            return [journal.FlowRequest(
                name='child-0', store={}, subject=SERVER,
                request_id='req-1')]

    name = 'schedule_and_build_instances'
    return {name: lambda: helpers.linear(
                helpers.Do('p', world), Posts('spawn')),
            'child-0': lambda: helpers.linear(helpers.Do('k', world))}


def test_what_was_done_for_all_is_shown_with_each(conductor, cell, family):
    conductor(family).run('schedule_and_build_instances')
    assert cell.names() == ['p', 'spawn', 'k']


def test_one_that_fails_before_it_has_children_shows_nothing(
        conductor, cell, family, world):
    """Nova's own event of the request tells of it."""
    world.failing['do p'] = ValueError('none')
    conductor(family).run('schedule_and_build_instances')
    assert cell.rows == []


@pytest.mark.parametrize('point', range(2, 9))
def test_what_a_dead_parent_did_is_known_from_its_journal(
        process, cell, family, world, url, point):
    world.kill_at = point
    try:
        Conductor(process(family), cell).run('schedule_and_build_instances')
    except helpers.Killed:
        helpers.expire_leases(url)
        Conductor(process(family), cell).resume_all()
    assert cell.names() == ['p', 'spawn', 'k']


# -- what may go wrong -------------------------------------------------------

def test_an_action_that_comes_later_gets_all_of_it(conductor, cell, world):
    """A build makes its action in the middle."""
    class Makes(helpers.Do):
        def execute(self):
            made.told.flush()
            cell.has_action = True
            return super().execute()

    cell.has_action = False
    made = conductor({'flow': lambda: helpers.linear(
        helpers.Do('a', world), Makes('b', world), helpers.Do('c', world))})
    made.run()
    assert cell.names() == ['a', 'b', 'c']


def test_an_action_that_never_comes_is_given_up(conductor, cell, world):
    cell.has_action = False
    made = conductor(examples.simple(world))
    made.run()
    for _look in range(5):
        made.told.flush()
    assert made.told._tracks == {}
    assert cell.writes == 3


def test_a_cell_that_was_away_gets_them_when_it_is_back(
        conductor, cell, world, caplog):
    cell.away = True
    made = conductor(examples.simple(world))
    made.run()
    for _look in range(5):
        made.told.flush()
    assert caplog.text.count('could not be written') == 1
    cell.away = False
    made.told.flush()
    assert cell.events() == SIMPLE
    assert made.told._tracks == {}


def test_a_failure_to_look_up_servers_loses_nothing(
        conductor, cell, world, monkeypatch):
    made = conductor(examples.simple(world))

    def fail(wanted):
        raise OSError('the API database is away')

    write, made.told._write = made.told._write, fail
    made.run()
    made.told._write = write
    made.told.flush()
    assert cell.events() == SIMPLE


def test_a_flow_that_is_lost_is_left_to_its_new_owner(
        conductor, cell, world):
    class Stops(helpers.Do):
        def execute(self):
            made.process.runner.suspend()
            return super().execute()

    made = conductor({'flow': lambda: helpers.linear(
        Stops('a', world), helpers.Do('b', world))})
    made.run()
    assert made.told._tracks == {}
    assert cell.rows == []


def test_a_damaged_journal_stops_nobody_else(conductor, cell, world):
    made = conductor(examples.simple(world))
    first = made.run()
    cell.rows.clear()
    with made.process.db.transaction() as connection:
        connection.exec_driver_sql(
            "UPDATE ssm_journal SET payload = 'x' WHERE kind = 'atom' "
            "AND flow_uuid = '%s'" % first.uuid)
    made.told.worker_died(made.process.runner.worker.id, 0.0)
    second = made.run()
    assert {row['details'] for row in cell.rows} == {'flow ' + second.uuid}


# -- who dies ----------------------------------------------------------------

@pytest.fixture(scope='module')
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp('template') / 'journal.db'
    database.upgrade('sqlite:///%s' % path)
    return path


@settings(max_examples=25, deadline=None, phases=[
    Phase.explicit, Phase.reuse, Phase.generate])
@given(point=strategies.integers(1, 24), flushes=strategies.sets(
    strategies.integers(1, 14), max_size=4), fails=strategies.booleans())
@example(point=4, flushes=set(), fails=False)
@example(point=9, flushes={3, 7}, fails=True)
@example(point=13, flushes={5}, fails=False)
def test_each_event_is_there_once_wherever_a_conductor_died(
        tmp_path_factory, template, point, flushes, fails):
    """Whatever was written before, and whatever runs again."""
    path = tmp_path_factory.mktemp('journal') / 'journal.db'
    path.write_bytes(template.read_bytes())
    url = 'sqlite:///%s' % path
    world, cell = helpers.World(), Cell()
    world.kill_at = point
    flows = (examples.failing(examples.simple) if fails
             else examples.simple)(world)
    dead = Conductor(helpers.Process(url, world, flows), cell,
                     flush_at=flushes)
    try:
        dead.run()
    except helpers.Killed:
        helpers.expire_leases(url)
        other = Conductor(helpers.Process(url, world, flows), cell)
        # Who buries it is told first.
        other.told.worker_died(dead.process.runner.worker.id, 0.0)
        other.resume_all()
    db = helpers.MortalDatabase.shared.pop(url)
    [info] = queries.flows(db)
    db.close()
    names = cell.names()
    assert all(row['result'] for row in cell.rows), cell.events()
    assert len(names) == len(set(names)), cell.events()
    tasks = {'a', 'r', 'b', 's', 'c'}
    if info.state == 'SUCCESS':
        assert set(names) == tasks
    else:
        assert {'a', 'b', 'c', 'undo_a', 'undo_b', 'undo_c'} <= set(names)
        assert set(names) <= tasks | {'undo_a', 'undo_b', 'undo_c'}


def test_what_was_over_when_its_conductor_died_is_written_by_another(
        process, cell, world):
    dead = Conductor(process(examples.simple(world)), Cell())
    outcome = dead.process.runner.run(journal.FlowRequest(
        name='flow', store={}, subject=SERVER, request_id='req-1'))
    assert outcome.state == 'SUCCESS'
    other = Conductor(process(examples.simple(world)), cell)
    me = dead.process.runner.worker.id
    for _time in range(2):      # several find out that it is dead
        other.told.worker_died(me, 0.0)
        other.told.flush()
    assert cell.events() == SIMPLE
    assert {row['host'] for row in cell.rows} == {'host'}


def test_only_flows_of_the_dead_that_are_fresh_are_looked_at(
        process, cell, world):
    made = Conductor(process(examples.simple(world)), Cell())
    made.run()
    other = Conductor(process(examples.simple(world)), cell)
    other.told.worker_died(made.process.runner.worker.id,
                           queries.clock(made.process.db))
    other.told.worker_died('somebody else', 0.0)
    other.told.flush()
    assert cell.rows == []


def test_what_was_begun_and_is_not_begun_again_ends(process, cell, world):
    """A flow may be reverted by who goes on with it."""
    flow = tracks.events.Flow('f' * 36, 'flow', '1.0', SERVER,
                              request_id='req-1')
    cell.rows.append({'id': 0, 'event': 'ssm_b', 'finish_time': None,
                      'result': None, 'details': 'flow ' + flow.uuid})
    track = tracks.Track(flow, 'host')
    track.is_over = True
    cell.write([track])
    [row] = cell.rows
    assert row['result'] == 'Error'
    assert tracks.INTERRUPTED in row['details']
