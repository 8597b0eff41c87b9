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

"""What goes on beside the flows, in a thread of its own."""

import abc
import threading


class Loop(abc.ABC):
    """Runs in a thread from its start to its stop.

    :param name: of the thread
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(
            target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def suspend(self) -> None:
        """Begin no further round; do not wait for the one under way."""
        self._stop.set()

    def stop(self) -> None:
        """As :meth:`suspend`, and wait for the round under way, a while."""
        self.suspend()
        if self._thread is not None:
            self._thread.join(5)

    @abc.abstractmethod
    def _run(self) -> None:
        """One round after the other, until ``_stop`` is set."""
