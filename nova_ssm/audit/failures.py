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

"""Failures that the user of a server was not told of."""

from collections.abc import Collection, Iterator
import functools
from typing import Any

from nova.compute import instance_actions
from nova.compute import vm_states
from nova import objects

from nova_ssm.audit import findings
from nova_ssm.audit import moves
from nova_ssm.audit import survey as survey_module

UNTOLD = 'untold-failure'

#: The actions that a compute may end without a word.
_ACTIONS = (instance_actions.CREATE, instance_actions.DELETE,
            *moves.REQUESTS)

_Survey = survey_module.Survey


def untold(survey: _Survey, only: Collection[str] | None = None
           ) -> Iterator[findings.Finding]:
    """Servers whose last action has failed, and that have no fault of it.

    A compute that is started again puts the servers into ERROR that it was
    building, and takes those out of a resize that it was to leave. One whose
    live migration fails behind its first step tells nobody. One that fails to
    delete a server says so last of all.

    :param only: these servers
    """
    found = {record.uuid: (record, cell)
             for record, cell in _candidates(survey, only)
             if record.task_state is None and survey.is_old(record)}
    owned = survey.owned(found)
    for uuid, (record, cell) in sorted(found.items()):
        if uuid not in owned:
            yield from survey.in_cells(
                functools.partial(_look, survey, record), [cell])


def _candidates(survey: _Survey,
                only: Collection[str] | None) -> Iterator[tuple[Any, Any]]:
    """Servers in ERROR, and those whose move has failed."""
    filters: dict[str, Any] = {'deleted': False}
    if only is not None:
        yield from survey.find(filters | {'uuid': sorted(only)})
        return
    yield from survey.find(filters | survey.lately() | {
        'vm_state': vm_states.ERROR})
    servers = {one.instance_uuid for one, _cell in survey.migrations(
        _FAILED, **survey.lately())
        if one.migration_type != 'evacuation'}
    for found in survey.records(servers, deleted=False).values():
        yield from found


#: What a move is in that has failed. A live migration that its user has had
#: aborted is cancelled.
_FAILED = ('error', 'failed')


def _look(survey: _Survey, record: Any, context: Any, cell: Any
          ) -> Iterator[findings.Finding]:
    actions = objects.InstanceActionList.get_by_instance_uuid(
        context, record.uuid, limit=1)
    if not actions or actions[0].action not in _ACTIONS:
        return
    began = survey_module.seconds(actions[0].start_time)
    if record.vm_state != vm_states.ERROR and not _has_failed(
            context, record, actions[0], began):
        return
    if is_told(context, record.uuid, began):
        return
    uuid = record.uuid
    yield findings.Finding(
        kind=UNTOLD, subject=uuid, server=uuid, project=record.project_id,
        since=survey_module.touched(record),
        what='the last action of server %s (%s) has failed, and it has no '
             'fault' % (uuid, actions[0].action),
        why='its compute has ended it without a word, as one does that was '
            'started again in the middle of it',
        remedy='give it a fault, end its action with an error', safe=True,
        state=(record.vm_state, record.task_state, record.host,
               actions[0].request_id, survey_module.touched(record)),
        details={'group': uuid, 'cell': cell.uuid, 'began': began,
                 'vm_state': record.vm_state, 'action': actions[0].action,
                 'request_id': actions[0].request_id})


def _has_failed(context: Any, record: Any, action: Any,
                began: float) -> bool:
    """Whether the move of an action is over, and in vain."""
    if action.action not in moves.REQUESTS:
        return False
    live = action.action == instance_actions.LIVE_MIGRATION
    newest = objects.MigrationList.get_by_filters(
        context, {'instance_uuid': record.uuid}, sort_keys=['id'],
        sort_dirs=['desc'], limit=1)
    return any(one.is_live_migration == live and one.status in _FAILED and
               survey_module.seconds(one.created_at) >= began - moves.SKEW
               for one in newest)


def is_told(context: Any, uuid: str, began: float) -> bool:
    """Whether a server has a fault of an action.

    :param context: targeted at the cell of the server
    :param began: when the action did, in seconds since the epoch
    """
    fault = objects.InstanceFault.get_latest_for_instance(context, uuid)
    return (fault is not None and survey_module.seconds(fault.created_at) >=
            began - moves.SKEW)
