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

"""Moves that nobody works on."""

from collections.abc import Collection, Iterator
import dataclasses
import functools
from typing import Any

from nova.compute import instance_actions
from nova.compute import task_states
from nova import objects
from taskflow import states as taskflow_states

from nova_ssm.audit import builds
from nova_ssm.audit import findings
from nova_ssm.audit import survey as survey_module
from nova_ssm.engine import exception as engine_exc
from nova_ssm.engine import queries
from nova_ssm.engine import states
from nova_ssm import keys

LOST, STUCK = 'lost-move', 'stuck-move'

#: The actions that the API begins a move with, and what they ask for.
REQUESTS = {instance_actions.RESIZE: keys.RESIZE,
            instance_actions.MIGRATE: keys.RESIZE,
            instance_actions.LIVE_MIGRATION: keys.LIVE_MIGRATE}

#: The task states in which the API leaves a server to a conductor.
STATES = (task_states.RESIZE_PREP, task_states.MIGRATING)

#: Migration records in these have not come to a compute yet.
TO_BE_TOLD = ('accepted', 'pre-migrating')
_OVER = ('completed', 'error', 'failed', 'cancelled', 'reverted', 'done',
         'confirmed')

#: Seconds after which a compute that is up has begun what it was told.
PATIENCE = 600.0
#: Seconds that the clocks of an API and a conductor may differ.
SKEW = 1.0

_Survey = survey_module.Survey


@dataclasses.dataclass(frozen=True)
class Move:
    """What is known of the last move of a server."""

    record: Any
    cell: Any
    action: Any
    migrations: tuple[Any, ...]

    @property
    def since(self) -> float | None:
        return survey_module.touched(self.record)


def lost(survey: _Survey, only: Collection[str] | None = None
         ) -> Iterator[findings.Finding]:
    """Servers whose move was asked for, and never begun.

    There is no migration record: whoever took the request from its queue
    died before its first deed, and no compute was told of it. Or people gave
    its flow up before that: then they are asked before it ends.
    """
    for move in unowned(survey, only):
        if move.action is None or move.action.action not in REQUESTS:
            continue
        began = survey_module.seconds(move.action.start_time)
        fence = keys.move(REQUESTS[move.action.action], move.record.uuid,
                          move.action.request_id)
        killed = given_up(survey, move)
        if _is_begun(move, began) or (
                not killed and _exists(survey, fence)):
            continue
        uuid = move.record.uuid
        yield findings.Finding(
            kind=LOST, subject=uuid, server=uuid,
            project=move.record.project_id, since=move.since,
            what='server %s is in task state %s, and nobody moves it'
                 % (uuid, move.record.task_state),
            why=killed or 'request %s was lost with a conductor, or in the '
                'message queue, before anything was done'
                % move.action.request_id,
            remedy='leave it as it was before, and its action with an error',
            safe=not killed, state=state(move),
            details={'group': uuid, 'cell': move.cell.uuid, 'fence': fence,
                     'task_state': move.record.task_state,
                     'killed': bool(killed),
                     'request_id': move.action.request_id})


def _is_begun(move: Move, began: float) -> bool:
    return any(migration.status not in _OVER or
               migration.created_at is None or
               survey_module.seconds(migration.created_at) >= began - SKEW
               for migration in move.migrations)


def _exists(survey: _Survey, uuid: str) -> bool:
    try:
        queries.flow(survey.db, uuid)
    except engine_exc.FlowNotFound:
        return False
    return True


def given_up(survey: _Survey, move: Move) -> str | None:
    """How people gave a move up of which no compute was told.

    :returns: None if they did not, or one may have been
    """
    if move.action is None or move.action.request_id is None:
        return None
    for flow in queries.flows(survey.db, limit=1, subject=move.record.uuid,
                              request_id=move.action.request_id):
        # What is not to be done twice has its row before it begins.
        if flow.state == states.KILLED and all(
                step.state != taskflow_states.RUNNING
                for step in queries.steps(survey.db, flow.uuid)):
            return 'flow %s was killed: %s' % (flow.uuid, flow.failure)
    return None


def stuck(survey: _Survey, only: Collection[str] | None = None
          ) -> Iterator[findings.Finding]:
    """Servers whose move was begun by a conductor, and not gone on with.

    Their migration record has not come to a compute, for longer than any
    that is up would take; or people gave their flow up before one was told.
    """
    for move in unowned(survey, only):
        waiting = [migration for migration in move.migrations
                   if migration.status in TO_BE_TOLD]
        if len(waiting) != 1 or any(
                migration.status not in (*_OVER, *TO_BE_TOLD)
                for migration in move.migrations):
            continue
        killed = given_up(survey, move)
        if not killed and (not _is_patient(move) or
                           waiting[0].is_live_migration):
            continue        # of live migrations the computes can tell
        uuid, migration = move.record.uuid, waiting[0]
        held = survey.report.get_allocs_for_consumer(
            survey.context, uuid).get('allocations') or {}
        computes = {migration.source_compute, migration.dest_compute,
                    builds.host_of(survey, held, move.cell)} - {None}
        yield findings.Finding(
            kind=STUCK, subject=uuid, server=uuid,
            project=move.record.project_id, since=move.since,
            what='server %s is in task state %s with migration %s (%s), and '
                 'nobody moves it' % (uuid, move.record.task_state,
                                      migration.uuid, migration.status),
            why=killed or 'a conductor died on the way that kept no '
                'journal, or the word to the compute was lost',
            remedy='give it back what it held, end the migration, leave it '
                   'as it was before',
            # A source that comes to it after all finds it in another task
            # state: it does nothing with the guest.
            safe=not killed, state=state(move),
            details={'group': uuid, 'cell': move.cell.uuid,
                     'migration': migration.uuid,
                     'status': migration.status, 'killed': bool(killed),
                     'request_id': move.action and move.action.request_id,
                     'computes': sorted(computes),
                     'task_state': move.record.task_state})


def _is_patient(move: Move) -> bool:
    """Whether any compute that is up would have begun it by now."""
    return (move.since is not None and
            move.since <= survey_module.now() - PATIENCE)


def state(move: Move) -> tuple[Any, ...]:
    """What must not have changed until a move is repaired."""
    return (move.record.vm_state, move.record.task_state, move.record.host,
            move.since, *sorted((migration.uuid, migration.status)
                                for migration in move.migrations))


def unowned(survey: _Survey,
            only: Collection[str] | None) -> Iterator[Move]:
    """The servers that are left to a conductor, and that none works on."""
    filters: dict[str, Any] = {'task_state': list(STATES), 'deleted': False}
    if only is not None:
        filters['uuid'] = sorted(only)
    found = {record.uuid: (record, cell)
             for record, cell in survey.find(filters)
             if survey.is_old(record)}
    owned = survey.owned(found)
    for uuid, (record, cell) in found.items():
        if uuid not in owned:
            yield from survey.in_cells(functools.partial(_look, record),
                                       [cell])


def _look(record: Any, context: Any, cell: Any) -> Iterator[Move]:
    actions = objects.InstanceActionList.get_by_instance_uuid(
        context, record.uuid, limit=1)
    migrations = objects.MigrationList.get_by_filters(
        context, {'instance_uuid': record.uuid})
    yield Move(record, cell, actions[0] if actions else None,
                tuple(migrations))
