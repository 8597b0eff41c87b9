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

"""Messages as files: what oslo.messaging expects of a driver."""

import threading

from oslo_config import cfg
import oslo_messaging
from oslo_messaging import conffixture
import pytest

from nova_ssm.tests.functional import embedded_bus


class Endpoint:
    """What the servers of the tests offer."""

    def __init__(self, name, seen):
        self.name = name
        self.seen = seen

    def add(self, context, one, two):
        """Return a sum."""
        return one + two

    def fail(self, context):
        """Raise what the caller may see again."""
        raise ValueError('as asked')

    def note(self, context, text):
        """Leave a trace."""
        self.seen.append((self.name, text))


@pytest.fixture
def bus(tmp_path):
    """Two servers and a client, each with a transport of its own."""
    seen: list = []
    servers = []
    conf = cfg.ConfigOpts()
    conffixture.ConfFixture(conf)  # registers the options
    conf([])
    for name in ('one', 'two'):
        transport = embedded_bus.transport(conf, str(tmp_path), ['builtins'])
        server = oslo_messaging.get_rpc_server(
            transport, oslo_messaging.Target(topic='topic', server=name),
            [Endpoint(name, seen)], executor='threading')
        server.start()
        servers.append(server)
    client = oslo_messaging.get_rpc_client(
        embedded_bus.transport(conf, str(tmp_path), ['builtins']),
        oslo_messaging.Target(topic='topic'))
    yield client, seen
    for server in servers:
        server.stop()
        server.wait()


def test_calls_return_and_raise(bus):
    client, _ = bus
    assert client.call({}, 'add', one=1, two=2) == 3
    with pytest.raises(ValueError, match='as asked'):
        client.call({}, 'fail')


def test_a_cast_goes_to_one_server_or_to_all(bus):
    client, seen = bus
    client.prepare(server='two').cast({}, 'note', text='to two')
    client.prepare(server='two').call({}, 'add', one=1, two=1)
    assert seen == [('two', 'to two')]
    client.prepare(fanout=True).cast({}, 'note', text='to all')
    # A server runs what it got in the order it got it, in several threads.
    for _ in range(500):
        if len(seen) == 3:
            break
        threading.Event().wait(0.01)
    assert sorted(seen) == [('one', 'to all'), ('two', 'to all'),
                            ('two', 'to two')]


def test_a_call_nobody_answers_times_out(bus):
    client, _ = bus
    with pytest.raises(oslo_messaging.MessagingTimeout):
        client.prepare(server='nobody', timeout=0.1).call({}, 'add')
