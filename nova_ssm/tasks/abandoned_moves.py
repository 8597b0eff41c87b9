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

"""Moves that a compute gave up, since a conductor did not answer it."""

import abc
from collections.abc import Callable
import functools
import time
from typing import ClassVar

from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
from nova import objects
from oslo_config import cfg
from oslo_log import log as logging

from nova_ssm.audit import moves as audit_moves
from nova_ssm.audit import survey
from nova_ssm.engine import queries
from nova_ssm.tasks import abandoned
from nova_ssm.tasks import allocations
from nova_ssm.tasks import casts
from nova_ssm.tasks import destinations
from nova_ssm.tasks import moves
from nova_ssm.tasks import types
from nova_ssm.tasks import untouched

LOG = logging.getLogger(__name__)
CONF = cfg.CONF

#: The flows that end by telling a compute to move a server.
LIVE_FLOWS = ('live_migrate', 'live_migrate_forced')
RESIZE_FLOWS = ('resize', 'reschedule_resize')

#: The event that a destination opens as its last deed in a resize.
FINISH_EVENT = 'compute_finish_resize'

#: The events that the destination of a live migration opens when it is told
#: of it, and its source when it is to abort it.
PREPARE_EVENT = 'compute_pre_live_migration'
ABORT_EVENT = 'compute_live_migration_abort'

#: Seconds that the API may take between a server's task state and the action
#: on it, of which it writes down one after the other.
_API_MOMENT = 2.0

#: While a migration of the same source has one of these, others wait.
_AT_WORK = ('preparing', 'running')


class _EndMoves(abandoned.LookAfter):
    """Look after the newest move of each server."""

    #: Why a move has ended, for who asked for it.
    reason: ClassVar[str] = (
        'the compute lost its connection to nova-conductor, which died during '
        'the move')
    #: The task states that it leaves a server in.
    left_in: ClassVar[tuple[str, ...]] = ()

    def _look_in_cell(self, context: types.Context, uuid: str) -> None:
        if self._is_settled(uuid):
            super()._look_in_cell(context, uuid)

    def _is_settled(self, uuid: str) -> bool:
        """Wait until no compute can be at the beginning of its part.

        :returns: False if the server is moved again and again meanwhile:
            whatever its newest move has left is not for us
        """
        db = self.manager.ssm.runner.db
        until = time.monotonic() + 2 * abandoned.window()
        while time.monotonic() < until:
            if queries.flows(db, unfinished=True, subject=uuid, limit=1):
                return False
            if not self._was_told_lately(uuid):
                return True
            self.wait(self.poll)
        return False

    def _was_told_lately(self, uuid: str) -> bool:
        db = self.manager.ssm.runner.db
        lately = queries.clock(db) - abandoned.window()
        return uuid in queries.subjects_finished(db, self.flows, lately)

    def _has_begun_again(self, uuid: str) -> bool:
        """Whether the newest move of a server may be one of just now.

        A flow is there before the record of its migration is: who has read
        that before sees the flow of it, which is at work, or has ended. In
        this order: one that ends in between is seen, too.
        """
        return bool(queries.subjects_unfinished(
            self.manager.ssm.runner.db, [uuid], survey.REPAIRS)) or (
                self._was_told_lately(uuid))

    def look_at(self, context: types.Context,
                instance: types.Instance) -> None:
        """Mend what computes have left of the last move of a server.

        :param context: targeted at the cell of the server
        """
        self._look_at(context, instance)

    def _look_at(self, context: types.Context,
                 instance: types.Instance) -> None:
        migration = moves.newest(context, instance.uuid)
        if self._has_begun_again(instance.uuid):
            LOG.info('The server is moved again, it is left alone',
                     instance=instance)
            return
        if migration is not None:
            self._look_at_move(context, instance, migration)
        now = moves.current(context, instance.uuid)
        if now is not None and now.task_state is None:
            # A compute that was closing one was not answered either.
            _close_events(context, now.uuid)

    @abc.abstractmethod
    def _look_at_move(self, context: types.Context,
                      instance: types.Instance,
                      migration: types.Migration) -> None:
        """Mend what its compute has left of the move, if it gave it up."""

    def _tell(self, context: types.Context, instance: types.Instance,
              vm_state: str) -> None:
        exc = exception.MigrationError(reason=self.reason)
        spec = abandoned.spec_of(context, instance.uuid)

        def work(now: types.Instance) -> None:
            # First: who has been told is not looked at again.
            _close_events(context, now.uuid, exc)
            self.manager._set_vm_state_and_notify(
                context, now.uuid, 'migrate_server',
                {'vm_state': vm_state, 'task_state': None}, exc, spec)

        moves.tell(work, context, instance, exc,
                   on_the_way=self.left_in, request_spec=spec)


def _close_events(context: types.Context, uuid: str,
                  exc: BaseException | None = None) -> None:
    """Close what the compute opened on the server's last action."""
    request = moves.request_of_newest(context, uuid)
    if request is not None:
        moves.close_events(request, uuid, exc, of_computes=True)


def _outcomes(request: types.Context, uuid: str,
              name: str) -> list[str | None]:
    """How the events of this name have ended, None for one that has not."""
    return [event.result for event in casts.events(request, uuid)
            if event.event == name]


class EndAbandonedLiveMigrations(_EndMoves):
    """Give servers back that a compute never began to migrate.

    A source that is calling a conductor when it dies gives the migration up
    after rpc_response_timeout. If that was one of its first calls, it leaves
    the server in MIGRATING, and its resources with the migration record:
    stock Nova leaves them there for ever.
    """

    flows = LIVE_FLOWS
    left_in = (task_states.MIGRATING,)

    def _look_at_move(self, context: types.Context,
                      instance: types.Instance,
                      migration: types.Migration) -> None:
        if not self._was_given_up(context, instance, migration):
            return
        if self._is_asked_for_again(context, instance, migration):
            LOG.info('The server is to be moved again, it is left alone',
                     instance=instance)
            return
        LOG.warning('The live migration %s was given up by compute %s',
                    migration.uuid, instance.host, instance=instance)
        if migration.dest_compute:
            destinations.unbind(self.manager, context, migration,
                                migration.dest_compute)
        moves.give_back(self.manager, context, instance, migration)
        # Who dies behind that finds a server that is still in MIGRATING.
        moves.fail_migration(context, migration.uuid)
        self._tell(context, instance, instance.vm_state)

    def _is_asked_for_again(self, context: types.Context,
                            instance: types.Instance,
                            migration: types.Migration) -> bool:
        """Whether it is another move that the server is in MIGRATING for.

        Somebody else may have mended what the last one has left, and its
        user may ask for the next one as soon as that has failed. Then the
        last one is the newest that there is a record of until a conductor
        takes the request: the action is there before that.
        """
        self.wait(_API_MOMENT)
        request = moves.request_of_newest(context, instance.uuid)
        if request is not None and not self._is_of(request, migration):
            return True
        now = moves.current(context, instance.uuid)
        newest = moves.newest(context, instance.uuid)
        return (now is None or newest is None or
                now.task_state != instance.task_state or
                (newest.uuid, newest.status) != (migration.uuid,
                                                 migration.status) or
                self._has_begun_again(instance.uuid))

    def _is_of(self, request: types.Context,
               migration: types.Migration) -> bool:
        """Whether a request was taken: its newest record is its own then."""
        if queries.flows(self.manager.ssm.runner.db, limit=1,
                         subject=migration.instance_uuid,
                         request_id=request.request_id):
            return True
        # Stock Nova has taken it: then it is the clocks that tell.
        action = objects.InstanceAction.get_by_request_id(
            request, migration.instance_uuid, request.request_id)
        return action is not None and (
            survey.seconds(migration.created_at) >=
            survey.seconds(action.start_time) - audit_moves.SKEW)

    def _was_given_up(self, context: types.Context,
                      instance: types.Instance,
                      migration: types.Migration) -> bool:
        if (not migration.is_live_migration or
                instance.task_state != task_states.MIGRATING or
                instance.host != migration.source_compute):
            return False
        if migration.status == 'queued':
            # Or it waits for another one.
            return not self._is_busy(context, instance, migration)
        if migration.status == 'preparing':
            return self._died_preparing(context, instance, migration)
        # Or the word is still on its way.
        return migration.status in ('accepted', 'error') and (
            abandoned.answers(self.manager, context, instance.host))

    def _died_preparing(self, context: types.Context,
                        instance: types.Instance,
                        migration: types.Migration) -> bool:
        """Find out for certain whether its source has let it go.

        It has if all of this holds:

        * Its destination has not heard of it, for as long as the calls may
          take that come before, or has answered. Both computes answer
          meanwhile.
        * The source was told to abort it, and has forgotten it. If it goes
          on with it after all, it finds that, and takes it back itself.
        * If the destination has answered, the source may wait for the ports,
          and then finds that; or it does not know it any more: then it says
          that it is running, by one call.
        """
        request = moves.request_of_newest(context, instance.uuid)
        if request is None or None in _outcomes(request, instance.uuid,
                                                PREPARE_EVENT):
            return False
        if not all(abandoned.answers(self.manager, context, host)
                   for host in (instance.host, migration.dest_compute)):
            return False
        heard = bool(_outcomes(request, instance.uuid, PREPARE_EVENT))
        if not self._stays(request, instance, migration, lambda: False):
            return False
        if not _outcomes(request, instance.uuid, ABORT_EVENT):
            self.manager.compute_rpcapi.live_migration_abort(
                request, instance, migration.id)
        self._stays(request, instance, migration, lambda: any(
            _outcomes(request, instance.uuid, ABORT_EVENT)))
        told = _outcomes(request, instance.uuid, ABORT_EVENT)
        if not heard:
            return 'Success' in told
        if 'Success' in told:
            return self._stays(request, instance, migration, lambda: False,
                               abandoned.window() + CONF.vif_plugging_timeout)
        return 'Error' in told and self._stays(
            request, instance, migration, lambda: False)

    def _stays(self, request: types.Context, instance: types.Instance,
               migration: types.Migration, until: Callable[[], bool],
               seconds: float | None = None) -> bool:
        """Watch a migration that is being prepared.

        :param until: stop when this is so, or when a call must have ended
        :param seconds: that it has, by default for one call
        :returns: whether its source has not gone on with it
        """
        limit = time.monotonic() + (seconds or abandoned.window())
        heard = _outcomes(request, instance.uuid, PREPARE_EVENT)
        while True:
            now = moves.current(request, instance.uuid)
            record = moves.record(request, migration.uuid)
            if (now is None or now.host != migration.source_compute or
                    now.task_state != task_states.MIGRATING or
                    record is None or record.status != 'preparing' or
                    _outcomes(request, instance.uuid,
                              PREPARE_EVENT) != heard):
                return False
            if until() or time.monotonic() > limit:
                return True
            self.wait(self.poll)

    @staticmethod
    def _is_busy(context: types.Context, instance: types.Instance,
                 migration: types.Migration) -> bool:
        others = objects.MigrationList.get_in_progress_by_host_and_node(
            context.elevated(), instance.host, instance.node)
        return any(other.status in _AT_WORK and
                   other.source_compute == instance.host
                   for other in others)


def _is_at_rest(instance: types.Instance) -> bool:
    """Whether no compute may be at work with a server, for all it says.

    A source that finds the server in no task any more puts it into ERROR,
    and into the task that it was about to begin.
    """
    return instance.task_state is None or (
        instance.vm_state == vm_states.ERROR and
        instance.task_state == task_states.RESIZE_MIGRATING)


class EndAbandonedResizes(_EndMoves):
    """Give servers back whose resize a compute gave up without cleaning up.

    A compute that is calling a conductor when it dies takes the server's
    task state back after rpc_response_timeout. If that was the first call of
    its part, it does nothing else: stock Nova leaves the migration record on
    its way for ever, with what the server held. Behind that it puts the
    server into ERROR, though its guest goes on at the source as before, as
    long as that was not told, or had not come to the guest. If it had sent
    the server on, it does so even where the next host was told by then and
    has resized it.
    """

    flows = RESIZE_FLOWS

    #: Between which times computes may have called the dead conductor.
    _called: tuple[float, float] = (0.0, 0.0)

    def execute(self, context: types.Context, told_since: float,
                told_until: float) -> None:
        self._called = (told_since, told_until)
        super().execute(context, told_since, told_until)

    def _look_at_move(self, context: types.Context,
                      instance: types.Instance,
                      migration: types.Migration) -> None:
        if migration.is_live_migration or not _is_at_rest(instance):
            return
        if instance.host == migration.source_compute:
            self._look_at_source(context, instance, migration)
        elif (instance.host == migration.dest_compute and
                instance.task_state is None):
            self._look_at_destination(context, instance, migration)

    def _look_at_source(self, context: types.Context,
                        instance: types.Instance,
                        migration: types.Migration) -> None:
        """Mend what is left of a server that has not come away from there."""
        if migration.status not in ('pre-migrating', 'error'):
            return
        if instance.task_state is None:
            # Before the look that takes a minute: who moves the server
            # meanwhile asks for what he wants.
            moves.put_flavor_back(context, instance)
        state = self._state_before(context, instance)
        if state is not None:
            self._restore(context, instance, migration, state)
        elif instance.task_state is None and (
                migration.status == 'pre-migrating' or allocations.held_by(
                    self.manager, context, migration.uuid)):
            self._take_back(context, instance, migration)

    def _look_at_destination(self, context: types.Context,
                             instance: types.Instance,
                             migration: types.Migration) -> None:
        """Mend what is left of a server that has come there."""
        if migration.status == 'post-migrating':
            self._leave_at_destination(context, instance, migration)
        elif (instance.vm_state == vm_states.ERROR and
                migration.status in ('error', 'finished') and
                self._was_finished(context, instance)):
            self._finish_again(instance, migration)

    def _state_before(self, context: types.Context,
                      instance: types.Instance) -> str | None:
        if instance.vm_state != vm_states.ERROR:
            return None
        request = moves.request_of_newest(context, instance.uuid)
        if request is None:
            return None
        return untouched.Witness(
            self.manager, request, instance, self._called,
            functools.partial(self.wait, self.poll)).state_before()

    def _restore(self, context: types.Context, instance: types.Instance,
                 migration: types.Migration, state: str) -> None:
        """Take back that a compute has put a server into ERROR.

        Why it did so the compute's own fault says.
        """
        LOG.warning('The resize %s was given up by a compute that a dead '
                    'conductor did not answer, before its guest was touched: '
                    'the server is %s again', migration.uuid, state,
                    instance=instance)
        # One in a task has not been given it before.
        moves.put_flavor_back(context, instance)
        moves.give_back(self.manager, context, instance, migration)
        moves.fail_migration(context, migration.uuid)
        seen = instance.task_state
        # Last: a server in ERROR is looked at again by who goes on.
        try:
            instance.refresh()
            instance.vm_state, instance.task_state = state, None
            instance.save(expected_vm_state=[vm_states.ERROR],
                          expected_task_state=[seen])
        except (exception.InstanceNotFound,
                exception.InstanceUpdateConflict) as exc:
            LOG.info('Somebody else was faster: %s', exc, instance=instance)

    @staticmethod
    def _was_finished(context: types.Context,
                      instance: types.Instance) -> bool:
        """Whether its destination has resized it, and nobody else since."""
        request = moves.request_of_newest(context, instance.uuid)
        return request is not None and any(
            event.event == FINISH_EVENT and event.host == instance.host and
            event.result == 'Success'
            for event in casts.events(request, instance.uuid))

    @staticmethod
    def _finish_again(instance: types.Instance,
                      migration: types.Migration) -> None:
        """Take back what a compute has done that had sent the server on.

        Its call to the dead conductor was not answered, so it put the server
        into ERROR, when that was resized already. See callers.
        """
        LOG.warning('The resize %s was finished by compute %s, but given up '
                    'by another one that had sent the server on',
                    migration.uuid, instance.host, instance=instance)
        migration.status = 'finished'
        migration.save()
        instance.vm_state = vm_states.RESIZED
        instance.save(expected_vm_state=[vm_states.ERROR],
                      expected_task_state=[None])

    # The record ends last: one that has ended is not looked at again, and
    # the user is not told twice.

    def _take_back(self, context: types.Context, instance: types.Instance,
                   migration: types.Migration) -> None:
        """Let the server be as it was; it is where it was."""
        self._tell(context, instance, instance.vm_state)
        moves.give_back(self.manager, context, instance, migration)
        moves.fail_migration(context, migration.uuid)

    def _leave_at_destination(self, context: types.Context,
                              instance: types.Instance,
                              migration: types.Migration) -> None:
        """As the destination does if it cannot finish the resize."""
        self._tell(context, instance, vm_states.ERROR)
        self.manager.report_client.delete_allocation_for_instance(
            context, migration.uuid, force=True)
        moves.fail_migration(context, migration.uuid)
