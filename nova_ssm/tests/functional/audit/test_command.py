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

"""The command: what it shows, and what its exit code says."""

import importlib.metadata
import json
import threading

from nova.compute import task_states
import pytest

from nova_ssm.audit import setup
from nova_ssm.cmd import main
from nova_ssm.engine import queries
from nova_ssm.tests.unit import cmd

UNKNOWN = 'aaaaaaaa-0000-4000-8000-000000000001'


@pytest.fixture
def audit(cloud, capsys, monkeypatch, tmp_path):
    """Runs the command on the cloud; gives its exit code, output, errors."""
    monkeypatch.setattr(setup, 'configure', lambda conf: None)
    monkeypatch.setattr(setup, 'report_client', lambda: cloud.placement)
    # The database of the journal is the one of the cloud.
    conf = tmp_path / 'nova.conf'
    conf.write_text('[ssm]\nconnection = %s\n' % cloud.db.url)
    app = main.NovaSSMApp

    class Configured(app):
        @property
        def conf(self):
            from nova_ssm import conf as ssm_conf
            from oslo_config import cfg
            ssm_conf.register_opts(cfg.CONF)
            cfg.CONF.set_override('connection', cloud.db.url, 'ssm')
            return cfg.CONF

    class Commands(main.CommandManager):
        def load_commands(self, namespace):
            self.commands['audit'] = importlib.metadata.EntryPoint(
                'audit', 'nova_ssm.cmd.audit:Audit', namespace)

    monkeypatch.setattr(main, 'NovaSSMApp', Configured)
    monkeypatch.setattr(main, 'CommandManager', Commands)

    def run(*argv):
        with cmd.one_process():
            code = main.main(['audit', '--settle', '0', *argv])
        return (code, *capsys.readouterr())
    return run


@pytest.fixture
def conductor(cloud):
    """A conductor that runs what is posted."""
    stop = threading.Event()

    def work():
        while not stop.wait(0.05):
            cloud.run_posted()

    # It is alive: others see its lease.
    assert cloud.runner.worker.id
    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_a_cloud_that_is_well(audit):
    code, out, _ = audit()
    assert (code, out.strip()) == (0, '')


def test_shows_findings_to_people(cloud, audit):
    [server] = cloud.ask()
    code, out, _ = audit('-f', 'value', '-c', 'kind', '-c', 'what')
    assert (code, out) == (3, 'lost-build server %s waits to be built, and '
                              'nobody works on it\n' % server)


def test_shows_findings_to_scripts(cloud, audit):
    [server] = cloud.ask()
    code, out, _ = audit('-f', 'json')
    [finding] = json.loads(out)
    assert code == 3
    assert (finding['kind'], finding['server'], finding['safe']) == (
        'lost-build', server, True)
    assert finding['since'] > 0


def test_lists_the_kinds(audit):
    code, out, _ = audit('--kind', 'help', '-f', 'value')
    assert code == 0
    assert 'orphan-allocation allocations without' in out


def test_an_unknown_kind_is_told_of(audit):
    code, _, err = audit('--kind', 'x')
    assert code == 1
    assert 'there is no kind x, only lost-build' in err


def test_filters(cloud, audit):
    [one] = cloud.ask()
    other = cloud.server(task_state=task_states.RESIZE_PREP)
    cloud.action(other)

    def found(*argv):
        return {finding['server'] for finding in
                json.loads(audit('-f', 'json', *argv)[1])}

    assert found() == {one, other}
    assert found('--kind', 'lost-move') == {other}
    assert found('--server', one) == {one}
    assert found('--project', 'project') == {one, other}
    assert found('--project', 'another') == set()
    assert found('--older', '99999999') == set()


def test_repairs_what_is_safe_and_says_so(cloud, audit, conductor):
    [server] = cloud.ask()
    code, out, _ = audit('--repair', '-f', 'json')
    [finding] = json.loads(out)
    assert (code, finding['result']) == (4, 'repaired')
    assert queries.flow(cloud.db, finding['flow']).subject == server
    assert audit()[0] == 0


def test_leaves_what_it_would_have_to_ask_for(cloud, audit, conductor):
    cloud.hold(UNKNOWN, cloud.node('host1', 'node1'))
    code, out, _ = audit('--repair', '-f', 'json')
    [finding] = json.loads(out)
    assert (code, finding['safe'], finding['result']) == (5, False, '')
    assert cloud.placement.held


def test_repairs_all_if_it_is_told_to(cloud, audit, conductor):
    cloud.hold(UNKNOWN, cloud.node('host1', 'node1'))
    code, _, _ = audit('--repair', '--yes', '-f', 'json')
    assert code == 4
    assert not cloud.placement.held


def test_says_why_something_was_not_repaired(cloud, audit, conductor):
    from nova_ssm import exception
    cloud.sure.side_effect = exception.Uncertain('worker x did not answer')
    cloud.ask()
    code, out, _ = audit('--repair', '-f', 'json')
    [finding] = json.loads(out)
    assert code == 5
    assert 'worker x did not answer' in finding['result']


def test_without_a_conductor_the_repair_waits_for_one(cloud, audit):
    cloud.ask()
    code, out, err = audit('--repair', '-f', 'json')
    [finding] = json.loads(out)
    assert (code, finding['result']) == (5, 'under way')
    assert 'No conductor is alive' in err
    cloud.run_posted()
    assert audit()[0] == 0
