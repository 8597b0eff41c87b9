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

"""The phases of the plugin of devstack, run against a Nova and its files."""

import collections
import pathlib
import re
import time

import pytest

from nova_ssm.tests.functional import packages

HERE = pathlib.Path(__file__).parent
PLUGIN = packages.ROOT / 'devstack'
RUN = '''
set -euo pipefail
FUNCTIONS=%(here)s HOME_DIR=%(home)s DEST=%(home)s
NOVA_SSM_DIR=%(root)s NOVA_BIN_DIR=%(bin)s NOVA_DIR=%(nova)s
NOVA_CONF=%(home)s/nova.conf TEMPEST_CONFIG=%(home)s/tempest.conf
ENABLED_SERVICES="tempest n-super-cond"
CELLSV2_SETUP=superconductor NOVA_NUM_CELLS=1
. "$FUNCTIONS/functions.sh"
%(before)s
. %(plugin)s/settings
. %(plugin)s/plugin.sh %(phase)s
'''


@pytest.fixture
def phase(venv, tmp_path):
    """Runs a phase, as devstack does."""
    site = next((venv.path / 'lib').glob('python*')) / 'site-packages'

    def run(words, before=''):
        return packages.call('bash', '-c', RUN % {
            'here': HERE, 'home': tmp_path, 'root': packages.ROOT,
            'bin': venv.path / 'bin', 'nova': site, 'plugin': PLUGIN,
            'phase': words, 'before': before})

    for name in ('nova.conf', 'nova_cell1.conf'):
        (tmp_path / name).write_text(
            '[DEFAULT]\ndebug = False\n\n[conductor]\nworkers = 1\n')
    yield run
    if (tmp_path / 'n-ssm-cond2.pid').exists():
        run('unstack')
    run('clean')


def options(path):
    """What a configuration file says: the values by section and option."""
    found, section = collections.defaultdict(list), None
    for line in path.read_text().splitlines():
        if header := re.fullmatch(r'\[(.*)\]', line):
            section = header[1]
        elif '=' in line:
            name, _equal, value = line.partition('=')
            found[section, name.strip()].append(value.strip())
    return found


def status(venv):
    """Of Nova and of oslo.messaging, if it is the same."""
    nova, messaging = venv.run(
        'nova-ssm', 'patch', 'status', '-f', 'value', '-c', 'status', '-c',
        'messaging_status', status=None).stdout.splitlines()
    assert nova == messaging
    return nova


def test_a_cloud_is_set_up_and_taken_down(phase, venv, tmp_path):
    """All phases in the order in which devstack runs them."""
    phase('stack install')
    assert status(venv) == 'applied'
    assert 'setup_develop' in (tmp_path / 'calls').read_text()

    phase('stack post-config')
    for name in ('nova.conf', 'nova_cell1.conf'):
        said = options(tmp_path / name)
        assert said['conductor', 'compute_task_manager'] == ['nova_ssm']
        assert said['conductor', 'workers'] == ['1']
        assert said['ssm', 'workflows'] == [
            'build_instances,resize,live_migrate']
    keys = [options(tmp_path / name)['ssm', 'encryption_keys']
            for name in ('nova.conf', 'nova_cell1.conf')]
    assert keys[0] == keys[1] and len(keys[0][0]) == 44
    listed = venv.run('nova-ssm', '--config-file', tmp_path / 'nova.conf',
                      'flow', 'list', '-f', 'json')
    assert listed.stdout.strip() == '[]'

    phase('stack extra')
    conf = tmp_path / 'nova_ssm_conductor2.conf'
    assert conf.stat().st_mode & 0o077 == 0
    assert options(conf)['DEFAULT', 'host'][0].endswith('-ssm2')
    command = pathlib.Path('/proc', (
        tmp_path / 'n-ssm-cond2.pid').read_text().strip(), 'cmdline')
    deadline = time.monotonic() + 60
    while (b'nova-conductor' not in command.read_bytes() and
           time.monotonic() < deadline):
        time.sleep(0.01)
    assert b'nova-conductor\0--config-file\0' + bytes(
        conf) in command.read_bytes()

    phase('stack test-config')
    said = options(tmp_path / 'tempest.conf')
    assert said['service_available', 'nova_ssm'] == ['True']
    assert 'n-ssm-cond2' in said['nova_ssm', 'kill_command'][0]

    phase('unstack')
    assert not command.exists()
    assert not list(tmp_path.glob('*.pid'))
    phase('clean')
    assert status(venv) == 'not applied'
    assert not conf.exists()
    assert not options(tmp_path / 'nova.conf')[
        'conductor', 'compute_task_manager']


def test_a_phase_may_be_repeated_and_shows_no_key(phase, tmp_path):
    phase('stack install')
    for _again in range(2):
        done = phase('stack post-config', before='set -x')
        said = options(tmp_path / 'nova.conf')
        assert [len(said['ssm', name]) for name in (
            'workflows', 'connection', 'encryption_keys')] == [1, 1, 1]
        key, = said['ssm', 'encryption_keys']
        assert key not in done.stdout + done.stderr


def test_what_local_conf_says_is_taken(phase, tmp_path):
    phase('stack install')
    before = ('NOVA_SSM_WORKFLOWS=resize NOVA_SSM_CONDUCTORS=1 '
              'CELLSV2_SETUP=singleconductor')
    phase('stack post-config', before)
    phase('stack extra', before)
    phase('stack test-config', before)
    assert options(tmp_path / 'nova.conf')['ssm', 'workflows'] == ['resize']
    assert not options(tmp_path / 'nova_cell1.conf')['ssm', 'workflows']
    assert not list(tmp_path.glob('*.pid'))
    assert not options(tmp_path / 'tempest.conf')['nova_ssm', 'kill_command']


def test_nothing_is_done_when_it_is_disabled(phase, tmp_path):
    before = (tmp_path / 'nova.conf').read_text()
    for words in ('stack install', 'stack post-config', 'stack extra'):
        phase(words, 'function enable_service { :; }')
    assert (tmp_path / 'nova.conf').read_text() == before
