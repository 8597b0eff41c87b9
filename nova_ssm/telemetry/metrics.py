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

"""Metrics of a conductor worker, for Prometheus.

Each worker process answers for itself, at a port of its own: counters of
processes that are gone need no files, and a worker that hangs is seen to. A
worker takes the first free port from ``[ssm] metrics_port`` on.
"""

from collections.abc import Iterable
import errno
import importlib
import socketserver
import threading
from typing import Any
from wsgiref import simple_server

from oslo_log import log as logging

from nova_ssm.engine import events
from nova_ssm import exception
from nova_ssm import version

LOG = logging.getLogger(__name__)

#: How many ports a worker tries: more than a host has workers, old and new
#: ones side by side while they are restarted.
PORTS = 256

#: Seconds that steps, and flows, are sorted by. Most steps are one call of an
#: API or one transaction; a flow may wait for a compute, or for an outage.
_STEPS = (.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300)
_FLOWS = (.1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)


def _client() -> Any:
    """The client library, which is needed only here.

    :raises ConfigurationError: if it is not installed
    """
    try:
        return importlib.import_module('prometheus_client')
    except ImportError:
        raise exception.ConfigurationError(
            '[ssm] metrics_port is set, but the library for it is not '
            'installed: pip install "nova-ssm[metrics]"') from None


class Metrics(events.Listener):
    """Counts what the flows of this process do.

    :param host: of the service
    :raises ConfigurationError: if the client library is not installed
    """

    def __init__(self, host: str) -> None:
        client = _client()
        self.registry = client.CollectorRegistry()

        def make(kind: Any, name: str, text: str, *labels: str,
                 **kwargs: Any) -> Any:
            return kind('nova_ssm_' + name, text, labels,
                        registry=self.registry, **kwargs)

        make(client.Info, 'worker', 'The worker that answers').info(
            {'host': host, 'version': version.__version__})
        self._running = make(client.Gauge, 'flows_running',
                             'Flows that the worker runs', 'flow')
        self._started = make(client.Counter, 'flows_started',
                             'Flows that were begun', 'flow')
        self._resumed = make(client.Counter, 'flows_resumed',
                             'Flows that were taken over', 'flow')
        self._ended = make(client.Counter, 'flows_ended',
                           'Flows that are over', 'flow', 'state')
        self._left = make(client.Counter, 'flows_left',
                          'Flows that were left to other workers', 'flow',
                          'why')
        self._flow_seconds = make(
            client.Histogram, 'flow_seconds',
            'How long the worker ran flows that are over', 'flow', 'state',
            buckets=_FLOWS)
        self._task_seconds = make(
            client.Histogram, 'task_seconds',
            'How long tasks took, to be executed or undone', 'flow', 'task',
            'what', buckets=_STEPS)
        self._failures = make(client.Counter, 'task_failures',
                              'Tasks that failed', 'flow', 'task', 'what')
        self._reverts = make(client.Counter, 'task_reverts',
                             'Tasks that were undone', 'flow', 'task')
        self._findings = make(
            client.Gauge, 'audit_findings',
            'What the last audit found; 0 if that was another worker\'s',
            'kind')
        self._seen: set[str] = set()

    def flow_began(self, flow: events.Flow, resumed: bool) -> None:
        self._running.labels(flow.name).inc()
        (self._resumed if resumed else self._started).labels(flow.name).inc()

    def step_ended(self, flow: events.Flow, step: events.Step) -> None:
        labels = (flow.name, step.task, step.what)
        self._task_seconds.labels(*labels).observe(step.seconds)
        if step.failure is not None:
            self._failures.labels(*labels).inc()
        elif step.what == events.UNDO:
            self._reverts.labels(flow.name, step.task).inc()

    def flow_ended(self, flow: events.Flow, state: str, seconds: float,
                   failed_task: str | None, failure: str | None) -> None:
        self._running.labels(flow.name).dec()
        self._ended.labels(flow.name, state).inc()
        self._flow_seconds.labels(flow.name, state).observe(seconds)

    def flow_left(self, flow: events.Flow, why: str) -> None:
        self._running.labels(flow.name).dec()
        self._left.labels(flow.name, why).inc()

    def audited(self, kinds: Iterable[str]) -> None:
        """Take in what an audit has found.

        :param kinds: the kind of each finding; none if it was the turn of
            another worker, so that the sum over all workers is right
        """
        found = list(kinds)
        self._seen.update(found)
        for kind in self._seen:
            self._findings.labels(kind).set(found.count(kind))

    def text(self) -> str:
        """All of it as Prometheus reads it."""
        return _client().generate_latest(self.registry).decode()


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    """Answers whoever asks for metrics."""

    daemon_threads = True
    # Two workers must not have one port: each would answer now and then.
    allow_reuse_port = False


class _Quiet(simple_server.WSGIRequestHandler):
    """Does not log each question."""

    def log_message(self, format: str, *args: Any) -> None:
        LOG.debug('metrics: ' + format, *args)


class Server:
    """Answers Prometheus, at the first free port.

    :param address: where to listen
    :param port: the first port
    """

    def __init__(self, metrics: Metrics, address: str, port: int) -> None:
        self._metrics = metrics
        self._address = address
        self._first = port
        self._server: _Server | None = None

    def start(self) -> int | None:
        """Listen from now on, in a thread of its own.

        :returns: the port; None if all are taken, or none can be had. The
            conductor works without.
        """
        for port in range(self._first, min(self._first + PORTS, 65536)):
            try:
                self._server = simple_server.make_server(
                    self._address, port,
                    _client().make_wsgi_app(self._metrics.registry),
                    _Server, _Quiet)
            except OSError as exc:
                if exc.errno == errno.EADDRINUSE:
                    continue
                LOG.warning('[ssm] metrics_address: no metrics at %s port '
                            '%d: %s', self._address, port, exc)
                return None
            threading.Thread(target=self._server.serve_forever,
                             name='ssm-metrics', daemon=True).start()
            LOG.info('Metrics of this worker: http://%s:%d/metrics',
                     self._address, port)
            return port
        LOG.warning('[ssm] metrics_port: no port from %d on is free, this '
                    'worker has no metrics', self._first)
        return None

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
