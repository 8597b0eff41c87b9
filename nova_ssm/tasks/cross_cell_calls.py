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

"""Calls to computes that do a part of a cross-cell move, each made once."""

from collections.abc import Callable
import enum
import time
from typing import ClassVar

from nova import exception
from nova import objects
from oslo_config import cfg
from oslo_log import log as logging
import oslo_messaging as messaging

from nova_ssm import compat
from nova_ssm.tasks import casts
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)
CONF = cfg.CONF


class Seen(enum.Enum):
    """What is to be seen of a call."""

    NOTHING = enum.auto()
    WORKING = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


class Call(casts.Cast):
    """Call a compute that works for long, and is not to do it twice.

    The compute goes on when the conductor that called it is dead. So the one
    that resumes looks how far the compute is, and waits for its end.

    :cvar event: what the compute opens on the server's action as its first
        deed, and closes as its last
    """

    event: ClassVar[str]

    def in_doubt(self, exc: BaseException) -> bool:
        """It answers whether it was done."""
        return False

    def _outcome(self, context: types.Context, instance: types.Instance,
                 host: str, look: Callable[[], Seen]) -> bool | None:
        """How the call of a dead conductor ended; waits until it has.

        :param context: targeted at the cell of the compute
        :returns: None if the compute has not got it, and never will; else
            whether it has done what it was to do
        :raises MessagingTimeout: if it takes longer than Nova would wait
        """
        if not self._was_taken(context, instance, host,
                               lambda: look() is not Seen.NOTHING):
            return None
        LOG.info('Compute %s has got the call already, waiting for its end',
                 host, instance=instance)
        return self._end(context, instance, host, look)

    def _end(self, context: types.Context, instance: types.Instance,
             host: str, look: Callable[[], Seen]) -> bool:
        """Wait as Nova does: for an end, for signs of life, not for ever."""
        heard = time.monotonic()
        until = heard + CONF.long_rpc_timeout
        while time.monotonic() < until:
            try:
                seen = look()
                if seen in (Seen.DONE, Seen.FAILED):
                    return seen is Seen.DONE
                if (time.monotonic() > heard + CONF.rpc_response_timeout / 2
                        and self._ping(context, host)):
                    heard = time.monotonic()
            except casts.UNSEEN as exc:
                LOG.warning('What compute %s does cannot be seen: %s', host,
                            exc, instance=instance)
                heard = time.monotonic()
            if time.monotonic() > heard + CONF.rpc_response_timeout:
                break
            self.wait(self.poll)
        raise messaging.MessagingTimeout(
            'Compute %s has not ended %s in time' % (host, self.event))

    def _ping(self, context: types.Context, host: str) -> bool:
        # Long calls have a queue of their own.
        return super()._ping(context, host) and compat.ping_alt(
            self.manager.compute_rpcapi, context, host, self.ping_timeout)

    def _events(self, context: types.Context, uuid: str,
                name: str | None = None) -> list[objects.InstanceActionEvent]:
        """What was opened for the call in a cell, in order."""
        return sorted((event for event in casts.events(context, uuid)
                       if event.event == (name or self.event)),
                      key=lambda event: event.id)

    def _told(self, context: types.Context, uuid: str,
              name: str | None = None) -> Seen:
        """What the events in a cell tell.

        :param name: of the events, if those of another call are meant
        """
        found = self._events(context, uuid, name)
        if not found:
            return Seen.NOTHING
        if found[0].finish_time is None:
            return Seen.WORKING
        return (Seen.DONE if found[0].result == 'Success' else Seen.FAILED)

    def _failure(self, context: types.Context, uuid: str) -> str:
        """Why the compute failed, as far as it has told."""
        found = self._events(context, uuid)
        fault = objects.InstanceFault.get_latest_for_instance(context, uuid)
        if fault and found and fault.created_at >= found[0].start_time:
            return str(fault.message)
        return '%s failed' % self.event

    def _migration_error(self, context: types.Context,
                         uuid: str) -> exception.MigrationError:
        return exception.MigrationError(reason=self._failure(context, uuid))
