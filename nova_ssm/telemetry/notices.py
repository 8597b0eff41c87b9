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

"""Notifications of flows, in the manner of Nova's versioned ones.

``ssm.flow.start``, ``.resume``, ``.end`` and ``.error`` go where Nova's go, by
its notifier. Sending waits for the message bus, so a thread does it; of a
conductor that dies the last ones may be missing, and whoever goes on with its
flows tells of that with ``.resume``.
"""

from collections.abc import Callable
from typing import Any

from nova import context as nova_context
from nova import rpc
from oslo_log import log as logging
from oslo_versionedobjects import base as ovo_base
from oslo_versionedobjects import fields

from nova_ssm.engine import events
from nova_ssm.engine import states
from nova_ssm.telemetry import mailbox

LOG = logging.getLogger(__name__)

#: How many notifications wait for a message bus that is away.
_WAITING = 10_000


@ovo_base.VersionedObjectRegistry.register_if(False)
class FlowPayload(ovo_base.VersionedObject):
    """What a notification tells of a flow.

    A consumer tells by the version which fields there are: a new field makes
    a new minor version.
    """

    # Version 1.0: Initial version
    VERSION = '1.0'
    OBJ_PROJECT_NAMESPACE = 'nova_ssm'
    OBJ_SERIAL_NAMESPACE = 'nova_ssm_object'

    fields = {
        'uuid': fields.UUIDField(),
        'name': fields.StringField(),
        'flow_version': fields.StringField(),
        'state': fields.StringField(),
        'subject': fields.StringField(nullable=True),
        'project_id': fields.StringField(nullable=True),
        'user_id': fields.StringField(nullable=True),
        'request_id': fields.StringField(nullable=True),
        'parent_uuid': fields.StringField(nullable=True),
        'host': fields.StringField(),
        'seconds': fields.FloatField(nullable=True),
        'failed_task': fields.StringField(nullable=True),
        'failure': fields.StringField(nullable=True),
    }


class Notices(events.Listener):
    """Sends a notification when a flow begins, goes on, ends or fails.

    :param host: of the service
    :param notifier: gives what sends; asked in the thread that sends
    """

    def __init__(self, host: str,
                 notifier: Callable[[], Any] | None = None) -> None:
        self._host = host
        self._notifier = notifier or self._nova
        self._mailbox = mailbox.Mailbox(
            'ssm-notifications', self._send, limit=_WAITING)

    def _nova(self) -> Any:
        return rpc.get_versioned_notifier('nova-conductor:%s' % self._host)

    def start(self) -> None:
        """Send what comes, from now on."""
        self._mailbox.start()

    def stop(self) -> None:
        """Send what is there, and end."""
        self._mailbox.stop()

    def flush(self) -> None:
        """Send what is there."""
        self._mailbox.deliver()

    def flow_began(self, flow: events.Flow, resumed: bool) -> None:
        self._post('resume' if resumed else 'start', flow, states.RUNNING)

    def flow_ended(self, flow: events.Flow, state: str, seconds: float,
                   failed_task: str | None, failure: str | None) -> None:
        self._post('end' if state == states.SUCCESS else 'error', flow,
                   state, seconds=seconds, failed_task=failed_task,
                   failure=failure)

    def _post(self, phase: str, flow: events.Flow, state: str,
              **known: Any) -> None:
        told: dict[str, Any] = {'seconds': None, 'failed_task': None,
                                'failure': None, **known}
        self._mailbox.post((phase, flow, FlowPayload(
            uuid=flow.uuid, name=flow.name, flow_version=flow.version,
            state=state, subject=flow.subject, project_id=flow.project_id,
            user_id=flow.user_id, request_id=flow.request_id,
            parent_uuid=flow.parent_uuid, host=self._host, **told)))

    def _send(self, batch: list[tuple[str, events.Flow, FlowPayload]]
              ) -> None:
        notifier = self._notifier()
        for phase, flow, payload in batch:
            context = nova_context.RequestContext(
                user_id=flow.user_id, project_id=flow.project_id,
                request_id=flow.request_id,
                # Or Nova would ask its policy, for nothing.
                is_admin=False)
            payload.obj_reset_changes()
            send = notifier.error if phase == 'error' else notifier.info
            try:
                send(context, 'ssm.flow.' + phase,
                     payload.obj_to_primitive())
            except Exception:
                LOG.exception('A notification of flow %s could not be sent',
                              flow.uuid)
