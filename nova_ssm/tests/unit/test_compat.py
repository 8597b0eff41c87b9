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

"""What Nova keeps to itself: asking a compute for an answer."""

import traceback
from unittest import mock

from nova.compute import rpcapi as compute_rpcapi
from nova import exception
from nova import objects
from nova import rpc
import oslo_messaging as messaging
import pytest

from nova_ssm import compat


@pytest.fixture
def client(monkeypatch):
    """The client of the compute's cell."""
    made = mock.Mock()
    monkeypatch.setattr(rpc, 'get_client', lambda target: target)
    monkeypatch.setattr(
        rpc, 'ClientRouter', lambda default: mock.Mock(
            client=lambda context: made.of(default, context)))
    return made


def test_ping_goes_through_the_queue_of_builds(client):
    assert compat.ping_compute('context', 'host1', 5) is True
    (target, context), _kwargs = client.of.call_args
    assert (target.topic, target.namespace) == ('compute', 'baseapi')
    assert context == 'context'
    routed = client.of.return_value
    routed.prepare.assert_called_once_with(server='host1', timeout=5)
    routed.prepare.return_value.call.assert_called_once_with(
        'context', 'ping', arg='nova_ssm')


def test_ping_goes_through_another_queue(client):
    compat.ping_compute('context', 'host1', 5, 'compute-alt')
    assert client.of.call_args.args[0].topic == 'compute-alt'


@pytest.mark.parametrize('new, topic', (
    (True, 'compute-alt'), (False, 'compute')))
def test_live_migrations_have_a_queue_of_their_own(monkeypatch, new, topic):
    """Not so if the RPC version is pinned to that of older computes."""
    api = compute_rpcapi.ComputeAPI()
    client = mock.Mock()
    client.can_send_version.return_value = new
    client.prepare = lambda **kwargs: mock.Mock(
        target=messaging.Target(topic=kwargs['topic']))
    monkeypatch.setattr(compute_rpcapi.ComputeAPI, 'router',
                        mock.Mock(client=lambda context: client))
    assert compat.alt_topic(api, 'context', 'host1') == topic


def test_live_migrations_of_older_releases():
    assert compat.alt_topic(object(), 'context', 'host1') == 'compute'


def test_no_answer(client):
    client.of.return_value.prepare.return_value.call.side_effect = (
        messaging.MessagingTimeout('no'))
    assert compat.ping_compute('context', 'host1', 5) is False


def test_no_bus_is_not_no_answer(client):
    client.of.return_value.prepare.return_value.call.side_effect = (
        messaging.MessageDeliveryFailure('bus'))
    with pytest.raises(messaging.MessageDeliveryFailure):
        compat.ping_compute('context', 'host1', 5)


# -- what users see of a resize that fails ---------------------------------

@pytest.mark.parametrize('flavor, words', (
    (7, 'No valid host found for cold migrate'),
    (8, 'No valid host found for resize')))
def test_no_host_for_a_resize(flavor, words):
    exc = compat.resize_error(
        exception.MaxRetriesExceeded(reason='none is left'),
        objects.Instance(instance_type_id=7), objects.Flavor(id=flavor))
    assert type(exc) is exception.NoValidHost
    assert words in str(exc)


def test_no_host_for_a_server_that_was_deleted():
    """There is nothing left of it but its name."""
    exc = compat.resize_error(exception.NoValidHost(reason='full'),
                              objects.Instance(), objects.Flavor(id=8))
    assert 'No valid host found' in str(exc)


def test_another_failure_of_a_resize_is_seen_as_it_is():
    exc = ValueError('x')
    assert compat.resize_error(exc, None, None) is exc


@pytest.mark.parametrize('seen, line', (
    (compat.resize_error(
        exception.NoValidHost(reason='full'), objects.Instance(),
        objects.Flavor(id=8)), 'raise exception.NoValidHost('),
    (compat.live_migration_error(ValueError('x')),
     'raise exception.MigrationError(')))
def test_a_translated_failure_says_where_it_was_raised(seen, line):
    """The action's event shows the lines, not the exception."""
    assert line in ''.join(traceback.format_tb(seen.__traceback__))
