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

from nova.compute import rpcapi as compute_rpcapi
from nova import context as nova_context
from nova import rpc
import oslo_messaging as messaging


def ping_compute(context: nova_context.RequestContext, host: str,
                 timeout: float) -> bool:
    """Ask a nova-compute for an answer, through the queue of its builds.

    :param context: targeted at the compute's cell
    :param timeout: seconds to wait for it
    :returns: False if it did not answer
    """
    # Nova's own baserpc.BaseAPI knows neither hosts nor cells.
    router = rpc.ClientRouter(rpc.get_client(messaging.Target(
        topic=compute_rpcapi.RPC_TOPIC, namespace='baseapi', version='1.0')))
    try:
        router.client(context).prepare(server=host, timeout=timeout).call(
            context, 'ping', arg='nova_ssm')
    except messaging.MessagingTimeout:
        return False
    return True
