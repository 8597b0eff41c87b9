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

"""What differs between releases of Nova, and what it keeps to itself.

The only place where a release may be told from another.
"""

from typing import Any

from nova.accelerator import cyborg
from nova.compute import rpcapi as compute_rpcapi
from nova.conductor import rpcapi as conductor_rpcapi
from nova import context as nova_context
from nova import exception
from nova.i18n import _
from nova import objects
from nova import rpc
from nova import service_auth
from nova import utils
from oslo_log import log as logging
import oslo_messaging as messaging

LOG = logging.getLogger(__name__)


def ping_compute(context: nova_context.RequestContext, host: str,
                 timeout: float,
                 topic: str = compute_rpcapi.RPC_TOPIC) -> bool:
    """Ask a nova-compute for an answer, through one of its queues.

    :param context: targeted at the compute's cell
    :param timeout: seconds to wait for it
    :param topic: of the queue, by default that of its builds
    :returns: False if it did not answer
    """
    # Nova's own baserpc.BaseAPI knows neither hosts nor cells.
    router = rpc.ClientRouter(rpc.get_client(messaging.Target(
        topic=topic, namespace='baseapi', version='1.0')))
    try:
        router.client(context).prepare(server=host, timeout=timeout).call(
            context, 'ping', arg='nova_ssm')
    except messaging.MessagingTimeout:
        return False
    return True


def resize_error(exc: BaseException, instance: objects.Instance,
                 flavor: objects.Flavor) -> BaseException:
    """What users see of the failure of a resize or cold migration."""
    if not isinstance(exc, exception.NoValidHost):
        return exc
    try:
        # Users read this line in the action's event.
        raise exception.NoValidHost(reason=no_host_reason(instance, flavor))
    except exception.NoValidHost as seen:
        return seen


def no_host_reason(instance: objects.Instance, flavor: objects.Flavor) -> str:
    """Nova's words for a server that cannot be resized, or moved."""
    if 'instance_type_id' in instance and (
            flavor.id == instance.instance_type_id):
        return _('No valid host found for cold migrate')
    return _('No valid host found for resize')


def alt_topic(api: compute_rpcapi.ComputeAPI,
              context: nova_context.RequestContext, host: str) -> str:
    """The topic of a compute's second queue, if it has one.

    Live migrations and the calls of a cross-cell resize go through it.

    :param api: Nova's client of the computes
    :param context: targeted at the compute's cell
    """
    # Since 2026.1 computes have a second queue, which they read while they
    # shut down; older ones, as told by the pinned RPC version, have not.
    prepare = getattr(api, 'prepare_for_alt_rpcserver', None)
    if prepare is None:
        return compute_rpcapi.RPC_TOPIC
    return prepare(api.router.client(context), server=host,
                   version='5.0').target.topic


def ping_alt(api: compute_rpcapi.ComputeAPI,
             context: nova_context.RequestContext, host: str,
             timeout: float) -> bool:
    """As :func:`ping_compute`, through the queue of :func:`alt_topic`."""
    return ping_compute(context, host, timeout, alt_topic(api, context, host))


#: Failures of a live migration after which the server goes on as before.
_HARMLESS = (
    exception.NoValidHost, exception.ComputeHostNotFound,
    exception.ComputeServiceUnavailable, exception.InvalidHypervisorType,
    exception.InvalidCPUInfo, exception.UnableToMigrateToSelf,
    exception.DestinationHypervisorTooOld, exception.InvalidLocalStorage,
    exception.InvalidSharedStorage, exception.HypervisorUnavailable,
    exception.InstanceInvalidState, exception.MigrationPreCheckError,
    exception.MigrationSchedulerRPCError)


def live_migration_error(exc: BaseException) -> BaseException:
    """What users see of the failure of a live migration.

    :returns: the same if Nova expects it, and leaves the server in its
        former state; else MigrationError, for a server in ERROR
    """
    if isinstance(exc, _HARMLESS):
        return exc
    try:
        raise exception.MigrationError(reason=str(exc))
    except exception.MigrationError as seen:
        return seen


def ask_conductor(context: nova_context.RequestContext,
                  timeout: float) -> str | None:
    """Ask who serves the queue of the conductors' tasks.

    :param timeout: seconds to wait for the answer
    :returns: the id of the worker that took the question; None if it is not
        one of ours
    :raises oslo_messaging.MessagingException: if nobody answers
    """
    client = rpc.get_client(messaging.Target(
        topic=conductor_rpcapi.RPC_TOPIC, namespace='compute_task',
        version='1.0'))
    try:
        return client.prepare(timeout=timeout).call(context, 'ssm_answer')
    except (messaging.RemoteError, messaging.RPCVersionCapError) as exc:
        LOG.debug('A conductor does not know the question: %s', exc)
        return None


def accelerator_client(context: nova_context.RequestContext) -> Any:
    """Nova's client of cyborg, for the service and not for a user.

    :returns: None if the cloud has no cyborg
    """
    # Nova itself always asks with the token of a user. [cyborg] has no
    # credentials; those of the service are in one of these.
    auth = next(filter(None, map(
        service_auth.get_service_auth_plugin, ('service_user', 'placement'))),
        None)
    client = cyborg.get_client(context)
    client._adapter = utils.get_sdk_adapter(
        'accelerator', admin=auth is None, ksa_auth=auth)
    return client if client._adapter.get_endpoint() else None
