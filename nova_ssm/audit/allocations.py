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

"""Allocations in placement that nobody needs, on computes."""

from collections.abc import Collection, Iterator
import dataclasses
import itertools
from typing import Any

from nova.compute import vm_states
from nova import objects

from nova_ssm.audit import builds
from nova_ssm.audit import findings
from nova_ssm.audit import survey as survey_module

ORPHAN, MISPLACED = 'orphan-allocation', 'misplaced-allocation'

#: Migration records in these hold nothing any more.
OVER = ('completed', 'error', 'failed', 'cancelled', 'reverted',
        'confirmed', 'done')
#: Migration records in these are over, and were in vain.
FAILED = ('error', 'failed', 'cancelled')
#: While an evacuation has one of these, what the server holds on the host
#: that it has left is for that host to free, when it comes back.
_LEAVING = ('accepted', 'pre-migrating', 'done')
#: Servers in these hold something in one place only.
_SETTLED = (vm_states.ACTIVE, vm_states.STOPPED, vm_states.PAUSED,
            vm_states.SUSPENDED, vm_states.ERROR, vm_states.RESCUED,
            vm_states.SHELVED)
#: A compute that a dead conductor did not answer ends the migration of a
#: server that another one has resized. Who looks after the servers of the dead
#: one lets it go on, and needs what it holds: so many answers later at most.
_CALLS = 2
#: Servers in these can be live migrated.
_LIVE = (vm_states.ACTIVE, vm_states.PAUSED)

_Survey = survey_module.Survey


@dataclasses.dataclass(frozen=True)
class Node:
    """A compute node, which is a resource provider."""

    host: str
    name: str


@dataclasses.dataclass
class _Consumer:
    """Who holds something, and what Nova knows of it.

    :ivar held: resources by provider
    :ivar trace: how Nova knows that it is over
    :ivar give_back: whether the server needs what the migration holds
    """

    uuid: str
    held: dict[str, dict[str, int]]
    records: list[Any] = dataclasses.field(default_factory=list)
    lives: bool = False
    trace: str | None = None
    server: str | None = None
    project: str | None = None
    migration: Any = None
    give_back: bool = False


def orphans(survey: _Survey, only: Collection[str] | None = None
            ) -> Iterator[findings.Finding]:
    """What is held on computes by who is no server or migration any more.

    Only the providers of computes are looked at, and what belongs to them:
    others use placement too. The conductors ask for those moves only that
    have failed lately.
    """
    if only is None and not survey.thorough:
        only = {migration.uuid for migration, _cell in survey.migrations(
            FAILED, deleted=True, **survey.lately(survey_module.LATELY))}
    if only is not None and not only:
        return
    nodes = nodes_of(survey)
    consumers = _consumers(survey, nodes, only)
    _look_up(survey, nodes, consumers)
    if not survey.complete:
        return      # they may be in a cell that could not be read
    owned = survey.owned({uuid for one in consumers.values() for uuid in
                          (one.uuid, one.server) if uuid})
    for uuid, one in sorted(consumers.items()):
        if not (one.lives or uuid in owned or one.server in owned):
            yield _orphan(one, nodes)


def _orphan(one: _Consumer, nodes: dict[str, Node]) -> findings.Finding:
    remedy = 'remove the allocations (the journal keeps what they were)'
    if one.give_back:
        remedy = 'give them back to the server, which holds nothing else'
    return findings.Finding(
        kind=ORPHAN, subject=one.uuid, server=one.server,
        project=one.project,
        what='consumer %s holds %s on %s' % (
            one.uuid, _resources(one.held), _places(one.held, nodes)),
        why=one.trace or 'Nova does not know it: it was deleted and '
        'archived, or it belongs to somebody else',
        remedy=remedy, safe=one.trace is not None and (
            not one.give_back or _goes_on(one)),
        state=_state(one.held),
        details={'group': one.uuid, 'server': one.server,
                 'migration': one.migration.uuid if one.give_back else None,
                 'cell': one.records[0][1].uuid if one.give_back else None})


def _goes_on(one: _Consumer) -> bool:
    """Whether the server goes on where it was before its live migration.

    One in ERROR may be at either of its hosts.
    """
    return (one.migration.is_live_migration and
            one.records[0][0].vm_state in _LIVE)


def misplaced(survey: _Survey, only: Collection[str] | None = None
              ) -> Iterator[findings.Finding]:
    """What servers hold on computes where they are not."""
    nodes = nodes_of(survey)
    consumers = {uuid: one for uuid, one in
                 _consumers(survey, nodes, only).items()
                 if len(nodes.keys() & one.held) > 1 or only is not None}
    _look_up(survey, nodes, consumers)
    if not survey.complete:
        return
    settled = {uuid: one for uuid, one in consumers.items()
               if one.lives and len(one.records) == 1 and
               is_settled(survey, one.records[0][0])}
    owned = survey.owned(settled)
    for uuid, one in sorted(settled.items()):
        record, cell = one.records[0]
        extra = sorted(
            root for root in nodes.keys() & one.held
            if (nodes[root].host, nodes[root].name) != (record.host,
                                                        record.node))
        if uuid in owned or not extra or is_moving(survey, uuid, cell):
            continue
        yield findings.Finding(
            kind=MISPLACED, subject=uuid, server=uuid,
            project=record.project_id, since=survey_module.touched(record),
            what='server %s is on %s, but holds %s' % (
                uuid, record.host, _places(extra, nodes)),
            why='a move of it has ended without freeing one of its places',
            remedy='remove what it holds where it is not',
            safe=False,
            state=(record.host, record.vm_state, record.task_state,
                   *_state(one.held)),
            details={'group': uuid, 'roots': extra})


def is_settled(survey: _Survey, record: Any) -> bool:
    """Whether a server is on one host, and nobody works on it."""
    return bool(record.host and record.task_state is None and
                record.vm_state in _SETTLED and survey.is_old(record))


def is_moving(survey: _Survey, uuid: str, cell: Any) -> bool:
    """Whether a migration record says that a server is on its way."""
    def work(context: Any, _cell: Any) -> Iterator[bool]:
        for migration in objects.MigrationList.get_by_filters(
                context, {'instance_uuid': uuid}):
            yield (migration.status not in OVER or
                   migration.migration_type == 'evacuation' and
                   migration.status in _LEAVING or
                   not survey.is_old(migration))
    return any(survey.in_cells(work, [cell])) or not survey.complete


def _state(held: dict[str, dict[str, int]]) -> tuple[Any, ...]:
    return tuple(sorted((provider, *sorted(resources.items()))
                        for provider, resources in held.items()))


def _resources(held: dict[str, dict[str, int]]) -> str:
    return ', '.join(sorted({'%s %s' % (amount, name)
                             for resources in held.values()
                             for name, amount in resources.items()}))


def _places(providers: Collection[str], nodes: dict[str, Node]) -> str:
    return ', '.join(sorted('resources of %s' % nodes[uuid].host
                            if uuid in nodes else 'provider %s' % uuid
                            for uuid in providers))


def nodes_of(survey: _Survey) -> dict[str, Node]:
    """The compute nodes of all cells, by the uuid of their providers."""
    def work(context: Any, _cell: Any) -> Iterator[tuple[str, Node]]:
        for node in objects.ComputeNodeList.get_all(context):
            yield node.uuid, Node(node.host, node.hypervisor_hostname)
    return dict(survey.in_cells(work, [cell for cell in survey.cells
                                       if not cell.is_cell0()]))


def _consumers(survey: _Survey, nodes: dict[str, Node],
               only: Collection[str] | None) -> dict[str, _Consumer]:
    """Who holds what on computes."""
    found: dict[str, _Consumer] = {}

    def note(consumer: str, provider: str, resources: dict[str, int]) -> None:
        one = found.setdefault(consumer, _Consumer(consumer, {}))
        one.held[provider] = resources

    if only is not None:
        for consumer in only:
            held = survey.report.get_allocs_for_consumer(
                survey.context, consumer).get('allocations') or {}
            for provider, one in held.items():
                note(consumer, provider, one['resources'])
        return found
    for provider in _providers(survey, nodes):
        allocations = survey.report.get_allocations_for_resource_provider(
            survey.context, provider).allocations
        for consumer, one in allocations.items():
            note(consumer, provider, one['resources'])
    return found


def _providers(survey: _Survey, nodes: dict[str, Node]) -> Iterator[str]:
    """The providers of computes, and those below them."""
    found = [provider['uuid'] for provider in survey.report.get(
        '/resource_providers', version='1.14',
        global_request_id=survey.context.global_id
    ).json()['resource_providers']
        if provider['root_provider_uuid'] in nodes]
    for number, uuid in zip(itertools.count(1), found, strict=False):
        yield uuid
        if number % 100 == 0:
            survey.say('placement: looked at %d of %d resource providers'
                       % (number, len(found)))


def _look_up(survey: _Survey, nodes: dict[str, Node],
             consumers: dict[str, _Consumer]) -> None:
    """Put down what Nova knows of consumers."""
    for uuid, records in survey.records(consumers).items():
        _note_server(survey, consumers[uuid], records)
    rest = {uuid for uuid, one in consumers.items() if not one.records}
    for some in survey_module.batched(rest):
        # Of servers that are being built, and have no record yet.
        for mapping in objects.InstanceMappingList.get_by_instance_uuids(
                survey.context, list(some)):
            consumers[mapping.instance_uuid].lives = (
                not mapping.queued_for_delete)

        def work(context: Any, _cell: Any,
                 some: Collection[str] = some) -> Iterator[Any]:
            yield from objects.MigrationList.get_by_filters(
                context.elevated(read_deleted='yes'), {'uuid': list(some)})

        for migration in survey.in_cells(work):
            consumers[migration.uuid].migration = migration
    moved = {one.migration.instance_uuid: one for one in consumers.values()
             if one.migration is not None}
    records_of = survey.records(moved)
    for uuid, one in moved.items():
        _note_migration(survey, nodes, one, records_of.get(uuid, []))


def _note_server(survey: _Survey, one: _Consumer,
                 records: list[Any]) -> None:
    record = records[0][0]
    one.records = [(record, cell) for record, cell in records
                   if not record.deleted]
    # Who has deleted it may be about to free it.
    one.lives = bool(one.records) or not survey.is_old(record)
    one.records = one.records or records
    one.server, one.project = record.uuid, record.project_id
    one.trace = 'it is the server of that id, which is deleted'


def _note_migration(survey: _Survey, nodes: dict[str, Node], one: _Consumer,
                    records: list[Any]) -> None:
    migration = one.migration
    one.server = migration.instance_uuid
    one.trace = 'it is a migration of server %s, which is over (%s)' % (
        migration.instance_uuid, migration.status)
    # With a server its migrations are deleted, whatever their status.
    one.lives = (not survey.is_old(migration) or
                 not migration.deleted and migration.status not in OVER)
    one.records = [(record, cell) for record, cell in records
                   if not record.deleted]
    if not one.records:
        return
    record = one.records[0][0]
    one.project = record.project_id
    if (record.task_state is not None or not survey.is_old(record) or
            record.vm_state == vm_states.ERROR and
            not builds.has_given_up(migration, _CALLS)):
        one.lives = True        # somebody works on the server
        return
    held = survey.report.get_allocs_for_consumer(
        survey.context, record.uuid).get('allocations') or {}
    here = {uuid for uuid, node in nodes.items()
            if (node.host, node.name) == (record.host, record.node)}
    one.give_back = not here & held.keys() and bool(here & one.held.keys())
