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

"""Puts the engine together as nova.conf says."""

from collections.abc import Callable
import threading

from oslo_config import cfg
from oslo_log import log as logging

from nova_ssm import conf as ssm_conf
from nova_ssm.engine import database
from nova_ssm.engine import purge
from nova_ssm.engine import recovery
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import serialization
from nova_ssm import exception
from nova_ssm import extensions
from nova_ssm import jobboards
from nova_ssm import objects
from nova_ssm import retention
from nova_ssm.tasks import types
from nova_ssm.telemetry import telemetry

LOG = logging.getLogger(__name__)


def open_vault(conf: cfg.ConfigOpts) -> serialization.Vault:
    """The vault with the keys of nova.conf.

    :raises ConfigurationError: if one of them is not a key
    """
    try:
        return serialization.Vault(conf.ssm.encryption_keys)
    except ValueError as exc:
        raise exception.ConfigurationError(
            '[ssm] encryption_keys: %s' % exc) from None


class Runtime:
    """The engine of one conductor, with the options of its nova.conf.

    Made before the workers fork: it opens no connection that it keeps.

    :raises DatabaseUnusable: if the journal's tables are not there
    :raises BoardUnusable: if the job board is not there
    :raises ConfigurationError: if an option cannot be used
    """

    def __init__(self, conf: cfg.ConfigOpts, host: str) -> None:
        self._conf = conf
        self.host = host
        db = database.Database(ssm_conf.journal_url(conf) or '')
        db.check()
        self._ages = retention.ages(conf)
        self._serializer = objects.serializer(open_vault(conf))
        self.runner = runner.Runner(
            db, self._serializer, registry.Registry(),
            host, lease=conf.ssm.lease, board=jobboards.factory(conf),
            concurrency=conf.ssm.concurrency)
        self.runner.board.probe()
        self.telemetry = telemetry.Telemetry(conf, self.runner, host)
        self._recovery: recovery.Recovery | None = None
        self._purger: purge.Purger | None = None
        #: What stops that goes on beside the flows.
        self.on_stop: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def extend(self, manager: types.Manager) -> None:
        """Change the flows that are registered as nova.conf says.

        :raises ConfigurationError: if it cannot be done
        """
        extensions.apply(self._conf.ssm.extend, manager,
                         self.runner.registry, self._serializer.has_codec)

    def start(self,
              on_death: Callable[[str], None] | None = None) -> None:
        """Look for flows of dead conductors, and for old ones, from now on.

        :param on_death: told the id of each worker that is found dead
        """
        with self._lock:
            if self._recovery is None:
                self._recovery = recovery.Recovery(
                    self.runner, self.host,
                    interval=self._conf.ssm.recovery_interval,
                    concurrency=self._conf.ssm.recovery_concurrency,
                    on_death=on_death)
                self._recovery.start()
                self.telemetry.start()
                self._purger = purge.Purger(
                    self.runner.db, lambda: self.runner.worker.id,
                    self._ages)
                self._purger.start()

    def suspend(self) -> None:
        """Let each flow stop at its next step, and others go on with it.

        What is asked for from now on is left to others, too.
        """
        with self._lock:
            if self._recovery is not None:
                self._recovery.suspend()
        self.runner.suspend()

    def stop(self, patience: float | None = None) -> None:
        """Look no more, and give the lease back.

        :param patience: seconds to wait for the steps that are under way, by
            default for as long as the lease lasts
        """
        with self._lock:
            while self.on_stop:
                self.on_stop.pop()()
            if self._recovery is not None:
                self._recovery.stop()
                _take_leave(self._recovery)
                self._recovery = None
            if self._purger is not None:
                self._purger.stop()
                self._purger = None
            self.runner.close(patience)
            # Last: it tells of the steps that were under way, too.
            self.telemetry.stop()


def _take_leave(one: recovery.Recovery) -> None:
    """Leave the computes that call this worker to others, if that works."""
    try:
        one.take_leave()
    except Exception:
        LOG.exception('Nobody could be asked to look after the computes that '
                      'were calling this worker: "nova-ssm audit" finds '
                      'servers that they have given up')
