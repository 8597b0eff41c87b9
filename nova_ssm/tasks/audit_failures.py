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

"""How users are told of failures that nobody has told them of."""

from nova.compute import instance_actions
from nova.compute import utils as compute_utils
from nova import exception
from oslo_log import log as logging

from nova_ssm.audit import failures
from nova_ssm.tasks import audit_steps
from nova_ssm.tasks import base
from nova_ssm.tasks import moves
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

_SILENT = ('nova-compute has ended it without saying why, as it does when it '
           'is started again meanwhile')


class TellFailure(audit_steps.Look):
    """Give a server the fault that it lacks, and end its last action.

    Does nothing if somebody has touched the server meanwhile. The fault
    comes last: until it is there, the finding is.

    Recovery: finish it; the user is not told twice.
    """

    def execute(self, context: types.Context,
                details: types.Properties | None) -> None:
        if details is None:
            return
        uuid = details['group']
        with audit_steps.server_of(context, details) as (cctxt, instance):
            if (instance is None or instance.task_state is not None or
                    instance.vm_state != details['vm_state'] or
                    failures.is_told(cctxt, uuid, details['began']) or
                    self.survey().owned([uuid])):
                LOG.info('Nobody has to be told', instance_uuid=uuid)
                return
            owner = audit_steps.context_of(cctxt, instance,
                                           details['request_id'])
            exc = error(uuid, details['action'])
            moves.close_events(owner, uuid, exc, of_computes=True)
            base.while_handling(
                exc, compute_utils.add_instance_fault_from_exc, owner,
                instance, exc)


def error(uuid: str, action: str) -> exception.NovaException:
    """Why an action has failed whose compute has not said that."""
    if action == instance_actions.CREATE:
        return exception.BuildAbortException(instance_uuid=uuid,
                                             reason=_SILENT)
    if action == instance_actions.DELETE:
        return exception.InstanceTerminationFailure(reason=_SILENT)
    return exception.MigrationError(reason=_SILENT)
