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
"""Peers in processes of their own: none is slowed down by another's threads.

What a process is told to do it does at once and answers; meanwhile the
others wait to be told.
"""

import collections
from collections.abc import Callable
import concurrent.futures
import gc
import logging
import multiprocessing
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from nova_ssm.tests.bench import peers

#: The longest time that a peer may take for what it is told, in seconds.
PATIENCE = 600


class PeerFailed(Exception):
    """A peer did not do what it was told."""


class Remote:
    """A peer in a process of its own.

    :param name: in ``peers.PEERS``
    :param url: an SQLAlchemy URL of an empty database of its own
    """

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(name, url, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def ask(self, what: str, *args: Any) -> Any:
        """Let the peer do something.

        :param what: a method of ``_Served``
        :raises PeerFailed: if it fails, or takes too long
        """
        self._pipe.send((what, args))
        return self._answer()

    def _answer(self) -> Any:
        try:
            if not self._pipe.poll(PATIENCE):
                raise PeerFailed('%s does not answer' % self.name)
            done, value = self._pipe.recv()
        except EOFError:
            raise PeerFailed('%s died' % self.name) from None
        if not done:
            raise PeerFailed('%s: %s' % (self.name, value))
        return value

    def close(self) -> None:
        """End its process."""
        try:
            self.ask('close')
            self._process.join(20)
        except (PeerFailed, OSError):
            pass        # it has ended, or is ended now
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


class _Served:
    """What a peer can be told to do, in its process."""

    def __init__(self, peer: peers.Peer) -> None:
        self._peer = peer

    def time(self, tasks: int) -> tuple[float, float]:
        """Run one flow.

        :returns: seconds on the clock, and of the processor
        """
        cpu, clock = time.process_time(), time.perf_counter()
        self._peer.run(tasks)
        return time.perf_counter() - clock, time.process_time() - cpu

    def count(self, tasks: int, flows: int) -> tuple[int, int]:
        """Run flows one by one.

        :returns: statements and commits of one of them. Threads in the
            background say something too now and then: it is the median.
        """
        seen = []
        said: collections.Counter[str] = collections.Counter()

        def execute(connection, cursor, statement, *args) -> None:
            if not statement.startswith('BEGIN'):
                said['statements'] += 1

        def commit(connection) -> None:
            said['commits'] += 1

        listeners: list[tuple[str, Callable]] = [
            ('before_cursor_execute', execute), ('commit', commit)]
        for name, function in listeners:
            event.listen(sa.Engine, name, function)
        for _flow in range(flows):
            said.clear()
            self._peer.run(tasks)
            seen.append((said['statements'], said['commits']))
        for name, function in listeners:
            event.remove(sa.Engine, name, function)
        return sorted(seen)[len(seen) // 2]

    def together(self, tasks: int, flows: int) -> float:
        """Run flows side by side, each in a thread of its own.

        :returns: seconds from the start of the first to the end of the last
        """
        with concurrent.futures.ThreadPoolExecutor(flows) as pool:
            clock = time.perf_counter()
            for future in [pool.submit(self._peer.run, tasks)
                           for _flow in range(flows)]:
                future.result()
            return time.perf_counter() - clock

    def close(self) -> None:
        self._peer.close()


def _serve(name: str, url: str, pipe: Any) -> None:
    # What a flow that breaks has to say is in the answer.
    logging.disable(logging.ERROR)
    try:
        served = _Served(peers.PEERS[name](url))
        pipe.send((True, None))
    except Exception as exc:  # noqa: BLE001 - told to who has asked
        pipe.send((False, repr(exc)))
        return
    what = ''
    while what != 'close':
        what, args = pipe.recv()
        # The rubbish of one measurement is not collected in the next.
        gc.collect()
        try:
            pipe.send((True, getattr(served, what)(*args)))
        except Exception as exc:  # noqa: BLE001 - told to who has asked
            pipe.send((False, repr(exc)[:300]))
