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

"""An oslo.messaging driver that passes messages as files in a directory.

Lets processes of one machine talk RPC without a message broker, where
oslo.messaging's own ``fake`` driver stays inside one process. A queue is a
directory, a message is a file in it; who renames the file has the message. As
with the real drivers a message is gone from the queue before it is dispatched,
so that a server which is killed takes its messages with it. For tests.
"""

import os
import sys
import time
import uuid

import oslo_messaging
from oslo_messaging._drivers import base
from oslo_messaging._drivers import common
from oslo_messaging import transport as messaging_transport
from oslo_serialization import jsonutils

POLL = 0.01  # seconds between two looks at a queue


def _write(directory: str, name: str, content: dict) -> None:
    """Put a file into a queue, all of it at once."""
    part = os.path.join(directory, '.' + name)
    with open(part, 'w', encoding='utf-8') as new:
        new.write(jsonutils.dumps(content))
    os.rename(part, os.path.join(directory, name))


class IncomingMessage(base.RpcIncomingMessage):
    """A message that was taken from a queue.

    :param content: what the sender wrote
    :param replies: directory of the replies
    """

    def __init__(self, content: dict, replies: str) -> None:
        super().__init__(content['context'], content['message'])
        self._reply_to = content['reply_to']
        self._replies = replies

    def reply(self, reply=None, failure=None) -> None:
        """Send the result, or the exception, to a caller that waits."""
        if self._reply_to:
            error = failure and common.serialize_remote_exception(failure)
            _write(self._replies, self._reply_to,
                   {'result': reply, 'failure': error})

    def requeue(self) -> None:
        """Not supported, as require_features says."""
        raise NotImplementedError()

    def heartbeat(self) -> None:
        """Do nothing: calls have one timeout."""


class Listener(base.PollStyleListener):
    """Takes the messages of some queues, oldest first.

    :param queues: their directories, the most important first
    :param replies: directory of the replies
    """

    def __init__(self, queues: list[str], replies: str) -> None:
        super().__init__()
        self._queues = queues
        self._replies = replies
        self._stopped = False

    @base.batch_poll_helper
    def poll(self, timeout=None):
        """Return the next message, None at the timeout (seconds) or stop."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._stopped:
            for queue in self._queues:
                for name in sorted(os.listdir(queue)):
                    content = self._take(queue, name)
                    if content is not None:
                        return IncomingMessage(content, self._replies)
            if deadline is not None and time.monotonic() > deadline:
                break
            time.sleep(POLL)
        return None

    def stop(self) -> None:
        """Make poll() return."""
        self._stopped = True

    @staticmethod
    def _take(queue: str, name: str) -> dict | None:
        if name.startswith('.'):
            return None  # still being written, or taken
        taken = os.path.join(queue, '.taken-' + name)
        try:
            os.rename(os.path.join(queue, name), taken)
        except FileNotFoundError:
            return None  # another process was faster
        with open(taken, encoding='utf-8') as message:
            content = jsonutils.loads(message.read())
        os.unlink(taken)
        return content


class Driver(base.BaseDriver):
    """The driver.

    :param conf: as for every driver
    :param directory: where the queues are
    :param exmods: modules of the exceptions that may be raised again
    """

    def __init__(self, conf, directory: str, exmods: list[str]) -> None:
        super().__init__(conf, None, allowed_remote_exmods=exmods)
        self._directory = directory
        self._replies = self._queue('replies')

    def send(self, target, ctxt, message, wait_for_reply=None, timeout=None,
             call_monitor_timeout=None, retry=None, transport_options=None):
        """Send a message; wait for the reply, up to timeout seconds.

        :raises MessagingTimeout: there was no reply in time
        """
        # A name of equal length sorts by time.
        name = '%020d-%s' % (time.time_ns(), uuid.uuid4().hex)
        content = {'context': ctxt, 'message': message,
                   'reply_to': name if wait_for_reply else None}
        for queue in self._addressed(target):
            _write(queue, name, content)
        if wait_for_reply:
            return self._wait(name, target.topic, timeout)
        return None

    def send_notification(self, target, ctxt, message, version, retry=None):
        """Drop it: nobody listens for notifications here."""

    def listen(self, target, batch_size, batch_timeout):
        """Listen for the server's own messages and those of its topic."""
        listener = Listener(
            [self._queue('server', target.topic, target.server),
             self._queue('topic', target.topic)], self._replies)
        return base.PollStyleListenerAdapter(listener, batch_size,
                                             batch_timeout)

    def listen_for_notifications(self, targets_and_priorities, pool,
                                 batch_size, batch_timeout):
        """Not supported."""
        raise NotImplementedError()

    def cleanup(self) -> None:
        """Leave the queues: other processes use them."""

    def _queue(self, *name: str) -> str:
        path = os.path.join(self._directory, *name)
        os.makedirs(path, exist_ok=True)
        return path

    def _addressed(self, target) -> list[str]:
        if target.fanout:
            servers = self._queue('server', target.topic)
            return [os.path.join(servers, name)
                    for name in os.listdir(servers)]
        if target.server:
            return [self._queue('server', target.topic, target.server)]
        return [self._queue('topic', target.topic)]

    def _wait(self, name: str, topic: str, timeout: float | None):
        path = os.path.join(self._replies, name)
        deadline = time.monotonic() + (timeout or sys.maxsize)
        while not os.path.exists(path):
            if time.monotonic() > deadline:
                raise oslo_messaging.MessagingTimeout(
                    'No reply on topic %s' % topic)
            time.sleep(POLL / 2)
        with open(path, encoding='utf-8') as reply:
            content = jsonutils.loads(reply.read())
        os.unlink(path)
        if content['failure']:
            raise common.deserialize_remote_exception(
                content['failure'], self._allowed_remote_exmods)
        return content['result']


def transport(conf, directory: str,
              exmods: list[str]) -> messaging_transport.RPCTransport:
    """Return an RPC transport over the files of a directory."""
    return messaging_transport.RPCTransport(Driver(conf, directory, exmods))
