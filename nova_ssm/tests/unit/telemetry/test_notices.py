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

"""Notifications of flows, as consumers get them."""

from oslo_versionedobjects import fixture
import pytest

from nova_ssm.engine import journal
from nova_ssm.engine import serialization
from nova_ssm.engine import task
from nova_ssm.telemetry import notices
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers


class Notifier:
    """Takes what is sent."""

    def __init__(self):
        self.sent, self.contexts, self.away = [], [], False

    def _take(self, level, context, event_type, payload):
        if self.away:
            raise OSError('the bus is away')
        self.contexts.append(context)
        self.sent.append((level, event_type, payload))

    def info(self, *args):
        self._take('info', *args)

    def error(self, *args):
        self._take('error', *args)

    def types(self):
        return [event_type for _level, event_type, _payload in self.sent]


@pytest.fixture
def bus():
    return Notifier()


@pytest.fixture
def notified(process, bus):
    """Runs flows whose notifications come to the bus."""
    def make(flows, **store):
        made = process(flows)
        told = notices.Notices('controller', lambda: bus)
        made.runner.listeners.add(told)
        try:
            return made.runner.run(journal.FlowRequest(
                name='flow', store=store, subject='server',
                project_id='project', user_id='user', request_id='req-1'))
        finally:
            told.flush()
    return make


def test_a_flow_begins_and_ends(notified, bus, world):
    outcome = notified(examples.simple(world))
    assert bus.types() == ['ssm.flow.start', 'ssm.flow.end']
    _level, _type, payload = bus.sent[-1]
    assert payload['nova_ssm_object.name'] == 'FlowPayload'
    assert payload['nova_ssm_object.namespace'] == 'nova_ssm'
    data = payload['nova_ssm_object.data']
    assert (data['uuid'], data['name'], data['state'], data['subject'],
            data['project_id'], data['user_id'], data['request_id'],
            data['host'], data['failure']) == (
                outcome.uuid, 'flow', 'SUCCESS', 'server', 'project', 'user',
                'req-1', 'controller', None)
    assert data['seconds'] >= 0
    assert 'nova_ssm_object.changes' not in payload


def test_one_that_fails_is_an_error(notified, bus, world):
    notified(examples.failing(examples.simple)(world))
    level, event_type, payload = bus.sent[-1]
    assert (level, event_type) == ('error', 'ssm.flow.error')
    data = payload['nova_ssm_object.data']
    assert (data['state'], data['failed_task']) == ('REVERTED', 'c')
    assert 'compute is broken' in data['failure']


def test_one_that_is_taken_over_says_so(notified, process, bus, world, url):
    world.kill_at = 4
    with pytest.raises(helpers.Killed):
        notified(examples.simple(world))
    helpers.expire_leases(url)
    made = process(examples.simple(world))
    told = notices.Notices('another', lambda: bus)
    made.runner.listeners.add(told)
    made.resume_all()
    told.flush()
    assert bus.types() == ['ssm.flow.start', 'ssm.flow.resume',
                           'ssm.flow.end']


def test_who_asked_is_in_the_context(notified, bus, world):
    notified(examples.simple(world))
    context = bus.contexts[0]
    assert (context.request_id, context.user_id, context.project_id) == (
        'req-1', 'user', 'project')


def test_no_secret_is_sent(notified, bus):
    class Tells(task.Task):
        def execute(self, password):
            raise ValueError('with ' + serialization.reveal(password))

    notified({'flow': lambda: helpers.linear(Tells('t'))},
             password=serialization.Secret('correct horse'))
    assert 'correct horse' not in str(bus.sent)


def test_a_bus_that_is_away_hurts_no_flow(notified, bus, world, caplog):
    bus.away = True
    assert notified(examples.simple(world)).state == 'SUCCESS'
    assert 'could not be sent' in caplog.text


def test_the_payload_keeps_its_word():
    """Whoever changes its fields gives it a new version."""
    checker = fixture.ObjectVersionChecker({
        'FlowPayload': [notices.FlowPayload]})
    found = checker.get_hashes()['FlowPayload']
    assert found == '1.0-5507dad795466dd42591e6bcb33085f7'
