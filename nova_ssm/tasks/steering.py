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
import uuid

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

    :param given: what the flow was given
    :raises MigrationPreCheckError: if not; says why
    """
    _move_again(given, task_states.RESIZE_PREP,
                (vm_states.ACTIVE, vm_states.STOPPED))


def live_migration_again(given: Mapping[str, Any]) -> None:
    """Let a live migration that was reverted begin again, if possible.

    :param given: what the flow was given
    :raises MigrationPreCheckError: if not; says why
    """
    _move_again(given, task_states.MIGRATING,
                (vm_states.ACTIVE, vm_states.PAUSED))


def another_migration(given: Mapping[str, Any],
                      number: int) -> dict[str, str]:
    """The migration record of a move that is begun again: not the failed one.

    :param number: how often the move was begun again
    """
    return {'migration_uuid': str(uuid.uuid5(
        uuid.UUID(given['migration_uuid']), str(number)))}


def _move_again(given: Mapping[str, Any], task_state: str,
                allowed: tuple[str, ...]) -> None:
    """Set the server on the move again, as the API did with the request.

    It must be as the reverted move has left it: nobody has done anything to
    it since.

    :param allowed: in which states the API takes such a request
    """
    context, server = given['context'], given['instance'].uuid
    now = moves.current(context, server)
    if now is None:
        raise _refusal('the server was deleted')
    # The newest first.
    actions = objects.InstanceActionList.get_by_instance_uuid(
        context, server, limit=1)
    if not actions or actions[0].request_id != context.request_id:
        raise _refusal('the server has had another action since: %s' % (
            actions[0].action if actions else 'none is known of it'))
    if now.vm_state not in allowed:
        raise _refusal('the server is %s' % now.vm_state)
    if now.task_state == task_state:
        return      # who began it again before us died behind this
    now.task_state = task_state
    try:
        now.save(expected_task_state=[None], expected_vm_state=list(allowed))
    except (exception.InstanceNotFound,
            exception.InstanceUpdateConflict) as exc:
        raise _refusal('the server is in use: %s' % exc) from exc
    LOG.info('The move of the server begins again', instance=now)


def _refusal(why: str) -> Exception:
    return exception.MigrationPreCheckError(
        reason='it cannot be begun again: %s; make the request again' % why)


#: What can be done instead where it is not safe to begin again.
BUILD_INSTEAD = (
    'the hosts that were claimed for it are free again, and its build request '
    'is gone. Delete the server ("openstack server delete") and create it '
    'anew; Nova rebuilds no server that has never run')
RESIZE_INSTEAD = (
    'the compute that had asked for another host was told that there is none, '
    'and has given the server back. Ask for the move again: "openstack server '
    'resize" or "openstack server migrate"')
FOR_A_WORKER = 'a conductor begins another one when it is needed'
