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
import time

import pytest

from nova_ssm.engine import journal
from nova_ssm.tests.unit import cmd
from nova_ssm.tests.unit.cmd import conductors

Hold = conductors.Hold
TRANSFER = ('flow', 'transfer', '--yes')


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
    found = shown(nova_ssm(*TRANSFER, flow, *to, '--wait',
                           '-f', 'json'))
    assert found == {'flow': flow, 'name': 'hold', 'from': before['owner'],
                     'to': to[-1] if to else None, 'state': 'RUNNING',
                     'owner': name}


def test_does_not_wait_unless_it_is_told_to(nova_ssm, conductor, flow):
    _other, name = conductor('other')
    assert shown(nova_ssm(*TRANSFER, flow, '--to', name,
                          '-f', 'json'))['to'] == name
    while shown(nova_ssm('flow', 'show', flow, '-f',
                         'json'))['owner'] != name:
        time.sleep(0.05)


def test_a_flow_that_ended_meanwhile_has_moved_nowhere(nova_ssm, conductor,
                                                       flow, monkeypatch):
    _other, name = conductor('other')
    # It ends faster than anybody looks.
    Hold.go.set()
    result = nova_ssm(*TRANSFER, flow, '--to', name, '--wait',
                      '-f', 'json')
    if result[0]:
        cmd.assert_one_line(result, flow, 'is over')
    else:
        assert json.loads(result[1])['state'] == 'SUCCESS'


def test_says_what_keeps_it(nova_ssm, conductor, flow):
    other, _name = conductor('other')
    other.recovery.stop()       # it lives, and takes nothing
    cmd.assert_one_line(
        nova_ssm(*TRANSFER, flow, '--to', 'other', '--wait',
                 '--timeout', '0.5'),
        flow, 'has not moved within 0.5 seconds')


def test_what_cannot_be(nova_ssm, flow):
    cmd.assert_one_line(nova_ssm(*TRANSFER, 'nonsense'),
                        'no flow nonsense')
    cmd.assert_one_line(nova_ssm(*TRANSFER, flow, '--to', 'mars'),
                        'named mars', 'there are: one:')
    cmd.assert_one_line(nova_ssm(*TRANSFER, flow),
                        'no worker lives', 'other than its owner')
    cmd.assert_one_line(nova_ssm(*TRANSFER, flow, '--to', 'one'),
                        'already')


def test_a_flow_that_is_over(nova_ssm, conductor):
    one, _name = conductor('one')
    Hold.go.set()
    request = journal.FlowRequest('hold', {})
    one.run(request)
    cmd.assert_one_line(nova_ssm(*TRANSFER, request.uuid),
                        'is over: SUCCESS')
