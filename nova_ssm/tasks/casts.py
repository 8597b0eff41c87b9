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

"""Messages to computes: sent once, and not twice."""

from collections.abc import Callable
import time
from typing import ClassVar

from nova import context as nova_context
from nova import exception
from nova import objects
from oslo_config import cfg
from oslo_db import exception as db_exc
from oslo_log import log as logging
import oslo_messaging as messaging

from nova_ssm import compat
from nova_ssm.tasks import base
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)
CONF = cfg.CONF

#: The database or the message bus of the cell is away.
UNSEEN = (db_exc.DBError, db_exc.CantStartEngineError,
          messaging.MessagingException)


class Cast(base.NovaTask):
    """Tell a compute to go on with a server: once, and not twice.

    A compute does not notice that it is told twice: it would do it again.
    And a message in its queue shows nowhere. So the journal has the start of
    such a task, and only a cast that had begun is in doubt. It is the last
    task of its flow: from then on the server is the compute's. A bus that
    fails may have taken the message all the same: that is looked at as behind
    a crash.
    """

    once = True

    #: Seconds between two looks.
    poll: ClassVar[float] = 0.5
    #: Seconds that a compute has to answer a ping.
    ping_timeout: ClassVar[float] = 5

    def in_doubt(self, exc: BaseException) -> bool:
        """Nova's own errors come from before: nothing was sent."""
        return not isinstance(exc, exception.NovaException)

    def _was_taken(self, context: types.Context, instance: types.Instance,
                   host: str, is_taken: Callable[[], bool],
                   has_room: Callable[[], Callable[[], bool]] | None = None
                   ) -> bool:
        """Find out for certain whether the compute got the message.

        It did not if all of this holds, and still nothing is to be seen:

        * It has answered a ping since: messages from before are off its
          queue.
        * It has had room for the work since: a message from before is not
          waiting for it.
        * Its own calls to the dead conductor, which it makes before anything
          is to be seen, have timed out.

        Who cannot look waits until it can: the compute may be at work.

        :param is_taken: whether there is a sign of the compute, or the user
        :param has_room: called when the compute has answered; what it gives
            tells at each look whether the compute has had room since
        """
        quiet_at = time.monotonic() + CONF.rpc_response_timeout + 5
        room: Callable[[], bool] | None = None
        said = ''
        while True:
            try:
                if is_taken():
                    return True
                if room is None:
                    if self._ping(context, host):
                        room = has_room() if has_room else _always
                elif room() and time.monotonic() > quiet_at:
                    return is_taken()
            except UNSEEN as exc:
                if str(exc) != said:
                    said = str(exc)
                    LOG.warning('Whether compute %s has taken the server '
                                'cannot be seen, looking until it can: %s',
                                host, exc, instance=instance)
            self.wait(self.poll)

    def _ping(self, context: types.Context, host: str) -> bool:
        """Whether the compute answers behind all that it was sent before."""
        return compat.ping_compute(context, host, self.ping_timeout)


def _always() -> bool:
    return True


def events(context: nova_context.RequestContext,
           uuid: str) -> list[objects.InstanceActionEvent]:
    """What the action of this request on a server consists of."""
    action = objects.InstanceAction.get_by_request_id(
        context, uuid, context.request_id)
    if action is None:
        return []
    return list(objects.InstanceActionEventList.get_by_action(
        context, action.id))
