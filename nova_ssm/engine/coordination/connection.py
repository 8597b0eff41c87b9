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

"""The connection of one process to its job board's server.

Made when it is first needed, never before a fork, and anew when it is lost.
Whatever goes wrong with the server is one error: the board is unusable now.
"""

from collections.abc import Iterator
import contextlib
import os
import threading
import time
from typing import Any

from oslo_log import log as logging
from taskflow import exceptions as taskflow_exc
from taskflow.jobs import backends

from nova_ssm.engine.coordination import base
from nova_ssm.engine import exception

LOG = logging.getLogger(__name__)

#: How long a server that failed is not asked again, in seconds.
_PAUSE = 1.0


class Connection:
    """Gives out TaskFlow's board while the server is there."""

    def __init__(self, server: base.Server, lease: float) -> None:
        self.server = server
        self._lease = lease
        self._lock = threading.Lock()
        self._client: base.Client | None = None
        self._board: Any = None
        self._pid: int | None = None
        self._turn = 0
        self._again = 0.0
        self._away = False

    @contextlib.contextmanager
    def use(self) -> Iterator[tuple[base.Client, Any]]:
        """The client and TaskFlow's board.

        :raises BoardUnusable: for whatever is the matter with the server
        :raises taskflow.exceptions.NotFound: also if a job is not ours
        :raises taskflow.exceptions.UnclaimableJob: as the board does
        """
        client, board = self._open()
        try:
            client.check()
            yield client, board
        except (taskflow_exc.UnclaimableJob, taskflow_exc.NotFound):
            raise
        except Exception as exc:
            if _is_refusal(exc):
                raise taskflow_exc.NotFound(str(exc)) from exc
            self._failed(client)
            raise self._unusable(exc) from exc
        self._is_back()

    def _open(self) -> tuple[base.Client, Any]:
        with self._lock:
            if self._pid != os.getpid():
                # What the parent has opened is the parent's.
                self._client = self._board = None
                self._pid, self._again = os.getpid(), 0.0
            if time.monotonic() < self._again:
                raise exception.BoardUnusable(
                    'the job board %s has just failed' % self.server)
            if self._client is None:
                self._client, self._board = self._connect()
            return self._client, self._board

    def _connect(self) -> tuple[base.Client, Any]:
        client = base.client(self.server, self._lease, self._turn)
        self._turn += 1
        try:
            client.connect()
            board = backends.fetch(
                'nova_ssm', client.conf(), client=client.native,
                **client.options())
            board.connect()
        except Exception as exc:
            self._again = time.monotonic() + _PAUSE
            self._close(client, None)
            raise self._unusable(exc) from exc
        return client, board

    def _failed(self, client: base.Client) -> None:
        with self._lock:
            self._again = time.monotonic() + _PAUSE
            self._away = True
            if client is self._client and client.lost:
                self._drop()

    def _unusable(self, exc: Exception) -> exception.BoardUnusable:
        text = str(exc).partition('\n')[0] or type(exc).__name__
        cause = exc.__cause__
        if cause is not None and str(cause):
            text += ': %s' % str(cause).partition('\n')[0]
        if self.server.password:
            text = text.replace(self.server.password, '***')
        if not self._away:
            LOG.warning('The job board %s cannot be used: %s',
                        self.server, text)
            self._away = True
        return exception.BoardUnusable(
            'the job board %s cannot be used: %s' % (self.server, text))

    def _is_back(self) -> None:
        if self._away:
            self._away = False
            LOG.info('The job board %s is there again', self.server)

    def _drop(self) -> None:
        client, board = self._client, self._board
        self._client = self._board = None
        if client is not None:
            self._close(client, board)

    @staticmethod
    def _close(client: base.Client, board: Any) -> None:
        for one in (board, client):
            try:
                if one is not None:
                    one.close()
            except Exception as exc:  # noqa: BLE001 - it is to be gone
                LOG.debug('Closing a connection failed: %s', exc)

    def close(self) -> None:
        """Close it, if there is one; it may be used again."""
        with self._lock:
            if self._pid == os.getpid():
                self._drop()


def _is_refusal(exc: Exception) -> bool:
    """Whether the board says that a job is not ours.

    TaskFlow has one error for that and for trouble with the server, which
    has a cause.
    """
    return (isinstance(exc, taskflow_exc.JobFailure) and
            exc.__cause__ is None and exc.cause is None)
