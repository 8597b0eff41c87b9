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

"""Records that have lost what they belong to."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from nova.compute import instance_actions
from nova.compute import vm_states
from nova import objects
from taskflow import states as taskflow_states

from nova_ssm.audit import builds
from nova_ssm.audit import findings
from nova_ssm.audit import moves
from nova_ssm.audit import resizes
from nova_ssm.audit import survey as survey_module
from nova_ssm.engine import queries

MAPPING, MIGRATION = 'orphan-mapping', 'endless-migration'

#: Migration records in these are under way.
#: Migration records in these say that somebody is at them.
UNDER_WAY = ('accepted', 'queued', 'preparing', 'running', 'pre-migrating',
              'migrating', 'post-migrating')

#: Servers in these are live migrated, and go on if that fails.
_GOES_ON = (vm_states.ACTIVE, vm_states.PAUSED)
#: Servers in these are resized.
_RESIZED = (vm_states.ACTIVE, vm_states.STOPPED)
#: How many answers a destination may wait for while it prepares a resize.
_CALLS = 3

_Survey = survey_module.Survey


def mappings(survey: _Survey, only: Collection[str] | None = None
             ) -> Iterator[findings.Finding]:
    """Instance mappings without an instance, or a request for one."""
    for some in _mappings(survey, only):
        candidates = {mapping.instance_uuid: mapping for mapping in some
                      if not mapping.queued_for_delete and
                      survey.is_old(mapping)}
        records = survey.records(candidates)
        asked = _asked_for(survey)
        owned = survey.owned(candidates)
        if not survey.complete:
            return      # the record may be in a cell that could not be read
        for uuid, mapping in sorted(candidates.items()):
            found = records.get(uuid, [])
            if (uuid in asked or uuid in owned or
                    any(not record.deleted or not survey.is_old(record)
                        for record, _cell in found)):
                continue
            yield _mapping(mapping, found)


def _mappings(survey: _Survey, only: Collection[str] | None
              ) -> Iterator[Iterable[objects.InstanceMapping]]:
    """All mappings, or those of some servers, in handfuls."""
    if only is not None:
        for some in survey_module.batched(only):
            yield objects.InstanceMappingList.get_by_instance_uuids(
                survey.context, list(some))
        return
    for cell in [None, *survey.cells]:
        found = {mapping.instance_uuid: mapping for mapping in
                 objects.InstanceMappingList.get_by_cell_id(
                     survey.context, cell and cell.id)}
        survey.say('%d instance mappings of %s' % (
            len(found), cell.name or cell.uuid if cell else 'no cell'))
        for some in survey_module.batched(found):
            yield [found[uuid] for uuid in some]


def _asked_for(survey: _Survey) -> set[str]:
    """The servers that have a build request: they may have no record yet."""
    return {request.instance_uuid for request in
            objects.BuildRequestList.get_all(survey.context)}


def _mapping(mapping: objects.InstanceMapping,
             found: list[Any]) -> findings.Finding:
    uuid = mapping.instance_uuid
    if found:
        why = 'the server was deleted, and its mapping was not told'
        remedy = 'mark it as deleted, as Nova does'
    elif mapping.cell_mapping is None:
        why = ('the server was deleted while it was built, and the '
               'conductor died before it removed it')
        remedy = 'remove it, and the request spec'
    else:
        why = ('no cell has a record of it: a database was restored, or '
               'cleaned by hand')
        remedy = 'remove it, and the request spec'
    return findings.Finding(
        kind=MAPPING, subject=uuid, server=uuid, project=mapping.project_id,
        since=survey_module.touched(mapping),
        what='server %s is mapped%s, and there is no such server' % (
            uuid, ' to cell %s' % (mapping.cell_mapping.name or
                                   mapping.cell_mapping.uuid)
            if mapping.cell_mapping else ''),
        why=why, remedy=remedy,
        safe=bool(found) or mapping.cell_mapping is None,
        state=(mapping.id, mapping.cell_mapping and mapping.cell_mapping.uuid,
               survey_module.touched(mapping), bool(found)),
        details={'group': uuid, 'deleted': bool(found)})


def migrations(survey: _Survey, only: Collection[str] | None = None
               ) -> Iterator[findings.Finding]:
    """Migration records that are under way, while the server is not."""
    filters: dict[str, Any] = survey.lately()
    if only is not None:
        filters = {'uuid': sorted(only)}
    found = [(migration, cell) for migration, cell in survey.migrations(
        UNDER_WAY, **filters) if survey.is_old(migration)]
    records = survey.records({one.instance_uuid for one, _cell in found})
    owned = survey.owned({one.instance_uuid for one, _cell in found})
    for migration, cell in found:
        server = migration.instance_uuid
        living = [record for record, _cell in records.get(server, ())
                  if not record.deleted]
        untold = _is_untold(survey, migration, living)
        cut = _is_cut_short(survey, migration, living, cell)
        if server in owned or not survey.complete or not (
                cut or untold or not living or
                _is_forgotten(migration, living)):
            continue
        gone = cut and living[0].host == migration.dest_compute
        yield findings.Finding(
            kind=MIGRATION, subject=migration.uuid, server=server,
            project=living[0].project_id if living else migration.project_id,
            since=survey_module.touched(migration),
            what='migration %s of server %s is %s, and nobody moves it' % (
                migration.uuid, server, migration.status),
            why='the server is in no task any more, and nobody ended it'
                if living else 'the server was deleted on the way',
            remedy='end it, and give the server back what it held'
                   if living and not gone else 'end it, free what it holds',
            safe=cut or untold or not living,
            state=(migration.status, survey_module.touched(migration),
                   *((record.host, record.vm_state) for record in living)),
            details={'group': migration.uuid, 'server': server,
                     'cell': cell.uuid,
                     'there': gone and migration.is_live_migration,
                     'computes': _computes(migration) if cut else []})


def _computes(migration: Any) -> list[str]:
    """Who may be at a move that was cut short."""
    if migration.is_live_migration:
        return [migration.source_compute]
    return sorted({migration.source_compute, migration.dest_compute} - {None})


def _is_cut_short(survey: _Survey, migration: Any, living: list[Any],
                  cell: Any) -> bool:
    """Whether a compute has taken the server out of a move, and no more.

    One that is started again takes its servers out of MIGRATING, RESIZE_PREP
    and RESIZE_MIGRATING, and leaves the migration records that are not
    running. If the destination of a live migration was done by then, the
    server is there. One that fails at a resize puts the server into ERROR
    first; then the database may be away.
    """
    if len(living) != 1 or living[0].task_state is not None:
        return False
    record = living[0]
    hosts = [migration.source_compute, migration.dest_compute]
    going_on: tuple[str, ...] = _GOES_ON
    calls = 1
    if not migration.is_live_migration:
        # Its destination asks for more, one by one, before it sends it on.
        calls = _CALLS
        going_on = (*_RESIZED, vm_states.ERROR)
        if record.vm_state != vm_states.ERROR:
            hosts = [migration.source_compute]
    return (record.vm_state in going_on and record.host in hosts and
            all(builds.has_given_up(row, calls)
                for row in (migration, record)) and
            (migration.is_live_migration or
             resizes.is_let_go(survey, migration, record, cell)) and
            not _is_reset(survey, record.uuid, cell))


def _is_untold(survey: _Survey, migration: Any, living: list[Any]) -> bool:
    """Whether the flow of a move has failed before it told any compute.

    What it had done it could not undo: placement was away for longer than it
    tries.
    """
    if not (len(living) == 1 and living[0].task_state is None and
            migration.status in moves.TO_BE_TOLD and
            living[0].host == migration.source_compute):
        return False
    began = survey_module.seconds(migration.created_at)
    return any(
        flow.state == taskflow_states.FAILURE and
        flow.finished_at is not None and
        flow.created_at - moves.SKEW <= began <= flow.finished_at and
        not any(step.task and step.task.startswith('Cast')
                for step in queries.steps(survey.db, flow.uuid))
        for flow in queries.flows(survey.db, limit=10,
                                  subject=migration.instance_uuid))


def _is_reset(survey: _Survey, uuid: str, cell: Any) -> bool:
    """Whether people took the server's task state away, with all else on."""
    def work(context: Any, _cell: Any) -> Iterator[bool]:
        yield from (action.action == instance_actions.RESET_STATE for action
                    in objects.InstanceActionList.get_by_instance_uuid(
                        context, uuid, limit=10))
    return any(survey.in_cells(work, [cell]))


def _is_forgotten(migration: Any, living: list[Any]) -> bool:
    """Whether nobody is at a move any more that its record says is on."""
    since = survey_module.now() - moves.PATIENCE
    return (migration.migration_type != 'evacuation' and
            len(living) == 1 and living[0].task_state is None and
            living[0].vm_state != vm_states.RESIZED and
            all((survey_module.touched(row) or 0) <= since
                for row in (migration, living[0])))
