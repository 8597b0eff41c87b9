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

"""Finds out for certain that no conductor has a request in its hands.

A request is in a message queue, or in the hands of a conductor's worker, or
it has begun: then its flow is in the journal. Each living worker is asked
through the very queue that requests come through. Who answers has begun
what it was given before, since it takes its messages in turn; and when all
have answered, none that was sent before is in the queue. A worker that is
dead keeps us waiting until its lease has run out: until then it may be
alive. What it has not begun, the queue gives to another one.
"""

import threading
import time
from typing import Any

from nova import exception as nova_exc
from nova import objects
from oslo_config import cfg
from oslo_log import log as logging
import oslo_messaging as messaging

from nova_ssm.audit import builds
from nova_ssm.audit import survey
from nova_ssm import compat
from nova_ssm.engine import queries
from nova_ssm.engine import runner as runner_module
from nova_ssm import exception

LOG = logging.getLogger(__name__)
CONF = cfg.CONF

#: Seconds that a worker has to answer.
TIMEOUT = 5.0
#: Seconds that a conductor may be late with its reports.
_LATE = 2.0


class Inquiry:
    """Asks the conductors that listen to the same queue as this one."""

    def __init__(self, runner: runner_module.Runner) -> None:
        self._runner = runner
        self._lock = threading.Lock()
        self._begun: float | None = None
        self._ours: set[str] = set()

    def note(self) -> None:
        """Remember which conductors keep a journal, for when they are dead."""
        self._ours |= set(queries.living(self._runner.db).values())

    def make_sure(self, context: Any, patience: float) -> None:
        """Wait until every request of before is in the journal, or is lost.

        :param patience: seconds to try
        :raises Uncertain: if that cannot be said
        """
        asked = time.monotonic()
        deadline = asked + patience
        with self._lock:
            # Somebody may have asked while we waited for our turn.
            while self._begun is None or self._begun < asked:
                begun = time.monotonic()
                try:
                    self._ask(context)
                except exception.Uncertain as exc:
                    if time.monotonic() > deadline:
                        raise
                    LOG.debug('Asking the conductors again: %s', exc)
                    time.sleep(1)
                else:
                    self._begun = begun

    def _ask(self, context: Any) -> None:
        peers = self._peers(context)
        answered: set[str] = set()
        # The queue gives its messages to the workers in turn.
        for _ in range(4 * len(peers) + 4):
            answered.add(self._answer(context))
            if peers <= answered:
                break
        else:
            raise exception.Uncertain(
                'worker %s has not answered' % min(peers - answered))
        gone = peers - self._peers(context)
        if gone:
            # What it had not begun is in the queue again.
            raise exception.Uncertain(
                'worker %s has gone away meanwhile' % min(gone))

    @staticmethod
    def _answer(context: Any) -> str:
        try:
            worker = compat.ask_conductor(context, TIMEOUT)
        except (messaging.MessagingException, nova_exc.NovaException) as exc:
            raise exception.Uncertain(
                'a conductor did not answer: %s' % exc) from exc
        if not worker:
            raise exception.Uncertain(
                'a conductor does not keep a journal: it has no [ssm] '
                'workflows')
        return worker

    def _peers(self, context: Any) -> set[str]:
        """The living workers of the conductors that share our queue.

        :raises Uncertain: if one of those conductors has no worker of ours
        """
        services = {service.host: service for service in
                    objects.ServiceList.get_by_binary(
                        context, 'nova-conductor', include_disabled=True)
                    if builds.is_up(service)}
        living = queries.living(self._runner.db)
        self._ours |= set(living.values())
        hosts = services.keys()
        missing = [host for host in hosts - set(living.values())
                   if not self._is_dead(services[host])]
        if missing:
            raise exception.Uncertain(
                'the conductor of host %s keeps no journal' % min(missing))
        return {worker for worker, host in living.items() if host in hosts}

    def _is_dead(self, service: Any) -> bool:
        """Whether a conductor that kept a journal has left Nova's service up.

        For a minute Nova takes it for alive. But its lease has run out, and
        one that was started in its place would have reported.
        """
        silent = survey.now() - survey.seconds(
            service.last_seen_up or service.created_at)
        return (service.host in self._ours and
                silent > 2 * CONF.report_interval + _LATE)
