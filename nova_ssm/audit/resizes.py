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

"""Resizes whose destination died before it finished them."""

from collections.abc import Collection, Iterator
import functools
from typing import Any

from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import vm_states
from nova import objects

from nova_ssm.audit import builds
from nova_ssm.audit import findings
from nova_ssm.audit import moves
from nova_ssm.audit import survey as survey_module

STUCK = 'stuck-resize'

#: The events of a resize: its destination prepares it, its source sends it
#: on, its destination finishes it.
_PREPARES = 'compute_prep_resize'
_SENDS = 'compute_resize_instance'
_FINISHES = 'compute_finish_resize'
#: In these a server is on its way.
_STATES = (task_states.RESIZE_PREP, task_states.RESIZE_MIGRATING,
           task_states.RESIZE_MIGRATED, task_states.RESIZE_FINISH)
_ACTIONS = (instance_actions.RESIZE, instance_actions.MIGRATE)
#: The types of migration records that resizes have.
_TYPES = ('resize', 'migration')

_Survey = survey_module.Survey


def stuck(survey: _Survey, only: Collection[str] | None = None
          ) -> Iterator[findings.Finding]:
    """Servers that were sent to a destination which has not begun to finish.

    It took the word for it, and died; or that was lost. What a destination has
    begun may take it hours, and nothing shows whether it was started again:
    that is for people to say. And servers whose compute has put them into
    ERROR, and left their task state: it does so if another one takes that
    away.

    :param only: these servers
    """
    filters: dict[str, Any] = {'task_state': list(_STATES), 'deleted': False}
    if only is not None:
        filters['uuid'] = sorted(only)
    found = {record.uuid: (record, cell)
             for record, cell in survey.find(filters)
             if builds.has_given_up(record)}
    owned = survey.owned(found)
    for uuid, (record, cell) in sorted(found.items()):
        if uuid not in owned:
            yield from survey.in_cells(
                functools.partial(_look, record), [cell])


def _look(record: Any, context: Any, cell: Any
          ) -> Iterator[findings.Finding]:
    actions = objects.InstanceActionList.get_by_instance_uuid(
        context, record.uuid, limit=1)
    if not actions or actions[0].action not in _ACTIONS:
        return
    events = objects.InstanceActionEventList.get_by_action(
        context, actions[0].id)
    moved = [one for one in objects.MigrationList.get_by_filters(
        context, {'instance_uuid': record.uuid})
        if not one.is_live_migration and builds.has_given_up(one)]
    if record.vm_state == vm_states.ERROR:
        if _has_failed(events):
            yield _finding(
                record, cell, actions[0], None,
                'server %s is in ERROR, and in task state %s' % (
                    record.uuid, record.task_state),
                'its compute has failed, and has left the task state',
                'take the task state off it')
        return
    yield from _look_at_destination(record, cell, actions[0], events, moved)


def _look_at_destination(record: Any, cell: Any, action: Any,
                         events: Collection[Any], moved: Collection[Any]
                         ) -> Iterator[findings.Finding]:
    waiting = [one for one in moved if one.status == 'post-migrating' and
               one.dest_compute == record.host]
    begun = any(event.event == _FINISHES for event in events)
    if len(waiting) != 1:
        return
    if record.task_state == task_states.RESIZE_MIGRATED and not begun:
        safe = True
        why = ('compute %s died when it was told, or the word to it was lost'
               % record.host)
    elif (record.task_state == task_states.RESIZE_FINISH and
            _is_patient(record)):
        safe = False
        why = ('compute %s died at it, or is at it still: it cannot be told'
               % record.host)
    else:
        return
    yield _finding(
        record, cell, action, waiting[0].uuid,
        'server %s was sent to %s by migration %s, and nobody finishes '
        'that' % (record.uuid, record.host, waiting[0].uuid), why,
        'put it into ERROR with a fault, as Nova does if it cannot be '
        'finished, end the migration', safe)


def _is_patient(record: Any) -> bool:
    """Whether most destinations would have finished by now."""
    return (survey_module.touched(record) or 0) <= (
        survey_module.now() - moves.PATIENCE)


def is_let_go(survey: _Survey, migration: Any, record: Any,
              cell: Any) -> bool:
    """Whether no compute is at a resize, whose server is in no task.

    Who comes to it later sees that, and does nothing with the guest.

    :param record: of the server
    """
    if migration.cross_cell_move or (
            migration.migration_type not in _TYPES):
        return False
    return migration.status == 'pre-migrating' or any(survey.in_cells(
        functools.partial(_is_let_go, migration, record), [cell]))


def _is_let_go(migration: Any, record: Any, context: Any,
               cell: Any) -> Iterator[bool]:
    actions = objects.InstanceActionList.get_by_instance_uuid(
        context, record.uuid, limit=1)
    if not actions or actions[0].action not in _ACTIONS:
        return
    began = survey_module.seconds(actions[0].start_time)
    if survey_module.seconds(migration.created_at) < began - moves.SKEW:
        return      # it is one of before
    results = {event.event: event.result
               for event in objects.InstanceActionEventList.get_by_action(
                   context, actions[0].id)}
    # The source itself has ended its part; or it was started again in it,
    # since no destination took the task state away that failed behind its
    # word to it.
    sent = results.get(_SENDS) is not None or (
        results.get(_PREPARES) == 'Success')
    finishing = _FINISHES in results and results[_FINISHES] is None
    yield ((record.host != migration.source_compute or sent) and
           (record.host != migration.dest_compute or not finishing))


def _has_failed(events: Collection[Any]) -> bool:
    """Whether computes have ended all that they did, and one in vain."""
    return (all(event.finish_time for event in events) and
            any(event.result == 'Error' and
                event.event.startswith('compute_') for event in events))


def _finding(record: Any, cell: Any, action: Any, migration: str | None,
             what: str, why: str, remedy: str, safe: bool = True
             ) -> findings.Finding:
    return findings.Finding(
        kind=STUCK, subject=record.uuid, server=record.uuid,
        project=record.project_id, since=survey_module.touched(record),
        what=what, why=why, remedy=remedy, safe=safe,
        state=(record.vm_state, record.task_state, record.host,
               survey_module.touched(record), migration),
        details={'group': record.uuid, 'cell': cell.uuid,
                 'migration': migration, 'task_state': record.task_state,
                 'computes': [record.host] if record.host else [],
                 'request_id': action.request_id})
