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
"""Gets the software: Debian packages and virtual environments."""

from collections.abc import Iterator
import concurrent.futures
import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

from nova_ssm.tests.cloud import settings

PACKAGES = {
    'rabbitmq-server': '/usr/lib/rabbitmq/bin/rabbitmq-server',
    'mariadb-server': '/usr/sbin/mariadbd',
    'memcached': '/usr/bin/memcached',
}
_POLICY = pathlib.Path('/usr/sbin/policy-rc.d')
_SHIM = '''"""Nova looks for compute drivers below nova.virt only."""
from nova_ssm.tests.cloud.driver import FakeDriver  # noqa: F401
'''
_METADATA = {
    'METADATA': 'Metadata-Version: 2.1\nName: nova-ssm-cloud\nVersion: 1\n',
    'entry_points.txt': '[neutron.ml2.mechanism_drivers]\nbindall = '
                        'nova_ssm.tests.cloud.bindall:BindAllMechanismDriver'
                        '\n',
    'INSTALLER': 'nova_ssm\n',
    'RECORD': '',
}


def run(argv: list[str], log: pathlib.Path,
        env: dict[str, str] | None = None) -> None:
    """Run a program, its output into a file.

    :raises CloudError: if it fails; shows the end of its output
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, 'wb') as out:
        done = subprocess.run(argv, stdout=out, stderr=out, env=env,
                              stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        tail = '\n'.join(log.read_text(errors='replace').splitlines()[-15:])
        raise settings.CloudError(
            f'{argv[0]} failed with status {done.returncode}; all of its '
            f'output is in {log}, its end:\n{tail}')


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep Debian packages from starting what they install."""
    saved = None
    if _POLICY.exists() or _POLICY.is_symlink():
        saved = _POLICY.with_name('policy-rc.d.nova-ssm')
        _POLICY.rename(saved)
    try:
        _POLICY.write_text('#!/bin/sh\nexit 101\n')
        _POLICY.chmod(0o755)
        yield
    finally:
        _POLICY.unlink()
        if saved:
            saved.rename(_POLICY)


def packages(where: settings.Settings) -> None:
    """Install the missing Debian packages.

    :raises CloudError: if some are missing and we are not root
    """
    missing = [name for name, path in PACKAGES.items()
               if not os.access(path, os.X_OK)]
    if not missing:
        return
    if os.geteuid():
        raise settings.CloudError(
            'missing Debian packages; as root, run: apt-get install '
            '--no-install-recommends ' + ' '.join(missing))
    env = dict(os.environ, DEBIAN_FRONTEND='noninteractive')
    with _no_service_starts():
        run(['apt-get', 'update', '-qq'], where.log / 'apt-update.log', env)
        run(['apt-get', 'install', '-y', '-qq', '--no-install-recommends',
             *missing], where.log / 'apt-install.log', env)


def _fresh(directory: pathlib.Path, inputs: list[str]) -> str | None:
    """Return the new stamp of an environment, None if it is as it should."""
    digest = hashlib.sha256(str(directory).encode())
    for text in inputs:
        digest.update(text.encode())
    stamp = digest.hexdigest()
    path = directory / 'nova-ssm.stamp'
    if path.exists() and path.read_text() == stamp:
        return None
    return stamp


def _make(where: settings.Settings, directory: pathlib.Path, log: str,
          installs: list[list[str]]) -> None:
    # Python writes the bytecode itself; made here it costs one processor,
    # made at the first start it costs each process.
    env = {k: v for k, v in os.environ.items()
           if k not in ('PYTHONDONTWRITEBYTECODE', 'VIRTUAL_ENV')}
    python = str(directory / 'bin/python')
    if not shutil.which(where.uv):
        raise settings.CloudError(
            f'no uv at {where.uv}; run tools/cloud.sh, which installs it')
    if not os.access(python, os.X_OK):
        run([where.uv, 'venv', '-q', '--clear', '-p', sys.executable,
             str(directory)], where.log / f'{log}-venv.log', env)
    for number, arguments in enumerate(installs):
        run([where.uv, 'pip', 'install', '-q', '--compile-bytecode', '-p',
             python, *arguments], where.log / f'{log}-{number}.log', env)


def _site_packages(venv: pathlib.Path) -> pathlib.Path:
    return next(venv.glob('lib/python3.*/site-packages'))


def services(where: settings.Settings) -> None:
    """Make the environment of the services, with nova_ssm from here."""
    here, root = settings.HERE, settings.ROOT
    files = [here / 'constraints.txt', here / 'requirements.txt',
             root / 'requirements.txt', root / 'entry_points.txt',
             root / 'setup.cfg', *sorted(root.glob('patches/**/*.patch'))]
    stamp = _fresh(where.venv, [f.read_text() for f in files] + [str(root)])
    if stamp is not None:
        limits = ['-c', str(here / 'constraints.txt')]
        installs = [['-r', str(here / 'requirements.txt'),
                     '-r', str(root / 'requirements.txt'), *limits],
                    ['--no-deps', '-e', str(root)]]
        if where.venv.exists():
            # An earlier version of a patch would be in the way.
            installs.append(['--no-deps', '--reinstall-package', 'nova',
                             '--reinstall-package', 'oslo.messaging',
                             'nova', 'oslo.messaging', *limits])
        _make(where, where.venv, 'pip', installs)
    site = _site_packages(where.venv)
    (site / 'nova/virt/ssm_cloud.py').write_text(_SHIM)
    plugin = site / 'nova_ssm_cloud-1.dist-info'
    plugin.mkdir(exist_ok=True)
    for name, text in _METADATA.items():
        (plugin / name).write_text(text)
    if stamp is not None:
        (where.venv / 'nova-ssm.stamp').write_text(stamp)


def tempest(where: settings.Settings) -> None:
    """Make the environment of tempest, with our plugin from here."""
    root = settings.ROOT
    files = [settings.HERE / f'{kind}-tempest.txt'
             for kind in ('constraints', 'requirements')]
    stamp = _fresh(where.tempest_venv, [f.read_text() for f in (
        *files, root / 'entry_points.txt')] + [str(root)])
    if stamp is not None:
        _make(where, where.tempest_venv, 'pip-tempest', [
            ['-r', str(files[1]), '-c', str(files[0])],
            ['--no-deps', '-e', str(root)]])
        (where.tempest_venv / 'nova-ssm.stamp').write_text(stamp)


def everything(where: settings.Settings) -> None:
    """Get all that the cloud needs; packages and environment side by side."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        jobs = [pool.submit(packages, where), pool.submit(services, where)]
    for job in jobs:
        job.result()
