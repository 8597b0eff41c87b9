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

"""What people do to the flows of servers: cancel them, try them again."""

from collections.abc import Mapping
from typing import Any

from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
from nova import objects
from oslo_log import log as logging

from nova_ssm.tasks import moves

LOG = logging.getLogger(__name__)


def move_cancelled(reason: str) -> Exception:
    """The failure of a move that was cancelled.

    Of the class after which Nova leaves a server as it was, and which every
    service knows that may wait for an answer.
    """
    return exception.MigrationPreCheckError(reason=reason)


def build_cancelled(reason: str) -> Exception:
    """The failure of a build that was cancelled."""
    return exception.NovaException('Build of instance: %s' % reason)


def resize_again(given: Mapping[str, Any]) -> None:
    """Let a resize that was reverted begin again, if that is possible.

    The server must be as the reverted resize has left it: nobody has done
    anything to it since. It is on the move then, as after the request.

    :param given: what the flow was given
    :raises MigrationPreCheckError: if not; says why
    """
    context, uuid = given['context'], given['instance'].uuid
    now = moves.current(context, uuid)
    if now is None:
        raise _refusal('the server was deleted')
    # The newest first.
    actions = objects.InstanceActionList.get_by_instance_uuid(
        context, uuid, limit=1)
    if not actions or actions[0].request_id != context.request_id:
        raise _refusal('the server has had another action since: %s' % (
            actions[0].action if actions else 'none is known of it'))
    if now.vm_state not in (vm_states.ACTIVE, vm_states.STOPPED):
        raise _refusal('the server is %s' % now.vm_state)
    if now.task_state == task_states.RESIZE_PREP:
        return      # who began it again before us died behind this
    now.task_state = task_states.RESIZE_PREP
    try:
        now.save(expected_task_state=[None],
                 expected_vm_state=[vm_states.ACTIVE, vm_states.STOPPED])
    except (exception.InstanceNotFound,
            exception.InstanceUpdateConflict) as exc:
        raise _refusal('the server is in use: %s' % exc) from exc
    LOG.info('The resize of the server begins again', instance=now)


def _refusal(why: str) -> Exception:
    return exception.MigrationPreCheckError(
        reason='it cannot be begun again: %s; make the request again' % why)
