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

"""ZooKeeper: a claim is a node that goes with the session that made it."""

from collections.abc import Mapping
import math
from typing import Any

from kazoo.handlers import threading
from kazoo.protocol import states
from kazoo import security
from taskflow.utils import kazoo_utils

from nova_ssm.engine.coordination import base
from nova_ssm.engine import exception


class Result(threading.AsyncResult):
    """An answer that is not waited for while the server is away."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if timeout is None:
            timeout = self._handler.patience
        return super().get(block, timeout)


class Handler(threading.SequentialThreadingHandler):
    """Kazoo's threads, and how long others wait for them."""

    def __init__(self, patience: float) -> None:
        super().__init__()
        self.patience = patience

    def async_result(self) -> Result:
        return Result(self)


class Client(base.Client):
    """A session. When it is lost, another one is needed."""

    def __init__(self, server: base.Server, lease: float,
                 turn: int = 0) -> None:
        super().__init__(server, lease, turn)
        conf: dict[str, Any] = {
            'hosts': ['%s:%d' % address for address in server.addresses],
            'timeout': lease, 'handler': Handler(server.patience)}
        if server.tls:
            conf.update(use_ssl=True, keyfile=server.keyfile,
                        certfile=server.certfile)
        self.native = kazoo_utils.make_client(conf)
        if server.tls:
            self.native.ca = server.cafile      # which TaskFlow leaves out
        if server.user:
            self.native.auth_data.add(
                ('digest', '%s:%s' % (server.user, server.password)))
            self.native.default_acl = security.CREATOR_ALL_ACL
        self._ended = False
        self._granted = math.inf
        self._learn_timeout()
        self.native.add_listener(self._listen)

    def _learn_timeout(self) -> None:
        """Find out how long a session may be silent.

        The server decides, and kazoo keeps it to itself: two thirds of it
        are how long it waits for an answer.
        """
        connection = self.native._connection
        connect = connection._connect

        def learn(*args: Any) -> tuple[float, float]:
            read, others = connect(*args)
            self._granted = read * 1.5 / 1000
            return read, others

        connection._connect = learn

    def _listen(self, state: str) -> None:
        # Called in kazoo's threads. A session that is over stays over; the
        # client makes a new one, in which nothing is claimed.
        if state == states.KazooState.LOST:
            self._ended = True

    def connect(self) -> None:
        self.native.start(self.server.patience)

    def terms(self) -> Mapping[str, Any]:
        return {}

    def extend(self, board: Any, job: Any) -> None:
        """The session does that, as long as it lasts."""

    def jobs(self, board: Any) -> list[Any]:
        # Or a follower answers with what it knows already.
        self.native.sync(board.path)
        found = super().jobs(board)
        # It may have been cut off meanwhile, and have looked empty.
        self.check()
        return found

    def conf(self) -> dict[str, Any]:
        # Beside the last part of the path TaskFlow keeps what is trashed. It
        # asks for the version with a word that servers do not answer unless
        # they are told to (4lw.commands.whitelist).
        return {'board': 'zookeeper', 'check_compatible': False,
                'path': '/%s/jobs' % self.server.path.strip('/')}

    def options(self) -> dict[str, Any]:
        return {'emit_notifications': False}

    def name(self, worker: str) -> str:
        # Claims of an earlier session are not ours for long.
        return '%s %d' % (worker, self.turn)

    @property
    def lost(self) -> bool:
        return self._ended

    def check(self) -> None:
        # A board that is suspended looks empty, and our questions are put
        # off until it is there again.
        if self._ended or not self.native.connected:
            raise exception.BoardUnusable(
                'the connection to ZooKeeper is interrupted')
        if self._granted < self.lease:
            raise exception.BoardUnusable(
                'this ZooKeeper ends sessions after %.1f seconds: set [ssm] '
                'lease to that or less, or its maxSessionTimeout to more'
                % self._granted)

    def close(self) -> None:
        kazoo_utils.finalize_client(self.native)


make = Client
