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
"""The nova-ssm command itself."""

import importlib.metadata
import pathlib
import subprocess
import sys

from cliff import command
from nova import objects
from oslo_config import cfg
import pytest

import nova_ssm
from nova_ssm.cmd import main
from nova_ssm.tests.unit import cmd


class Probe(command.Command):
    """Reads one option; raises what the test wants."""

    error: Exception | None = None

    def take_action(self, parsed_args):
        if self.error is not None:
            raise self.error
        self.app.conf.register_opt(cfg.StrOpt('probe'), group='ssm_test')
        self.app.stdout.write(f'{self.app.conf.ssm_test.probe}\n')


class CodedError(Exception):
    """An error that chooses its exit code."""

    exit_code = 7


@pytest.fixture
def run(capsys, monkeypatch):
    def _run(*argv, error=None):
        monkeypatch.setattr(Probe, 'error', error)
        app = main.NovaSSMApp()
        app.command_manager.add_command('probe', Probe)
        with cmd.one_process():
            code = app.run([str(arg) for arg in argv])
        return (code, *capsys.readouterr())
    yield _run
    cfg.CONF.reset()


def test_reads_the_named_files_in_order(run, tmp_path):
    for name in ('a', 'b'):
        (tmp_path / f'{name}.conf').write_text(f'[ssm_test]\nprobe = {name}\n')
    (tmp_path / 'dir').mkdir()
    (tmp_path / 'dir' / 'c.conf').write_text('[ssm_test]\nprobe = c\n')
    a, b = tmp_path / 'a.conf', tmp_path / 'b.conf'
    files = ['--config-file', a, '--config-file', b]
    assert run(*files, 'probe') == (0, 'b\n', '')
    assert run(*files, '--config-dir', tmp_path / 'dir', 'probe') == (
        0, 'c\n', '')


def test_a_missing_file_is_one_line(run, tmp_path):
    code, out, err = run('--config-file', tmp_path / 'none.conf', 'probe')
    assert (code, out, err.count('\n')) == (1, '', 1)
    assert 'none.conf' in err


def test_finds_the_configuration_of_nova(run, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / '.nova').mkdir()
    (tmp_path / '.nova' / 'nova.conf').write_text('[ssm_test]\nprobe = h\n')
    assert run('probe') == (0, 'h\n', '')


def test_an_error_is_one_line(run):
    code, out, err = run('probe', error=ValueError('it is broken'))
    assert (code, out, err) == (1, '', 'ERROR: it is broken\n')


def test_debug_shows_the_traceback(run):
    code, _out, err = run('--debug', 'probe', error=ValueError('broken'))
    assert code == 1
    assert 'Traceback' in err


def test_an_error_may_choose_the_exit_code(run):
    assert run('probe', error=CodedError('no'))[0] == 7
    assert run('probe', error=ValueError('no'))[0] == 1


def test_without_a_command_it_helps(run):
    code, out, _err = run()
    assert code == 1
    assert 'patch apply' in out


def test_an_unknown_command(run):
    assert run('nonsense')[0] == 2


#: What only another program loads, which is not installed beside Nova.
FOREIGN = ('tempest.test_plugins',)
ENTRY_POINTS = [
    pytest.param(entry, id=f'{entry.group}:{entry.name}')
    for entry in importlib.metadata.distribution('nova-ssm').entry_points]


@pytest.mark.parametrize('entry_point', [
    one for one in ENTRY_POINTS if one.values[0].group not in FOREIGN])
def test_every_entry_point_can_be_loaded(entry_point):
    objects.register_all()   # every service of Nova does it first
    assert callable(entry_point.load())


@pytest.mark.parametrize('entry_point', [
    one for one in ENTRY_POINTS if one.values[0].group in FOREIGN])
def test_what_another_program_loads_is_there(entry_point):
    source = pathlib.Path(
        *entry_point.module.split('.')).with_suffix('.py')
    root = pathlib.Path(nova_ssm.__file__).parents[1]
    assert f'class {entry_point.attr}(' in (root / source).read_text()


def test_patch_imports_no_nova():
    """A Nova that is broken or half patched can't be imported."""
    done = subprocess.run(
        [sys.executable, '-c',
         'import sys\n'
         'from nova_ssm.cmd import main\n'
         'code = main.main(["patch", "status"])\n'
         'assert code == 0, code\n'
         'assert not [m for m in sys.modules if m.split(".")[0] == "nova"]'],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
