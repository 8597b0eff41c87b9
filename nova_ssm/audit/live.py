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

"""Live migrations that a compute has let go on its way, without a word."""

from collections.abc import Collection, Iterator
from typing import Any

from nova.compute import instance_actions
from nova.compute import task_states
from nova import objects

from nova_ssm.audit import builds
from nova_ssm.audit import findings
from nova_ssm.audit import moves
from nova_ssm.audit import survey as survey_module

STUCK = 'stuck-live-migration'

#: In these a source may have let go of a migration. One that is running it
#: ends itself, and it may run for hours.
_LEFT = ('accepted', 'queued', 'preparing', 'error')

_Survey = survey_module.Survey


def stuck(survey: _Survey, only: Collection[str] | None = None
          ) -> Iterator[findings.Finding]:
    """Servers in MIGRATING whose source has ended that, without a word.

    What it called meanwhile was away: a conductor, placement, neutron. When it
    has waited for that in vain, the server is left as it is.

    :param only: these servers
    """
    for move in moves.unowned(survey, only):
        newest = max(move.migrations, key=lambda one: one.id, default=None)
        if (newest is None or move.action is None or
                move.action.action != instance_actions.LIVE_MIGRATION or
                move.record.task_state != task_states.MIGRATING or
                moves.given_up(survey, move) or
                not _is_left(move, newest)):
            continue
        uuid, source = move.record.uuid, newest.source_compute
        volumes = _has_volumes(survey, uuid, move.cell)
        yield findings.Finding(
            kind=STUCK, subject=uuid, server=uuid,
            project=move.record.project_id, since=move.since,
            what='server %s is in task state %s with migration %s (%s), and '
                 'nobody migrates it' % (uuid, move.record.task_state,
                                         newest.uuid, newest.status),
            why='compute %s has let it go: what it called was away' % source,
            remedy='have the computes say that nobody is at it, give it back '
                   'what it held, leave it as it was',
            # Its volumes may be attached to the destination.
            safe=not (volumes and newest.status == 'error'),
            state=(*moves.state(move), survey_module.touched(newest)),
            details={'group': uuid, 'cell': move.cell.uuid,
                     'migration': newest.uuid, 'computes': [source]})


def _is_left(move: moves.Move, newest: Any) -> bool:
    """Whether the source has waited for any answer long enough."""
    began = survey_module.seconds(move.action.start_time)
    return (newest.is_live_migration and newest.status in _LEFT and
            newest.source_compute == move.record.host and
            survey_module.seconds(newest.created_at) >= began - moves.SKEW and
            builds.has_given_up(newest) and builds.has_given_up(move.record))


def _has_volumes(survey: _Survey, uuid: str, cell: Any) -> bool:
    def work(context: Any, _cell: Any) -> Iterator[bool]:
        yield from (disk.is_volume for disk in
                    objects.BlockDeviceMappingList.get_by_instance_uuid(
                        context, uuid))
    return any(survey.in_cells(work, [cell]))
