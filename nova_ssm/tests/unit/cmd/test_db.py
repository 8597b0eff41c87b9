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

import json

import pytest

from nova_ssm.engine import database
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
