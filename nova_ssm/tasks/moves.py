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

"""What all moves of a server have in common."""

from collections.abc import Callable
import copy
import sys
from typing import Any

from keystoneauth1 import exceptions as ks_exc
from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova import exception
from nova.i18n import _
from nova import objects
from nova.virt import hardware
from oslo_log import log as logging
import tenacity

from nova_ssm import exception as ssm_exc
from nova_ssm.tasks import allocations
from nova_ssm.tasks import base
from nova_ssm.tasks import casts
from nova_ssm.tasks import notices
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

#: The events that a conductor opens on the action of a move.
EVENTS = ('conductor_migrate_server', 'conductor_live_migrate_instance',
          'cold_migrate')

#: The actions of a user that resize or cold migrate a server.
_RESIZES = (instance_actions.RESIZE, instance_actions.MIGRATE)

#: Those that move a server in any way.
_ACTIONS = (*_RESIZES, instance_actions.LIVE_MIGRATION)

#: Statuses of migration records whose servers are on the move.
_UNDER_WAY = ['accepted', 'queued', 'preparing', 'running', 'pre-migrating',
              'migrating', 'post-migrating']


class EventsToErrorOnRevert(base.NovaTask):
    """Does nothing, but if the move fails. The first task of a move.

    Each move reverts it by closing the events that a conductor opened, with
    the error that users see. The one that opened them closes them too, but
    it may be dead.
    """

    effect = False
    reversion = "close the action's events with the error"

    def execute(self) -> None:
        pass


class FinishEvents(base.NovaTask):
    """Close the events that a conductor opened for the move.

    It stands before the task that has no way back: behind that one nothing
    may fail any more.
    """

    effect = False

    def execute(self, context: types.Context,
                instance: types.Instance) -> None:
        close_events(context, instance.uuid)


def close_events(context: types.Context, uuid: str,
                 exc: BaseException | None = None,
                 of_computes: bool = False) -> None:
    """Close what conductors opened on the action of this request.

    :param context: targeted at the cell of the server
    :param exc: why it failed; events that are closed already tell it too
    :param of_computes: close also what computes have left open
    """
    names = {event.event for event in casts.events(context, uuid)
             if event.event in EVENTS and exc is not None or
             event.finish_time is None and (event.event in EVENTS or
                                            of_computes)}
    for name in sorted(names):
        if exc is None:
            close_event(context, uuid, name)
        else:
            base.while_handling(exc, close_event, context, uuid, name)


def close_event(context: types.Context, uuid: str, name: str) -> None:
    """Close an event of this request: with the error that is being handled.

    :param context: targeted at the cell of the server
    """
    _, exc, traceback = sys.exc_info()
    try:
        objects.InstanceActionEvent.event_finish_with_failure(
            context, uuid, name, exc_val=exc, exc_tb=traceback,
            want_result=False)
    except (exception.InstanceActionNotFound,
            exception.InstanceActionEventNotFound):
        LOG.debug('Event %s is gone, with its server', name,
                  instance_uuid=uuid)


def give_back(manager: types.Manager, context: types.Context,
              instance: types.Instance, migration: types.Migration) -> None:
    """Let the server have again what it held when its move began.

    That overwrites what it holds at the destination. A server that was
    deleted, or moved by somebody else, does not need it any more. What
    cannot be given back is logged, as Nova does: the server's state matters
    to its user all the same.
    """
    try:
        _give_back(manager, context, instance, migration)
    except (ks_exc.ClientException, exception.NovaException):
        LOG.exception('The allocations of migration %s could not be given '
                      'back to the server', migration.uuid, instance=instance)


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(
        (ks_exc.ClientException, exception.AllocationMoveFailed,
         exception.ConsumerAllocationRetrievalFailed)),
    wait=tenacity.wait_exponential(multiplier=0.5, max=10),
    stop=tenacity.stop_after_attempt(8), reraise=True)
def _give_back(manager: types.Manager, context: types.Context,
               instance: types.Instance, migration: types.Migration) -> None:
    client = manager.report_client
    held = allocations.held_by(manager, context, migration.uuid)
    now = current(context, instance.uuid)
    if now is None:
        LOG.info('The server was deleted during its move, its allocations '
                 'are freed', instance=instance)
        for consumer in (migration.uuid, instance.uuid):
            client.delete_allocation_for_instance(context, consumer,
                                                  force=True)
    elif not held:
        return
    elif now.host != migration.source_compute:
        LOG.warning('The server is on host %s already, it does not get back '
                    'what it held on %s', now.host, migration.source_compute,
                    instance=instance)
        client.delete_allocation_for_instance(context, migration.uuid,
                                              force=True)
    elif not client.move_allocations(context, migration.uuid, instance.uuid):
        LOG.error('Unable to replace resource claim on source host %s',
                  migration.source_compute, instance=instance)


class CheckMove(base.NovaTask):
    """See whether what is to be moved is still as it was when it began.

    The last look before a compute is told. See :func:`check`.

    :param task_state: that the server has to be in
    :param status: that the migration record has to have
    """

    effect = False

    def __init__(self, manager: types.Manager, task_state: str,
                 status: str) -> None:
        super().__init__(manager)
        self._task_state = task_state
        self._status = status

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, owner: str) -> None:
        check(context, instance.uuid, migration.uuid, owner,
              self._task_state, self._status)


def check(context: types.Context, uuid: str, migration_uuid: str, owner: str,
          task_state: str, status: str,
          destination: str | None = None) -> None:
    """See that server, owner, both hosts and migration record still agree.

    :param context: targeted at the cell of the source
    :param owner: the project that the server belonged to when it began
    :param destination: the host that the migration record has to name
    :raises MigrationPreCheckError: if they do not; the move has to be given
        up then
    """
    instance = check_server(context, uuid, owner, task_state)
    migration = record(context, migration_uuid)
    if migration is None:
        raise _outdated('migration record %s is gone', migration_uuid)
    if migration.instance_uuid != uuid:
        raise _outdated('migration record %s is of server %s',
                        migration_uuid, migration.instance_uuid)
    if migration.status != status:
        raise _outdated('migration record %s has status %s now, not %s',
                        migration_uuid, migration.status, status)
    if instance.host != migration.source_compute:
        raise _outdated('server %s is on host %s now, not on %s', uuid,
                        instance.host, migration.source_compute)
    if destination is not None and migration.dest_compute != destination:
        raise _outdated('migration record %s leads to host %s now, not to %s',
                        migration_uuid, migration.dest_compute, destination)


def check_server(context: types.Context, uuid: str, owner: str,
                 task_state: str) -> types.Instance:
    """See that the server is still there to be moved, for its owner.

    :returns: the server as it is now
    :raises MigrationPreCheckError: if it is not
    """
    instance = current(context, uuid)
    if instance is None:
        raise _outdated('server %s was deleted meanwhile', uuid)
    if instance.project_id != owner:
        raise _outdated('server %s belongs to project %s now, not to %s',
                        uuid, instance.project_id, owner)
    if instance.task_state != task_state:
        raise _outdated('server %s is in task state %s now, not %s', uuid,
                        instance.task_state, task_state)
    return instance


def see_that_it_goes_on(context: types.Context, uuid: str) -> None:
    """See that a resize which is to be tried on another host is under way.

    Behind the first row of the flow: who takes the move for stuck ends the
    migration record, and then looks whether the server has a flow.

    :raises TooLate: if it is over, or another one has begun
    :raises MigrationError: if another compute has given it up, whose call to
        a dead conductor was not answered. The one that asks has put the
        server into RESIZE_PREP, and takes it out again only if it is told so.
    """
    instance = current(context, uuid)
    if instance is None:
        return      # a later task finds out
    if instance.task_state != task_states.RESIZE_PREP:
        raise ssm_exc.TooLate('server %s is in task state %s' % (
            uuid, instance.task_state))
    latest = next((action for action in
                   objects.InstanceActionList.get_by_instance_uuid(
                       context, uuid) if action.action in _RESIZES), None)
    if latest is not None and latest.request_id != context.request_id:
        raise ssm_exc.TooLate('server %s is on the move for request %s' % (
            uuid, latest.request_id))
    if objects.MigrationList.get_by_filters(
            context.elevated(), {'instance_uuid': uuid,
                                 'status': 'pre-migrating'}).objects:
        return
    if instance.vm_state == vm_states.ERROR:
        raise exception.MigrationError(reason=_(
            'another compute has given the move up'))
    raise ssm_exc.TooLate('server %s has no migration that waits' % uuid)


def _outdated(text: str, *values: Any) -> exception.MigrationPreCheckError:
    return exception.MigrationPreCheckError(reason=text % values)


def current(context: types.Context, uuid: str) -> types.Instance | None:
    """The server as it is now, None if it was deleted."""
    try:
        return objects.Instance.get_by_uuid(context, uuid)
    except exception.InstanceNotFound:
        return None


def record(context: types.Context, uuid: str) -> types.Migration | None:
    """The migration record as it is now, None if there is none."""
    try:
        return objects.Migration.get_by_uuid(context.elevated(), uuid)
    except exception.MigrationNotFound:
        return None


def newest(context: types.Context, uuid: str) -> types.Migration | None:
    """The record of the last move of a server, None if it has none."""
    found = objects.MigrationList.get_by_filters(
        context.elevated(), {'instance_uuid': uuid}, sort_keys=['id'],
        sort_dirs=['desc'], limit=1).objects
    return found[0] if found else None


def request_of_newest(context: types.Context,
                      uuid: str) -> types.Context | None:
    """The context with the id of the request for a server's newest move.

    :returns: None if something else has been done with the server since
    """
    actions = objects.InstanceActionList.get_by_instance_uuid(context, uuid,
                                                              limit=1)
    if not actions or actions[0].action not in _ACTIONS:
        return None
    request = copy.copy(context)
    request.request_id = actions[0].request_id
    return request


def left_alone(context: types.Context,
               migration: types.Migration) -> types.Instance | None:
    """The server as it is now, if nobody has taken it over from our move.

    What another move of it claims or binds must not be undone.
    """
    now = current(context, migration.instance_uuid)
    if now is None or any(
            other.uuid != migration.uuid for other in
            objects.MigrationList.get_by_filters(
                context.elevated(), {'instance_uuid': now.uuid,
                                     'status': _UNDER_WAY})):
        return None
    return now


def is_at_source(context: types.Context, migration: types.Migration) -> bool:
    """Whether the server is still on the host that it was to leave.

    One that was deleted, or moved by somebody else, holds nothing any more
    of what our move has claimed, or it holds it for good.
    """
    now = left_alone(context, migration)
    return now is not None and now.host == migration.source_compute


def may_have_claimed(context: types.Context, migration: types.Migration,
                     result: Any, flow_failures: types.Failures) -> bool:
    """Whether the task that asks the scheduler has a claim to take back.

    :param result: of that task
    """
    if isinstance(result, base.Failure) and isinstance(
            base.cause_of(result, flow_failures), exception.NoValidHost):
        return False        # the scheduler has left nothing
    return is_at_source(context, migration)


def fail_migration(context: types.Context, uuid: str) -> None:
    """Put a migration record into its final status, if there is one."""
    migration = record(context, uuid)
    if migration is not None and migration.status != 'error':
        migration.status = 'error'
        migration.save()


def was_told(context: types.Context, instance: types.Instance,
             exc: BaseException) -> bool:
    """Whether the user was told of this failure in this request already.

    :param instance: as it is now
    """
    if instance.task_state is not None:
        return False
    fault = fault_of(context, instance.uuid, exc)
    # One without that was put down by the compute that failed, not by us.
    return fault is not None and not (
        fault.details and base.while_handling.__name__ not in fault.details)


def fault_of(context: types.Context, uuid: str,
             exc: BaseException) -> objects.InstanceFault | None:
    """The fault that this failure of this request has left.

    Who looks after a server has a request of its own: for him it is that of
    the server's last action.
    """
    fault = objects.InstanceFault.get_latest_for_instance(context, uuid)
    told = compute_utils.exception_to_dict(exc)['message']
    if fault is None or fault.message != told:
        return None
    action = objects.InstanceAction.get_by_request_id(
        context, uuid, context.request_id)
    actions = [action] if action else (
        objects.InstanceActionList.get_by_instance_uuid(
            context, uuid, limit=1))
    # Both are written down to the second: a fault of the second in which the
    # request came may be that of the one before. Better told twice.
    return None if any(fault.created_at <= one.start_time
                       for one in actions) else fault


def tell(work: Callable[..., Any], context: types.Context,
         instance: types.Instance, exc: BaseException, *args: Any,
         on_the_way: tuple[str, ...], request_spec: Any = None) -> None:
    """Tell the user that a move has failed: once.

    Who listens to notifications is told again if that was interrupted. Does
    nothing for a server that was deleted, or that its user, or
    somebody else, works on already.

    :param work: what tells; called with the server as it is now, and args,
        while the exception is being handled
    :param on_the_way: the task states that the move puts a server into
    :param request_spec: for the notifications
    """
    now = current(context, instance.uuid)
    if now is None:
        LOG.info('The server was deleted during its move', instance=instance)
    elif now.task_state not in (None, *on_the_way):
        LOG.warning('The server is in task state %s, it is left as it is',
                    now.task_state, instance=instance)
    elif was_told(context, now, exc):
        notices.send_again(context, now, 'migrate_server', exc, request_spec)
    else:
        base.while_handling(exc, work, now, *args)


def put_flavor_back(context: types.Context,
                    instance: types.Instance) -> None:
    """Let the request spec ask for what the server is.

    As the API does when a user takes a resize back.

    :param context: targeted at the cell of the server
    """
    try:
        spec = objects.RequestSpec.get_by_instance_uuid(
            context, instance.uuid)
    except exception.RequestSpecNotFound:
        LOG.debug('There is no request spec', instance=instance)
        return
    if spec.flavor.id != instance.flavor.id:
        ask_for(spec, instance)
        spec.save()


def ask_for(spec: types.RequestSpec, instance: types.Instance) -> None:
    """Let a request ask for what the server is; it is not saved."""
    spec.flavor = instance.flavor
    spec.numa_topology = hardware.numa_get_constraints(
        instance.flavor, instance.image_meta)
