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

"""Builds that nobody works on."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any

from nova.compute import instance_actions
from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
from nova import objects
from oslo_config import cfg

from nova_ssm.audit import findings
from nova_ssm.audit import survey as survey_module
from nova_ssm.engine import queries
from nova_ssm.engine import states
from nova_ssm import keys

CONF = cfg.CONF

LOST, STUCK = 'lost-build', 'stuck-build'

#: The flow that owns all servers of a request until each has its own.
PARENT = 'schedule_and_build_instances'

#: The event of a compute that builds, in the action of a server.
_BUILDS = 'compute__do_build_and_run_instance'
#: Seconds after which a build that has not changed does not keep a compute
#: from others any more.
PATIENCE = 600.0

_Survey = survey_module.Survey


def lost(survey: _Survey, only: Collection[str] | None = None
         ) -> Iterator[findings.Finding]:
    """Servers that were asked for and have not come to a cell.

    Their build requests are there, and no flow works on them: the conductor
    that took the request from its queue died before its first row, or it
    was Nova's own and died on the way.

    :param only: these servers, with those of the same requests
    """
    groups: dict[Any, list[objects.BuildRequest]] = {}
    for request in objects.BuildRequestList.get_all(survey.context):
        groups.setdefault((request.project_id,
                           request.instance.reservation_id),
                          []).append(request)
    chosen = [group for group in groups.values()
              if all(survey.is_old(request) for request in group) and (
                  only is None or
                  any(request.instance_uuid in only for request in group))]
    uuids = _uuids(request for group in chosen for request in group)
    owned = survey.owned(uuids)
    chosen = [group for group in chosen
              if not owned.intersection(_uuids(group))]
    records = survey.records(_uuids(r for group in chosen for r in group),
                             deleted=False)
    if not survey.complete:
        return      # the record may be in a cell that could not be read
    for group in chosen:
        yield from _lost_of(survey, group, records)


def _uuids(requests: Iterable[objects.BuildRequest]) -> set[str]:
    return {request.instance_uuid for request in requests}


def _lost_of(survey: _Survey, group: list[objects.BuildRequest],
             records: dict[str, list[Any]]) -> Iterator[findings.Finding]:
    """The servers of one request."""
    first = _first_of(survey, group)
    project = group[0].project_id
    if first is None and queries.project_unfinished(survey.db, project,
                                                    PARENT):
        return      # perhaps of the server that was deleted meanwhile
    if first is not None and survey.owned([first]):
        return
    servers = sorted(_uuids(group))
    if any(record.host for uuid in servers
           for record, _cell in records.get(uuid, ())):
        return      # a compute has one of them
    details = {'servers': servers, 'group': first or servers[0],
               'fence': keys.build(first) if first else None}
    safe = first is not None and not _was_killed(survey, {first, *servers})
    for request in group:
        uuid = request.instance_uuid
        known = records.get(uuid, [])
        yield findings.Finding(
            kind=LOST, subject=uuid, server=uuid, project=project,
            since=survey_module.touched(request),
            what='server %s waits to be built, and nobody works on it'
                 % uuid,
            why=_why(survey, uuid, known),
            remedy='put it into ERROR with a fault, so that its user can '
                   'delete it and create it anew',
            safe=safe,
            state=(request.id, *_states(known)), details=details)


def _was_killed(survey: _Survey, servers: Collection[str]) -> bool:
    """Whether people gave the build up: they say how it ends, too."""
    return any(flow.state == states.KILLED for server in servers
               for flow in queries.flows(survey.db, subject=server))


def _first_of(survey: _Survey, group: list[objects.BuildRequest]
              ) -> str | None:
    """The server that the flow of a request is named after.

    Its build request, or its record; None if both are gone.
    """
    for request in group:
        if request.instance.launch_index == 0:
            return request.instance_uuid
    known = survey.find({'project_id': group[0].project_id,
                         'reservation_id': group[0].instance.reservation_id},
                        read_deleted=True)
    return next((record.uuid for record, _cell in known
                 if record.launch_index == 0), None)


def _states(records: list[Any]) -> Iterator[tuple[Any, ...]]:
    for record, cell in records:
        yield (cell.uuid, record.vm_state, record.task_state,
               survey_module.touched(record))


def _why(survey: _Survey, uuid: str, records: list[Any]) -> str:
    flows = queries.flows(survey.db, subject=uuid, limit=1)
    if flows:
        return 'flow %s of it has ended in state %s%s' % (
            flows[0].uuid, flows[0].state,
            ' (%s)' % flows[0].failure if flows[0].failure else '')
    if records:
        return ('the conductor died that had put its record into cell %s, '
                'and it was not one that keeps a journal'
                % (records[0][1].name or records[0][1].uuid))
    return 'the request was lost with a conductor, or in the message queue'


def stuck(survey: _Survey, only: Collection[str] | None = None
          ) -> Iterator[findings.Finding]:
    """Servers in a cell that wait for a host that will not come.

    The conductor died between the server's record and the word to a
    compute, or with the request to try another host; or a compute that was
    calling it has given the build up without a word.
    """
    found = {record.uuid: (record, cell)
             for filters in _where_to_look(survey, only)
             for record, cell in survey.find({'deleted': False} | filters)
             if record.vm_state == vm_states.BUILDING and
             survey.is_old(record) and
             record.task_state in (
                 (None,) if record.host else (task_states.SCHEDULING, None))}
    owned = survey.owned(found)
    for uuid, (record, cell) in found.items():
        if uuid in owned or _is_asked_for(survey, uuid):
            continue
        failed = record.task_state is None and _has_failed(survey, record,
                                                           cell)
        if record.host and not failed:
            continue        # its compute has it
        held = survey.report.get_allocs_for_consumer(
            survey.context, uuid).get('allocations') or {}
        host = host_of(survey, held, cell) if held else None
        if held and host is None:
            continue        # not what a build holds
        if not (failed or _is_left(survey, record, cell, host)):
            continue
        # Its compute may come to it after all, and will need that.
        kept = bool(record.host or host and not failed)
        yield findings.Finding(
            kind=STUCK, subject=uuid, server=uuid,
            project=record.project_id,
            since=survey_module.touched(record),
            what='server %s waits for a host, and nobody looks for one'
                 % uuid,
            why=_why_stuck(host, failed),
            remedy='put it into ERROR with a fault; ' + (
                'what it holds is freed with it' if kept else
                'free what it holds'),
            safe=True,
            state=(record.vm_state, record.task_state, record.host,
                   survey_module.touched(record), tuple(sorted(held))),
            details={'cell': cell.uuid, 'group': uuid,
                     'task_state': record.task_state, 'kept': kept,
                     'host': record.host,
                     'computes': [host] if host and not failed else []})


def _where_to_look(survey: _Survey, only: Collection[str] | None
                   ) -> Iterator[dict[str, Any]]:
    """What to ask the cells for."""
    if only is not None:
        yield {'uuid': sorted(only)}
    elif survey.thorough:
        yield {'vm_state': vm_states.BUILDING}
    else:
        yield {'task_state': task_states.SCHEDULING}
        yield {'task_state': None, 'vm_state': vm_states.BUILDING,
               **survey.lately()}


def _why_stuck(host: str | None, failed: bool) -> str:
    if failed:
        return ('its compute has failed, and then failed to say so or to '
                'have another one tried')
    if host:
        return ('compute %s was chosen, but it was not told, or it has '
                'given up' % host)
    return ('it holds nothing on any host, and the request to try it on the '
            'next one was lost')


def _is_left(survey: _Survey, record: Any, cell: Any, host: str | None
             ) -> bool:
    """Whether no compute will come to a build, as far as can be seen."""
    if host is None:
        return (record.task_state == task_states.SCHEDULING or
                has_given_up(record))
    # In no task, a compute has begun, and claims for it.
    return (has_given_up(record, 1 if record.task_state else 2) and
            _is_idle(survey, cell, host))


def _has_failed(survey: _Survey, record: Any, cell: Any) -> bool:
    """Whether the compute itself has ended the build, with an error.

    It has the next host tried before it ends, and puts a server into ERROR
    itself. If something else has failed while it did, such as placement that
    should free the host, or the database, it only takes its hands off it.
    """
    def work(context: Any, _cell: Any) -> Iterator[bool]:
        for action in objects.InstanceActionList.get_by_instance_uuid(
                context, record.uuid):
            if action.action == instance_actions.CREATE:
                yield from (event.result == 'Error' for event in
                            objects.InstanceActionEventList.get_by_action(
                                context, action.id)
                            if event.event == _BUILDS and
                            record.host in (None, event.host))
    return any(survey.in_cells(work, [cell]))


def _is_asked_for(survey: _Survey, uuid: str) -> bool:
    """Whether it is a matter of :func:`lost`."""
    try:
        objects.BuildRequest.get_by_instance_uuid(survey.context, uuid)
    except exception.BuildRequestNotFound:
        return False
    return True


def host_of(survey: _Survey, held: dict[str, Any], cell: Any) -> str | None:
    """The compute whose resources a consumer holds.

    :param held: what it holds, by provider
    """
    def work(context: Any, _cell: Any) -> Iterator[str]:
        for provider in sorted(held):
            try:
                yield objects.ComputeNode.get_by_uuid(context, provider).host
            except exception.ComputeHostNotFound:
                continue
    return next(survey.in_cells(work, [cell]), None)


def has_given_up(row: Any, calls: int = 1) -> bool:
    """Whether a compute does not wait any more for a conductor's answer.

    :param calls: how many answers it may have waited for, one by one
    """
    since = survey_module.touched(row) or 0
    return since <= survey_module.now() - longest(calls)


def longest(calls: int = 1) -> float:
    """Seconds that a compute waits for answers at most.

    :param calls: how many it may wait for, one by one
    """
    return float(calls * (CONF.rpc_response_timeout + 10))


def _is_idle(survey: _Survey, cell: Any, host: str) -> bool:
    """Whether a compute would have begun to build by now.

    A build that waits for a slot shows nowhere; but then others build.
    """
    def work(context: Any, _cell: Any) -> Iterator[bool]:
        service = objects.Service.get_by_compute_host(context, host)
        yield is_up(service) and not any(
            other.vm_state == vm_states.BUILDING and
            (survey_module.touched(other) or 0) >
            survey_module.now() - PATIENCE for other in
            objects.InstanceList.get_by_host(context, host,
                                             expected_attrs=[]))
    try:
        return any(survey.in_cells(work, [cell]))
    except exception.NotFound:
        return False


def is_up(service: objects.Service) -> bool:
    """Whether a service has said lately that it is there."""
    seen = service.last_seen_up or service.created_at
    return (not service.forced_down and seen is not None and
            survey_module.seconds(seen) >
            survey_module.now() - CONF.service_down_time)
