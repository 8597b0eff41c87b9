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

"""How moves end that nobody works on: the server is as it was before."""

from typing import Any

from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova import exception
from nova import objects
from oslo_log import log as logging

from nova_ssm.tasks import abandoned_moves
from nova_ssm.tasks import audit_steps
from nova_ssm.tasks import base
from nova_ssm.tasks import destinations
from nova_ssm.tasks import moves
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

#: The event that Nova's conductor opens on the action of a move.
_EVENTS = {'resize': 'conductor_migrate_server',
           'migrate': 'conductor_migrate_server',
           'live-migration': 'conductor_live_migrate_instance'}


class EndLostMove(base.NovaTask):
    """Leave a server as it was before a move that never began.

    Its action ends with an error, and it gets a fault that says why. Does
    nothing if somebody has touched the server meanwhile.

    Recovery: finish it; the user is not told twice.
    """

    def execute(self, context: types.Context,
                details: types.Properties) -> None:
        with audit_steps.server_of(context, details) as (cctxt, instance):
            if (instance is None or
                    instance.task_state != details['task_state']):
                return
            _end(cctxt, instance, details,
                 _reason(details, 'the request was lost with a '
                         'nova-conductor, before it was begun'))


class GiveUpMove(audit_steps.Look):
    """Leave a server as it was before a move that no compute has begun.

    It gets back what it held, the migration record ends, the ports are
    unbound from the destination. The task state goes last: until then it is
    found again. Does nothing if somebody has touched the server meanwhile. A
    request to try another host that comes late has its row in the journal
    before it looks at the record, which ends before we look for that row: so
    one of us sees the other.

    Reversion strategy: let the record wait again, so that it is found.
    Recovery: finish it; the user is not told twice.
    """

    reversion = 'let the migration record wait as before'

    def execute(self, context: types.Context,
                details: types.Properties | None) -> None:
        if details is None:
            return
        with audit_steps.server_of(context, details) as (cctxt, instance):
            migration = moves.record(cctxt, details['migration'])
            if (instance is None or migration is None or
                    instance.task_state != details['task_state'] or
                    migration.status not in (details['status'], 'error')):
                return
            moves.fail_migration(cctxt, migration.uuid)
            if self.survey().owned([instance.uuid]):
                self._let_wait(cctxt, details)
                return
            self._give_up(cctxt, instance, migration)
            _end(cctxt, instance, details,
                 _reason(details, 'nobody went on with it: the '
                         'nova-conductor that began it is gone'))

    def _give_up(self, context: types.Context, instance: types.Instance,
                 migration: types.Migration) -> None:
        if not migration.is_live_migration:
            moves.put_flavor_back(context, instance)
        elif migration.dest_compute:
            destinations.unbind(self.manager, context, migration,
                                migration.dest_compute)
        moves.give_back(self.manager, context, instance, migration)

    @staticmethod
    def _let_wait(context: types.Context, details: types.Properties) -> None:
        """Let the migration record be as it was, if the server still is."""
        instance = moves.current(context, details['group'])
        migration = moves.record(context, details['migration'])
        if (instance is not None and migration is not None and
                migration.status == 'error' and
                instance.task_state == details['task_state']):
            LOG.info('The move may go on after all', instance=instance)
            migration.status = details['status']
            migration.save()

    def revert(self, context: types.Context,
               details: types.Properties | None, result: Any,
               flow_failures: types.Failures) -> None:
        if details is None:
            return
        with audit_steps.cell_of(context, details) as cctxt:
            self._let_wait(cctxt, details)


class _EndLetGo(abandoned_moves.EndAbandonedLiveMigrations):
    """Says what has happened, if no conductor has died."""

    reason = ('the compute has given the live migration up, since what it '
              'called did not answer')


class EndLiveMigration(audit_steps.Look):
    """Give a server back whose live migration its source has let go.

    As for those that a compute has let go when a conductor died: the computes
    say before whether they are at it.

    Recovery: look again; who was told is not told twice.
    """

    def execute(self, context: types.Context,
                details: types.Properties | None) -> None:
        if details is None:
            return
        with audit_steps.server_of(context, details) as (cctxt, instance):
            if instance is not None and not self.survey().owned(
                    [instance.uuid]):
                _EndLetGo(self.manager).look_at(cctxt, instance)


class FailResize(audit_steps.Look):
    """Put a server into ERROR whose destination has not finished its resize.

    As the destination does if it cannot finish it: the server stays there,
    what it held at its source is freed. The task state goes last: until then
    it is found again.

    Recovery: finish it; the user is not told twice.
    """

    def execute(self, context: types.Context,
                details: types.Properties | None) -> None:
        if details is None:
            return
        uuid = details['group']
        with audit_steps.server_of(context, details) as (cctxt, instance):
            if (instance is None or
                    instance.task_state != details['task_state'] or
                    self.survey().owned([uuid])):
                return
            if details['migration'] is None:
                # Its compute has put it into ERROR, and said why.
                _release(instance, details['task_state'])
                return
            owner = audit_steps.context_of(cctxt, instance,
                                           details['request_id'])
            exc = exception.MigrationError(
                reason='nova-compute of its new host has not finished it')
            _end_action(owner, uuid, exc)
            _add_fault(owner, instance, exc)
            self.manager.report_client.delete_allocation_for_instance(
                cctxt, details['migration'], force=True)
            moves.fail_migration(cctxt, details['migration'])
            instance.vm_state = vm_states.ERROR
            _release(instance, details['task_state'])


def _reason(details: types.Properties, otherwise: str) -> str:
    """Why a move has ended, for who asked for it."""
    # Findings of the release before do not tell.
    return ('it was given up by an operator' if details.get('killed')
            else otherwise)


def _end(context: types.Context, instance: types.Instance,
         details: types.Properties, reason: str) -> None:
    """Tell the user, and let the server be as it was.

    :param context: targeted at the cell of the server
    """
    owner = audit_steps.context_of(context, instance, details['request_id'])
    exc = exception.MigrationError(reason=reason)
    _end_action(owner, instance.uuid, exc)
    _add_fault(owner, instance, exc)
    _release(instance, details['task_state'])


def _end_action(context: types.Context, uuid: str,
                exc: BaseException) -> None:
    """Let the action of the request fail, as the user sees it."""
    action = objects.InstanceAction.get_by_request_id(
        context, uuid, context.request_id)
    if action is None:
        return
    name = _EVENTS.get(action.action)
    events = objects.InstanceActionEventList.get_by_action(context, action.id)
    if name and all(event.event != name for event in events):
        objects.InstanceActionEvent.event_start(
            context, uuid, name, want_result=False)
    # A compute that died has left its own open.
    moves.close_events(context, uuid, exc, of_computes=True)


def _add_fault(context: types.Context, instance: types.Instance,
               exc: BaseException) -> None:
    if moves.fault_of(context, instance.uuid, exc) is None:
        base.while_handling(
            exc, compute_utils.add_instance_fault_from_exc, context,
            instance, exc)


def _release(instance: types.Instance, task_state: str) -> None:
    """Take the task state off the server, if it still has it."""
    instance.task_state = None
    try:
        instance.save(expected_task_state=[task_state])
    except (exception.UnexpectedTaskStateError,
            exception.InstanceNotFound) as exc:
        LOG.info('The server is left as it is: %s', exc, instance=instance)
