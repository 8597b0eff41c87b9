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
"""Runs tempest against the cloud, and compares stock with nova_ssm."""

import collections
import contextlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import configs
from nova_ssm.tests.cloud import install
from nova_ssm.tests.cloud import settings

#: Servers and their migrations; what "cloud.sh tempest" runs by itself.
INCLUDE = settings.HERE / 'tempest-include.txt'
_LINE = re.compile(
    r'^\{\d+\} (?P<id>(?:tempest|nova_ssm)\S*|'
    r'(?:setUp|tearDown)Class \([^)]*\))(?:\[[^\]]*\])?'
    r'(?: \[[^\]]*\])? \.\.\. (?P<status>ok|FAILED|SKIPPED)')
_KILLS = 'nova_ssm.tests.tempest.test_killed'
_NAMES = {'ok': 'pass', 'FAILED': 'FAIL', 'SKIPPED': 'skip'}
_TAGS = re.compile(r'\[[^\]]*\]$')


def _directory(it: cloud.Cloud) -> pathlib.Path:
    """Return tempest's workspace, configured for the cloud of now."""
    install.tempest(it.settings)
    where = it.settings.home / 'tempest'
    if not (where / '.stestr.conf').exists():
        install.run([str(it.settings.tempest_venv / 'bin/tempest'), 'init',
                     str(where)], it.settings.log / 'tempest-init.log',
                    _environment(it))
    (where / 'lock').mkdir(exist_ok=True)
    client = it.client
    configs.private_file(
        where / 'etc/tempest.conf', configs.Writer(it.settings).render(
            'tempest.conf', TEMPEST=str(where),
            SSM=str(it.mode == 'ssm').lower(), NOVASSM=_nova_ssm(it),
            CLOUD=_ourselves(it),
            IMAGE=client.image.find_image('cirros').id,
            IMAGEALT=client.image.find_image('cirros-alt').id,
            PUBLIC=client.network.find_network('public').id))
    return where


def _nova_ssm(it: cloud.Cloud) -> str:
    """How nova-ssm is called on a conductor's host."""
    return shlex.join([
        str(it.settings.venv / 'bin/nova-ssm'),
        *(f'--config-file={it.settings.etc / name}'
          for name in ('nova/nova.conf', 'nova/cond1.conf'))])


def _ourselves(it: cloud.Cloud) -> str:
    """How this command is called from somewhere else."""
    return shlex.join([
        'env', f'PYTHONPATH={settings.ROOT}',
        f'{settings.HOLDER}={os.getpid()}',
        *(f'{key}={value}' for key, value in sorted(os.environ.items())
          if key.startswith('NOVA_SSM_')),
        sys.executable, '-m', 'nova_ssm.tests.cloud'])


def _environment(it: cloud.Cloud) -> dict[str, str]:
    path = str(it.settings.tempest_venv / 'bin')
    env = {key: value for key, value in os.environ.items()
           if not key.startswith(('OS_', 'PYTHON'))}
    return env | {'PATH': path + os.pathsep + env.get('PATH', os.defpath),
                  # tempest keeps a list of workspaces in the home.
                  'HOME': str(it.settings.var / 'home')}


def run(it: cloud.Cloud, regex: str | None, workers: int) -> dict[str, str]:
    """Run tests; print each as it ends.

    :param regex: of the test ids; None for those of ``INCLUDE``
    :param workers: how many at once
    :returns: test id -> ``pass``, ``FAIL`` or ``skip``
    :raises CloudError: if no test was run, or if somebody exchanged the
        conductors meanwhile; the results are not written then
    """
    where = _directory(it)
    before = it.conductors()
    mode = before[0]
    what = ['--regex', regex] if regex else ['--include-list', str(INCLUDE)]
    found: dict[str, str] = {}
    log = it.settings.log / f'tempest-{mode}.out'
    with open(log, 'w') as out, subprocess.Popen(
            [str(it.settings.tempest_venv / 'bin/tempest'), 'run',
             '--concurrency', str(workers), *what],
            cwd=where, env=_environment(it), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            out.write(line)
            match = _LINE.match(line)
            if match:
                name = _TAGS.sub('', match['id'])
                found[name] = _NAMES[match['status']]
                print(f'{found[name]:4}  {name}', flush=True)
    if not found:
        raise settings.CloudError(f'tempest ran no test; see {log}')
    # One that is killed by a test of ours is another process then.
    if it.mode != mode or (it.conductors() != before and
                           not any(_KILLS in name for name in found)):
        raise settings.CloudError(
            f'void: the conductors were {before} and are {it.conductors()}; '
            'leave the cloud alone while tempest runs')
    path = it.settings.results / f'tempest-{mode}.json'
    path.write_text(''.join(
        json.dumps({'id': name, 'status': status}) + '\n'
        for name, status in sorted(found.items())))
    count = collections.Counter(found.values())
    print(f'{mode}: {count["pass"]} passed, {count["FAIL"]} failed, '
          f'{count["skip"]} skipped; {path}')
    if count['FAIL']:
        print(f'the failures are in {log}')
    return found


@contextlib.contextmanager
def _mode_kept(it: cloud.Cloud):
    before = it.mode
    try:
        yield
    finally:
        if it.mode != before:
            it.set_mode(before)


def compare(it: cloud.Cloud, regex: str | None, workers: int) -> int:
    """Run on stock, then with nova_ssm, and print what differs.

    :returns: 1 if a test that passes on stock does not with nova_ssm
    """
    results = {}
    with _mode_kept(it):
        for mode in ('stock', 'ssm'):
            it.set_mode(mode)
            results[mode] = run(it, regex, workers)
    stock, ours = results['stock'], results['ssm']
    worse = 0
    for name in sorted(stock.keys() | ours.keys()):
        pair = (stock.get(name, 'not run'), ours.get(name, 'not run'))
        if pair[0] != pair[1]:
            print(f'stock {pair[0]}, ssm {pair[1]}: {name}')
            worse += pair[0] == 'pass' or pair[1] == 'FAIL'
    print(f'{worse} tests are worse with nova_ssm')
    return 1 if worse else 0


def main(it: cloud.Cloud, regex: str | None, workers: int,
         both: bool) -> int:
    """Run the command. Returns the status of the process."""
    with it.reserved('tempest'):
        it.up()
        if both:
            return compare(it, regex, workers)
        found = run(it, regex, workers)
    sys.stdout.flush()
    return 1 if 'FAIL' in found.values() else 0
