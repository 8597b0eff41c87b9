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

"""Does things side by side, with threads that many callers share."""

import collections
from collections.abc import Callable, Sequence
import os
import threading
from typing import Any, TypeVar

import futurist
from oslo_context import context as oslo_context

T = TypeVar('T')
R = TypeVar('R')


class Helpers:
    """Threads that help a caller; it does what they leave, if need be all.

    So a caller never waits for a thread to be free, and what is done may
    itself be done side by side. Threads are made when they are first needed,
    in the process that needs them.

    :param width: how many things one caller has done at once, itself
        included, and how many threads there are for all callers
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._executor: futurist.ThreadPoolExecutor | None = None
        self._pid: int | None = None
        self._lock = threading.Lock()

    def run(self, work: Callable[[T], R], items: Sequence[T],
            context_of: Callable[[T], Any] = lambda item: None) -> list[R]:
        """Do the work for all items; they begin in their order.

        :param context_of: the request context of an item, which the logs of
            its thread are to tell
        :returns: what it gives for each, in the order of the items
        :raises Exception: the failure of the first item that failed; no item
            begins after a failure, those under way come to their end
        """
        if len(items) < 2 or self._width < 2:
            return [work(item) for item in items]
        share = _Share(work, items, context_of)
        helping = [self._submit(share.help)
                   for _number in range(min(self._width, len(items)) - 1)]
        share.work_off()
        for future in helping:
            if not future.cancel():
                future.result()
        return share.results()

    def _submit(self, work: Callable[[], None]) -> Any:
        with self._lock:
            if self._executor is None or self._pid != os.getpid():
                self._executor = futurist.ThreadPoolExecutor(self._width)
                self._pid = os.getpid()
            return self._executor.submit(work)

    def close(self) -> None:
        """End the threads; they are made again if they are needed."""
        with self._lock:
            executor, self._executor = self._executor, None
            ours = self._pid == os.getpid()
        if executor is not None and ours:
            executor.shutdown(wait=False)


class _Share:
    """The items of one call."""

    def __init__(self, work: Callable[[Any], Any], items: Sequence[Any],
                 context_of: Callable[[Any], Any]) -> None:
        self._work = work
        self._context_of = context_of
        self._todo = collections.deque(enumerate(items))
        self._done: dict[int, Any] = {}
        self._failed: dict[int, BaseException] = {}

    def help(self) -> None:
        """Work items off in a thread that is not the caller's."""
        self.work_off(self._tell)

    def _tell(self, item: Any) -> None:
        context = self._context_of(item)
        if isinstance(context, oslo_context.RequestContext):
            context.update_store()

    def work_off(self, before: Callable[[Any], None] | None = None) -> None:
        while True:
            try:
                index, item = self._todo.popleft()
            except IndexError:
                return
            try:
                if before is not None:
                    before(item)
                self._done[index] = self._work(item)
            except BaseException as exc:  # noqa: BLE001 - raised by results
                self._failed[index] = exc
                self._todo.clear()

    def results(self) -> list[Any]:
        if self._failed:
            raise self._failed[min(self._failed)]
        return [self._done[index] for index in sorted(self._done)]
