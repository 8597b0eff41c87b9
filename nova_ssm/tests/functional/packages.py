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

"""Builds what is published, and installs it as an operator would."""

import functools
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).parents[3]
#: Which constraints Nova is installed with.
CONSTRAINTS = ROOT / 'constraints' / '2026.2.txt'
#: Not a part of what is published.
_LEFT_OUT = shutil.ignore_patterns(
    '.*', '__pycache__', '*.egg-info', 'build', 'dist')


def call(*args: str | os.PathLike, status: int | None = 0,
         **kwargs) -> subprocess.CompletedProcess:
    """Run a program that is to end with that status."""
    env = {key: value for key, value in os.environ.items()
           if key not in ('PYTHONPATH', 'VIRTUAL_ENV')}
    done = subprocess.run(
        [str(arg) for arg in args], capture_output=True, text=True,
        timeout=300, env=env | kwargs.pop('env', {}), **kwargs)
    assert status in (None, done.returncode), (args, done.stdout, done.stderr)
    return done


def _hook(source: pathlib.Path, hook: str, target: pathlib.Path
          ) -> pathlib.Path:
    """Call a hook of the build backend, as pip and build do."""
    target.mkdir(parents=True, exist_ok=True)
    done = call(
        sys.executable, '-c', 'import sys\nfrom setuptools import build_meta\n'
        'print(getattr(build_meta, sys.argv[1])(sys.argv[2]))', hook, target,
        cwd=source)
    return target / done.stdout.split()[-1]


def sdist(target: pathlib.Path) -> pathlib.Path:
    """The source archive of this checkout."""
    source = target / 'source'
    shutil.copytree(ROOT, source, ignore=_LEFT_OUT)
    return _hook(source, 'build_sdist', target)


def wheel(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """The wheel of a directory, or of a source archive."""
    if source.is_dir():
        copied = target / ('source-' + source.name)
        shutil.copytree(source, copied, ignore=_LEFT_OUT)
    else:
        unpacked = target / 'unpacked'
        with tarfile.open(source) as archive:
            archive.extractall(unpacked, filter='data')
        copied, = unpacked.iterdir()
    return _hook(copied, 'build_wheel', target)


@functools.cache
def _uv() -> pathlib.Path | None:
    """The uv of tools/lib.sh, which has what it has installed before."""
    state = pathlib.Path(os.environ.get('NOVA_SSM_STATE', ROOT / '.state'))
    found = os.environ.get('UV') or state / 'tools' / 'bin' / 'uv'
    return pathlib.Path(found) if os.path.exists(found) else None


class Venv:
    """A virtual environment with some packages."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.python = path / 'bin' / 'python'
        if _uv():
            call(_uv(), 'venv', '-q', '-p', sys.executable, path)
        else:
            call(sys.executable, '-m', 'venv', path)

    def install(self, *what: str | os.PathLike) -> None:
        begin = ([_uv(), 'pip', 'install', '-q', '-p', self.python] if _uv()
                 else [self.python, '-m', 'pip', 'install', '-q'])
        call(*begin, '-c', CONSTRAINTS, *what)

    def run(self, name: str, *args: str | os.PathLike, status: int | None = 0,
            **kwargs) -> subprocess.CompletedProcess:
        """Run one of its programs."""
        return call(self.path / 'bin' / name, *args, status=status, **kwargs)
