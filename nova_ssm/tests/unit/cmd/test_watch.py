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

"""``nova-ssm flow watch`` and ``flow timeline``."""

import io
import json
import time
import types

import pytest

from nova_ssm.cmd import timeline
from nova_ssm.cmd import watch
from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm.engine import schema
from nova_ssm.tests.unit import cmd
from nova_ssm.tests.unit.cmd import conductors


def finish(flow, url):
    conductors.Hold.go.set()
    db = database.Database(url)
    while queries.flow(db, flow).finished_at is None:
        time.sleep(0.02)
    db.close()


# -- timeline -----------------------------------------------------------------

def test_each_task_has_its_bar(nova_ssm, flow, url):
    time.sleep(0.3)
    finish(flow, url)
    code, out, _err = nova_ssm('flow', 'timeline', flow, '-f', 'json')
    assert code == 0
    whole, *tasks = json.loads(out)
    assert (whole['what'], whole['result']) == ('flow', 'SUCCESS')
    assert [(one['task'], one['what']) for one in tasks] == [
        ('Mark', 'execute'), ('Hold', 'execute'), ('Tell', 'execute')]
    assert all(one['exact'] for one in tasks)
    # What waited took the longest.
    assert max(tasks, key=lambda one: one['seconds'])['task'] == 'Hold'
    assert whole['seconds'] >= sum(one['seconds'] for one in tasks) * 0.99


def test_what_was_undone_is_told_apart(nova_ssm, flow):
    nova_ssm('flow', 'cancel', '--yes', '--wait', flow)
    _code, out, _err = nova_ssm('flow', 'timeline', flow, '-f', 'json')
    assert ('Mark', 'undo') in [(one['task'], one['what'])
                                for one in json.loads(out)]
    _code, out, _err = nova_ssm('flow', 'timeline', flow)
    assert 'undo Mark' in out
    assert '█' in out and '▓' in out


def test_children_are_below_and_waited_for(nova_ssm, flow, conductor, url):
    child = journal.FlowRequest('hold', {}, parent_uuid=flow)
    one, _name = conductor.made[0]
    one.board.start(child, owner=None)
    finish(flow, url)
    finish(child.uuid, url)
    _code, out, _err = nova_ssm('flow', 'timeline', flow, '-f', 'json')
    bars = json.loads(out)
    [waits] = [bar for bar in bars if bar['what'] == 'children']
    [whole] = [bar for bar in bars if bar['flow'] == child.uuid and
               bar['what'] == 'flow']
    assert waits['ended_at'] == whole['ended_at']
    # Nobody had it until somebody looked.
    assert [bar['what'] for bar in bars
            if bar['flow'] == child.uuid].count('nobody') == 1


def test_what_goes_on_ends_now(nova_ssm, flow):
    code, out, _err = nova_ssm('flow', 'timeline', flow)
    assert code == 0
    assert 'so far' in out


def test_a_flow_that_cannot_be_read_is_shown_as_far_as_it_can(
        nova_ssm, flow, url):
    finish(flow, url)
    db = database.Database(url)
    with db.transaction() as connection:
        connection.execute(schema.journal.update().values(payload=b'x'))
    db.close()
    code, out, _err = nova_ssm('flow', 'timeline', flow, '-f', 'json')
    assert code == 0
    assert 'cannot be read' in json.loads(out)[-1]['result']


def test_no_flow_has_no_timeline(nova_ssm, conductor):
    cmd.assert_one_line(nova_ssm('flow', 'timeline', 'none'), 'no flow none')


@pytest.mark.parametrize('began, ended, drawn', (
    (0, 10, '##########'), (0, 0, '#         '), (5, 10, '     #####'),
    (9.99, 10, '         #'), (0, None, '##########')))
def test_bars_are_where_they_belong(began, ended, drawn):
    def bar(began, ended):
        return timeline.Bar('f', 'n', 't', 'execute', began, ended, True,
                            '', None)
    scale = timeline._Scale([bar(0, 10)], 10, 10, '#<.=')
    assert scale.draw(bar(began, ended)).ljust(10) == drawn


# -- watch --------------------------------------------------------------------

@pytest.fixture
def seen_once(monkeypatch):
    """The flow goes on when it was looked at."""
    def sleep(seconds):
        conductors.Hold.go.set()
        time.sleep(seconds)

    monkeypatch.setattr(watch, 'time', types.SimpleNamespace(
        sleep=sleep, strftime=time.strftime))


def test_each_change_is_a_line_until_it_is_over(nova_ssm, flow, seen_once):
    code, out, err = nova_ssm('flow', 'watch', '--json', '--interval', '0.05',
                              flow)
    assert (code, err) == (0, '')
    told = [json.loads(line) for line in out.splitlines()]
    assert [told[0]['state'], told[-1]['state']] == ['RUNNING', 'SUCCESS']
    assert all(one != after for one, after
               in zip(told, told[1:], strict=False))


def test_the_flows_of_a_server_are_watched(nova_ssm, flow, seen_once):
    code, out, _err = nova_ssm('flow', 'watch', '--server', 'server',
                               '--interval', '0.05')
    assert code == 0
    assert flow in out.splitlines()[0]
    assert 'SUCCESS' in out.splitlines()[-1]


def test_it_is_ended_by_an_interrupt(nova_ssm, flow, monkeypatch):
    def interrupted(seconds):
        raise KeyboardInterrupt

    # Only there: conductors sleep too.
    monkeypatch.setattr(watch, 'time', types.SimpleNamespace(
        sleep=interrupted, strftime=time.strftime))
    code, out, _err = nova_ssm('flow', 'watch')
    assert code == 0
    assert flow in out


def test_what_is_drawn_has_no_markup_of_others():
    """A failure may say anything."""
    info = queries.FlowInfo(
        uuid='u', parent_uuid=None, name='resize', version='1.0',
        state='REVERTED', subject='s', project_id=None, user_id=None,
        request_id=None, owner=None, owner_alive=False, claims=0, task=None,
        task_state=None, since=0.0, created_at=0.0, finished_at=3.0,
        failure='no [bold]host[/] in [az]', trouble=None)
    screen = watch.console.Console(file=io.StringIO(), width=200)
    screen.print(watch._screen([watch.Seen(info, 2, 4)], 9.0))
    drawn = screen.file.getvalue()
    assert 'no [bold]host[/] in [az]' in drawn
    assert '2/4' in drawn and '3 s' in drawn


def lines_of(width, **changes):
    """What a terminal shows of one flow."""
    info = queries.FlowInfo(**{
        'uuid': '296a4047-ce33-4489-b3c9-00088678506e', 'parent_uuid': None,
        'name': 'schedule_and_build_instances', 'version': '1.0',
        'state': 'RUNNING', 'subject': 'a1000000-0000-4000-8000-000000000001',
        'project_id': None, 'user_id': None, 'request_id': None,
        'owner': 'controller1:21:ab', 'owner_alive': True, 'claims': 0,
        'task': 'CreateBlockDeviceMappings', 'task_state': 'SUCCESS',
        'since': 0.0, 'created_at': 0.0, 'finished_at': None,
        'failure': None, 'trouble': None, **changes})
    screen = watch.console.Console(file=io.StringIO(), width=width)
    screen.print(watch._screen([watch.Seen(info, 11, 15)], 9999.0))
    return screen.file.getvalue().splitlines()


@pytest.mark.parametrize('width', (80, 120, 200))
def test_nothing_that_matters_is_cut_off_on_a_small_terminal(width):
    first, second, third = lines_of(width, order='cancel')
    for words in ('schedule_and_build_instances ', 'RUNNING, to cancel ',
                  '11/15', '9999 s'):
        assert words in first + ' '
    assert ('296a4047-ce33-4489-b3c9-00088678506e of '
            'a1000000-0000-4000-8000-000000000001') in second
    assert 'behind CreateBlockDeviceMappings SUCCESS, at controller1' in third
    assert max(map(len, (first, second, third))) <= width


@pytest.mark.parametrize('changes, words', (
    ({'owner_alive': False}, 'controller1:21:ab (dead)'),
    ({'owner': None, 'owner_alive': False}, 'run by nobody'),
    ({'task': None}, 'begins'),
    ({'trouble': 'host b cannot go on: row 3'}, 'host b cannot go on'),
    ({'failure': 'A: E: ' + 80 * 'why ', 'state': 'REVERTED',
      'finished_at': 3.0}, 'why ...')))
def test_it_says_what_keeps_a_flow(changes, words):
    lines = lines_of(80, **changes)
    assert words in ' '.join(line.strip() for line in lines)
    assert len(lines) <= 4


def test_what_has_succeeded_needs_no_further_word():
    assert len(lines_of(80, state='SUCCESS', finished_at=3.0)) == 2


def test_nothing_may_be_under_way():
    screen = watch.console.Console(file=io.StringIO(), width=100)
    screen.print(watch._screen([], 0.0))
    assert 'nothing is under way' in screen.file.getvalue()
