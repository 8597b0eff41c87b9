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

"""Does later, in a thread of its own, what flows must not wait for."""

from collections.abc import Callable
import threading
from typing import Any

from oslo_log import log as logging

from nova_ssm.engine import looping

LOG = logging.getLogger(__name__)


class Mailbox(looping.Loop):
    """Collects what is posted, and hands it on now and then.

    :param name: of the thread
    :param handle: is given all that was posted since the last time, in its
        order; what it raises is logged, and that batch is lost
    :param interval: seconds to wait for more, from the first of a batch on
    :param limit: how much waits at the most; what comes then is lost
    """

    def __init__(self, name: str, handle: Callable[[list[Any]], None],
                 interval: float = 0.0, limit: int = 100_000) -> None:
        super().__init__(name)
        self._handle = handle
        self._interval = interval
        self._limit = limit
        self._items: list[Any] = []
        self._lost = 0
        self._lock = threading.Lock()
        self._some = threading.Event()
        self._delivering = threading.Lock()

    def post(self, item: Any) -> None:
        """Put something into it. Takes no time, and never fails."""
        with self._lock:
            if len(self._items) < self._limit:
                self._items.append(item)
            else:
                self._lost += 1
        self._some.set()

    def deliver(self) -> None:
        """Hand on what is there, now and in this thread."""
        with self._delivering:
            self._some.clear()
            with self._lock:
                batch, self._items = self._items, []
                lost, self._lost = self._lost, 0
            if lost:
                LOG.warning('%s cannot keep up: %d items are lost',
                            self._name, lost)
            try:
                if batch:
                    self._handle(batch)
            except Exception:
                LOG.exception('%s failed; %d items are lost', self._name,
                              len(batch))

    def suspend(self) -> None:
        """Wait for nothing any more."""
        super().suspend()
        self._some.set()

    def stop(self) -> None:
        """Hand on what is there, and end."""
        super().stop()
        self.deliver()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._some.wait()
            self._stop.wait(self._interval)
            self.deliver()
