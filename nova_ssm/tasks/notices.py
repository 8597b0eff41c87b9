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

"""Notifications of failures: sent once or more, if a conductor dies.

Nova's helper writes the state of the server, then its fault, then it tells
those who listen. A conductor that dies in between has told its user, but not
them. Who goes on finds the fault, and sends the notifications again: whether
they went out is not to be seen.
"""

from typing import Any

from nova.compute import utils as compute_utils
from nova import rpc

from nova_ssm.tasks import base
from nova_ssm.tasks import types

_SERVICE = 'compute_task'


def send_again(context: types.Context, instance: types.Instance, method: str,
               exc: BaseException, request_spec: Any) -> None:
    """Send what ``set_vm_state_and_notify`` sends, and do nothing else.

    :param context: targeted at the cell of the server
    :param instance: as it is now
    :param method: that has failed
    :param request_spec: an object, a dictionary as of old, or None
    """
    request_spec = request_spec or {}
    if not isinstance(request_spec, dict):
        request_spec = request_spec.to_legacy_request_spec_dict()
    state = instance.vm_state
    rpc.get_notifier(_SERVICE).error(
        context, '%s.%s' % (_SERVICE, method), {
            'request_spec': request_spec, 'instance_id': instance.uuid,
            'instance_properties': request_spec.get('instance_properties',
                                                    {}),
            'state': state, 'method': method, 'reason': exc})
    base.while_handling(
        exc, compute_utils.notify_about_compute_task_error, context, method,
        instance.uuid, request_spec, state, exc)
