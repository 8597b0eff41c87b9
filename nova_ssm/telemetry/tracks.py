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

"""Which events the tasks of a flow are: as they should stand in a cell.

An event is named by its flow, its name, and how many of that name come before
it in the flow. The same follows from what is told while a flow runs and from
its journal: so whoever goes on with a flow knows which events are there
already, and which its dead owner did not write any more.
"""

import collections
from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

from nova.objects import instance_action

from nova_ssm.engine import events
from nova_ssm.engine import timeline

#: No event of Nova itself begins with it.
PREFIX = 'ssm_'
_UNDO = PREFIX + 'undo_'
#: What the details of an event begin with; behind it the uuid of the flow.
FLOW = 'flow '

#: What became of an event that nobody has ended.
INTERRUPTED = 'its conductor was lost while it was under way'


@dataclasses.dataclass
class Event:
    """One event.

    Times are seconds since the epoch.

    :param flow: the uuid of its flow
    :param name: of the event
    :param host: of the conductor
    :param message: what users see of its failure
    :param traceback: what administrators see of it
    """

    flow: str
    name: str
    began_at: float
    host: str | None
    ended_at: float | None = None
    failed: bool = False
    message: str | None = None
    traceback: str | None = None

    @property
    def details(self) -> str:
        """Its flow, and why it failed."""
        text = FLOW + self.flow
        return '%s: %s' % (text, self.message) if self.message else text

    @property
    def result(self) -> str | None:
        """Nova's word for how it ended."""
        if self.ended_at is None:
            return None
        return 'Error' if self.failed else 'Success'


def _name(what: str, task: str) -> str:
    return (_UNDO if what == events.UNDO else PREFIX) + task


class Track:
    """The events of one flow, as far as it is known.

    :param host: of this conductor
    :ivar key: the server and the request whose action has them
    :ivar parent: the events of the flow that has posted it
    :ivar is_over: whether nothing more will come
    :ivar changed: whether something is not written yet
    :ivar looks: how often its action was looked for since it is over
    """

    def __init__(self, flow: events.Flow, host: str) -> None:
        self.flow = flow
        self.key = (flow.subject or '', flow.request_id or '')
        self.host = host
        self.events: list[Event] = []
        self.parent: list[Event] = []
        self.is_over = False
        self.changed = False
        self.looks = 0

    def began(self, step: events.Step) -> None:
        """A task begins; or again, what was under way in a dead process."""
        name = _name(step.what, step.task)
        if self._open(name) is None:
            self.events.append(Event(self.flow.uuid, name, step.began_at,
                                     self.host))
        self.changed = True

    def ended(self, step: events.Step) -> None:
        """A task has ended."""
        name = _name(step.what, step.task)
        event = self._open(name)
        if event is None:
            event = Event(self.flow.uuid, name, step.began_at, self.host)
            self.events.append(event)
        event.host = self.host
        event.ended_at = step.ended_at
        if step.failure is not None:
            event.failed = True
            event.message, event.traceback = _explained(
                self.flow, step, step.failure)
        self.changed = True

    def _open(self, name: str) -> Event | None:
        found = next((event for event in reversed(self.events)
                      if event.name == name), None)
        return found if found is not None and found.ended_at is None else None


def _explained(flow: events.Flow, step: events.Step,
               exc: BaseException) -> tuple[str, str]:
    """What users, and administrators, see of a failure: as Nova has it."""
    packed = instance_action.InstanceActionEvent.pack_action_event_finish(
        _Request(flow.request_id), flow.subject, '', exc,
        step.mask.traceback(exc))
    return step.mask(packed['details']), packed['traceback']


@dataclasses.dataclass(frozen=True)
class _Request:
    """All that Nova asks of a context here."""

    request_id: str | None


def of_timeline(uuid: str, read: timeline.Timeline) -> list[Event]:
    """The events that a flow has in its journal."""
    return [Event(uuid, _name(span.what, span.task), span.began_at,
                  span.writer.rsplit(':', 2)[0], span.ended_at, span.failed)
            for span in read.spans]


@dataclasses.dataclass
class Changes:
    """What is to be written.

    :param new: the events to insert
    :param ends: by the id of an event that is there: as it ended
    """

    new: list[Event] = dataclasses.field(default_factory=list)
    ends: dict[int, Event] = dataclasses.field(default_factory=dict)


def compare(track: Track, there: Iterable[Mapping[str, Any]],
            now: float) -> Changes:
    """What is missing of the events of a flow.

    :param there: those of its action, in the order of their ids, with
        ``id``, ``event``, ``finish_time`` and ``details``
    :param now: when what nobody ended has ended
    """
    rows: dict[tuple[str, str], collections.deque] = {}
    for row in there:
        flow = (row['details'] or '')[len(FLOW):][:36]
        rows.setdefault((flow, row['event']), collections.deque()).append(
            row)
    changes = Changes()
    for event in (*track.parent, *track.events):
        left = rows.get((event.flow, event.name))
        if not left:
            changes.new.append(event)
            continue
        row = left.popleft()
        if row['finish_time'] is None and event.ended_at is not None:
            changes.ends[row['id']] = event
    if track.is_over:
        _end_the_rest(track, rows, changes, now)
    return changes


def _end_the_rest(track: Track, rows: dict[tuple[str, str], Any],
                  changes: Changes, now: float) -> None:
    """End what a dead process has begun, and nobody has begun again."""
    for (flow, name), left in rows.items():
        for row in left:
            if flow == track.flow.uuid and row['finish_time'] is None:
                changes.ends[row['id']] = Event(
                    flow, name, now, None, now, True, INTERRUPTED)
