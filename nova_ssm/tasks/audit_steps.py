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

"""What all repairs of an audit's findings have in common."""

from collections.abc import Iterator
import contextlib
import copy
from typing import Any

from nova import context as nova_context
from nova import objects
from oslo_db import exception as db_exc
from oslo_log import log as logging

from nova_ssm.audit import certainty
from nova_ssm.audit import findings
from nova_ssm.audit import looks
from nova_ssm.audit import survey
from nova_ssm import compat
from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm import exception
from nova_ssm import keys
from nova_ssm.tasks import base
from nova_ssm.tasks import moves
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

#: The flows that stand for requests that were lost begin with this.
END = 'end_lost_'


class Look(base.NovaTask):
    """Looks at the cloud as it is now."""

    def survey(self) -> survey.Survey:
        """What a look reads with; old is what is there."""
        return survey.Survey(self.manager.ssm.runner.db, 0,
                             lambda: self.manager.report_client)

    @staticmethod
    def changed(what: str) -> exception.Uncertain:
        """The error of a finding that is none any more: it is undone."""
        return exception.Uncertain('%s meanwhile' % what)


class LookAgain(Look):
    """See whether a finding is still one, and has not changed since.

    Gives what the repair has to know, or None if there is nothing to be
    repaired any more.

    :raises Uncertain: if a compute that may be at it does not answer
    """

    effect = False
    default_provides = 'details'

    def execute(self, context: types.Context, kind: str, subject: str,
                mark: str) -> types.Properties | None:
        details = self._details(kind, subject, mark)
        if details is None:
            return None
        if not self._ask(context, details):
            return details
        # What was in somebody's hands has begun by now.
        return self._details(kind, subject, mark)

    def _ask(self, context: types.Context, details: types.Properties) -> bool:
        """Have the computes answer behind what they were told.

        :returns: whether anybody was asked
        """
        for host in details.get('computes', ()):
            self._ask_compute(context, details['cell'], host)
        return bool(details.get('computes'))

    def _ask_compute(self, context: types.Context, cell: str,
                     host: str) -> None:
        """Have a compute answer behind what it was sent before."""
        with cell_of(context, {'cell': cell}) as cctxt:
            if not (compat.ping_compute(cctxt, host, ANSWER) and
                    compat.ping_alt(self.manager.compute_rpcapi, cctxt, host,
                                    ANSWER)):
                raise exception.Uncertain(
                    'compute %s has not answered: it may have been told'
                    % host)

    def _details(self, kind: str, subject: str,
                 mark: str) -> types.Properties | None:
        found = self._look(kind, subject)
        if found is None or found.mark != mark:
            LOG.info('%s %s is none any more, nothing is repaired', kind,
                     subject)
            return None
        return found.details

    def _look(self, kind: str, subject: str) -> findings.Finding | None:
        return looks.again(self.survey(), kind, subject)


class MakeSure(LookAgain):
    """See too that no conductor has the request in its hands.

    :param inquiry: asks the conductors
    :raises Uncertain: if that cannot be said
    """

    def __init__(self, manager: types.Manager,
                 inquiry: certainty.Inquiry) -> None:
        super().__init__(manager)
        self._inquiry = inquiry

    def _ask(self, context: types.Context, details: types.Properties) -> bool:
        self._inquiry.make_sure(nova_context.get_admin_context(), PATIENCE)
        super()._ask(context, details)
        return True


class MakeSureOnce(MakeSure):
    """As that, before a repair after which the finding is none any more.

    What was found is kept: who goes on with a repair that has only half
    happened would find nothing to be repaired.

    Recovery: look again, nothing is changed yet.
    """

    effect = True
    reversion = 'nothing'

    def had_effect(self, result: types.Properties | None) -> bool:
        return result is not None


#: Seconds to ask the conductors: the lease of a dead one has to run out.
PATIENCE = 25.0
#: Seconds that a compute has to answer.
ANSWER = 5.0


class TakeRequest(base.NovaTask):
    """Begin, in the place of who has lost it, the request of a finding.

    The flow that ends the request has the id that the request's own would
    have. So either it is there, and a message that comes late finds it; or
    the request has begun after all, and is left alone.

    :param flow: the name of the flow that ends the request
    """

    def __init__(self, manager: types.Manager, flow: str) -> None:
        super().__init__(manager)
        self._flow = flow

    def execute(self, kind: str, details: types.Properties | None,
                flow_uuid: str) -> bool:
        if details is None:
            return False
        runner = self.manager.ssm.runner
        request = journal.FlowRequest(
            name=self._flow, store={'details': details},
            subject=details['group'], parent_uuid=flow_uuid,
            context=nova_context.get_admin_context(),
            version=runner.registry.get(self._flow).version,
            uuid=details['fence'] or keys.repair('end', flow_uuid, 0))
        try:
            runner.board.start(request, owner=None)
        except db_exc.DBDuplicateEntry:
            return self._meet(request, flow_uuid)
        return True

    def _meet(self, request: journal.FlowRequest, flow_uuid: str) -> bool:
        """Whether the flow that is there is one of ours."""
        runner = self.manager.ssm.runner
        there = queries.flow(runner.db, request.uuid)
        if there.finished_at is None:
            LOG.info('Request %s has begun: flow %s', request.uuid,
                     there.name)
            return there.name == self._flow
        # It is over, and has left what was found: the request's own flow,
        # or an earlier one of ours that failed.
        request.uuid = keys.repair('end', flow_uuid, 0)
        try:
            runner.board.start(request, owner=None)
        except db_exc.DBDuplicateEntry:
            LOG.debug('Flow %s is posted already', request.uuid)
        return True


@contextlib.contextmanager
def cell_of(context: types.Context, details: types.Properties
            ) -> Iterator[types.Context]:
    """A context for the cell of a finding.

    :raises CellMappingNotFound: if that is gone
    """
    cell = objects.CellMapping.get_by_uuid(context, details['cell'])
    with nova_context.target_cell(context, cell) as cctxt:
        yield cctxt


@contextlib.contextmanager
def server_of(context: types.Context, details: types.Properties
              ) -> Iterator[tuple[types.Context, types.Instance | None]]:
    """The server of a finding as it is now, None if gone, and its cell.

    :raises CellMappingNotFound: if that is gone
    """
    with cell_of(context, details) as cctxt:
        yield cctxt, moves.current(cctxt, details['group'])


def context_of(context: types.Context, server: Any,
               request_id: str | None = None) -> types.Context:
    """A context in which something is done for the owner of a server.

    :param request_id: of the request that it belongs to, by default its own
    """
    copied = copy.copy(context)
    copied.project_id, copied.user_id = server.project_id, server.user_id
    if request_id is not None:
        copied.request_id = request_id
    return copied
