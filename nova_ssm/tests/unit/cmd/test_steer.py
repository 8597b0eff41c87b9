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

"""``nova-ssm flow pause|resume|cancel|kill|retry``, beside conductors."""

import io
import json
import sys
import time

import pytest

from nova_ssm.engine import journal
from nova_ssm.tests.unit import cmd
from nova_ssm.tests.unit.cmd import conductors

VERBS = ('pause', 'cancel', 'kill')


def steer(nova_ssm, verb, *args, code=0):
    found, out, err = nova_ssm('flow', verb, '--yes', '-f', 'json', *args)
    assert (found, err) == (code, ''), out
    return json.loads(out)


def shown(nova_ssm, flow):
    _code, out, _err = nova_ssm('flow', 'show', flow, '-f', 'json')
    return json.loads(out)


def test_a_flow_waits_and_goes_on(nova_ssm, flow):
    [row] = steer(nova_ssm, 'pause', '--wait', flow)
    assert row == {'flow': flow, 'name': 'hold', 'subject': 'server',
                   'state': 'RUNNING', 'result': 'paused behind Mark'}
    assert shown(nova_ssm, flow)['order'] == 'pause'
    _code, out, _err = nova_ssm('flow', 'list', '-f', 'value', '-c', 'state')
    assert out.strip() == 'RUNNING, paused'
    conductors.Hold.go.set()
    [row] = steer(nova_ssm, 'resume', '--wait', flow)
    assert row['result'].startswith('it ')
    while shown(nova_ssm, flow)['state'] != 'SUCCESS':
        time.sleep(0.05)
    assert conductors.Mark.there == {'Mark'}


def test_a_flow_is_undone(nova_ssm, flow):
    [row] = steer(nova_ssm, 'cancel', '--wait', '--reason', 'maintenance',
                  flow)
    assert (row['state'], row['result']) == ('REVERTED', 'all is undone')
    assert conductors.Mark.there == set()
    assert 'cancelled by an operator: maintenance' in (
        shown(nova_ssm, flow)['failure'])


def test_a_flow_that_waits_is_undone(nova_ssm, flow):
    steer(nova_ssm, 'pause', '--wait', flow)
    [row] = steer(nova_ssm, 'cancel', '--wait', flow)
    assert row['result'] == 'all is undone'


def test_a_flow_is_given_up(nova_ssm, flow):
    [row] = steer(nova_ssm, 'kill', '--wait', flow)
    assert row['state'] == 'KILLED'
    assert 'not undone: Mark' in row['result']
    assert conductors.Mark.there == {'Mark'}


def test_what_could_not_be_undone_is_undone(nova_ssm, flow, monkeypatch):
    monkeypatch.setattr(conductors.Mark, 'broken', True)
    [row] = steer(nova_ssm, 'cancel', '--wait', flow, code=3)
    assert row['state'] == 'FAILURE'
    assert 'placement is away' in row['result']
    monkeypatch.setattr(conductors.Mark, 'broken', False)
    [row] = steer(nova_ssm, 'retry', '--wait', flow)
    assert row['state'] == 'REVERTED'
    assert conductors.Mark.there == set()


def test_several_at_once(nova_ssm, flow, conductor):
    other, _name = conductor('other')
    more = journal.FlowRequest('hold', {})
    other.board.start(more, owner=None)
    rows = steer(nova_ssm, 'cancel', '--wait', flow, more.uuid)
    assert {row['flow']: row['state'] for row in rows} == {
        flow: 'REVERTED', more.uuid: 'REVERTED'}


def test_an_order_waits_for_a_conductor(nova_ssm, conductor):
    one, _name = conductor('one')
    one.recovery.stop()
    more = journal.FlowRequest('hold', {})
    one.board.start(more, owner=None)
    one.close()
    code, out, err = nova_ssm('flow', 'cancel', '--yes', '-f', 'json',
                              more.uuid)
    assert code == 0
    assert 'No conductor is alive' in err
    assert json.loads(out)[0]['result'] == 'ordered'
    conductor('other')
    while shown(nova_ssm, more.uuid)['state'] != 'REVERTED':
        time.sleep(0.05)


def test_says_what_keeps_it_when_time_is_up(nova_ssm, flow, conductor):
    """Nobody looks for orders."""
    for one, _name in conductor.made:
        one.recovery.stop()
    [row] = steer(nova_ssm, 'cancel', '--wait', '--timeout', '0.3', flow,
                  code=3)
    assert row['state'] == 'RUNNING'
    assert 'not yet: one:' in row['result']
    assert 'runs a step of it, behind Mark' in row['result']


@pytest.mark.parametrize('verb', VERBS)
def test_nothing_is_done_to_what_is_over(nova_ssm, flow, verb):
    conductors.Hold.go.set()
    while shown(nova_ssm, flow)['state'] != 'SUCCESS':
        time.sleep(0.05)
    cmd.assert_one_line(nova_ssm('flow', verb, '--yes', flow),
                        flow, 'is over: SUCCESS')


@pytest.mark.parametrize('verb', (*VERBS, 'resume', 'retry'))
def test_what_is_not_there(nova_ssm, conductor, verb):
    cmd.assert_one_line(nova_ssm('flow', verb, '--yes', 'nonsense'),
                        'no flow nonsense')


def test_what_was_not_paused(nova_ssm, flow):
    cmd.assert_one_line(nova_ssm('flow', 'resume', '--yes', flow),
                        'was not paused')


def test_what_cannot_be_begun_again(nova_ssm, flow):
    steer(nova_ssm, 'cancel', '--wait', flow)
    cmd.assert_one_line(nova_ssm('flow', 'retry', '--yes', flow),
                        'no installed plugin has a flow named hold')


# -- asking -------------------------------------------------------------------

class Terminal(io.StringIO):

    def isatty(self):
        return True


@pytest.mark.parametrize('said, code', (('y\n', 0), ('yes\n', 0), ('\n', 1),
                                        ('no\n', 1)))
def test_asks_and_says_what_is_done(nova_ssm, flow, monkeypatch, said, code):
    monkeypatch.setattr(sys, 'stdin', Terminal(said))
    found, _out, err = nova_ssm('flow', 'cancel', flow)
    assert found == code
    assert ('Cancel flow %s (hold of server in RUNNING behind Mark): what it '
            'has done is undone' % flow) in err
    assert 'not undone: Mark, and what was under way' in err
    assert ('nothing is done' in err) == bool(code)
    assert (shown(nova_ssm, flow)['order'] is None) == bool(code) or not code


@pytest.mark.parametrize('verb', (*VERBS, 'transfer'))
def test_does_nothing_if_nobody_is_there_to_be_asked(nova_ssm, flow, verb,
                                                     monkeypatch):
    monkeypatch.setattr(sys, 'stdin', io.StringIO('y\n'))
    code, _out, err = nova_ssm('flow', verb, flow)
    assert code == 1
    assert 'say --yes' in err
    assert shown(nova_ssm, flow)['order'] is None
