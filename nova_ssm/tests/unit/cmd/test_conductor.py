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
"""``nova-ssm-conductor``, started as a process of its own.

What it does begins with the import of nova.cmd.conductor, which decides about
eventlet for a whole process; so none of it is tried in the test's own.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from nova_ssm import patching

# Runs the launcher up to where it would serve, with a stand-in for our manager
# (or none): a real one asks for a cloud.
SCRIPT = '''
import json
import math
import sys
import types

from nova_ssm.cmd import conductor

assert 'nova' not in sys.modules, 'the launcher decides nothing when imported'

ours = types.ModuleType('nova_ssm.manager')
if '--broken' not in sys.argv:
    class ComputeTaskManager:
        def __init__(self):
            self.told = []

        def post_start_hook(self):
            self.told.append('started')

        def set_shutdown_in_progress(self):
            self.told.append('stopping')

        def graceful_shutdown(self, timeout):
            self.told.append('at most %d seconds' % math.ceil(timeout))

    ours.ComputeTaskManager = ComputeTaskManager
sys.modules['nova_ssm.manager'] = ours
sys.argv = ['nova-ssm-conductor', *sys.argv[1:3]]


def serve(server, workers=None):
    manager = server.manager
    # As a worker does when it has started, and when it is stopped.
    manager.post_start_hook()
    manager.set_shutdown_in_progress()
    manager.graceful_shutdown(50)
    options = nova.conf.CONF.conductor
    print('FACTS', json.dumps({
        'binary': server.binary,
        'topic': server.topic,
        'host': server.host,
        'class': type(manager).__name__,
        'ours': type(manager.compute_task_mgr) is ours.ComputeTaskManager,
        'told': manager.compute_task_mgr.told,
        'stopping': manager._shutdown_in_progress.is_set(),
        'serves': manager.additional_endpoints == [manager.compute_task_mgr],
        'option': (options.compute_task_manager
                   if 'compute_task_manager' in options else None),
        'eventlet': monkey_patch.is_patched(),
    }))
    sys.exit(0)


from nova.cmd import conductor as nova_conductor
from nova import monkey_patch
from nova import utils
import nova.conf

nova_conductor.service.serve = serve
utils.raise_if_old_compute = lambda: None   # asks the database
conductor.main()
'''


@pytest.fixture(scope='module')
def unpatched(tmp_path_factory):
    """The installed Nova, with the patch taken out of what matters here."""
    nova = patching.find(patching.NOVA)
    root = tmp_path_factory.mktemp('unpatched')
    package = root / 'nova'
    package.mkdir()
    for entry in (nova.root / 'nova').iterdir():
        if entry.name in ('conductor', 'conf'):
            shutil.copytree(entry, package / entry.name,
                            ignore=shutil.ignore_patterns('__pycache__'))
        elif entry.name not in ('tests', '__pycache__'):
            (package / entry.name).symlink_to(entry)
    report = patching.revert(
        patching.Tree(patching.NOVA, root, nova.version))
    assert report.state is patching.State.NOT_APPLIED
    return root


@pytest.fixture(params=['patched', 'unpatched'])
def nova(request):
    """What to put before the installed Nova, if anything."""
    if request.param == 'patched':
        return None
    return request.getfixturevalue('unpatched')


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'nova.conf'
    path.write_text('\n'.join([
        '[DEFAULT]', 'host = host1', 'transport_url = fake://',
        '[oslo_concurrency]', f'lock_path = {tmp_path}',
        '[conductor]', 'workers = 1',
        # What the launcher is told by its name wins.
        'compute_task_manager = another']))
    return path


def start(nova: pathlib.Path | None, config, *args):
    env = dict(os.environ)
    if nova is not None:
        env['PYTHONPATH'] = str(nova)
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, '--config-file', str(config), *args],
        capture_output=True, text=True, timeout=120, env=env)
    return done, done.stdout + done.stderr


def test_is_nova_conductor_with_our_manager(nova, config):
    done, log = start(nova, config)
    assert done.returncode == 0, log
    facts = [line.removeprefix('FACTS ') for line in log.splitlines()
             if line.startswith('FACTS ')]
    assert json.loads(facts[0]) == {
        'binary': 'nova-conductor', 'topic': 'conductor', 'host': 'host1',
        'class': 'ConductorManager', 'ours': True,
        'told': ['started', 'stopping', 'at most 30 seconds'],
        'stopping': True, 'serves': True,
        'option': None if nova else 'nova_ssm', 'eventlet': False}


def test_a_broken_manager_stops_the_start(nova, config):
    done, log = start(nova, config, '--broken')
    assert done.returncode == 1, log
    assert 'Traceback' not in log
    critical = [line for line in log.splitlines() if 'CRITICAL' in line]
    assert len(critical) == 1, log
    assert 'nova_ssm' in critical[0]
    assert 'could not be loaded' in critical[0]
