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

"""Servers in ERROR whose resize has failed before it came to their guest.

A destination that prepares a resize calls conductors all the time, and so
does the source before it stops the guest. If one dies that it is calling, it
waits for rpc_response_timeout, leaves a fault that says so, and puts the
server into ERROR. But a destination does nothing with the guest: that is the
source's part, which it tells by its very last deed. And of the source it can
be seen: it runs the guest still.
"""

from collections.abc import Callable
import dataclasses
import time

from nova.compute import power_state
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova import objects
from oslo_log import log as logging
import oslo_messaging as messaging
from taskflow import states as taskflow_states

from nova_ssm.audit import survey
from nova_ssm.engine import queries
from nova_ssm.tasks import abandoned
from nova_ssm.tasks import allocations
from nova_ssm.tasks import casts
from nova_ssm.tasks import moves
from nova_ssm.tasks import resize
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

#: The event that a source opens on a server's action as its first deed.
SOURCE_EVENT = 'compute_resize_instance'

#: What servers are that may be resized, by what their guests do.
_RESIZED = {power_state.RUNNING: vm_states.ACTIVE,
            power_state.SHUTDOWN: vm_states.STOPPED}


@dataclasses.dataclass(frozen=True)
class _Deeds:
    """What computes have done with a server for one request.

    :ivar prepared: the events of destinations, each for itself
    :ivar source: the events of the source
    :ivar faults: all that the server has, the oldest first
    """

    prepared: list[objects.InstanceActionEvent]
    source: list[objects.InstanceActionEvent]
    faults: list[objects.InstanceFault]

    def is_done(self, event: objects.InstanceActionEvent) -> bool:
        """Whether a compute has come to its end.

        Nova ends only the first event of a name in a request, for all of
        them: that the second destination has failed, only its fault shows.
        """
        return event.finish_time is not None or any(
            fault.host == event.host and fault.created_at >= event.start_time
            for fault in self.faults)

    def hosts_done(self) -> set[str]:
        """The computes that have come to their end."""
        return {event.host for event in (*self.prepared, *self.source)
                if self.is_done(event)}

    def last_host(self) -> str | None:
        """Who has left the last fault."""
        return self.faults[-1].host if self.faults else None


class Witness:
    """Says what a server in ERROR was, whose guest was certainly not touched.

    :param request: targeted at the cell of the server, with the id of the
        request that asked for the resize
    :param called: since when, and until when, a compute may have called the
        dead conductor, on the database's clock
    :param wait: pauses between two looks
    """

    def __init__(self, manager: types.Manager, request: types.Context,
                 instance: types.Instance, called: tuple[float, float],
                 wait: Callable[[], None]) -> None:
        self._manager = manager
        self._request = request
        self._instance = instance
        self._called = called
        self._wait = wait

    def state_before(self) -> str | None:
        """What the server was before its resize.

        It is certain if all of this holds:

        * All destinations that were told have come to their end, or the
          last one has not got over its first call.
        * A compute got no answer of the dead conductor: the last
          destination, which had not told the source; or the source, or one
          that the source was disturbed by.
        * The source, and a destination that nothing is to be seen of, have
          answered since: they have taken all messages from before. As long
          as their first call may take, nothing new is to be seen of them.
        * Nobody has done anything with the server since.
        * If the source has begun, it runs the guest: it is stopped before
          its disks, volumes and ports are seen to.

        :returns: None if that cannot be said
        """
        state = self._former_state()
        if state is None:
            return None
        # Read once: what the source begins behind that is seen as new.
        deeds = self._deeds()
        begun = bool(deeds.source)
        # Of one that does not run the source could have taken the disks.
        if begun and state != vm_states.ACTIVE:
            return None
        unanswered = (self._source_was_unanswered if begun
                      else self._destination_was_unanswered)
        certain = (
            self._have_prepared(deeds) and unanswered(deeds) and
            abandoned.answers(self._manager, self._request,
                              self._instance.host) and
            self._stays_away(deeds) and (not begun or self._runs()))
        return state if certain else None

    def _former_state(self) -> str | None:
        """What it was, if its guest does what the destination has put down.

        It does not in the middle of another resize that failed.
        """
        seen = _RESIZED.get(self._instance.power_state)
        stashed = self._instance.system_metadata.get('old_vm_state', seen)
        return seen if stashed == seen else None

    # -- what computes have done ------------------------------------------

    def _deeds(self) -> _Deeds:
        events = self._events()
        return _Deeds(
            [event for event in events if event.event == resize.PREP_EVENT],
            [event for event in events if event.event == SOURCE_EVENT],
            self._faults())

    def _events(self) -> list[objects.InstanceActionEvent]:
        return casts.events(self._request, self._instance.uuid)

    def _faults(self) -> list[objects.InstanceFault]:
        return sorted(objects.InstanceFaultList.get_by_instance_uuids(
            self._request, [self._instance.uuid]),
            key=lambda fault: fault.id)

    def _have_prepared(self, deeds: _Deeds) -> bool:
        """Whether all destinations that were told are done with it.

        One that has not begun yet, or whose first call got no answer, is
        not to be seen: so they are counted.
        """
        flows = queries.flows(
            self._manager.ssm.runner.db, subject=self._instance.uuid,
            request_id=self._request.request_id)
        if not {flow.state for flow in flows} <= {
                taskflow_states.SUCCESS, taskflow_states.REVERTED}:
            return False
        told = [flow for flow in flows
                if flow.state == taskflow_states.SUCCESS]
        at_work = [event for event in deeds.prepared
                   if not deeds.is_done(event)]
        # One that has told the source has come to its end by that.
        if len(at_work) > len(deeds.source):
            return False
        unseen = len(told) - len(deeds.prepared)
        return not unseen or (unseen == 1 and not deeds.source and
                              self._last_destination_answers())

    def _last_destination_answers(self) -> bool:
        """Ask who was told last: the server has been claimed for there.

        If its first call got no answer, it has let the server go, and the
        claim it leaves to others. If not, it is seen to begin yet.
        """
        hosts = {node.host for node in objects.ComputeNodeList.
                 get_all_by_uuids(self._request, list(allocations.held_by(
                     self._manager, self._request, self._instance.uuid)))}
        return bool(hosts) and hosts != {self._instance.host} and all(
            abandoned.answers(self._manager, self._request, host)
            for host in hosts)

    def _destination_was_unanswered(self, deeds: _Deeds) -> bool:
        """Whether it was a lost answer that the last destination failed of.

        It leaves two faults if it was when it sent the server on: the answer
        that it did not get, then what it could not take the server for.
        """
        return (not any(event.result == 'Success'
                        for event in deeds.prepared) and
                deeds.last_host() in self._unanswered(deeds))

    def _source_was_unanswered(self, deeds: _Deeds) -> bool:
        """Whether the source failed of a lost answer, its own or another's.

        A destination that had sent the server on puts it into ERROR and into
        no task, though the next one may have told the source by then: that
        stops when it sees it.
        """
        return (all(deeds.is_done(event) for event in deeds.source) and
                {event.host for event in deeds.source} == {
                    self._instance.host} and
                deeds.last_host() == self._instance.host and
                bool(self._unanswered(deeds)))

    def _unanswered(self, deeds: _Deeds) -> set[str]:
        """The computes that are done, and were not answered meanwhile."""
        action = objects.InstanceAction.get_by_request_id(
            self._request, self._instance.uuid, self._request.request_id)
        if action is None:
            return set()
        since, until = self._called
        since = max(since, survey.seconds(action.start_time))
        return deeds.hosts_done() & {
            fault.host for fault in deeds.faults
            if fault.message == messaging.MessagingTimeout.__name__ and
            since <= survey.seconds(fault.created_at) <= until}

    # -- what computes do -------------------------------------------------

    def _stays_away(self, deeds: _Deeds) -> bool:
        """Watch that no compute, nor anybody else, is at the server."""
        limit = time.monotonic() + abandoned.window()
        while self._is_as_it_was(deeds):
            if time.monotonic() > limit:
                return True
            self._wait()
        return False

    def _is_as_it_was(self, deeds: _Deeds) -> bool:
        now = moves.current(self._request, self._instance.uuid)
        last = moves.request_of_newest(self._request, self._instance.uuid)
        return (now is not None and now.host == self._instance.host and
                now.vm_state == vm_states.ERROR and
                now.task_state == self._instance.task_state and
                last is not None and
                last.request_id == self._request.request_id and
                sum(event.event in (resize.PREP_EVENT, SOURCE_EVENT)
                    for event in self._events()) ==
                len(deeds.prepared) + len(deeds.source))

    def _runs(self) -> bool:
        """Ask the source whether it runs the guest.

        It can tell of one that runs only. It leaves a fault where it cannot,
        behind which what went wrong is told once more.
        """
        try:
            self._manager.compute_rpcapi.get_instance_diagnostics(
                self._request, self._instance)
        except Exception as exc:  # noqa: BLE001 - whatever a driver raises
            LOG.info('Its source does not say that it runs it: %s', exc,
                     instance=self._instance)
            self._tell_again(exc)
            return False
        return True

    def _tell_again(self, said: Exception) -> None:
        """Put what went wrong behind what the source has said to us.

        Users see the last fault of a server. Who went on for one that died
        here has asked again: what was said then is passed over, too.
        """
        faults = self._faults()
        ours = compute_utils.exception_to_dict(said)['message']
        others = [fault for fault in faults if fault.message != ours]
        if others and others[-1] is not faults[-1]:
            objects.InstanceFault(
                self._request, instance_uuid=self._instance.uuid,
                code=others[-1].code, message=others[-1].message,
                details=others[-1].details, host=others[-1].host).create()
