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

"""What is published has all that it needs, and works where it is installed."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from nova_ssm.tests.functional import packages

ROOT = packages.ROOT
EXAMPLES = ROOT / 'examples'


def tracked():
    try:
        listed = subprocess.run(
            ['git', '-C', str(ROOT), 'ls-files'], capture_output=True,
            check=True, text=True).stdout.split()
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip('there is no repository here to compare with')
    # What is deleted, and not yet committed, is not there either.
    return {name for name in listed if (ROOT / name).exists()}


def test_the_source_archive_has_what_the_repository_has(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    hidden = {name for name in tracked() if name.startswith('.')}
    assert tracked() - names - hidden == set()
    assert not [name for name in names if '__pycache__' in name]


def test_the_wheel_has_all_that_is_read_at_run_time(built):
    names = set(zipfile.ZipFile(built[1]).namelist())
    wanted = {name for name in tracked()
              if name.startswith('nova_ssm/') and
              not name.startswith('nova_ssm/tests/')}
    wanted |= {'nova_ssm/' + name for name in tracked()
               if name.startswith('patches/')}
    assert any(name.endswith('.patch') for name in wanted)
    assert any('migrations/versions' in name for name in wanted)
    assert wanted - names == set()
    assert [name for name in names
            if name.endswith('.data/data/share/man/man1/nova-ssm.1')]


# -- beside Nova -------------------------------------------------------------

@pytest.fixture(scope='module')
def conf(venv):
    """nova.conf, with a journal that is there."""
    path = venv.path.parent / 'nova.conf'
    path.write_text(
        '[database]\nconnection = sqlite:///%s\n[ssm]\nworkflows = '
        'build_instances\nextend = build_instance: RecordInCmdb after '
        'MapInstance\n' % (path.parent / 'nova.db'))
    venv.run('nova-ssm', '--config-file', path, 'db', 'sync')
    return path


def test_nova_is_patched_and_restored(venv):
    site = next((venv.path / 'lib').glob('python*')) / 'site-packages'
    manager = site / 'nova/conductor/manager.py'
    before = manager.read_bytes()

    def is_applied(status):
        return venv.run('nova-ssm', 'patch', 'status', '-f', 'value', '-c',
                        'status', status=status).stdout.strip()

    assert is_applied(3) == 'not applied'
    venv.run('nova-ssm', 'patch', 'apply')
    assert is_applied(0) == 'applied'
    venv.run('python', '-c',
             'import nova.conf; nova.conf.CONF.conductor.compute_task_manager')
    venv.run('nova-ssm', 'patch', 'revert')
    assert manager.read_bytes() == before


def test_the_journal_is_made_and_read(venv, conf):
    assert venv.run('nova-ssm', '--config-file', conf, 'flow', 'list', '-f',
                    'json').stdout.strip() == '[]'


def test_a_vendor_s_task_is_in_the_graph(venv, conf):
    drawn = venv.run('nova-ssm', '--config-file', conf, 'flow', 'graph',
                     'build_instance').stdout
    assert 'RecordInCmdb' in drawn


def test_the_sample_configuration_has_all_options(venv):
    sample = venv.run('oslo-config-generator', '--namespace', 'nova_ssm',
                      '--namespace', 'nova_cmdb').stdout
    for line in ('[ssm]', '#workflows =', '#extend =', '#encryption_keys =',
                 '[cmdb]'):
        assert line in sample


def test_the_manual_page_is_where_man_looks_for_it(venv):
    page = venv.path / 'share/man/man1/nova-ssm.1'
    assert '.SH COMMANDS' in page.read_text()


def test_the_manual_page_tells_of_each_command():
    """``python doc/ext/manpage.py doc/man/nova-ssm.1`` writes it anew."""
    sys.path.insert(0, str(ROOT / 'doc' / 'ext'))
    try:
        import manpage
        fresh = manpage.page()
    finally:
        sys.path.remove(str(ROOT / 'doc' / 'ext'))
    assert (ROOT / 'doc/man/nova-ssm.1').read_text() == fresh


# -- the engine alone --------------------------------------------------------

@pytest.fixture(scope='module')
def bakery(built, tmp_path_factory):
    """The wheel and the example of a service, and no Nova."""
    base = tmp_path_factory.mktemp('bakery')
    made = packages.Venv(base / 'venv')
    made.install(built[1], packages.wheel(EXAMPLES / 'bakery', base))
    made.run('python', '-c', 'import nova', status=1)
    return made


def test_a_service_without_nova_runs_its_flows(bakery, tmp_path):
    bakery.run('bakery', tmp_path, 'order', 'rye')
    failed = bakery.run('bakery', tmp_path, 'order', 'wheat', '--burnt',
                        status=1)
    assert 'wheat: REVERTED wheat is burnt' in failed.stdout
    assert (tmp_path / 'shelf-rye').exists()
    assert not (tmp_path / 'shelf-wheat').exists()
    assert not list(tmp_path.glob('oven-*'))


@pytest.mark.parametrize('options, shelf', [([], True), (['--burnt'], False)])
def test_what_it_was_killed_in_another_one_ends(bakery, tmp_path, options,
                                                shelf):
    began = subprocess.Popen(
        [str(bakery.path / 'bin' / 'bakery'), str(tmp_path), 'order', 'rye',
         '--seconds', '3', *options])
    oven = tmp_path / 'oven-0'
    while not (oven.exists() and oven.read_text() == 'rye'):
        assert began.poll() is None
        time.sleep(0.01)
    os.kill(began.pid, signal.SIGKILL)
    began.wait()
    bakery.run('bakery', tmp_path, 'recover')
    assert (tmp_path / 'shelf-rye').exists() is shelf
    assert not list(tmp_path.glob('oven-*'))


# -- beside the packages of Debian -------------------------------------------

@pytest.fixture(scope='module')
def debian(tmp_path_factory):
    """The root of a Debian with its python3-nova, unpacked only."""
    base = tmp_path_factory.mktemp('debian')
    if shutil.which('apt-get') is None or shutil.which('dpkg') is None:
        pytest.skip('this is no Debian')
    fetched = subprocess.run(['apt-get', 'download', 'python3-nova'],
                             cwd=base, capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip('python3-nova cannot be had: ' + fetched.stderr[-200:])
    package, = base.glob('python3-nova_*.deb')
    packages.call('dpkg', '-x', package, base / 'root')
    return base / 'root'


def beside_debian(venv, root, *args, status=0):
    """Run nova-ssm with Nova where Debian has it, our wheel where pip does.

    What both need comes from the venv, whose own Nova is not seen.
    """
    ours = root / 'usr/local/lib/python3/dist-packages'
    theirs = root / 'usr/lib/python3/dist-packages'
    return packages.call(
        venv.python, '-c', 'from nova_ssm.cmd import main; import sys; '
        'sys.exit(main.main())', *args, status=status,
        env={'PYTHONPATH': os.pathsep.join((str(ours), str(theirs)))})


@pytest.fixture(scope='module')
def laid_out(built, debian, venv):
    target = debian / 'usr/local/lib/python3/dist-packages'
    packages.call(sys.executable, '-m', 'pip', 'install', '-q', '--no-deps',
                  '--no-index', '--target', target, built[1])
    return debian


def patched(root):
    manager = root / 'usr/lib/python3/dist-packages/nova/conductor/manager.py'
    return 'compute_task_manager' in manager.read_text()


def test_an_older_nova_of_debian_is_left_as_it_is(laid_out, venv):
    """Debian 12 has the Nova of 2022, which we have no patch for."""
    done = beside_debian(venv, laid_out, 'patch', 'apply', status=5)
    assert '26.2' in done.stderr
    assert not patched(laid_out)


def test_our_nova_in_debian_s_places_is_patched_and_restored(
        laid_out, venv, tmp_path):
    root = tmp_path / 'root'
    shutil.copytree(laid_out, root, symlinks=True)
    theirs = root / 'usr/lib/python3/dist-packages'
    shutil.rmtree(theirs / 'nova')
    for left in theirs.glob('nova-*'):
        shutil.rmtree(left)
    site = next(pathlib.Path(venv.path / 'lib').glob('python*'))
    for part in (site / 'site-packages').glob('nova*'):
        if part.name == 'nova' or part.name.startswith('nova-3'):
            shutil.copytree(part, theirs / part.name)
    beside_debian(venv, root, 'patch', 'apply')
    assert patched(root)
    beside_debian(venv, root, 'patch', 'revert')
    assert not patched(root)
