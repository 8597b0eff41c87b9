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

"""Which flows are about to begin, and not yet in the journal."""

from collections.abc import Iterator
import contextlib
import threading


class Starts:
    """Lets others wait for what has been asked for until now."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way: set[object] = set()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Around the beginning of a flow."""
        token = object()
        with self._changed:
            self._under_way.add(token)
        try:
            yield
        finally:
            with self._changed:
                self._under_way.remove(token)
                self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until each that is under way now has begun, or failed to.

        :param timeout: in seconds; None waits for ever
        :returns: False if the time is over
        """
        with self._changed:
            before = set(self._under_way)
            return self._changed.wait_for(
                lambda: not before & self._under_way, timeout)
