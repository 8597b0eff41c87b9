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

"""How allocations are freed that nobody needs; and had again if need be."""

from typing import Any

from nova import exception
from oslo_log import log as logging

from nova_ssm.audit import survey
from nova_ssm.tasks import allocations
from nova_ssm.tasks import audit_steps
from nova_ssm.tasks import base
from nova_ssm.tasks import moves
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)


class KeepAllocations(base.NovaTask):
    """Put down in the journal what a consumer holds, before it is changed.

    Recovery: look again; nothing has been changed yet.
    """

    default_provides = 'held'

    def execute(self, context: types.Context, subject: str,
                details: types.Properties | None) -> types.Properties | None:
        if details is None:
            return None
        return self.manager.report_client.get_allocs_for_consumer(
            context, subject)

    def had_effect(self, result: Any) -> bool:
        # It has none; but the next task takes away what it has seen.
        return result is not None


class _ChangeAllocations(base.NovaTask):
    """Changes what a consumer holds; reverting, it has it again."""

    reversion = 'let the consumer hold it again'

    def revert(self, context: types.Context, subject: str,
               details: types.Properties | None,
               held: types.Properties | None, result: Any,
               flow_failures: types.Failures) -> None:
        if details is None or not held or not held.get('allocations'):
            return
        client = self.manager.report_client
        now = client.get_allocs_for_consumer(context, subject)
        if _resources(now) == _resources(held):
            return
        payload = {name: held[name] for name in
                   ('project_id', 'user_id', 'consumer_type')
                   if held.get(name)}
        payload['allocations'] = {
            provider: {'resources': one['resources']}
            for provider, one in held['allocations'].items()}
        payload['consumer_generation'] = now.get('consumer_generation')
        client.put_allocations(context, subject, payload)


def _resources(held: types.Properties) -> dict[str, Any]:
    return {provider: one['resources'] for provider, one in
            (held.get('allocations') or {}).items()}


class RemoveOrphan(_ChangeAllocations):
    """Remove what a consumer holds that Nova knows no more.

    What the migration of a server holds that holds nothing else on its host
    is given back to the server.

    Reversion strategy: let the consumer hold it again.
    Recovery: do it again; what is removed stays removed.
    """

    def execute(self, context: types.Context, subject: str,
                details: types.Properties | None,
                held: types.Properties | None) -> None:
        if details is None:
            return
        if details['migration'] is None:
            self.manager.report_client.delete_allocation_for_instance(
                context, subject, force=True)
            return
        with audit_steps.cell_of(context, details) as cctxt:
            migration = moves.record(cctxt, subject)
            instance = moves.current(cctxt, details['server'])
            if migration is not None and instance is not None:
                moves.give_back(self.manager, cctxt, instance, migration)


class RemoveMisplaced(_ChangeAllocations):
    """Remove what a server holds on computes where it is not.

    Reversion strategy: let the server hold it again.
    Recovery: do it again; what is removed stays removed.
    """

    def execute(self, context: types.Context, subject: str,
                details: types.Properties | None,
                held: types.Properties | None) -> None:
        for root in (details or {}).get('roots', ()):
            if root in allocations.held_by(self.manager, context, subject):
                self.manager.report_client.\
                    remove_provider_tree_from_instance_allocation(
                        context, subject, root)


class CheckOrphan(base.NovaTask):
    """See that nobody has come to need what was removed.

    :raises ConsumerAllocationRetrievalFailed: if somebody has: then it is
        held again
    """

    effect = False

    def execute(self, context: types.Context, subject: str,
                details: types.Properties | None) -> None:
        if details is None or details['migration'] is not None:
            return
        look = survey.Survey(self.manager.ssm.runner.db, 0,
                             lambda: self.manager.report_client)
        if look.owned([subject]) or look.records([subject], deleted=False):
            raise exception.ConsumerAllocationRetrievalFailed(
                consumer_uuid=subject,
                error='it is a server that came to life meanwhile')
