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
from collections.abc import Iterable
import time

from nova.compute import power_state
from nova.compute import vm_states
from nova import objects
from oslo_log import log as logging
import oslo_messaging as messaging
from taskflow import states as taskflow_states

from nova_ssm.audit import survey
from nova_ssm import compat
from nova_ssm.engine import queries
from nova_ssm.tasks import abandoned
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

        * All destinations that were told have come to their end.
        * A compute got no answer of the dead conductor: the last
          destination, which had not told the source; or the source, or one
          that the source was disturbed by.
        * The source has answered since: it has taken all messages from
          before. As long as its first call may take, nothing new is to be
          seen of it.
        * Nobody has done anything with the server since.
        * If the source has begun, it runs the guest: it is stopped before
          its disks, volumes and ports are seen to.

        :returns: None if that cannot be said
        """
        state = self._former_state()
        if state is None or not self._have_prepared():
            return None
        begun = bool(self._of_source())
        # Of one that does not run the source could have taken the disks.
        if begun and state != vm_states.ACTIVE:
            return None
        unanswered = self._source_was_unanswered if begun else (
            self._destination_was_unanswered)
        if unanswered() and self._is_up() and self._stays_away() and (
                not begun or self._runs()):
            return state
        return None

    def _former_state(self) -> str | None:
        """What it was, if its guest does what the destination has put down.

        It does not in the middle of another resize that failed.
        """
        seen = _RESIZED.get(self._instance.power_state)
        stashed = self._instance.system_metadata.get('old_vm_state', seen)
        return seen if stashed == seen else None

    # -- what computes have done ------------------------------------------

    def _events(self, name: str) -> list[objects.InstanceActionEvent]:
        return [event for event in casts.events(self._request,
                                                self._instance.uuid)
                if event.event == name]

    def _prepared(self) -> list[objects.InstanceActionEvent]:
        """What destinations have done to prepare for it, each for itself."""
        return self._events(resize.PREP_EVENT)

    def _of_source(self) -> list[objects.InstanceActionEvent]:
        return self._events(SOURCE_EVENT)

    def _faults(self) -> list[objects.InstanceFault]:
        """All faults of the server, the oldest first."""
        return sorted(objects.InstanceFaultList.get_by_instance_uuids(
            self._request, [self._instance.uuid]),
            key=lambda fault: fault.id)

    def _have_prepared(self) -> bool:
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
        prepared, faults = self._prepared(), self._faults()
        at_work = [event for event in prepared if not _is_done(event, faults)]
        # One that has told the source has come to its end by that.
        return len(told) == len(prepared) and (
            len(at_work) <= len(self._of_source()))

    def _destination_was_unanswered(self) -> bool:
        """Whether it was a lost answer that the last destination failed of.

        It leaves two faults if it was when it sent the server on: the answer
        that it did not get, then what it could not take the server for.
        """
        events, faults = self._prepared(), self._faults()
        return (not any(event.result == 'Success' for event in events) and
                bool(faults) and
                faults[-1].host in self._unanswered(events, faults))

    def _source_was_unanswered(self) -> bool:
        """Whether the source failed of a lost answer, its own or another's.

        A destination that had sent the server on puts it into ERROR and into
        no task, though the next one may have told the source by then: that
        stops when it sees it.
        """
        source, faults = self._of_source(), self._faults()
        return (all(_is_done(event, faults) for event in source) and
                {event.host for event in source} == {self._instance.host} and
                bool(faults) and faults[-1].host == self._instance.host and
                bool(self._unanswered([*self._prepared(), *source], faults)))

    def _unanswered(self, events: Iterable[objects.InstanceActionEvent],
                    faults: list[objects.InstanceFault]) -> set[str]:
        """The computes that are done, and were not answered meanwhile."""
        action = objects.InstanceAction.get_by_request_id(
            self._request, self._instance.uuid, self._request.request_id)
        if action is None:
            return set()
        since, until = self._called
        since = max(since, survey.seconds(action.start_time))
        done = {event.host for event in events if _is_done(event, faults)}
        return done & {
            fault.host for fault in faults
            if fault.message == messaging.MessagingTimeout.__name__ and
            since <= survey.seconds(fault.created_at) <= until}

    # -- what computes do -------------------------------------------------

    def _is_up(self) -> bool:
        return compat.ping_alt(self._manager.compute_rpcapi, self._request,
                               self._instance.host, abandoned.PING_TIMEOUT)

    def _stays_away(self) -> bool:
        """Watch that neither the source nor anybody else is at the server."""
        limit = time.monotonic() + abandoned.window()
        seen = len(self._of_source())
        uuid = self._instance.uuid
        while True:
            now = moves.current(self._request, uuid)
            last = moves.request_of_newest(self._request, uuid)
            if (now is None or now.host != self._instance.host or
                    now.vm_state != vm_states.ERROR or
                    now.task_state != self._instance.task_state or
                    last is None or
                    last.request_id != self._request.request_id or
                    len(self._of_source()) != seen):
                return False
            if time.monotonic() > limit:
                return True
            self._wait()

    def _runs(self) -> bool:
        """Ask the source whether it runs the guest.

        It can tell of one that runs only. It leaves a fault where it cannot,
        behind which what went wrong is told once more.
        """
        fault = self._faults()[-1]
        try:
            self._manager.compute_rpcapi.get_instance_diagnostics(
                self._request, self._instance)
        except messaging.MessagingTimeout as exc:
            LOG.info('Its source cannot be asked for it: %s', exc,
                     instance=self._instance)
            return False
        except Exception as exc:  # noqa: BLE001 - whatever a driver raises
            LOG.info('Its source does not say that it runs it: %s', exc,
                     instance=self._instance)
            self._tell_again(fault)
            return False
        return True

    def _tell_again(self, fault: objects.InstanceFault) -> None:
        """Users see the last fault of a server."""
        if self._faults()[-1].id != fault.id:
            objects.InstanceFault(
                self._request, instance_uuid=self._instance.uuid,
                code=fault.code, message=fault.message,
                details=fault.details, host=fault.host).create()


def _is_done(event: objects.InstanceActionEvent,
             faults: Iterable[objects.InstanceFault]) -> bool:
    """Whether a compute has come to its end.

    Nova ends only the first event of a name in a request, for all of them:
    that the second destination has failed, only its fault shows.

    :param faults: of the server
    """
    return event.finish_time is not None or any(
        fault.host == event.host and fault.created_at >= event.start_time
        for fault in faults)
