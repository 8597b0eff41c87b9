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

import pytest

from nova_ssm.cmd import main
from nova_ssm import patching
from nova_ssm.tests.unit import cmd


@pytest.fixture
def tree(tmp_path):
    """An installed Nova, not patched: the files that the patch changes."""
    nova = patching.find_nova()
    for file in patching.inspect(nova).files:
        target = tmp_path / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(nova.root / file.path, target)
    metadata = tmp_path / 'nova-34.0.0.dist-info' / 'METADATA'
    metadata.parent.mkdir()
    metadata.write_text('Name: nova\nVersion: 34.0.0\n')
    patching.revert(patching.find_nova(str(tmp_path)))
    return tmp_path


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
    assert (before['version'], before['release']) == ('34.0.0', '2026.2')
    code, out, err = run(capsys, 'patch', 'apply', '--nova-path', tree)
    assert (code, err) == (0, '')
    assert 'compute_task_manager = nova_ssm' in out
    code, after = state(capsys, tree)
    assert (code, after['status']) == (0, 'applied')
    assert set(after['files'].values()) == {'applied'}
    code, out, _err = run(capsys, 'patch', 'apply', '--nova-path', tree)
    assert code == 0
    assert 'already' in out
    assert run(capsys, 'patch', 'revert', '--nova-path', tree)[0] == 0
    assert state(capsys, tree) == (3, before)


def test_the_table_names_the_files(capsys, tree):
    _code, out, _err = run(capsys, 'patch', 'status', '--nova-path', tree)
    assert 'nova/conductor/manager.py: not applied' in out


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
    assert 'hunk 5' in report['files']['nova/conductor/manager.py']


def test_an_unsupported_release(capsys, tree):
    (tree / 'nova-34.0.0.dist-info' / 'METADATA').write_text(
        'Name: nova\nVersion: 30.0.0\n')
    code, report = state(capsys, tree)
    assert (code, report['status']) == (5, 'unsupported')
    assert report['supported'] == '2026.2 (34.x)'
    code, _out, err = run(capsys, 'patch', 'apply', '--nova-path', tree)
    assert code == 5
    assert '2026.2 (34.x)' in err
    assert err.count('\n') == 1


def test_the_release_can_be_said_where_it_cannot_be_found_out(capsys, tree):
    """Of a Nova from a checkout, say, which has a version of its own."""
    (tree / 'nova-34.0.0.dist-info' / 'METADATA').write_text(
        'Name: nova\nVersion: 0.0.1.dev7\n')
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
