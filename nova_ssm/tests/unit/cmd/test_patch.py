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
"""``nova-ssm patch`` as an operator meets it."""

import json
import shutil
import types

import pytest

from nova_ssm.cmd import main
from nova_ssm import patching
from nova_ssm.tests.unit import cmd


VERSIONS = {patching.NOVA.name: '34.0.0',
            patching.MESSAGING.name: '18.2.0'}


@pytest.fixture
def tree(tmp_path):
    """What is installed, not patched: the files that the patches change."""
    for project in (patching.NOVA, patching.MESSAGING):
        installed = patching.find(project)
        for file in patching.inspect(installed).files:
            target = tmp_path / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(installed.root / file.path, target)
        set_version(tmp_path, project, VERSIONS[project.name])
        patching.revert(patching.find(project, str(tmp_path)))
    return tmp_path


def set_version(tree, project, version):
    metadata = tree / f'{project.package}-{VERSIONS[project.name]}.dist-info'
    metadata.mkdir(exist_ok=True)
    (metadata / 'METADATA').write_text(
        f'Name: {project.name}\nVersion: {version}\n')


def run(capsys, *argv):
    with cmd.one_process():
        code = main.main([str(arg) for arg in argv])
    out, err = capsys.readouterr()
    return code, out, err


def state(capsys, tree):
    code, out, _err = run(
        capsys, 'patch', 'status', '--nova-path', tree, '-f', 'json')
    return code, json.loads(out)


def test_status_apply_revert(capsys, tree):
    code, before = state(capsys, tree)
    assert (code, before['status']) == (3, 'not applied')
    assert before['messaging_status'] == 'not applied'
    assert (before['version'], before['release']) == ('34.0.0', '2026.2')
    code, out, err = run(capsys, 'patch', 'apply', '--nova-path', tree)
    assert (code, err) == (0, '')
    assert [line.partition(' in ')[0] for line in out.splitlines()] == [
        'nova 34.0.0', 'oslo.messaging 18.2.0']
    assert 'compute_task_manager = nova_ssm' in out
    code, after = state(capsys, tree)
    assert (code, after['status']) == (0, 'applied')
    assert after['messaging_status'] == 'applied'
    assert set(after['files'].values()) == {'applied'}
    code, out, _err = run(capsys, 'patch', 'apply', '--nova-path', tree)
    assert code == 0
    assert out.count('already') == 2
    assert run(capsys, 'patch', 'revert', '--nova-path', tree)[0] == 0
    assert state(capsys, tree) == (3, before)


def test_the_table_names_the_files(capsys, tree):
    _code, out, _err = run(capsys, 'patch', 'status', '--nova-path', tree)
    assert 'nova/conductor/manager.py: not applied' in out
    assert 'oslo_messaging/_drivers/impl_rabbit.py: not applied' in out


def test_a_conflict(capsys, tree):
    manager = tree / 'nova/conductor/manager.py'
    manager.write_text(manager.read_text().replace(
        'self.compute_task_mgr = ComputeTaskManager()',
        'self.compute_task_mgr = Mine()'))
    code, out, err = run(capsys, 'patch', 'apply', '--nova-path', tree)
    assert (code, out) == (1, '')
    assert err.count('\n') == 1
    assert 'nova/conductor/manager.py: hunk 5 does not match' in err
    code, report = state(capsys, tree)
    assert (code, report['status']) == (4, 'conflict')
    assert report['messaging_status'] == 'not applied'
    assert 'hunk 5' in report['files']['nova/conductor/manager.py']


def test_an_unsupported_release(capsys, tree):
    set_version(tree, patching.NOVA, '30.0.0')
    code, report = state(capsys, tree)
    assert (code, report['status']) == (5, 'unsupported')
    assert report['supported'] == '2026.2 (34.x)'
    code, _out, err = run(capsys, 'patch', 'apply', '--nova-path', tree)
    assert code == 5
    assert '2026.2 (34.x)' in err
    assert err.count('\n') == 1


def test_the_release_can_be_said_where_it_cannot_be_found_out(capsys, tree):
    """Of a Nova from a checkout, say, which has a version of its own."""
    set_version(tree, patching.NOVA, '0.0.1.dev7')
    argv = ('--nova-path', tree, '--release', '2026.2')
    for verb, status in (('apply', 'applied'), ('revert', 'not applied')):
        code, _out, err = run(capsys, 'patch', verb, *argv)
        assert (code, err) == (0, '')
        _code, out, _err = run(capsys, 'patch', 'status', *argv, '-f', 'json')
        assert json.loads(out)['status'] == status
        assert json.loads(out)['release'] == '2026.2'


def test_a_release_that_has_no_patch_is_refused(capsys, tree):
    with pytest.raises(SystemExit) as caught:
        run(capsys, 'patch', 'apply', '--nova-path', tree, '--release',
            '1999.1')
    assert caught.value.code == 2
    assert "choose from '2026.2'" in capsys.readouterr().err


def test_no_nova(capsys, tmp_path):
    code, _out, err = run(capsys, 'patch', 'status', '--nova-path', tmp_path)
    assert (code, err.count('\n')) == (1, 1)
    assert 'there is no nova in' in err


# -- oslo.messaging, which nobody has to patch -------------------------------

def conflict(tree):
    driver = tree / 'oslo_messaging/_drivers/impl_rabbit.py'
    driver.write_text(driver.read_text().replace(
        'def stop_consuming(self):', 'def stop_it(self):'))
    return 'conflict', 'impl_rabbit.py: hunk 1 does not match'


def unsupported(tree):
    set_version(tree, patching.MESSAGING, '17.4.0')
    return 'unsupported', 'oslo.messaging 17.4.0 has no patch'


@pytest.mark.parametrize('spoil', (conflict, unsupported))
def test_nova_is_patched_where_oslo_messaging_cannot_be(capsys, tree, spoil):
    status, words = spoil(tree)
    code, out, err = run(capsys, 'patch', 'apply', '--nova-path', tree)
    assert (code, err.count('\n')) == (0, 1)
    assert err.startswith('warning: ')
    assert words in err
    assert 'waits for rpc_response_timeout' in err
    assert 'oslo.messaging' not in out
    code, report = state(capsys, tree)
    assert (code, report['status']) == (0, 'applied')
    assert report['messaging_status'] == status
    assert report['messaging_supported'] == '2026.2 (18.x)'
    code, _out, err = run(capsys, 'patch', 'revert', '--nova-path', tree)
    assert (code, err.count('\n')) == (0, 1)
    assert state(capsys, tree)[1]['status'] == 'not applied'


def test_a_checkout_of_nova_goes_with_the_oslo_messaging_of_this_python(
        capsys, tree, tmp_path, monkeypatch):
    checkout = tmp_path / 'checkout'
    checkout.mkdir()
    (tree / 'nova').rename(checkout / 'nova')
    (tree / 'nova-34.0.0.dist-info').rename(
        checkout / 'nova-34.0.0.dist-info')
    monkeypatch.setattr(
        patching.util, 'find_spec', lambda name: types.SimpleNamespace(
            origin=str(tree / name / '__init__.py')))
    assert run(capsys, 'patch', 'apply', '--nova-path', checkout)[0] == 0
    code, report = state(capsys, checkout)
    assert (code, report['nova']) == (0, str(checkout))
    assert (report['messaging_status'], report['messaging']) == (
        'applied', str(tree))


def test_no_oslo_messaging(capsys, tree, monkeypatch):
    shutil.rmtree(tree / 'oslo_messaging')
    monkeypatch.setattr(patching.util, 'find_spec', lambda name: None)
    code, _out, err = run(capsys, 'patch', 'apply', '--nova-path', tree)
    assert code == 0
    assert 'oslo.messaging is not installed' in err
    code, report = state(capsys, tree)
    assert (code, report['status']) == (0, 'applied')
    assert 'is not installed' in report['messaging_status']
