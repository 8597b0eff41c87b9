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

"""Every command says in one line what is wrong, and how to go on."""

from importlib import metadata

import pytest

from nova_ssm.cmd import main
from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.tests.unit import cmd

UNKNOWN = '00000000-0000-4000-8000-00000000dead'
#: What takes the uuid of a flow, and what it takes beside it.
OF_A_FLOW = {
    'flow show': (), 'flow graph': (), 'flow report': (),
    'flow timeline': (), 'flow watch': (), 'flow transfer': ('--yes',),
    **{'flow ' + verb: ('--yes',) for verb in (
        'pause', 'resume', 'cancel', 'kill', 'retry')}}
#: All that ask the journal.
ASKING = {**OF_A_FLOW, 'flow list': None, 'db version': None,
          'db sync': None, 'db purge': None, 'audit': None,
          'key rotate': None}
#: What answers by itself, or with a table of what is wrong.
OTHERS = {'flow plan', 'key new', 'patch apply', 'patch revert',
          'patch status', 'status upgrade check'}


def words(name):
    more = ASKING[name]
    return (*name.split(), *((UNKNOWN, *more) if more is not None else ()))


def names():
    return {entry.name.replace('_', ' ')
            for entry in metadata.entry_points(group=main.COMMANDS)}


def test_each_command_is_looked_at_here():
    assert {*ASKING, *OTHERS} == names()


@pytest.mark.parametrize('name', sorted({*ASKING, *OTHERS}))
def test_each_command_says_what_it_does(nova_ssm, name):
    code, shown, err = nova_ssm(*name.split(), '--help')
    assert (code, err) == (0, '')
    assert shown.startswith('usage: nova-ssm ' + name)
    parts = shown.split('\n\n')
    # Behind the usage: what it does.
    assert len(parts[1].split()) > 3


@pytest.mark.parametrize('name', sorted(OF_A_FLOW))
def test_a_flow_that_is_not_there(nova_ssm, url, name):
    database.upgrade(url)
    cmd.assert_one_line(nova_ssm(*words(name)), 'there is no flow ' + UNKNOWN,
                        'nova-ssm flow list')


@pytest.mark.parametrize('name', sorted(set(ASKING) - {'db sync',
                                                       'db version'}))
def test_tables_that_are_not_there(nova_ssm, name):
    cmd.assert_one_line(nova_ssm(*words(name)), 'nova-ssm db sync')


@pytest.mark.parametrize('name', sorted(ASKING))
def test_a_database_that_is_away(nova_ssm, tmp_path, name):
    conf = tmp_path / 'away.conf'
    conf.write_text('[ssm]\nconnection = mysql+pymysql://nova:s3cretpw@'
                    '127.0.0.1:1/nova\n')
    result = nova_ssm(*words(name), conf=conf)
    cmd.assert_one_line(result, 'cannot be used', '127.0.0.1')
    assert 's3cretpw' not in result[2]


@pytest.mark.parametrize('name', sorted(ASKING))
def test_a_nova_conf_that_names_no_database(nova_ssm, tmp_path, name):
    conf = tmp_path / 'empty.conf'
    conf.write_text('')
    cmd.assert_one_line(nova_ssm(*words(name), conf=conf),
                        'no database is configured', '--config-file')


@pytest.mark.parametrize('name', sorted({*ASKING, 'flow plan'}))
def test_a_nova_conf_that_is_not_there(nova_ssm, tmp_path, name):
    argv = words(name) if name in ASKING else (
        'flow', 'plan', 'migrate', '--server', UNKNOWN)
    cmd.assert_one_line(nova_ssm(*argv, conf=tmp_path / 'gone.conf'),
                        'gone.conf')


@pytest.mark.parametrize('argv', (
    ('audit',), ('flow', 'plan', 'migrate', '--server', UNKNOWN)))
def test_a_nova_conf_that_does_not_name_novas_database(nova_ssm, url, argv):
    database.upgrade(url)
    cmd.assert_one_line(nova_ssm(*argv), '[api_database] connection',
                        '--config-file')


@pytest.mark.parametrize('argv', (
    ('flow', 'list', '-f', 'pdf'), ('flow', 'show', UNKNOWN, '-f', 'pdf'),
    ('flow', 'list', '--state', 'fine'), ('flow', 'list', '--limit', '0'),
    ('flow', 'list', '--older', 'yesterday'),
    ('flow', 'graph', UNKNOWN, '--format', 'pdf'),
    ('flow', 'watch', '--limit', '0'), ('flow', 'watch', '--limit', '-3'),
    ('flow', 'watch', '--interval', '0'),
    ('flow', 'pause', UNKNOWN, '--timeout', '-1'),
    ('flow', 'transfer', UNKNOWN, '--timeout', 'soon'),
    ('flow', 'show'), ('flow', 'cancel'), ('db', 'purge', '--batch', '0')))
def test_an_option_that_is_wrong(nova_ssm, url, capsys, argv):
    database.upgrade(url)
    with pytest.raises(SystemExit) as caught:
        nova_ssm(*argv)
    assert caught.value.code == 2
    *_usage, last = capsys.readouterr().err.strip().splitlines()
    assert ': error: ' in last


@pytest.mark.parametrize('where', ('gone/flow.html', '.'))
def test_a_report_that_cannot_be_written(nova_ssm, flow, tmp_path, where):
    cmd.assert_one_line(nova_ssm('flow', 'report', flow, '-o',
                                 str(tmp_path / where)),
                        'cannot be written: ')
    assert list(tmp_path.glob('tmp*')) == []


# -- a uuid need not be whole ---------------------------------------------

@pytest.fixture
def alike(conductor):
    """Flows with uuids that begin alike."""
    one, _name = conductor('one')
    one.recovery.stop()
    made = []
    for last in '123456':
        request = journal.FlowRequest(
            'hold', {}, uuid='abcd0000-0000-4000-8000-00000000000' + last)
        one.board.start(request, owner=None)
        made.append(request.uuid)
    return made


@pytest.mark.parametrize('length', (4, 9, 36))
def test_its_beginning_is_enough(nova_ssm, flow, length):
    for name in ('show', 'report', 'graph'):
        code, out, err = nova_ssm('flow', name, flow[:length].upper())
        # A flow that no plugin has cannot be drawn; but it is found.
        assert (flow in out) or 'no installed plugin has a flow named hold' \
            in err, (code, out, err)


def test_a_beginning_of_several_names_them(nova_ssm, alike):
    for name in sorted(OF_A_FLOW):
        cmd.assert_one_line(
            nova_ssm(*name.split(), 'abcd', *OF_A_FLOW[name]),
            'several flows begin with abcd', alike[0], alike[3], ', ...')
    code, out, _err = nova_ssm('flow', 'show', alike[2], '-f', 'value', '-c',
                               'uuid')
    assert (code, out.strip()) == (0, alike[2])


@pytest.mark.parametrize('text', ('', 'abc', '%', 'abcd%', '____', "ab'cd",
                                  'zzzz', 'abcd' * 20))
def test_what_is_no_beginning_of_a_uuid(nova_ssm, alike, text):
    cmd.assert_one_line(nova_ssm('flow', 'show', text), 'there is no flow')


def test_what_is_cancelled_is_what_was_meant(nova_ssm, alike):
    code, _out, _err = nova_ssm('flow', 'pause', '--yes', alike[0][:-1],
                                '-f', 'json')
    assert code == 1
    code, out, _err = nova_ssm('flow', 'list', '-f', 'value', '-c', 'state')
    assert set(out.split('\n')) == {'PENDING', ''}
