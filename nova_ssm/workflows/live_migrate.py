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

"""Live migrations: to a host of the scheduler's choice, or a forced one."""

from collections.abc import Iterable
from typing import Any
import uuid

from nova import context as nova_context
from nova import objects

from nova_ssm import compat
from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm.flows import live_migrate as flows
from nova_ssm import keys
from nova_ssm import plugins
from nova_ssm.tasks import abandoned_moves


class LiveMigrate(plugins.Workflow):
    """Moves servers while they run.

    It stands behind both RPC methods that Nova has for it: their decorators
    target the cell of the server and keep the action's event.
    """

    methods = ('_live_migrate',)

    def flow_types(self) -> Iterable[registry.FlowType]:
        return flows.flow_types(self.manager)

    def _live_migrate(self, context: nova_context.RequestContext,
                      instance: objects.Instance,
                      scheduler_hint: dict[str, Any],
                      block_migration: bool | None,
                      disk_over_commit: bool | None,
                      request_spec: objects.RequestSpec | None) -> None:
        destination = scheduler_hint.get('host')
        outcome = self.begin(journal.FlowRequest(
            uuid=keys.move(keys.LIVE_MIGRATE, instance.uuid,
                           context.request_id),
            name='live_migrate_forced' if destination else 'live_migrate',
            context=context, subject=instance.uuid,
            project_id=instance.project_id, user_id=instance.user_id,
            request_id=context.request_id,
            store={'instance': instance,
                   # One that goes on finds the record that was created.
                   'migration_uuid': str(uuid.uuid4()),
                   'destination': destination,
                   'block_migration': block_migration,
                   'disk_over_commit': disk_over_commit,
                   'request_spec': request_spec,
                   'owner': instance.project_id}))
        if outcome is not None and outcome.failure is not None:
            raise compat.live_migration_error(outcome.failure)

    def on_worker_death(self, worker_id: str) -> None:
        """Have servers looked after whose computes were calling it."""
        self.look_after('end_abandoned_live_migrations', worker_id,
                        abandoned_moves.LIVE_FLOWS)
