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

"""``nova-ssm db``: the tables of the journal."""

import collections
import json

import pytest

from nova_ssm.engine import database
from nova_ssm.engine import queries
from nova_ssm.tests.bench import filling
from nova_ssm.tests.unit import cmd


def test_sync_makes_the_tables(nova_ssm, url):
    code, out, err = nova_ssm('db', 'sync')
    assert (code, err) == (0, '')
    assert out == ('The tables in %s were brought from nothing to revision '
                   '%s.\n' % (url, database.head()))
    database.Database(url).check()


def test_sync_twice_changes_nothing(nova_ssm):
    nova_ssm('db', 'sync')
    code, out, _err = nova_ssm('db', 'sync')
    assert code == 0
    assert 'up to date (revision %s)' % database.head() in out


@pytest.mark.parametrize('synced', (True, False))
def test_version(nova_ssm, url, synced):
    if synced:
        nova_ssm('db', 'sync')
    code, out, _err = nova_ssm('db', 'version', '-f', 'json')
    assert code == 0
    assert json.loads(out) == {
        'database': url, 'needed': database.head(),
        'revision': database.head() if synced else 'none'}


@pytest.mark.parametrize('command', ('sync', 'version'))
def test_no_database_is_one_line(nova_ssm, tmp_path, command):
    (tmp_path / 'empty.conf').write_text('')
    cmd.assert_one_line(
        nova_ssm('db', command, conf=tmp_path / 'empty.conf'),
        '[ssm] connection', '--config-file')


@pytest.mark.parametrize('command', ('sync', 'version'))
def test_an_unreachable_database_is_one_line(nova_ssm, tmp_path, command):
    (tmp_path / 'away.conf').write_text(
        '[ssm]\nconnection = mysql+pymysql://nova:secret@127.0.0.1:1/n\n')
    result = nova_ssm('db', command, conf=tmp_path / 'away.conf')
    cmd.assert_one_line(result, '127.0.0.1:1')
    assert 'secret' not in result[2]


def test_the_database_of_nova_is_the_default(nova_ssm, tmp_path, url):
    (tmp_path / 'nova.conf').write_text('[database]\nconnection = %s\n' % url)
    assert nova_ssm('db', 'sync', conf=tmp_path / 'nova.conf')[0] == 0
    database.Database(url).check()


# -- purge -------------------------------------------------------------------

@pytest.fixture
def filled(nova_ssm, url):
    """Finished flows, up to six days old, one of them in FAILURE."""
    database.upgrade(url)
    db = database.Database(url)
    filler = filling.Filler(db)
    filler.finished(60)
    filler.unfinished(5, [None])
    yield lambda: collections.Counter(
        info.state for info in queries.flows(db, limit=1000))
    db.close()


def test_purge_keeps_what_nova_conf_says(nova_ssm, filled):
    before = filled()
    assert nova_ssm('db', 'purge') == (0, 'Removed 0 flows.\n', '')
    assert filled() == before


def test_purge_removes_what_is_older(nova_ssm, filled):
    assert filled() == {'SUCCESS': 59, 'FAILURE': 1, 'RUNNING': 5}
    code, out, err = nova_ssm('db', 'purge', '--older-than', '3')
    assert (code, err) == (0, '')
    removed = int(out.split()[1])
    assert 25 <= removed <= 35
    assert filled() == {'SUCCESS': 59 - removed, 'FAILURE': 1, 'RUNNING': 5}


def test_purge_can_take_the_failed_ones_along(nova_ssm, filled):
    code, _out, _err = nova_ssm('db', 'purge', '--older-than', '0.01',
                                '--failed', '--batch', '7')
    assert code == 0
    assert filled() == {'RUNNING': 5}


def test_a_dry_run_removes_nothing(nova_ssm, filled):
    before = filled()
    code, out, _err = nova_ssm('db', 'purge', '--older-than', '0.01',
                               '--failed', '--dry-run')
    assert (code, out) == (
        0, 'Would remove 60 flows (1 FAILURE, 59 SUCCESS).\n')
    assert filled() == before


def test_purge_does_not_take_what_conductors_look_back_at(nova_ssm, filled):
    before = filled()
    cmd.assert_one_line(
        nova_ssm('db', 'purge', '--older-than', '0.001'),
        '--older-than is too short (86 seconds)',
        'look back for 210 seconds', 'rpc_response_timeout')
    assert filled() == before


@pytest.mark.parametrize('args', (
    ('--older-than', 'soon'), ('--older-than', '-1'),
    ('--older-than', 'nan'), ('--batch', '0'), ('--batch', '1001')))
def test_purge_takes_only_sensible_numbers(nova_ssm, args, capsys):
    with pytest.raises(SystemExit, match='2'):
        nova_ssm('db', 'purge', *args)
    assert 'must be a number' in capsys.readouterr().err


def test_purge_needs_the_tables(nova_ssm):
    cmd.assert_one_line(nova_ssm('db', 'purge'), 'run "nova-ssm db sync"')
