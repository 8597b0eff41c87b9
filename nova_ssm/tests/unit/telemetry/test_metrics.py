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

"""What Prometheus is told, and where."""

import errno
import json
import pathlib
import re
import socket
from unittest import mock
import urllib.request

import pytest

import nova_ssm
from nova_ssm import exception
from nova_ssm.telemetry import metrics
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers


@pytest.fixture
def made():
    return metrics.Metrics('conductor')


@pytest.fixture
def counted(process, made):
    """Makes a process whose flows are counted."""
    def make(flows):
        one = process(flows)
        one.runner.listeners.add(made)
        return one
    return make


def value(made, name, **labels):
    return made.registry.get_sample_value('nova_ssm_' + name, labels)


def test_flows_are_counted_by_operation_and_state(counted, made, world):
    process = counted(examples.simple(world))
    process.run()
    process.run()
    world.failing['do c'] = ValueError('no c')
    process.run()
    assert value(made, 'flows_started_total', flow='flow') == 3
    assert value(made, 'flows_ended_total', flow='flow', state='SUCCESS') == 2
    assert value(made, 'flows_ended_total', flow='flow',
                 state='REVERTED') == 1
    assert value(made, 'flows_running', flow='flow') == 0
    assert value(made, 'flow_seconds_count', flow='flow',
                 state='SUCCESS') == 2


def test_tasks_are_timed_and_their_failures_and_reverts_counted(
        counted, made, world):
    world.failing['do c'] = ValueError('no c')
    counted(examples.simple(world)).run()
    assert value(made, 'task_seconds_count', flow='flow', task='a',
                 what='execute') == 1
    assert value(made, 'task_failures_total', flow='flow', task='c',
                 what='execute') == 1
    assert value(made, 'task_reverts_total', flow='flow', task='a') == 1
    assert value(made, 'task_failures_total', flow='flow', task='a',
                 what='execute') is None


def test_what_was_taken_over_and_lost_is_counted(counted, made, world, url):
    process = counted(examples.simple(world))
    world.kill_at = 4
    with pytest.raises(helpers.Killed):
        process.run()
    assert value(made, 'flows_left_total', flow='flow', why='broken') == 1
    assert value(made, 'flows_running', flow='flow') == 0
    helpers.expire_leases(url)
    counted(examples.simple(world)).resume_all()
    assert value(made, 'flows_resumed_total', flow='flow') == 1


def test_a_flow_that_runs_is_seen(counted, made, world):
    class Looks(helpers.Do):
        def execute(self):
            seen.append(value(made, 'flows_running', flow='flow'))

    seen = []
    counted({'flow': lambda: helpers.linear(Looks('a', world))}).run()
    assert seen == [1]


def test_the_findings_of_an_audit_are_those_of_the_last_one(made):
    made.audited(['stuck_build', 'stuck_build', 'allocation'])
    assert value(made, 'audit_findings', kind='stuck_build') == 2
    made.audited(['allocation'])
    assert value(made, 'audit_findings', kind='stuck_build') == 0
    assert value(made, 'audit_findings', kind='allocation') == 1


def test_the_sum_over_the_workers_is_right_when_their_turns_change(made):
    made.audited(['allocation'])
    made.audited(())        # another worker's turn
    assert value(made, 'audit_findings', kind='allocation') == 0


def test_who_answers_is_said(made):
    assert value(made, 'worker_info', host='conductor',
                 version=nova_ssm.version.__version__) == 1


# -- where -----------------------------------------------------------------

@pytest.fixture
def servers(made):
    started = []

    def start(port):
        server = metrics.Server(made, '127.0.0.1', port)
        started.append(server)
        return server.start()
    yield start
    for server in started:
        server.stop()


@pytest.fixture
def free_port():
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


def get(port):
    url = 'http://127.0.0.1:%d/metrics' % port
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def test_prometheus_is_answered(servers, free_port, made):
    made.audited(['allocation'])
    port = servers(free_port)
    assert 'nova_ssm_audit_findings{kind="allocation"} 1.0' in get(port)
    assert get(port) == made.text()


def test_each_worker_has_a_port_of_its_own(servers, free_port):
    ports = [servers(free_port) for _worker in range(3)]
    assert ports == sorted(set(ports))
    assert ports[0] >= free_port
    assert all('nova_ssm_worker_info' in get(port) for port in ports)


def test_a_worker_that_starts_again_takes_a_free_port(made, free_port):
    first = metrics.Server(made, '127.0.0.1', free_port)
    port = first.start()
    first.stop()
    second = metrics.Server(made, '127.0.0.1', free_port)
    assert second.start() == port
    second.stop()
    second.stop()


@pytest.mark.parametrize('number, said', (
    (errno.EADDRINUSE, 'metrics_port'), (errno.EACCES, 'metrics_address')))
def test_a_conductor_works_without(made, caplog, monkeypatch, number, said):
    def fail(*args, **kwargs):
        raise OSError(number, 'no')

    monkeypatch.setattr(metrics.simple_server, 'make_server', fail)
    server = metrics.Server(made, '127.0.0.1', 9000)
    assert server.start() is None
    assert said in caplog.text
    server.stop()


def test_the_library_is_asked_for_when_it_is_needed(monkeypatch):
    monkeypatch.setattr(metrics.importlib, 'import_module',
                        mock.Mock(side_effect=ImportError))
    with pytest.raises(exception.ConfigurationError,
                       match=r'pip install "nova-ssm\[metrics\]"'):
        metrics.Metrics('conductor')


# -- the dashboard -----------------------------------------------------------

DASHBOARD = (pathlib.Path(nova_ssm.__file__).parent /
             'telemetry/dashboards/grafana.json')


def expressions(thing):
    """All queries anywhere in a dashboard."""
    if isinstance(thing, dict):
        for key, one in thing.items():
            if key in ('expr', 'query') and isinstance(one, str):
                yield one
            else:
                yield from expressions(one)
    elif isinstance(thing, list):
        for one in thing:
            yield from expressions(one)


@pytest.fixture(scope='module')
def dashboard():
    return json.loads(DASHBOARD.read_text())


def samples(made):
    """The names of all samples, also of those without a value yet."""
    endings = {'counter': ('_total',), 'gauge': ('',), 'info': ('_info',),
               'histogram': ('_bucket', '_count', '_sum')}
    return {family.name + ending for family in made.registry.collect()
            for ending in endings[family.type]}


def test_each_metric_of_the_dashboard_exists(dashboard, made):
    used = {name for text in expressions(dashboard)
            for name in re.findall(r'nova_ssm_\w+', text)}
    assert used
    assert used <= samples(made)


def test_each_label_of_the_dashboard_exists(dashboard, made):
    """A selector with a label that is not there finds nothing."""
    known = {label for one in vars(made).values()
             for label in getattr(one, '_labelnames', ())}
    used = set()
    for text in expressions(dashboard):
        used |= set(re.findall(r'[{,]\s*(\w+)\s*=', text))
        for group in re.findall(r'by \(([^)]*)\)', text):
            used |= {name.strip() for name in group.split(',')}
    assert used - {'le', 'job', 'instance'} <= known | {'host', 'version'}


def test_every_metric_is_shown_by_the_dashboard(dashboard, made):
    """One that nobody looks at should not be counted."""
    texts = ' '.join(expressions(dashboard))
    families = {family.name for family in made.registry.collect()}
    assert {name for name in families if name not in texts} == set()


def test_the_dashboard_can_be_imported(dashboard):
    """It asks which Prometheus to use, and panels have ids of their own."""
    [asked] = dashboard['__inputs']
    assert asked['pluginId'] == 'prometheus'
    panels = dashboard['panels']
    assert len({panel['id'] for panel in panels}) == len(panels)
    for panel in panels:
        if panel['type'] != 'row':
            assert panel['datasource']['uid'] == '${%s}' % asked['name']
            assert panel['targets']
