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

"""Actions of servers that have come to an end, and do not say so."""

from collections.abc import Collection, Iterable, Iterator
import datetime
import functools
import itertools
from typing import Any

from nova.compute import instance_actions
from nova.compute import vm_states
from nova.db.main import api as main_db
from nova.db.main import models
from nova import objects
from oslo_utils import timeutils
import sqlalchemy as sa

from nova_ssm.audit import builds
from nova_ssm.audit import findings
from nova_ssm.audit import moves
from nova_ssm.audit import records
from nova_ssm.audit import survey as survey_module

ENDLESS = 'endless-event'

#: What a compute does in a task state, or until the server is gone, and how
#: migration records look of which it went well.
_ACTIONS: dict[str, tuple[str, ...]] = {
    instance_actions.CREATE: (),
    instance_actions.DELETE: (),
    instance_actions.RESIZE: ('finished', 'confirming', 'confirmed',
                              'reverting', 'reverted'),
    instance_actions.MIGRATE: ('finished', 'confirming', 'confirmed',
                               'reverting', 'reverted'),
    instance_actions.LIVE_MIGRATION: ('completed',),
    instance_actions.CONFIRM_RESIZE: ('confirmed',),
    instance_actions.REVERT_RESIZE: ('reverted',),
}
#: These end the migration of an action before.
_LATER = (instance_actions.CONFIRM_RESIZE, instance_actions.REVERT_RESIZE)

#: What the events of Nova's services begin with. Those of our flows are ended
#: by who writes them.
_OF_NOVA = ('compute_', 'conductor_', 'cold_migrate')

#: No index finds the events without an end. So many are looked at at a time,
#: and by the conductors only so many of the newest.
WINDOW = 10000
#: A compute that has had no answer to its last call calls once more, to end
#: the event.
_CALLS = 2

_Survey = survey_module.Survey


def endless(survey: _Survey, only: Collection[str] | None = None
            ) -> Iterator[findings.Finding]:
    """Servers at rest, of whose actions computes have left events open.

    They died with these, or nobody answered when they ended them.

    :param only: these servers
    """
    chosen = _candidates(survey) if only is None else set(only)
    found = {uuid: known for uuid, known in survey.records(chosen).items()
             if len(known) == 1 and _is_at_rest(known[0][0])}
    owned = survey.owned(found)
    for uuid, [(record, cell)] in sorted(found.items()):
        if uuid not in owned:
            yield from survey.in_cells(
                functools.partial(_look, record), [cell])


def _candidates(survey: _Survey) -> set[str]:
    return set(survey.in_cells(
        functools.partial(_servers, survey), [
            cell for cell in survey.cells if not cell.is_cell0()]))


def _servers(survey: _Survey, context: Any, _cell: Any) -> Iterator[str]:
    """The servers that have an event without an end, of long ago."""
    table = models.InstanceActionEvent
    with main_db.get_context_manager(context).reader.using(
            context) as session:
        last = session.scalar(sa.select(sa.func.max(table.id))) or 0
    first = 0 if survey.thorough else max(0, last - WINDOW)
    for floor in range(first, last, WINDOW):
        with main_db.get_context_manager(context).reader.using(
                context) as session:
            found = list(session.scalars(_query(floor)))
        yield from found


def _query(floor: int) -> sa.Select[Any]:
    """Asks for the servers of the events of one window."""
    table, actions = models.InstanceActionEvent, models.InstanceAction
    before = timeutils.utcnow() - datetime.timedelta(
        seconds=builds.longest(_CALLS))
    # As below: what has ended once has ended.
    still_open = sa.select(table.action_id).where(
        table.id > floor, table.id <= floor + WINDOW, sa.or_(
            *(table.event.startswith(one, autoescape=True)
              for one in _OF_NOVA))).group_by(
            table.action_id, table.event).having(
                sa.func.count(table.finish_time) == 0,
                sa.func.max(table.start_time) <= before)
    return sa.select(actions.instance_uuid).distinct().where(
        actions.id.in_(still_open), actions.action.in_(sorted(_ACTIONS)))


def _is_at_rest(record: Any) -> bool:
    """Whether no compute works on a server, nor has anything to say of it."""
    return builds.has_given_up(record, _CALLS) and bool(
        record.deleted or (record.task_state is None and
                           record.vm_state != vm_states.BUILDING))


def _look(record: Any, context: Any, cell: Any
          ) -> Iterator[findings.Finding]:
    uuid = record.uuid
    migrations = objects.MigrationList.get_by_filters(
        context.elevated(read_deleted='yes'), {'instance_uuid': uuid})
    if not record.deleted and any(one.status in records.UNDER_WAY
                                  for one in migrations):
        return
    left = list(_left(record, context, migrations))
    if not left:
        return
    names = sorted({name for one in left for name in one['events']})
    yield findings.Finding(
        kind=ENDLESS, subject=uuid, server=uuid, project=record.project_id,
        since=survey_module.touched(record),
        what='server %s is at rest, and %s of its actions %s no end' % (
            uuid, ', '.join(names), 'has' if len(names) == 1 else 'have'),
        why='a compute died at it, or nobody answered when it ended it',
        remedy='end it, with an error if the action was in vain', safe=True,
        state=(record.vm_state, bool(record.deleted),
               survey_module.touched(record),
               *((one['request_id'], *one['events']) for one in left)),
        details={'group': uuid, 'cell': cell.uuid, 'actions': left})


def _left(record: Any, context: Any, migrations: Iterable[Any]
          ) -> Iterator[dict[str, Any]]:
    """The actions of a server that have events which never ended."""
    actions = sorted(objects.InstanceActionList.get_by_instance_uuid(
        context, record.uuid), key=lambda one: one.start_time)
    for action, following in itertools.zip_longest(actions, actions[1:]):
        if action.action not in _ACTIONS or not builds.has_given_up(
                action, _CALLS):
            continue
        names = names_of_open(objects.InstanceActionEventList.get_by_action(
            context, action.id))
        if names:
            yield {'request_id': action.request_id, 'action': action.action,
                   'events': names, 'well': _went_well(
                       action, following, record, migrations)}


def names_of_open(events: Iterable[Any]) -> list[str]:
    """The names of the events of an action that have not ended.

    Nova knows the events of an action by their names. When it ends one, that
    is the first of the name: when a second host was asked, the other stays
    open, also if nobody disturbs it.
    """
    events = [one for one in events if one.event.startswith(_OF_NOVA)]
    ended = {one.event for one in events if one.finish_time}
    return sorted({one.event for one in events} - ended)


def _went_well(action: Any, following: Any, record: Any,
               migrations: Iterable[Any]) -> bool:
    """Whether a server shows that it was done what was asked for."""
    if action.action == instance_actions.CREATE:
        return record.launched_at is not None
    if action.action == instance_actions.DELETE:
        return bool(record.deleted)
    began = survey_module.seconds(action.start_time) - moves.SKEW
    ended = survey_module.seconds(following.start_time) if following else None
    for one in migrations:
        when = (survey_module.touched(one) if action.action in _LATER
                else survey_module.seconds(one.created_at))
        if (one.status in _ACTIONS[action.action] and when is not None and
                began <= when and (ended is None or when < ended)):
            return True
    return False
