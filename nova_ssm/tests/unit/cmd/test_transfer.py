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

"""``nova-ssm flow transfer``."""

import json
import logging
import threading
import time

import pytest
from taskflow.patterns import linear_flow

from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import recovery
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import serialization
from nova_ssm.engine import task
from nova_ssm.tests.unit import cmd


class Hold(task.Task):
    """Waits until it may go on."""

    go: threading.Event

    def execute(self):
        while not self.go.is_set():
            self.wait(0.02)


@pytest.fixture
def conductor(url, monkeypatch):
    """Makes conductors that run, and resume, flows named hold."""
    # What they log is not the command's.
    monkeypatch.setattr(logging.getLogger('nova_ssm.engine'), 'propagate',
                        False)
    database.upgrade(url)
    Hold.go = threading.Event()
    made = []

    def make(host):
        known = registry.Registry()
        known.add(registry.FlowType('hold', '1.0', lambda: linear_flow.Flow(
            'hold').add(Hold(name='Hold'))))
        one = runner.Runner(database.Database(url),
                            serialization.Serializer(), known, host)
        one.recovery = recovery.Recovery(one, host, interval=0.05)
        one.recovery.start()
        made.append(one)
        return one, one.worker.id

    yield make
    Hold.go.set()
    for one in made:
        one.recovery.stop()
        one.close(patience=30)


@pytest.fixture
def flow(conductor):
    """A flow that waits at the conductor one."""
    one, me = conductor('one')
    request = journal.FlowRequest('hold', {})
    thread = threading.Thread(target=one.run, args=(request,))
    thread.start()
    while not one.held():
        time.sleep(0.01)
    yield request.uuid
    Hold.go.set()
    thread.join(30)
    assert not thread.is_alive()


def shown(result):
    code, out, err = result
    assert (code, err) == (0, '')
    return json.loads(out)


@pytest.mark.parametrize('by', ('worker', 'host', 'anybody'))
def test_moves_a_flow(nova_ssm, conductor, flow, by):
    _other, name = conductor('other')
    to = {'worker': ('--to', name), 'host': ('--to', 'other'),
          'anybody': ()}[by]
    before = shown(nova_ssm('flow', 'show', flow, '-f', 'json'))
    assert before['owner'].startswith('one:')
    found = shown(nova_ssm('flow', 'transfer', flow, *to, '--wait',
                           '-f', 'json'))
    assert found == {'flow': flow, 'name': 'hold', 'from': before['owner'],
                     'to': to[-1] if to else None, 'state': 'RUNNING',
                     'owner': name}


def test_does_not_wait_unless_it_is_told_to(nova_ssm, conductor, flow):
    _other, name = conductor('other')
    assert shown(nova_ssm('flow', 'transfer', flow, '--to', name,
                          '-f', 'json'))['to'] == name
    while shown(nova_ssm('flow', 'show', flow, '-f',
                         'json'))['owner'] != name:
        time.sleep(0.05)


def test_a_flow_that_ended_meanwhile_has_moved_nowhere(nova_ssm, conductor,
                                                       flow, monkeypatch):
    _other, name = conductor('other')
    # It ends faster than anybody looks.
    Hold.go.set()
    result = nova_ssm('flow', 'transfer', flow, '--to', name, '--wait',
                      '-f', 'json')
    if result[0]:
        cmd.assert_one_line(result, flow, 'is over')
    else:
        assert json.loads(result[1])['state'] == 'SUCCESS'


def test_says_what_keeps_it(nova_ssm, conductor, flow):
    other, _name = conductor('other')
    other.recovery.stop()       # it lives, and takes nothing
    cmd.assert_one_line(
        nova_ssm('flow', 'transfer', flow, '--to', 'other', '--wait',
                 '--timeout', '0.5'),
        flow, 'has not moved within 0.5 seconds')


def test_what_cannot_be(nova_ssm, flow):
    cmd.assert_one_line(nova_ssm('flow', 'transfer', 'nonsense'),
                        'no flow nonsense')
    cmd.assert_one_line(nova_ssm('flow', 'transfer', flow, '--to', 'mars'),
                        'named mars', 'there are: one:')
    cmd.assert_one_line(nova_ssm('flow', 'transfer', flow),
                        'no worker lives', 'other than its owner')
    cmd.assert_one_line(nova_ssm('flow', 'transfer', flow, '--to', 'one'),
                        'already')


def test_a_flow_that_is_over(nova_ssm, conductor):
    one, _name = conductor('one')
    Hold.go.set()
    request = journal.FlowRequest('hold', {})
    one.run(request)
    cmd.assert_one_line(nova_ssm('flow', 'transfer', request.uuid),
                        'is over: SUCCESS')
