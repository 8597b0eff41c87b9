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

"""What a conductor tells of its flows, as its nova.conf says."""

from collections.abc import Iterable

from oslo_config import cfg
from oslo_log import log as logging

from nova_ssm.engine import database
from nova_ssm.engine import queries
from nova_ssm.engine import runner as runner_module
from nova_ssm.telemetry import actions
from nova_ssm.telemetry import meditation
from nova_ssm.telemetry import metrics
from nova_ssm.telemetry import notices

LOG = logging.getLogger(__name__)

#: Seconds before the death of a worker from which on its flows may lack
#: events, beside the interval of the batches: one may have waited for a cell.
_LATE = 30.0


class Telemetry:
    """All who are told of the flows of one runner.

    Made before the workers fork: it starts no thread and opens no port.

    :param host: of the service
    :raises ConfigurationError: if an option cannot be used
    """

    def __init__(self, conf: cfg.ConfigOpts, runner: runner_module.Runner,
                 host: str) -> None:
        self._conf = conf.ssm
        self._runner = runner
        self.meditation = meditation.Meditation(host)
        self.actions: actions.Actions | None = None
        self.notices: notices.Notices | None = None
        self.metrics: metrics.Metrics | None = None
        self._server: metrics.Server | None = None
        self._started: list[actions.Actions | notices.Notices] = []
        if self._conf.task_events:
            self.actions = actions.Actions(
                runner.db, host, self._conf.task_events_interval)
        if self._conf.flow_notifications:
            self.notices = notices.Notices(host)
        if self._conf.metrics_port:
            self.metrics = metrics.Metrics(host)
        for listener in (self.meditation, self.actions, self.notices,
                         self.metrics):
            if listener is not None:
                runner.listeners.add(listener)

    def start(self) -> None:
        """Begin, in a worker process."""
        meditation.register(self.meditation)
        self._started = [one for one in (self.actions, self.notices) if one]
        for one in self._started:
            one.start()
        if self.metrics is not None:
            self._server = metrics.Server(
                self.metrics, self._conf.metrics_address,
                self._conf.metrics_port)
            self._server.start()

    def stop(self) -> None:
        """Tell what is not told yet, and end."""
        while self._started:
            self._started.pop().stop()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def worker_died(self, worker_id: str) -> None:
        """Tell what a dead worker did not tell any more."""
        if self.actions is not None:
            try:
                self._tell_of_death(self.actions, worker_id)
            except Exception as exc:  # noqa: BLE001 - what follows matters
                LOG.warning('Events that worker %s did not write may be '
                            'missing: %s', worker_id,
                            database.first_line(exc))

    def _tell_of_death(self, told: actions.Actions, worker_id: str) -> None:
        db = self._runner.db
        now = queries.clock(db)
        end = queries.lease_end(db, worker_id)
        died = now if end is None else min(now, end - self._conf.lease)
        told.worker_died(
            worker_id, died - self._conf.task_events_interval - _LATE)

    def audited(self, kinds: Iterable[str]) -> None:
        """Take in what an audit of this worker has found.

        :param kinds: of the findings; none if it was not its turn
        """
        if self.metrics is not None:
            self.metrics.audited(kinds)
