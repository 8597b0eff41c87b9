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

A destination that prepares a resize calls conductors all the time. If one
dies that it is calling, it waits for rpc_response_timeout, leaves a fault
that says so, and puts the server into ERROR. But it does nothing with the
guest: that is the source's part, which it tells by its very last deed.
"""

from collections.abc import Iterable

from nova.compute import power_state
from nova.compute import vm_states
from nova import objects
import oslo_messaging as messaging

from nova_ssm.audit import survey
from nova_ssm.tasks import casts
from nova_ssm.tasks import resize
from nova_ssm.tasks import types

#: The event that a source opens on a server's action as its first deed.
SOURCE_EVENT = 'compute_resize_instance'

#: What servers are that may be resized, by what their guests do.
_RESIZED = {power_state.RUNNING: vm_states.ACTIVE,
            power_state.SHUTDOWN: vm_states.STOPPED}


def former_state(instance: types.Instance) -> str | None:
    """What a server was before its resize, whose guest nobody has touched.

    :returns: None if its guest does not do what the destination has put
        down, as in the middle of another resize that failed
    """
    seen = _RESIZED.get(instance.power_state)
    stashed = instance.system_metadata.get('old_vm_state', seen)
    return seen if stashed == seen else None


def has_come_to_source(request: types.Context, uuid: str) -> bool:
    """Whether the source has begun its part.

    :param request: with the id of the request that asked for the resize
    """
    return any(event.event == SOURCE_EVENT
               for event in casts.events(request, uuid))


def prepared(request: types.Context, uuid: str
             ) -> list[objects.InstanceActionEvent]:
    """What destinations have done to prepare for a server, each for itself.

    :param request: with the id of the request that asked for the resize
    """
    return [event for event in casts.events(request, uuid)
            if event.event == resize.PREP_EVENT]


def is_done(event: objects.InstanceActionEvent,
            faults: Iterable[objects.InstanceFault]) -> bool:
    """Whether a destination has come to its end.

    Nova ends only the first event of a name in a request, for all of them:
    that the second destination has failed, only its fault shows.

    :param faults: of the server
    """
    return event.finish_time is not None or any(
        fault.host == event.host and fault.created_at >= event.start_time
        for fault in faults)


def was_unanswered(request: types.Context, uuid: str, since: float,
                   until: float) -> bool:
    """Whether it was a lost answer that the last destination failed of.

    It leaves two faults if it was when it sent the server on: the answer
    that it did not get, then what it could not take the server for.

    :param request: with the id of the request that asked for the resize
    :param since: when the conductor was alive still, on the database's clock
    :param until: when nobody can be waiting for it any more
    """
    action = objects.InstanceAction.get_by_request_id(
        request, uuid, request.request_id)
    if action is None:
        return False
    since = max(since, survey.seconds(action.start_time))
    faults = objects.InstanceFaultList.get_by_instance_uuids(request, [uuid])
    last = max(faults, key=lambda fault: fault.id, default=None)
    events = prepared(request, uuid)
    if any(event.result == 'Success' for event in events):
        return False
    failed = {event.host for event in events if is_done(event, faults)}
    return last is not None and last.host in failed and any(
        fault.host == last.host and
        fault.message == messaging.MessagingTimeout.__name__ and
        since <= survey.seconds(fault.created_at) <= until
        for fault in faults)
