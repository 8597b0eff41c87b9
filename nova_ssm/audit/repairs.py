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

"""Has findings repaired: posts a flow for each, which any conductor runs."""

from collections.abc import Iterable

from nova import context as nova_context
from oslo_db import exception as db_exc
from oslo_log import log as logging

from nova_ssm.audit import findings
from nova_ssm.audit import kinds
from nova_ssm.engine import boards
from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm import keys

LOG = logging.getLogger(__name__)

#: Seconds after which a finding that is still there is repaired once more;
#: twice as many each time, up to about a day.
AGAIN = 30.0
_DOUBLED = 11


def post(board: boards.Board, found: Iterable[findings.Finding],
         db: database.Database,
         patient: bool = False) -> dict[tuple[str, str], str]:
    """Post the flows that repair findings, one for those of one request.

    All who post at the same time post the same flows: each is there once.

    :param patient: not so soon again, if it did not help
    :returns: the uuids of the flows, by kind and group of the findings
    """
    posted: dict[tuple[str, str], str] = {}
    for one in found:
        if one.group in posted:
            continue
        uuid = _post(board, one, one.group[1], db, patient)
        if uuid is not None:
            posted[one.group] = uuid
    return posted


def _post(board: boards.Board, one: findings.Finding, group: str,
          db: database.Database, patient: bool) -> str | None:
    kind = kinds.KINDS[one.kind]
    earlier = [flow for flow in queries.flows(db, subject=group, limit=1000)
               if flow.name == kind.flow]
    if earlier and earlier[0].finished_at is None:
        return earlier[0].uuid
    if earlier and patient and (
            queries.clock(db) - earlier[0].created_at <
            AGAIN * 2 ** min(len(earlier) - 1, _DOUBLED)):
        return None
    uuid = keys.repair(one.kind, group, len(earlier))
    request = journal.FlowRequest(
        name=kind.flow, subject=group, project_id=one.project, uuid=uuid,
        context=nova_context.get_admin_context(),
        store={'kind': one.kind, 'subject': one.subject, 'mark': one.mark,
               'flow_uuid': uuid})
    try:
        board.start(request, owner=None)
    except db_exc.DBDuplicateEntry:
        LOG.debug('Flow %s is posted already for %s', uuid, one.subject)
    else:
        LOG.warning('%s: %s. To %s: flow %s', one.what, one.why, one.remedy,
                    uuid)
    return uuid
