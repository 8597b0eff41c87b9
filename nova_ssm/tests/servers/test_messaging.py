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

"""A server of RPC that is stopped loses nothing: the patch of oslo.messaging.

With two servers, and not only one, since what is no longer given to the one
is given to the other.
"""

import concurrent.futures
import threading

from oslo_config import cfg
import oslo_messaging as messaging
import pytest

from nova_ssm.tests.servers import rabbitmq

CALLS = 10


class Endpoint:
    """Says who answers; ``hold`` ends when it is told to."""

    def __init__(self, name):
        self.name = name
        self.held = threading.Event()
        self.go_on = threading.Event()

    def hello(self, context, number):
        return self.name, number

    def hold(self, context):
        self.held.set()
        assert self.go_on.wait(20)
        return self.name


@pytest.fixture(scope='module')
def broker():
    with rabbitmq.RabbitMQ() as server:
        yield server


@pytest.fixture
def transport(broker):
    # Some of its options are registered with this one only.
    cfg.CONF([], default_config_files=[])
    made = messaging.get_rpc_transport(cfg.CONF, url=broker.url)
    yield made
    made.cleanup()


@pytest.fixture
def serve(transport):
    """Starts servers of one topic."""
    started = []

    def serve(name):
        endpoint = Endpoint(name)
        server = messaging.get_rpc_server(
            transport, messaging.Target(topic='topic', server=name),
            [endpoint])
        server.start()
        started.append(server)
        return server, endpoint

    yield serve
    for server in started:
        server.stop()
        server.wait()


@pytest.fixture
def client(transport):
    return messaging.get_rpc_client(
        transport, messaging.Target(topic='topic'), timeout=10)


def test_a_server_that_is_stopped_loses_no_calls(serve, client):
    """Neither while it still works on something, nor when it closes."""
    stopped, endpoint = serve('stopped')
    with concurrent.futures.ThreadPoolExecutor() as pool:
        held = pool.submit(client.prepare(server='stopped').call, {}, 'hold')
        assert endpoint.held.wait(20)
        other, _endpoint = serve('other')
        stopped.stop()
        calls = [pool.submit(client.call, {}, 'hello', number=number)
                 for number in range(CALLS)]
        concurrent.futures.wait(calls, timeout=3)
        endpoint.go_on.set()
        stopped.wait()
        assert [call.result() for call in calls] == [
            ['other', number] for number in range(CALLS)]
        assert held.result() == 'stopped'


def test_calls_that_are_on_their_way_are_answered(serve, client):
    """Calls that come while the server stops: by the one or the other."""
    server, _endpoint = serve('stopped')
    serve('other')
    with concurrent.futures.ThreadPoolExecutor(CALLS) as pool:
        calls = [pool.submit(client.call, {}, 'hello', number=number)
                 for number in range(CALLS * CALLS)]
        calls[CALLS].result()
        server.stop()
        server.wait()
        assert [call.result()[1] for call in calls] == list(
            range(CALLS * CALLS))


def test_what_nobody_takes_is_there_for_who_starts_next(serve, client):
    server, endpoint = serve('stopped')
    with concurrent.futures.ThreadPoolExecutor() as pool:
        held = pool.submit(client.call, {}, 'hold')
        assert endpoint.held.wait(20)
        server.stop()
        call = pool.submit(client.call, {}, 'hello', number=1)
        endpoint.go_on.set()
        server.wait()
        serve('next')
        assert call.result() == ['next', 1]
        assert held.result() == 'stopped'
