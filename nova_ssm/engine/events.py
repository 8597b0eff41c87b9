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

"""What others are told of the flows that a process runs.

A listener learns when a flow begins, when each of its tasks begins and ends,
and how the flow ends. It is called in the thread that runs the flow, once what
it is told of is in the journal: it should only take note, and do what takes
long somewhere else. Whatever it raises is logged, and the flow goes on.

Nothing that a task takes or gives is told, so there are no secrets in it; of
a failure the exception itself is, with the mask that takes them out of texts.
"""

from collections.abc import Callable
import dataclasses
import time
from typing import Any

from oslo_log import log as logging
from taskflow.persistence import models
from taskflow import states as taskflow_states

from nova_ssm.engine import failures
from nova_ssm.engine import masking
from nova_ssm.engine import stopwatch
from nova_ssm.engine import task as ssm_task

LOG = logging.getLogger(__name__)

#: What is done with a task.
EXECUTE, UNDO = stopwatch.EXECUTE, stopwatch.UNDO

#: Why a worker leaves a flow that has not ended.
LOST = 'lost'               # another one has it
SUSPENDED = 'suspended'     # another one is to have it
BROKEN = 'broken'           # it cannot be run here, or not be journaled


@dataclasses.dataclass(frozen=True)
class Flow:
    """Which flow something is told of.

    :param subject: what it works on, e.g. the uuid of a server
    """

    uuid: str
    name: str
    version: str
    subject: str | None = None
    project_id: str | None = None
    user_id: str | None = None
    request_id: str | None = None
    parent_uuid: str | None = None

    @classmethod
    def of(cls, source: Any) -> 'Flow':
        """The flow of a request, or of a row of the journal's flows."""
        return cls(**{field.name: getattr(source, field.name)
                      for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class Step:
    """One time that a task was executed, or undone.

    :param what: EXECUTE or UNDO
    :param began_at: when, in seconds since the epoch, on this clock
    :param seconds: how long it took; None if it has not ended
    :param failure: what it raised
    :param mask: takes the secrets of the flow out of a text
    """

    task: str
    what: str
    began_at: float
    seconds: float | None = None
    failure: BaseException | None = None
    mask: masking.Mask = dataclasses.field(
        default_factory=masking.Mask, repr=False, compare=False)

    @property
    def ended_at(self) -> float | None:
        """When it ended, as ``began_at``; None if it has not."""
        return (None if self.seconds is None
                else self.began_at + self.seconds)


class Listener:
    """Is told of flows; takes what it needs."""

    def flow_began(self, flow: Flow, resumed: bool) -> None:
        """A flow is run from now on: from its start, or gone on with."""

    def step_began(self, flow: Flow, step: Step) -> None:
        """A task begins."""

    def step_ended(self, flow: Flow, step: Step) -> None:
        """A task has ended, or failed; the journal knows it.

        That a task which only reads has ended it may learn later.
        """

    def flow_ended(self, flow: Flow, state: str, seconds: float,
                   failed_task: str | None, failure: str | None) -> None:
        """A flow is over.

        :param state: a final one
        :param seconds: for which this process ran it
        :param failure: what its task raised, without secrets
        """

    def flow_left(self, flow: Flow, why: str) -> None:
        """A flow is not run here any more, and is not over.

        :param why: LOST, SUSPENDED or BROKEN
        """


class Listeners:
    """All who are told of the flows of a runner."""

    def __init__(self) -> None:
        self._all: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Tell somebody else, of the flows that begin from now on."""
        self._all = [*self._all, listener]

    def remove(self, listener: Listener) -> None:
        """Tell somebody no more of flows that begin from now on."""
        self._all = [one for one in self._all if one is not listener]

    def begin(self, source: Any, resumed: bool = False) -> 'Telling':
        """Tell that a flow is run.

        :param source: what says which: see :meth:`Flow.of`
        :returns: what tells of the rest of it
        """
        if not self._all:
            return NOBODY
        telling = Telling(self._all, Flow.of(source))
        telling.tell(lambda one, flow: one.flow_began(flow, resumed))
        return telling


class Telling:
    """Tells of one run of one flow."""

    def __init__(self, listeners: list[Listener],
                 flow: Flow | None) -> None:
        self._listeners = listeners
        self._flow = flow
        self._began = time.monotonic()
        self._over = flow is None
        #: Of each task that runs: what is done with it, and since when.
        self._running: dict[str, stopwatch.Lap] = {}

    def tell(self, what: Callable[[Listener, Any], None]) -> None:
        """Let each listener be called; none can hurt the flow."""
        for listener in self._listeners:
            try:
                what(listener, self._flow)
            except Exception:
                LOG.exception('%s failed when it was told of flow %s; the '
                              'flow goes on', type(listener).__name__,
                              self._flow and self._flow.uuid)

    def note(self, detail: models.AtomDetail, atom: Any, mask: masking.Mask,
             lap: stopwatch.Lap | None) -> None:
        """Tell of a task what TaskFlow has reported of it.

        :param lap: how long it takes; None if it did not begin here
        """
        if not self._listeners or lap is None or (
                not isinstance(detail, models.TaskDetail)):
            return
        if detail.state in stopwatch.BEGINS:
            self._begins(detail.name, lap, atom)
        elif stopwatch.ENDS.get(detail.state) == lap.what:
            self._ends(detail, lap, mask)

    def _begins(self, name: str, lap: stopwatch.Lap, atom: Any) -> None:
        if lap.what == UNDO and isinstance(atom, ssm_task.Task) and (
                not atom.undoes()):
            return
        if self._running.get(name) is lap:
            return      # its progress only
        self._running[name] = lap
        self.tell(lambda one, flow: one.step_began(
            flow, Step(name, lap.what, lap.began_at)))

    def _ends(self, detail: models.AtomDetail, lap: stopwatch.Lap,
              mask: masking.Mask) -> None:
        if self._running.pop(detail.name, None) is not lap:
            return      # it was told of
        failed = {taskflow_states.FAILURE: detail.failure,
                  taskflow_states.REVERT_FAILURE: detail.revert_failure}.get(
                      detail.state)
        step = Step(detail.name, lap.what, lap.began_at, lap.seconds,
                    failures.exception_of(failed) if failed else None, mask)
        self.tell(lambda one, flow: one.step_ended(flow, step))

    def ended(self, state: str, failed: tuple[str, BaseException] | None,
              mask: masking.Mask) -> None:
        """Tell that the flow is over."""
        if self._over:
            return
        self._over = True
        seconds = time.monotonic() - self._began
        task, failure = (None, None) if failed is None else (
            failed[0], mask('%s: %s' % (type(failed[1]).__name__,
                                        failed[1])))
        self.tell(lambda one, flow: one.flow_ended(
            flow, state, seconds, task, failure))

    def left(self, why: str) -> None:
        """Tell that the flow is not run here any more."""
        if not self._over:
            self._over = True
            self.tell(lambda one, flow: one.flow_left(flow, why))


#: For a runner to which nobody listens.
NOBODY = Telling([], None)
