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
"""The patch tool, on a small made-up Nova and on what is really there."""

import os
import pathlib
import shutil
import stat

import pytest

from nova_ssm import patching

MANAGER = ''.join(f'line {number}\n' for number in range(1, 41))
CONF = 'one\ntwo\nthree\nfour\n'

PATCH = '''\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: someone <someone@localhost>
Date: Thu, 1 Jan 2026 00:00:00 +0000
Subject: [PATCH] Change something

A line of the message.
---
 nova/conductor/manager.py | 4 ++++
 1 file changed, 4 insertions(+)

diff --git a/nova/conductor/manager.py b/nova/conductor/manager.py
index 5306149..1358efc 100644
--- a/nova/conductor/manager.py
+++ b/nova/conductor/manager.py
@@ -4,6 +4,8 @@
 line 4
 line 5
 line 6
+added 1
+added 2
 line 7
 line 8
 line 9
@@ -30,5 +32,5 @@
 line 30
 line 31
-line 32
+changed 32
 line 33
 line 34
diff --git a/nova/conf.py b/nova/conf.py
index 5306149..1358efc 100644
--- a/nova/conf.py
+++ b/nova/conf.py
@@ -2,3 +2,4 @@
 two
 three
 four
+five
diff --git a/nova/new.py b/nova/new.py
new file mode 100644
index 0000000..1358efc
--- /dev/null
+++ b/nova/new.py
@@ -0,0 +1,2 @@
+first
+second
diff --git a/nova/tests/test_it.py b/nova/tests/test_it.py
index 5306149..1358efc 100644
--- a/nova/tests/test_it.py
+++ b/nova/tests/test_it.py
@@ -1,2 +1,3 @@
+zero
 one
 two
diff --git a/releasenotes/notes/it.yaml b/releasenotes/notes/it.yaml
new file mode 100644
index 0000000..1358efc
--- /dev/null
+++ b/releasenotes/notes/it.yaml
@@ -0,0 +1 @@
+note
'''


@pytest.fixture
def patches(tmp_path, monkeypatch):
    """A directory of patches with PATCH for 2026.2."""
    directory = tmp_path / 'patches'
    (directory / '2026.2').mkdir(parents=True)
    (directory / '2026.2' / '0001-it.patch').write_text(PATCH)
    monkeypatch.setattr(patching, '_PATCH_DIRS', (directory,))
    return directory / '2026.2'


@pytest.fixture
def root(tmp_path, patches):
    """An installed Nova 34 that PATCH fits."""
    root = tmp_path / 'site'
    for path, text in {'nova/__init__.py': '',
                       'nova/conductor/manager.py': MANAGER,
                       'nova/conf.py': CONF,
                       'nova/tests/test_it.py': 'one\ntwo\n'}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / 'nova-34.0.1.dist-info').mkdir()
    (root / 'nova-34.0.1.dist-info' / 'METADATA').write_text(
        'Metadata-Version: 2.1\nName: nova\nVersion: 34.0.1\n')
    return root


def find(path):
    return patching.find(patching.NOVA, str(path))


def content(root):
    return {str(path.relative_to(root)): path.read_text()
            for path in sorted(root.rglob('*')) if path.is_file()}


def status(root):
    return patching.inspect(find(root)).state


def states(root):
    report = patching.inspect(find(root))
    return {file.path: file.state.name for file in report.files}


def test_finds_nova_and_its_version(root):
    for path in (root, root / 'nova'):
        nova = find(path)
        assert nova == patching.Tree(patching.NOVA, root, '34.0.1')
        assert nova.release == '2026.2'


def test_finds_the_version_of_a_release_archive(root):
    shutil.rmtree(root / 'nova-34.0.1.dist-info')
    (root / 'PKG-INFO').write_text('Name: nova\nVersion: 34.2.0\n')
    assert find(root).version == '34.2.0'


def test_no_nova(tmp_path):
    with pytest.raises(patching.PatchError, match='there is no nova in'):
        find(tmp_path)


def test_apply_and_revert(root):
    before = content(root)
    assert status(root) is patching.State.NOT_APPLIED
    report = patching.apply(find(root))
    assert report.state is patching.State.APPLIED
    after = content(root)
    assert 'line 6\nadded 1\nadded 2\nline 7\n' in after[
        'nova/conductor/manager.py']
    assert 'line 31\nchanged 32\nline 33\n' in after[
        'nova/conductor/manager.py']
    assert after['nova/conf.py'] == CONF + 'five\n'
    assert after['nova/new.py'] == 'first\nsecond\n'
    assert after['nova/tests/test_it.py'] == 'zero\none\ntwo\n'
    report = patching.revert(find(root))
    assert report.state is patching.State.NOT_APPLIED
    assert content(root) == before


def test_both_are_idempotent(root):
    nova = find(root)
    before = content(root)
    patching.revert(nova)
    assert content(root) == before
    patching.apply(nova)
    after = content(root)
    assert after != before
    patching.apply(nova)
    assert content(root) == after


def test_hunks_may_have_moved(root):
    manager = root / 'nova/conductor/manager.py'
    manager.write_text('new\n' * 7 + MANAGER.replace('line 20\n', ''))
    patching.apply(find(root))
    assert manager.read_text() == 'new\n' * 7 + MANAGER.replace(
        'line 20\n', '').replace('line 7\n', 'added 1\nadded 2\nline 7\n'
                                 ).replace('line 32', 'changed 32')
    patching.revert(find(root))
    assert manager.read_text() == 'new\n' * 7 + MANAGER.replace(
        'line 20\n', '')


def test_a_hunk_that_occurs_twice_goes_where_it_was(root):
    manager = root / 'nova/conductor/manager.py'
    block = MANAGER.splitlines(keepends=True)[3:9]
    manager.write_text(MANAGER + ''.join(block))
    patching.apply(find(root))
    assert manager.read_text().splitlines()[6] == 'added 1'
    assert manager.read_text().count('added 1') == 1


def test_a_conflict_changes_nothing_and_says_where(root):
    manager = root / 'nova/conductor/manager.py'
    manager.write_text(MANAGER.replace('line 33', 'line thirty-three'))
    before = content(root)
    assert status(root) is patching.State.CONFLICT
    for change in (patching.apply, patching.revert):
        with pytest.raises(patching.PatchError) as caught:
            change(find(root))
        assert ('nova/conductor/manager.py: hunk 2 does not match near line '
                '30' in str(caught.value))
        assert 'nova/conf.py' not in str(caught.value)
        assert content(root) == before


def test_context_must_match_exactly(root):
    manager = root / 'nova/conductor/manager.py'
    manager.write_text(MANAGER.replace('line 9\n', 'line 9 \n'))
    assert status(root) is patching.State.CONFLICT


def test_a_change_at_the_end_stays_at_the_end(root):
    (root / 'nova/conf.py').write_text(CONF + 'something new\n')
    assert states(root)['nova/conf.py'] == 'CONFLICT'


def test_a_missing_file_is_a_conflict(root):
    (root / 'nova/conf.py').unlink()
    before = content(root)
    with pytest.raises(patching.PatchError, match='nova/conf.py: the file is '
                                                  'missing'):
        patching.apply(find(root))
    assert content(root) == before


def test_a_half_patch_is_completed_or_taken_out(root):
    before = content(root)
    nova = find(root)
    patching.apply(nova)
    after = content(root)
    (root / 'nova/conf.py').write_text(CONF)
    assert patching.inspect(nova).state is patching.State.PARTLY_APPLIED
    patching.apply(nova)
    assert content(root) == after
    (root / 'nova/conf.py').write_text(CONF)
    patching.revert(nova)
    assert content(root) == before


def test_a_package_has_no_release_notes_and_maybe_no_tests(root):
    shutil.rmtree(root / 'nova/tests')
    # Somebody else's: it does not make a source tree of site-packages.
    (root / 'releasenotes').mkdir()
    patching.apply(find(root))
    assert status(root) is patching.State.APPLIED
    assert not (root / 'nova/tests').exists()
    assert not list((root / 'releasenotes').iterdir())


def test_a_source_tree_takes_all(root):
    (root / 'setup.cfg').write_text('[metadata]\nname = nova\n')
    (root / 'releasenotes/notes').mkdir(parents=True)
    patching.apply(find(root))
    assert (root / 'releasenotes/notes/it.yaml').read_text() == 'note\n'
    patching.revert(find(root))
    assert not (root / 'releasenotes/notes/it.yaml').exists()


@pytest.mark.parametrize('version', ['31.3.1', '35.0.0', ''])
def test_an_unsupported_release(root, version):
    (root / 'nova-34.0.1.dist-info' / 'METADATA').write_text(
        f'Name: nova\nVersion: {version}\n' if version else 'Name: other\n')
    before = content(root)
    nova = find(root)
    assert patching.inspect(nova).state is patching.State.UNSUPPORTED
    with pytest.raises(patching.Unsupported, match=r'2026\.2 \(34\.x\)'):
        patching.apply(nova)
    assert content(root) == before


def test_the_release_can_be_named(root):
    nova = patching.Tree(patching.NOVA, root, '')
    assert patching.apply(nova, '2026.2').state is patching.State.APPLIED


def test_modes_are_kept_and_no_file_is_left_behind(root):
    conf = root / 'nova/conf.py'
    conf.chmod(0o640)
    patching.apply(find(root))
    assert stat.S_IMODE(conf.stat().st_mode) == 0o640
    assert stat.S_IMODE((root / 'nova/new.py').stat().st_mode) == 0o644
    assert not list(root.rglob('.*'))


def test_a_hard_link_is_not_written_through(root, tmp_path):
    # Installers share files between environments this way.
    os.link(root / 'nova/conf.py', tmp_path / 'cache.py')
    patching.apply(find(root))
    assert (tmp_path / 'cache.py').read_text() == CONF


def test_a_file_that_cannot_be_written_changes_nothing(root, monkeypatch):
    before = content(root)
    stage = patching._stage

    def failing(path, text):
        if path.name == 'new.py':
            raise PermissionError(13, 'Permission denied', str(path))
        return stage(path, text)

    monkeypatch.setattr(patching, '_stage', failing)
    with pytest.raises(patching.PatchError, match='Permission denied; run '):
        patching.apply(find(root))
    assert content(root) == before


def test_several_patches_are_a_stack(root, patches):
    (patches / '0002-more.patch').write_text(
        'diff --git a/nova/conf.py b/nova/conf.py\n'
        '--- a/nova/conf.py\n+++ b/nova/conf.py\n'
        '@@ -3,3 +3,4 @@\n three\n four\n five\n+six\n')
    before = content(root)
    patching.apply(find(root))
    assert (root / 'nova/conf.py').read_text() == CONF + 'five\nsix\n'
    patching.revert(find(root))
    assert content(root) == before


def test_missing_patches_are_an_error(root, patches):
    (patches / '0001-it.patch').unlink()
    with pytest.raises(patching.PatchError, match='install nova-ssm again'):
        patching.inspect(find(root))


def test_the_patches_of_another_project_are_not_ours(root, patches):
    other = patches / 'oslo.messaging'
    other.mkdir()
    (other / '0001-it.patch').write_text('nothing that could be read')
    assert patching.apply(find(root)).state is patching.State.APPLIED


MESSAGING_PATCH = '''\
diff --git a/oslo_messaging/_drivers/amqpdriver.py b/oslo_messaging/_drivers/amqpdriver.py
--- a/oslo_messaging/_drivers/amqpdriver.py
+++ b/oslo_messaging/_drivers/amqpdriver.py
@@ -1,2 +1,3 @@
 one
+added
 two
diff --git a/oslo_messaging/tests/test_it.py b/oslo_messaging/tests/test_it.py
--- a/oslo_messaging/tests/test_it.py
+++ b/oslo_messaging/tests/test_it.py
@@ -1,2 +1,3 @@
 one
+added
 two
'''  # noqa: E501


@pytest.fixture
def messaging(root, patches):
    """An oslo.messaging beside that Nova, with a patch, without its tests."""
    (patches / 'oslo.messaging').mkdir()
    (patches / 'oslo.messaging' / '0001-it.patch').write_text(MESSAGING_PATCH)
    driver = root / 'oslo_messaging/_drivers/amqpdriver.py'
    driver.parent.mkdir(parents=True)
    driver.write_text('one\ntwo\n')
    metadata = root / 'oslo_messaging-18.2.0.dist-info' / 'METADATA'
    metadata.parent.mkdir()
    metadata.write_text('Name: oslo.messaging\nVersion: 18.2.0\n')
    return root


def test_each_project_has_patches_of_its_own(messaging):
    before = content(messaging)
    tree = patching.find(patching.MESSAGING, str(messaging))
    assert (tree.version, tree.release) == ('18.2.0', '2026.2')
    assert patching.apply(tree).state is patching.State.APPLIED
    after = content(messaging)
    assert {path for path in after if after[path] != before[path]} == {
        'oslo_messaging/_drivers/amqpdriver.py'}
    assert status(messaging) is patching.State.NOT_APPLIED
    patching.apply(find(messaging))
    patching.revert(tree)
    assert status(messaging) is patching.State.APPLIED
    assert content(messaging)[
        'oslo_messaging/_drivers/amqpdriver.py'] == 'one\ntwo\n'


def test_each_project_has_releases_of_its_own(messaging):
    metadata = messaging / 'oslo_messaging-18.2.0.dist-info' / 'METADATA'
    metadata.write_text('Name: oslo.messaging\nVersion: 34.0.0\n')
    tree = patching.find(patching.MESSAGING, str(messaging))
    assert patching.inspect(tree).state is patching.State.UNSUPPORTED
    with pytest.raises(patching.Unsupported) as caught:
        patching.apply(tree)
    assert 'oslo.messaging 34.0.0 has no patch' in str(caught.value)
    assert '2026.2 (18.x)' in str(caught.value)
    assert 'nova-ssm-conductor' not in str(caught.value)


def test_a_missing_project_is_named(root):
    with pytest.raises(patching.PatchError, match=(
            'no oslo.messaging in .*: oslo_messaging/_drivers/amqpdriver.py')):
        patching.find(patching.MESSAGING, str(root))


@pytest.fixture
def real(tmp_path):
    """Copies the files of what is installed that the real patch changes."""
    def copy(project):
        installed = patching.find(project)
        for file in patching.inspect(installed).files:
            target = tmp_path / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(installed.root / file.path, target)
        return patching.Tree(project, tmp_path, installed.version)

    return copy


@pytest.mark.parametrize('project, before, after', (
    (patching.NOVA, {
        'nova/conductor/manager.py':
            'self.compute_task_mgr = ComputeTaskManager()'}, {
        'nova/conductor/manager.py': 'stevedore',
        'nova/conf/conductor.py': 'compute_task_manager'}),
    (patching.MESSAGING, {}, {
        'oslo_messaging/_drivers/amqpdriver.py':
            'self.conn.cancel_consumers()',
        'oslo_messaging/_drivers/impl_rabbit.py': 'def cancel_consumers(',
        'oslo_messaging/tests/drivers/test_impl_rabbit.py':
            'class TestListenerStop('})))
def test_the_real_ones(real, project, before, after):
    tree = real(project)
    patching.revert(tree)
    stock = content(tree.root)
    for path, text in before.items():
        assert text in stock[path]
    for path, text in after.items():
        assert text not in stock[path]
    assert patching.apply(tree).state is patching.State.APPLIED
    patched = content(tree.root)
    for path, text in patched.items():
        assert text != stock[path]
        compile(text, path, 'exec')
    for path, text in after.items():
        assert text in patched[path]
    patching.revert(tree)
    assert content(tree.root) == stock


@pytest.mark.parametrize('project', (patching.NOVA, patching.MESSAGING),
                         ids=lambda project: project.name)
def test_there_are_patches_for_every_release_we_name(project):
    for major in project.releases:
        tree = patching.Tree(project, pathlib.Path(), f'{major}.0.0')
        assert list(patching._patch_dir(tree, None).glob('*.patch'))
