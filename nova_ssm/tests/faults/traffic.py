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

"""Tells when nothing goes on in this process: no message, no thread.

And makes Nova's in-memory message bus deliver at once, where it would look
every 50 milliseconds, and a clock of which nobody needs to wait for a minute.
"""

from collections.abc import Callable, Iterator
from concurrent import futures
import contextlib
import sys
import threading
import time
from typing import Any

import fixtures
import futurist
from nova import objects
from oslo_messaging._drivers import impl_fake
from oslo_messaging.rpc import server as rpc_server
from oslo_messaging import server

from nova_ssm.engine import ownership
from nova_ssm.engine import queries
from nova_ssm.engine import recovery


#: How many times longer than Nova its parts wait for each other's answers.
_PATIENCE = 5


class Busy(Exception):
    """Something goes on for too long."""


class Traffic(fixtures.Fixture):
    """Counts what is under way: messages in queues, and work of threads.

    Of the threads that have work it knows which wait for another one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed = threading.Condition()
        self._count = 0
        self._resting = 0
        self._changes = 0
        self._here = threading.local()
        self._mail = _Mail()

    def _setUp(self) -> None:
        self._patch(impl_fake.FakeExchange, 'deliver_message', self._deliver)
        self._patch(server.MessageHandlingServer, '_on_incoming',
                    self._incoming)
        self._patch(futurist.ThreadPoolExecutor, 'submit', self._submit)
        self._patch(futures.Future, 'result', self._result)
        self._patch(recovery.Recovery, '_resume', self._resume)
        self._patch(impl_fake.FakeListener, 'stop', self._stop)
        self._patch(impl_fake.FakeDriver, 'send', self._send)
        self.useFixture(fixtures.MockPatchObject(
            impl_fake, 'time', self._mail))

    def _patch(self, owner: Any, name: str, new: Any) -> None:
        original = getattr(owner, name)
        self.useFixture(fixtures.MockPatchObject(
            owner, name, lambda *args, **kwargs: new(
                original, *args, **kwargs)))

    def _add(self, number: int) -> None:
        with self._changed:
            self._count += number
            self._changes += 1
            self._changed.notify_all()

    def _stop(self, original: Any, this: Any) -> None:
        original(this)
        self._mail.ring()

    def _send(self, original: Any, this: Any, target: Any, ctxt: Any,
              message: Any, wait_for_reply: Any = None, timeout: Any = None,
              *args: Any, **kwargs: Any) -> Any:
        # Nobody here is slow but a machine that does much else; who is dead
        # answers so.
        with self.rest() if wait_for_reply else contextlib.nullcontext():
            return original(this, target, ctxt, message, wait_for_reply,
                            timeout and _PATIENCE * timeout, *args, **kwargs)

    def _deliver(self, original: Any, this: Any, *args: Any,
                 **kwargs: Any) -> None:
        with this._queues_lock:
            before = _queued(this)
            original(this, *args, **kwargs)
            self._add(_queued(this) - before)
        self._mail.ring()

    def _incoming(self, original: Any, this: Any, incoming: Any) -> Any:
        try:
            return original(this, incoming)
        finally:
            self._add(-len(incoming))

    def _submit(self, original: Any, this: Any, work: Any, *args: Any,
                **kwargs: Any) -> Any:
        if 'LoopingCall' in getattr(work, '__qualname__', ''):
            return original(this, work, *args, **kwargs)
        self._add(1)
        try:
            future = original(this, self._work(work), *args, **kwargs)
        except BaseException:
            self._add(-1)
            raise
        future.add_done_callback(lambda done: self._add(-1))
        return future

    def _work(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """Have a thread know that what it does is counted."""
        def run(*args: Any, **kwargs: Any) -> Any:
            self._here.works = True
            try:
                return work(*args, **kwargs)
            finally:
                self._here.works = False
        return run

    def _result(self, original: Any, this: Any, *args: Any,
                **kwargs: Any) -> Any:
        with self.rest():
            return original(this, *args, **kwargs)

    def _resume(self, original: Any, *args: Any) -> Any:
        # It has a thread of its own.
        self._add(1)
        try:
            return self._work(original)(*args)
        finally:
            self._add(-1)

    @contextlib.contextmanager
    def rest(self) -> Iterator[None]:
        """This thread waits for others, or for a time."""
        resting = int(getattr(self._here, 'works', False))
        self._rest(resting)
        try:
            yield
        finally:
            self._rest(-resting)

    def _rest(self, number: int) -> None:
        with self._changed:
            self._resting += number
            self._changed.notify_all()

    def wait(self, timeout: float = 60, worked: float = 15) -> None:
        """Wait until nothing is under way.

        :param timeout: seconds for which nothing may begin or end, if this
            process had time to work; ten times as many if it had not, on a
            busy machine
        :param worked: seconds of CPU that are time to work
        :raises Busy: if something still is under way
        """
        with self._changed:
            changes = -1
            while self._count:
                if changes != self._changes:
                    changes = self._changes
                    began, cpu = time.monotonic(), time.process_time()
                else:
                    self._still(began, cpu, timeout, worked)
                self._changed.wait(min(5, timeout))

    def _still(self, began: float, cpu: float, timeout: float,
               worked: float) -> None:
        past = time.monotonic() - began
        if past > 10 * timeout or (past > timeout and
                                   time.process_time() - cpu > worked):
            raise Busy('%d things are under way' % self._count)

    def breathe(self, longest: float) -> None:
        """Let others go on, until all that have work wait, too.

        :param longest: seconds
        """
        with self.rest(), self._changed:
            self._changed.wait_for(lambda: self._count <= self._resting,
                                   longest)


def _queued(exchange: Any) -> int:
    return sum(len(queue) for queues in (
        exchange._topic_queues, exchange._server_queues)
        for queue in queues.values())


class _Mail:
    """The module ``time`` for a message bus that need not look for mail.

    Who listens looks into its queues, then sleeps. What rang while it looked
    it may have missed: so it looks again. It sleeps for longer than it asked
    for: each time that it looks in vain takes from those that work.
    """

    #: Seconds.
    _LONGEST = 2.0

    def __init__(self) -> None:
        self._rang = threading.Condition()
        self._times = 0
        self._heard = threading.local()

    def ring(self) -> None:
        """Wake who listens."""
        with self._rang:
            self._times += 1
            self._rang.notify_all()

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        # Who waits for an answer until some time sleeps for less at its end.
        longest = seconds if seconds < 0.05 else self._LONGEST
        with self._rang:
            heard = getattr(self._heard, 'times', None)
            if heard == self._times:
                self._rang.wait_for(lambda: self._times != heard, longest)
            self._heard.times = self._times


class Clock(fixtures.Fixture):
    """A clock for tasks, which goes on by as much as somebody waits.

    What is waited for is what other processes do in that time: so a wait
    ends when they have nothing more to do. It does not end before, however
    busy the machine is: a minute is as long for them as it is in reality.
    """

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic
        self._ahead = 0.0

    def _setUp(self) -> None:
        for name, module in list(sys.modules.items()):
            if (name.startswith('nova_ssm.tasks.') and
                    getattr(module, 'time', None) is time):
                self.useFixture(fixtures.MockPatchObject(
                    module, 'time', self))
        clock = self
        database_clock = queries.clock
        # Who waits for a time of the database waits for this clock too.
        self.useFixture(fixtures.MockPatchObject(
            queries, 'clock',
            lambda db: database_clock(db) + clock._ahead))

        def wait(this: Any, seconds: float) -> None:
            this.at_rest()
            clock.sleep(seconds)
            this.check()

        self.useFixture(fixtures.MockPatchObject(
            ownership.Ownership, 'wait', wait))

    def monotonic(self) -> float:
        """As that of the module ``time``."""
        return time.monotonic() + self._ahead

    def time(self) -> float:
        """As that of the module ``time``."""
        return time.time() + self._ahead

    def sleep(self, seconds: float) -> None:
        """As that of the module ``time``, but for the waiting."""
        self._traffic.breathe(seconds)
        self._ahead += seconds


class Hosts(fixtures.Fixture):
    """Lets a fault tell the host of the service that has left it.

    All services here have one configuration, and with it one host.
    """

    def __init__(self) -> None:
        super().__init__()
        self._here = threading.local()

    def _setUp(self) -> None:
        process = rpc_server.RPCServer._process_incoming
        create = objects.InstanceFault.create

        def serve(this: Any, incoming: Any) -> Any:
            self._here.host = this._target.server
            try:
                return process(this, incoming)
            finally:
                self._here.host = None

        def leave(fault: Any) -> Any:
            fault.host = getattr(self._here, 'host', None) or fault.host
            return create(fault)

        self.useFixture(fixtures.MockPatchObject(
            rpc_server.RPCServer, '_process_incoming', serve))
        self.useFixture(fixtures.MockPatchObject(
            objects.InstanceFault, 'create', leave))
