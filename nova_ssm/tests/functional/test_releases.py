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

"""Really different releases, installed side by side, on one journal.

* *old*: a release of the repository's history, before servers could be moved
* *this*: what is being tested
* *newer*: this one, changed as a release might be: a flow has a new major
  version with one more task beside the old one, an object of Nova is newer

Each runs in processes of its own, which die by SIGKILL.
"""

import collections
import json
import pathlib
import shutil
import subprocess
import sys

from cryptography import fernet
import pytest
import sqlalchemy as sa

from nova_ssm.engine import schema
from nova_ssm.tests.unit.flows import rehearsal

ROOT = pathlib.Path(__file__).parents[3]
PROCESS = pathlib.Path(__file__).with_name('release_process.py')
KEY = fernet.Fernet.generate_key().decode()
FLOW = 'build_instance'


def git(*args):
    return subprocess.run(
        ['git', '-C', str(ROOT), *args], capture_output=True, check=True)


def old_commit():
    """The last one without moves."""
    try:
        added = git('log', '--diff-filter=A', '--format=%H', '--',
                    'nova_ssm/workflows/resize.py').stdout.decode().split()
        return git('rev-parse', '--verify', '-q',
                   added[-1] + '^').stdout.decode().strip()
    except (subprocess.CalledProcessError, FileNotFoundError, IndexError):
        pytest.skip('there is no history here to take an old release from')


def install(source, target):
    """Install a source tree, without what it needs: that is there."""
    subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps',
         '--no-index', '--no-build-isolation', '--target', str(target),
         str(source)], check=True, capture_output=True)
    return target


@pytest.fixture(scope='module')
def releases(tmp_path_factory):
    """The directories of the releases by name."""
    base = tmp_path_factory.mktemp('releases')
    sources = {name: base / ('source-' + name)
               for name in ('old', 'this', 'newer')}
    archive = base / 'old.tar'
    archive.write_bytes(git('archive', old_commit()).stdout)
    shutil.unpack_archive(archive, sources['old'])
    for name in ('this', 'newer'):
        sources[name].mkdir()
        for part in ('nova_ssm', 'patches', 'doc/man'):
            shutil.copytree(ROOT / part, sources[name] / part,
                            ignore=shutil.ignore_patterns('__pycache__'))
        for file in ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.rst',
                     'entry_points.txt', 'requirements.txt', 'LICENSE'):
            shutil.copy(ROOT / file, sources[name])
    change(sources['newer'] / 'nova_ssm')
    return {name: install(source, base / name)
            for name, source in sources.items()}


def change(package):
    """What the next release might do."""
    path = package / 'flows' / 'build_instances.py'
    text = path.read_text()
    one = "        registry.FlowType('build_instance', '1.2',\n"
    assert one in text
    more = ("        registry.FlowType('build_instance', '2.0',\n"
            "                          lambda: build_instance(manager).add(\n"
            "                              instances.StartBuildAction(\n"
            "                                  manager, name='OneMore'))),\n")
    path.write_text(text.replace(one, more + one))
    path = package / 'objects.py'
    path.write_text(path.read_text() + (
        "\n\nobjects.register_all()\n"
        "objects.RequestSpec.VERSION = '1.99'\n"))


class Cloud:
    """One journal, and conductors of all releases."""

    def __init__(self, releases, path):
        self.releases, self.path = releases, path
        self.url = 'sqlite:///%s' % (path / 'journal.db')
        self.log = path / 'calls'

    def start(self, release, do, **more):
        order = {'do': do, 'release': release, 'url': self.url, 'key': KEY,
                 'log': str(self.log), 'host': 'host', 'looks': 2,
                 'patience': 0,
                 'rehearsal': rehearsal.__file__, 'flow': FLOW, **more}
        return subprocess.Popen(
            [sys.executable, '-W', 'ignore', str(PROCESS),
             json.dumps(order)], cwd=self.path, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
            env={'PYTHONPATH': str(self.releases[release]), 'PATH': ''})

    def run(self, release, do, **more):
        return self.end(self.start(release, do, **more))

    @staticmethod
    def end(process):
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err[-2000:]
        return json.loads(out.splitlines()[-1])

    def flows(self):
        engine = sa.create_engine(self.url)
        with engine.connect() as connection:
            return connection.execute(sa.select(schema.flows)).all()

    def ends(self):
        """How often each flow has ended, by its journal."""
        c = schema.journal.c
        with sa.create_engine(self.url).connect() as connection:
            return collections.Counter(connection.execute(sa.select(
                c.flow_uuid).where(c.kind == 'end')).scalars())

    def listed(self):
        """What ``nova-ssm flow list`` of this release says."""
        conf = self.path / 'nova.conf'
        conf.write_text('[ssm]\nconnection = %s\n' % self.url)
        said = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c',
             'import sys; from nova_ssm.cmd import main;'
             'sys.exit(main.main(sys.argv[1:]))', '--config-file', str(conf),
             'flow', 'list', '-f', 'json', '--unfinished'],
            cwd=self.path, capture_output=True, check=True, text=True,
            env={'PYTHONPATH': str(self.releases['this']), 'PATH': ''})
        return json.loads(said.stdout)

    def assert_all_ended_once(self):
        flows = self.flows()
        assert flows
        assert {flow.state for flow in flows} == {'SUCCESS'}
        assert self.ends() == dict.fromkeys(
            [flow.uuid for flow in flows], 1)
        assert {flow.trouble for flow in flows} == {None}


@pytest.fixture
def cloud(releases, tmp_path):
    made = Cloud(releases, tmp_path)
    made.run('old', 'sync')
    return made


def test_an_old_schema_is_an_error_that_says_what_to_do(cloud):
    process = cloud.start('this', 'check')
    _out, err = process.communicate(timeout=300)
    assert process.returncode
    assert 'run "nova-ssm db sync"' in err
    cloud.run('this', 'sync')
    cloud.run('this', 'check')
    # The old release works on with the new tables.
    cloud.run('old', 'check')
    killed = cloud.run('old', 'begin')['killed']
    cloud.run('old', 'look', patience=60)
    assert killed > 5
    cloud.assert_all_ended_once()


def test_this_release_goes_on_with_what_an_old_one_began(cloud):
    """From each row at which the old one was killed."""
    begun = cloud.run('old', 'begin')
    assert begun['killed'] > 5
    cloud.run('this', 'sync')
    cloud.log.write_text('')
    cloud.run('this', 'look', patience=60)
    cloud.assert_all_ended_once()
    called = cloud.log.read_text().splitlines()
    assert {line.split()[0] for line in called} == {'this'}
    # What had ended by the row of its kill was not done again: each flow
    # that was killed later called less.
    tasks = collections.Counter(line.split()[2] for line in called)
    assert tasks['StartBuildAction'] < tasks['CastBuild']


def test_what_is_newer_is_left_alone_and_the_reason_is_listed(cloud):
    cloud.run('this', 'sync')
    begun = cloud.run('newer', 'begin')
    assert begun['version'] == '2.0'
    cloud.log.write_text('')
    cloud.run('this', 'look')
    cloud.run('old', 'look')
    assert cloud.log.read_text() == '', 'nobody has touched them'
    listed = cloud.listed()
    # The last rows of a flow are its end.
    assert len(listed) >= begun['killed'] - 2 > 2
    for flow in listed:
        assert flow['claims'] == 0
        assert flow['trouble'] == (
            'host this cannot go on: version 2.0 of the flow build_instance '
            'is not known here, only 1.2')
    cloud.run('newer', 'look', patience=60)
    cloud.assert_all_ended_once()
    assert cloud.listed() == []


def test_a_newer_release_finishes_what_this_one_began(cloud):
    """With the graph of the version that it was begun with."""
    cloud.run('this', 'sync')
    begun = cloud.run('this', 'begin')
    assert begun['version'] == '1.2'
    cloud.run('newer', 'look', patience=60)
    cloud.assert_all_ended_once()
    assert {flow.version for flow in cloud.flows()} == {'1.2'}
    assert 'OneMore' not in cloud.log.read_text()


def test_a_newer_object_in_a_known_flow_is_seen_in_its_row(cloud):
    """A newer release has gone on with a flow of this one, and died too."""
    cloud.run('this', 'sync')
    cloud.run('this', 'begin')
    # The first row that has what it has made: another flow may be casting
    # before the one that has to make it has come so far.
    killer = cloud.start('newer', 'look', kill='CreateArqs')
    killer.communicate(timeout=300)
    assert killer.returncode == -9
    cloud.run('this', 'look')
    left = cloud.listed()
    assert left
    for flow in left:
        assert 'RequestSpec 1.99 is not known here' in flow['trouble']
        assert flow['version'] == '1.2'
    cloud.run('newer', 'look', patience=60)
    cloud.assert_all_ended_once()


@pytest.mark.parametrize('pair', [('old', 'this'), ('this', 'newer')])
def test_side_by_side_each_flow_ends_once(cloud, pair):
    """Both begin flows and die, then both look for them at once."""
    cloud.run(pair[1], 'sync')
    for release in pair:
        cloud.run(release, 'begin')
    for process in [cloud.start(release, 'look', looks=5)
                    for release in pair]:
        cloud.end(process)
    # What the older one had claimed, and could not read, is free again.
    cloud.run(pair[1], 'look', patience=60)
    cloud.assert_all_ended_once()
