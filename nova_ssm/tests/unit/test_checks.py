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

"""``nova-ssm status upgrade check``: what has to be in order."""

import io
import json
import types

from cryptography import fernet
from oslo_upgradecheck import upgradecheck
import pytest

from nova_ssm import checks
from nova_ssm.cmd import status
from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import serialization
from nova_ssm import patching
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

SUCCESS, WARNING, FAILURE = upgradecheck.Code


@pytest.fixture
def url(tmp_path):
    made = 'sqlite:///%s' % (tmp_path / 'journal.db')
    database.upgrade(made)
    return made


@pytest.fixture
def make(conf, url):
    """Makes the checks of a nova.conf that is in order, but for a text."""
    def make(text='', connection=url):
        return checks.Checks(conf(
            '[ssm]\nconnection = %s\nworkflows = build_instances\n'
            'encryption_keys = %s\n%s' % (
                connection, fernet.Fernet.generate_key().decode(), text)))
    return make


def inspected(state):
    return lambda nova: types.SimpleNamespace(state=state)


@pytest.fixture(autouse=True)
def patched(monkeypatch):
    """A Nova that is patched."""
    monkeypatch.setattr(patching, 'inspect',
                        inspected(patching.State.APPLIED))


def test_all_is_well(make):
    results = dict(make().results())
    assert {name: (result.code, result.details)
            for name, result in results.items()
            if result.code is not SUCCESS} == {}
    assert list(results) == [
        'Nova release', 'Patch', 'Patch for oslo.messaging',
        'Journal schema', 'Encryption keys', 'Workflows', 'Job board',
        'Unfinished flows']


@pytest.mark.parametrize('state, code', (
    (patching.State.NOT_APPLIED, WARNING),
    (patching.State.PARTLY_APPLIED, FAILURE),
    (patching.State.CONFLICT, FAILURE)))
def test_a_nova_that_is_not_patched(make, monkeypatch, state, code):
    monkeypatch.setattr(patching, 'inspect', inspected(state))
    assert make().patch().code is code


def test_a_nova_that_no_patch_is_for(make, monkeypatch):
    monkeypatch.setattr(patching, 'inspect',
                        inspected(patching.State.UNSUPPORTED))
    assert make().nova().code is FAILURE


@pytest.mark.parametrize('state', [
    one for one in patching.State if one is not patching.State.APPLIED])
def test_an_oslo_messaging_that_is_not_patched(make, monkeypatch, state):
    monkeypatch.setattr(patching, 'inspect', inspected(state))
    result = make().messaging()
    assert result.code is WARNING
    assert state.value in result.details
    assert 'rpc_response_timeout' in result.details


def test_no_oslo_messaging(make, monkeypatch):
    def find(project):
        raise patching.PatchError('it is nowhere')

    monkeypatch.setattr(patching, 'find', find)
    result = make().messaging()
    assert result.code is WARNING
    assert 'it is nowhere' in result.details


def test_tables_that_are_not_there(make, tmp_path):
    made = make(connection='sqlite:///%s' % (tmp_path / 'new.db'))
    result = made.schema()
    assert result.code is FAILURE
    assert 'nova-ssm db sync' in result.details


def test_tables_of_a_newer_release(make, url):
    with database.Database(url).transaction() as connection:
        connection.exec_driver_sql(
            "UPDATE ssm_alembic_version SET version_num = '9999'")
    result = make().schema()
    assert result.code is WARNING
    assert '9999' in result.details


@pytest.mark.parametrize('keys, code, said', (
    ('', WARNING, 'nova-ssm key new'), ('x', FAILURE, 'key')))
def test_keys(make, keys, code, said):
    made = make()
    made._conf.set_override('encryption_keys', [keys] if keys else [], 'ssm')
    try:
        result = made.keys()
    finally:
        made._conf.clear_override('encryption_keys', 'ssm')
    assert result.code is code
    assert said in result.details


@pytest.mark.parametrize('names, code', (
    (['nonsense'], FAILURE), ([], WARNING)))
def test_workflows(make, names, code):
    made = make()
    made._conf.set_override('workflows', names, 'ssm')
    try:
        result = made.workflows()
    finally:
        made._conf.clear_override('workflows', 'ssm')
    assert result.code is code
    assert all(name in result.details for name in names)


def test_a_board_that_does_not_answer(make):
    result = make('jobboard = etcd\njobboard_hosts = 127.0.0.1:1\n').board()
    assert result.code is FAILURE
    assert result.details


def test_a_flow_that_this_release_cannot_go_on_with(make, url):
    known = registry.Registry()
    known.add(registry.FlowType(
        'of the future', '1.0', examples.simple(helpers.World())['flow']))
    made = runner.Runner(database.Database(url), serialization.Serializer(),
                         known, 'host', renew=False)
    request = journal.FlowRequest(name='of the future', store={})
    made.board.start(request, owner=None)
    made.close()
    result = make().flows()
    assert result.code is WARNING
    assert request.uuid in result.details
    assert '1 of 1' in result.details


def test_what_a_check_cannot_do_is_no_end_of_the_others(make, monkeypatch):
    def fail(project):
        raise RuntimeError('no nova here')

    monkeypatch.setattr(patching, 'find', fail)
    results = dict(make().results())
    assert results['Nova release'].code is FAILURE
    assert 'no nova here' in results['Patch'].details
    assert results['Journal schema'].code is SUCCESS


@pytest.mark.parametrize('as_json', (True, False))
def test_the_command_says_it_and_exits_with_the_worst(make, as_json):
    made = make()
    made._conf.set_override('workflows', ['nonsense'], 'ssm')
    app = types.SimpleNamespace(conf=made._conf, stdout=io.StringIO())
    try:
        code = status.UpgradeCheck(app, None).take_action(
            types.SimpleNamespace(json=as_json))
    finally:
        made._conf.clear_override('workflows', 'ssm')
    said = app.stdout.getvalue()
    assert code == int(FAILURE)
    assert 'nonsense' in said
    if as_json:
        found = {one['check']: one['result']
                 for one in json.loads(said)['checks']}
        assert found['Workflows'] == int(FAILURE)
    else:
        assert 'Check: Workflows' in said
