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

"""Every call that leaves a conductor: watched, failed, or not survived.

A conductor is a :class:`Process`, though it runs in threads of the same
process as everything else: what a thread does while it is in the scope of a
conductor is that conductor's doing. What placement, neutron or a compute do
for it is not.

A conductor that is dead does nothing more: at each of its calls its threads
meet :class:`Death` again, also in their ``finally`` clauses.
"""

from collections.abc import Callable, Iterator
import contextlib
import threading
from typing import Any

from keystoneauth1 import exceptions as ks_exc
from neutronclient.common import exceptions as neutron_exc
from nova import exception as nova_exc
from oslo_db import exception as db_exc
import oslo_messaging

from nova_ssm.tests.faults import plan as plan_module

_here = threading.local()


class Death(BaseException):
    """The conductor is killed: nothing of it goes on."""


class Broken(Exception):
    """A task fails."""


class Process:
    """A conductor.

    :param manager: its ComputeTaskManager
    :param plan: what goes wrong
    """

    def __init__(self, manager: Any, plan: plan_module.Plan) -> None:
        self.manager = manager
        self.plan = plan
        self.dead = False

    def die(self) -> None:
        """Be killed.

        :raises Death: always
        """
        self.dead = True
        raise Death()


@contextlib.contextmanager
def scope(process: Process, name: str) -> Iterator[None]:
    """What this thread does now is done by a conductor, outside of flows."""
    with _set(process=process, flow='-', outside=False):
        with at('-', name):
            yield


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """What this thread does now is done by somebody else."""
    with _set(outside=True):
        yield


@contextlib.contextmanager
def in_flow(process: Process, name: str) -> Iterator[None]:
    """This thread runs a flow of a conductor, between its tasks."""
    with _set(process=process, flow=name, outside=False):
        with at('-', 'journal'):
            yield


@contextlib.contextmanager
def at(atom: str, phase: str,
       idle: bool = False) -> Iterator[plan_module.Spot]:
    """This thread is at a spot of its flow.

    :param idle: whether there is nothing to do
    """
    spot = _here.process.plan.enter(_here.flow, atom, phase, idle)
    with _set(spot=spot, count=0):
        yield spot


@contextlib.contextmanager
def _set(**values: Any) -> Iterator[None]:
    before = {name: getattr(_here, name, None) for name in values}
    _here.__dict__.update(values)
    try:
        yield
    finally:
        _here.__dict__.update(before)


def current() -> Process | None:
    """The conductor that this thread belongs to now."""
    if getattr(_here, 'outside', True):
        return None
    return getattr(_here, 'process', None)


def strike(spot: plan_module.Spot, when: str) -> None:
    """Fail, or die, before or after a task, if that is planned."""
    process = current()
    assert process is not None
    what = process.plan.strikes(spot, 0, when, 'raise', 'die')
    if what == 'die':
        process.die()
    elif what == 'raise':
        raise Broken('%s was made to fail' % spot)


def doubled(spot: plan_module.Spot) -> bool:
    """Whether a task is to be run twice."""
    process = current()
    assert process is not None
    return process.plan.strikes(spot, 0, 'after', 'twice') is not None


def leave(kind: str, detail: str, call: Callable[[], Any]) -> Any:
    """Make a call that leaves the process, and changes something there.

    :param kind: of service that is called
    :param detail: what is asked of it
    """
    process = current()
    if process is None:
        return call()
    if process.dead:
        raise Death()
    _here.count += 1
    spot, number = _here.spot, _here.count
    process.plan.note(spot, number, kind, detail)
    _go_wrong(process, spot, number, 'before', kind)
    with outside():
        answer = call()
    _go_wrong(process, spot, number, 'after', kind)
    return answer


def look(call: Callable[[], Any]) -> Any:
    """Make a call that only reads."""
    process = current()
    if process is None:
        return call()
    if process.dead:
        raise Death()
    with outside():
        return call()


def _go_wrong(process: Process, spot: plan_module.Spot, number: int,
              when: str, kind: str) -> None:
    what = process.plan.strikes(spot, number, when, 'raise', 'die')
    if what == 'die':
        process.die()
    elif what == 'raise':
        raise FAILURES[kind.partition(' ')[0]]()


#: What each service's client raises when it cannot be reached.
FAILURES: dict[str, Callable[[], Exception]] = {
    'sql': lambda: db_exc.DBConnectionError(Broken('made to fail')),
    'journal': lambda: db_exc.DBConnectionError(Broken('made to fail')),
    'placement': lambda: ks_exc.ConnectTimeout('made to fail'),
    'neutron': lambda: neutron_exc.ConnectionFailed(reason='made to fail'),
    'cinder': lambda: nova_exc.CinderConnectionFailed(reason='made to fail'),
    'glance': lambda: nova_exc.GlanceConnectionFailed(
        server='glance', reason='made to fail'),
    'cast': lambda: oslo_messaging.MessageDeliveryFailure('made to fail'),
    'call': lambda: oslo_messaging.MessagingTimeout('made to fail'),
}
