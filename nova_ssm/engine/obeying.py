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

"""What becomes of a flow that people have steered, when it goes on."""

from oslo_log import log as logging

from nova_ssm.engine import database
from nova_ssm.engine import engine as engine_module
from nova_ssm.engine import exception
from nova_ssm.engine import journal
from nova_ssm.engine import loading
from nova_ssm.engine import orders
from nova_ssm.engine import registry as registry_module
from nova_ssm.engine import resuming

LOG = logging.getLogger(__name__)


def begin_again(registry: registry_module.Registry,
                loaded: loading.Loaded) -> None:
    """Set up what the request had set up, if that is still possible.

    :raises NotSteerable: if flows of this type cannot be begun again
    :raises Exception: if this one cannot
    """
    if loaded.order is not None:
        return      # it is cancelled before it has begun
    flow_type = registry.get(loaded.flow.name, loaded.flow.version)
    if flow_type.again is None:
        raise exception.NotSteerable(
            'a flow named %s that was reverted cannot be begun again, but '
            'by a new request: %s' % (loaded.flow.name, flow_type.instead))
    flow_type.again(journal.given(loaded.detail))


def renew(registry: registry_module.Registry,
          loaded: loading.Loaded) -> None:
    """Give a flow that was begun again what is new then."""
    if loaded.number:
        flow_type = registry.get(loaded.flow.name, loaded.flow.version)
        inputs = journal.given(loaded.detail)
        inputs.update(flow_type.renewed(inputs, loaded.number))


def cancellation(db: database.Database, registry: registry_module.Registry,
                 log: journal.FlowLog, engine: engine_module.Engine,
                 loaded: loading.Loaded) -> Exception | None:
    """What a flow fails with that is to be cancelled.

    If it cannot be any more, the order is answered.

    :returns: None if it goes on
    """
    order = loaded.order
    if order is None:
        return None
    late = resuming.too_late(engine, loaded)
    if late is None:
        LOG.info('Flow %s is cancelled, as ordered by %s', log.uuid,
                 order.why)
        return registry.get(loaded.flow.name, loaded.flow.version).cancelled(
            'cancelled by an operator' + (
                ': ' + order.reason if order.reason else ''))
    LOG.info('Flow %s cannot be cancelled any more: %s', log.uuid, late)
    log.ownership.obey(None)
    orders.answer(db, order, 'it cannot be cancelled any more: %s' % late)
    return None
