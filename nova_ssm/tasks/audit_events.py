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

"""How actions of servers end whose computes have not ended them."""

from nova import objects

from nova_ssm.audit import events
from nova_ssm.tasks import audit_failures
from nova_ssm.tasks import audit_steps
from nova_ssm.tasks import base
from nova_ssm.tasks import moves
from nova_ssm.tasks import types


class EndEvents(base.NovaTask):
    """End what is open of the actions of a server, as its compute would.

    With an error, unless the server shows that the action went well. A
    compute that ends one after all writes how it has ended.

    Recovery: end what is still open.
    """

    def execute(self, context: types.Context,
                details: types.Properties | None) -> None:
        if details is None:
            return
        with audit_steps.cell_of(context, details) as cctxt:
            for one in details['actions']:
                self._end(cctxt, details['group'], one)

    @staticmethod
    def _end(context: types.Context, uuid: str,
             one: types.Properties) -> None:
        action = objects.InstanceAction.get_by_request_id(
            context, uuid, one['request_id'])
        if action is None:
            return
        owner = audit_steps.context_of(context, action, action.request_id)
        still_open = events.names_of_open(
            objects.InstanceActionEventList.get_by_action(context, action.id))
        exc = audit_failures.error(uuid, action.action)
        for name in sorted({*still_open} & {*one['events']}):
            if one['well']:
                moves.close_event(owner, uuid, name)
            else:
                base.while_handling(exc, moves.close_event, owner, uuid, name)
