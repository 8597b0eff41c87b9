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

"""Shows users the tasks of a flow: as events of their server's action.

``openstack server event show`` tells how far an operation is and which task
has failed. The flows wait for none of this: what they tell is collected, and
written for all of them together, a batch each ``[ssm] task_events_interval``
seconds. What a dead conductor did not write any more, whoever goes on with
its flow writes, from the journal. The events of Nova itself stay as they are.
"""

import collections
from collections.abc import Callable, Sequence
import functools
from typing import Any

from oslo_log import log as logging
from oslo_utils import uuidutils

from nova_ssm.engine import database
from nova_ssm.engine import events
from nova_ssm.engine import queries
from nova_ssm.engine import timeline
from nova_ssm.telemetry import cells
from nova_ssm.telemetry import mailbox
from nova_ssm.telemetry import tracks

LOG = logging.getLogger(__name__)

#: Flows for many servers: what they did is shown with each of their children.
#: One that fails before it has children is told of by Nova's own event.
_FOR_MANY = frozenset(('schedule_and_build_instances',))

#: How often an action is looked for when its flow is over, how many flows
#: wait for a cell that cannot be written, and how many parents are remembered.
_LOOKS, _TRACKS, _PARENTS = 3, 20_000, 500

#: Writes events; gives the flows whose actions it found, and those that it
#: could not write.
Write = Callable[[Sequence[tracks.Track]], tuple[set[str], set[str]]]


class Actions(events.Listener):
    """Writes what is told of flows as events of actions.

    :param db: where the journal is
    :param host: of the service
    :param interval: seconds between two batches; with 0 a flow writes its
        own when it ends
    """

    def __init__(self, db: database.Database, host: str, interval: float,
                 write: Write = cells.write) -> None:
        self._db = db
        self._host = host
        self._write = write
        self._at_once = not interval
        self._failing = False
        self._mailbox = mailbox.Mailbox(
            'ssm-task-events', self._take, interval)
        self._tracks: dict[str, tracks.Track] = {}
        self._parents: collections.OrderedDict[
            str, list[tracks.Event]] = collections.OrderedDict()

    def start(self) -> None:
        """Write what comes, from now on."""
        if not self._at_once:
            self._mailbox.start()

    def stop(self) -> None:
        """Write what is there, and end."""
        self._mailbox.stop()

    def flush(self) -> None:
        """Write what is there."""
        self._mailbox.deliver()

    # -- what is told, in the threads of the flows -------------------------

    def flow_began(self, flow: events.Flow, resumed: bool) -> None:
        self._post(flow, lambda: self._begin(flow, resumed))

    def step_began(self, flow: events.Flow, step: events.Step) -> None:
        self._post(flow, lambda: self._note(flow, step))

    def step_ended(self, flow: events.Flow, step: events.Step) -> None:
        self._post(flow, lambda: self._note(flow, step))

    def flow_ended(self, flow: events.Flow, state: str, seconds: float,
                   failed_task: str | None, failure: str | None) -> None:
        self._post(flow, lambda: self._end(flow))
        if self._at_once:
            self.flush()

    def flow_left(self, flow: events.Flow, why: str) -> None:
        # Its next owner has the journal, and may be at it already.
        self._post(flow, lambda: self._tracks.pop(flow.uuid, None))

    def _post(self, flow: events.Flow, work: Callable[[], Any]) -> None:
        if _has_action(flow):
            self._mailbox.post(work)

    def worker_died(self, worker_id: str, since: float) -> None:
        """Write what a dead worker did not write of flows that are over.

        Nobody goes on with those.

        :param since: when they may have ended, on the database's clock
        """
        def work() -> None:
            for info in queries.ended_by(self._db, worker_id, since):
                flow = events.Flow.of(info)
                if _has_action(flow):
                    self._begin(flow, False)
                    self._tracks[flow.uuid].events = self._journaled(
                        flow.uuid)
                    self._end(flow)
        self._mailbox.post(work)

    # -- what becomes of it, in the thread of the mailbox ------------------

    def _begin(self, flow: events.Flow, resumed: bool) -> None:
        track = tracks.Track(flow, self._host)
        if resumed:
            # It has gone on since: what it has done here is told, too.
            track.events = self._journaled(flow.uuid, before_claim=True)
            track.changed = bool(track.events)
        if flow.parent_uuid:
            track.parent = self._of_parent(flow.parent_uuid)
        self._tracks[flow.uuid] = track

    def _of_parent(self, uuid: str) -> list[tracks.Event]:
        if uuid in self._parents:
            return self._parents[uuid]
        # Not run here, or not ended yet: it has posted its children.
        return self._remember(uuid, self._journaled(uuid))

    def _remember(self, uuid: str, done: list[tracks.Event]
                  ) -> list[tracks.Event]:
        self._parents[uuid] = done
        while len(self._parents) > _PARENTS:
            self._parents.popitem(last=False)
        return done

    def _journaled(self, uuid: str,
                   before_claim: bool = False) -> list[tracks.Event]:
        return tracks.of_timeline(
            uuid, timeline.read(self._db, uuid, before_claim))

    def _note(self, flow: events.Flow, step: events.Step) -> None:
        track = self._tracks.get(flow.uuid)
        if track is not None:
            (track.began if step.seconds is None else track.ended)(step)

    def _end(self, flow: events.Flow) -> None:
        track = self._tracks.get(flow.uuid)
        if track is not None:
            track.is_over = track.changed = True
            if flow.name in _FOR_MANY:
                self._remember(flow.uuid, track.events)
                del self._tracks[flow.uuid]

    def _take(self, batch: list[Callable[[], Any]]) -> None:
        for work in batch:
            try:
                work()
            except Exception as exc:  # noqa: BLE001 - the others go on
                LOG.warning('Some events of a flow are not written: %s',
                            database.first_line(exc))
        self._write_changed()

    def _write_changed(self) -> None:
        changed = [track for track in self._tracks.values()
                   if track.changed and track.flow.name not in _FOR_MANY]
        if not changed:
            return
        try:
            found, failed = self._write(changed)
        except Exception as exc:  # noqa: BLE001 - tried again
            LOG.debug('Where servers are cannot be looked up: %s', exc)
            found, failed = set(), {track.flow.uuid for track in changed}
        self._say(len(failed))
        for track in changed:
            self._written(track, found, failed)
        # So that there is a next batch, also if nothing happens meanwhile.
        if failed or any(track.is_over for track in self._tracks.values()):
            self._mailbox.post(lambda: None)

    def _say(self, failed: int) -> None:
        if failed and not self._failing:
            LOG.warning('Events of %d flows could not be written into their '
                        'cells; trying again until it works', failed)
        self._failing = bool(failed)

    def _written(self, track: tracks.Track, found: set[str],
                 failed: set[str]) -> None:
        uuid = track.flow.uuid
        if uuid in found:
            track.changed = False
        elif track.is_over and uuid not in failed:
            track.looks += 1
        if track.is_over and (not track.changed or track.looks >= _LOOKS or
                              len(self._tracks) > _TRACKS):
            del self._tracks[uuid]


def _has_action(flow: events.Flow) -> bool:
    """Whether it may work on a server, on somebody's request."""
    return bool(flow.request_id) and _is_uuid(flow.subject)


@functools.lru_cache(maxsize=1024)
def _is_uuid(subject: str | None) -> bool:
    """Asked for each step of a flow."""
    return uuidutils.is_uuid_like(subject)
