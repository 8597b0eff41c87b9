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

"""Resizes and cold migrations: of the API, or of a compute that failed."""

from collections.abc import Iterable
from typing import Any

from nova import context as nova_context
from nova import exception
from nova import objects

from nova_ssm import compat
from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm import exception as ssm_exc
from nova_ssm.flows import resize as flows
from nova_ssm import keys
from nova_ssm import plugins
from nova_ssm.tasks import abandoned_moves
from nova_ssm.tasks import callers


class Resize(plugins.Workflow):
    """Moves servers to another host, flavor, or both, within a cell or not.

    It stands behind Nova's RPC method ``migrate_server``, whose decorators
    target the cell of the server and keep the action's events.
    """

    methods = ('_cold_migrate',)

    def flow_types(self) -> Iterable[registry.FlowType]:
        return flows.flow_types(self.manager)

    def takes(self, method: str, *args: Any, **kwargs: Any) -> bool:
        """Leave to Nova what only computes older than Stein send."""
        return isinstance(kwargs['request_spec'], objects.RequestSpec)

    def _cold_migrate(self, context: nova_context.RequestContext,
                      instance: objects.Instance, flavor: objects.Flavor,
                      filter_properties: dict[str, Any],
                      clean_shutdown: bool,
                      request_spec: objects.RequestSpec,
                      host_list: list[objects.Selection] | None) -> None:
        store = {'instance': instance, 'flavor': flavor,
                 'filter_properties': filter_properties,
                 'clean_shutdown': clean_shutdown,
                 'request_spec': request_spec, 'owner': instance.project_id,
                 'caller': None}
        request = journal.FlowRequest(
            name='resize', context=context, subject=instance.uuid,
            project_id=instance.project_id, user_id=instance.user_id,
            request_id=context.request_id, store=store)
        if host_list is not None:
            # A request may come to several of them.
            request.name = 'reschedule_resize'
            store['host_list'] = list(host_list)
            # A compute waits for the end of it.
            store['caller'] = callers.caller(self.manager, instance)
        else:
            request.uuid = keys.move(keys.RESIZE, instance.uuid,
                                     context.request_id)
        outcome = self.begin(request)
        # A compute that is told so would put the server into ERROR.
        if outcome is None or isinstance(outcome.failure, ssm_exc.TooLate):
            return
        if isinstance(outcome.failure, exception.NoValidHost):
            # Users read this line in the action's event.
            raise exception.NoValidHost(
                reason=compat.no_host_reason(instance, flavor))
        outcome.reraise()

    def on_worker_death(self, worker_id: str) -> None:
        """Have servers looked after whose computes were calling it."""
        self.look_after('end_abandoned_resizes', worker_id,
                        abandoned_moves.RESIZE_FLOWS)
