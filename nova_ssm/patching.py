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
"""Finds what is installed and applies the patches of its release to it.

That is Nova, and the oslo.messaging that it uses. Neither is imported or run:
the work is done on the files of one of them, and either on all or on none. A
hunk must match exactly; it may have moved within its file.
"""

import contextlib
import dataclasses
import enum
from importlib import metadata
from importlib import util
import os
import pathlib
import re
import tempfile

import unidiff

_PACKAGE = pathlib.Path(__file__).resolve().parent
# An installed package carries the patches inside, a checkout beside itself.
_PATCH_DIRS = (_PACKAGE / 'patches', _PACKAGE.parent / 'patches')


@dataclasses.dataclass(frozen=True)
class Project:
    """What there are patches for.

    :ivar name: of the distribution
    :ivar package: that it brings
    :ivar landmark: a file that tells the package from what else has its name
    :ivar releases: that have patches: major version -> OpenStack release
    :ivar patches: where they are, in the directory of the release
    :ivar unsupported: what to do where there is no patch
    """

    name: str
    package: str
    landmark: str
    releases: dict[int, str]
    patches: str
    unsupported: str

    @property
    def supported(self) -> str:
        """The releases that have patches, for a message."""
        return ', '.join(f'{release} ({major}.x)'
                         for major, release in sorted(self.releases.items()))


NOVA = Project(
    'nova', 'nova', 'conductor/manager.py', {34: '2026.2'}, '.',
    'Use nova-ssm-conductor in place of nova-conductor, or name the release '
    'of a source tree with --release')
MESSAGING = Project(
    'oslo.messaging', 'oslo_messaging', '_drivers/amqpdriver.py',
    {18: '2026.2'}, 'oslo.messaging', 'Nova works without it')

#: What an unpatched oslo.messaging does.
LOSSES = ('oslo.messaging loses messages when a nova-conductor is stopped: a '
          'compute that has called it waits for rpc_response_timeout')


class PatchError(Exception):
    """Nothing was changed; the text says why and what to do."""

    exit_code = 1


class Unsupported(PatchError):
    """There is no patch for this release."""

    exit_code = 5


class State(enum.Enum):
    """What a tree looks like, as a whole or one file of it."""

    APPLIED = 'applied'
    NOT_APPLIED = 'not applied'
    PARTLY_APPLIED = 'partly applied'
    CONFLICT = 'conflict'
    UNSUPPORTED = 'unsupported'


@dataclasses.dataclass(frozen=True)
class Tree:
    """The files of a project on this machine.

    :ivar root: the directory that contains its package
    :ivar version: for example ``34.0.0``, or '' if it could not be found out
    """

    project: Project
    root: pathlib.Path
    version: str

    @property
    def release(self) -> str | None:
        """The OpenStack release, or None if there is no patch for it."""
        major = re.match(r'\d+', self.version)
        return (self.project.releases.get(int(major.group()))
                if major else None)

    @property
    def is_source_tree(self) -> bool:
        """Whether this is a source tree, with all that is not installed."""
        return any((self.root / name).is_file()
                   for name in ('setup.cfg', 'pyproject.toml'))


@dataclasses.dataclass(frozen=True)
class FileReport:
    """The state of one file.

    :ivar path: relative to the root of the tree
    :ivar detail: for a conflict, which hunk it is and where it was expected
    """

    path: str
    state: State
    detail: str = ''


@dataclasses.dataclass(frozen=True)
class Report:
    """The state of a tree, file by file."""

    tree: Tree
    state: State
    files: tuple[FileReport, ...] = ()


@dataclasses.dataclass
class _Change:
    """What a patch does to one file. A text of None is a missing file."""

    path: pathlib.Path
    report: FileReport
    unpatched: str | None = None
    patched: str | None = None


class _Mismatch(Exception):
    """A hunk does not match the file."""


def find(project: Project, path: str | None = None) -> Tree:
    """Find a project without importing it.

    :param path: a directory with its package, or that package itself; None
        for the one this Python would import
    :raises PatchError: if there is none
    """
    if path is None:
        spec = util.find_spec(project.package)
        if spec is None or spec.origin is None:
            raise PatchError(
                f'{project.name} is not installed for this Python; name the '
                'directory that contains it with --nova-path')
        package = pathlib.Path(spec.origin).parent
    else:
        package = pathlib.Path(path)
        if not (package / project.landmark).is_file():
            package = package / project.package
    if not (package / project.landmark).is_file():
        raise PatchError(
            f'there is no {project.name} in {package.parent}: '
            f'{project.package}/{project.landmark} is missing')
    root = package.resolve().parent
    return Tree(project, root, _version(project, root, installed=path is None))


def _version(project: Project, root: pathlib.Path, *,
             installed: bool) -> str:
    for dist in metadata.distributions(name=project.name, path=[str(root)]):
        return dist.version or ''
    # The archive of a release says it here; a git tree says it nowhere.
    with contextlib.suppress(OSError):
        found = re.search(r'^Version: (\S+)$',
                          (root / 'PKG-INFO').read_text('utf-8'), re.MULTILINE)
        if found:
            return found.group(1)
    if installed:
        # An editable install keeps its metadata away from its files.
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(project.name)
    return ''


def inspect(tree: Tree, release: str | None = None) -> Report:
    """Say whether a tree is patched. Changes nothing.

    :param release: for a tree whose release can't be found out
    """
    directory = _patch_dir(tree, release)
    if directory is None:
        return Report(tree, State.UNSUPPORTED)
    return _report(tree, _changes(tree, directory))


def apply(tree: Tree, release: str | None = None) -> Report:
    """Patch a tree. Does nothing if it is patched, completes a half patch.

    :raises PatchError: if a hunk does not match or a file can't be written;
        nothing is changed then
    """
    return _transform(tree, release, State.APPLIED)


def revert(tree: Tree, release: str | None = None) -> Report:
    """Take the patch out again. Does nothing if it is not there.

    :raises PatchError: as :func:`apply` does
    """
    return _transform(tree, release, State.NOT_APPLIED)


def _transform(tree: Tree, release: str | None, goal: State) -> Report:
    project = tree.project
    directory = _patch_dir(tree, release)
    if directory is None:
        raise Unsupported(
            f'{tree.root}: {project.name} '
            f'{tree.version or "of an unknown version"} has no patch; there '
            f'are patches for {project.supported}. {project.unsupported}')
    changes = _changes(tree, directory)
    conflicts = [c.report for c in changes if c.report.state is State.CONFLICT]
    if conflicts:
        raise PatchError('; '.join(f'{c.path}: {c.detail}' for c in conflicts)
                         + f'. Nothing was changed in {tree.root}')
    _write([(c.path, c.patched if goal is State.APPLIED else c.unpatched)
            for c in changes if c.report.state is not goal])
    return inspect(tree, release)


def _report(tree: Tree, changes: list[_Change]) -> Report:
    files = tuple(change.report for change in changes)
    states = {report.state for report in files}
    if State.CONFLICT in states:
        state = State.CONFLICT
    elif len(states) > 1:
        state = State.PARTLY_APPLIED
    else:
        state = states.pop()
    return Report(tree, state, files)


def _patch_dir(tree: Tree, release: str | None) -> pathlib.Path | None:
    """Where the patches are that fit, or None if there are none."""
    release = release or tree.release
    if release is None:
        return None
    for base in _PATCH_DIRS:
        if (base / release / tree.project.patches).is_dir():
            return base / release / tree.project.patches
    return None


def _changes(tree: Tree, directory: pathlib.Path) -> list[_Change]:
    """Compare a tree with the patches of its release."""
    hunks: dict[str, list[unidiff.PatchedFile]] = {}
    for patch in sorted(directory.glob('*.patch')):
        for patched in unidiff.PatchSet(patch.read_text('utf-8')):
            if patched.is_rename or not len(patched):
                raise PatchError(
                    f'{patch}: {patched.path}: only changes of lines are '
                    'supported')
            hunks.setdefault(patched.path, []).append(patched)
    changes = [_compare(tree, path, patched)
               for path, patched in hunks.items() if _wanted(tree, path)]
    if not changes:
        raise PatchError(f'{directory}: the patches are missing; install '
                         'nova-ssm again')
    return changes


def _wanted(tree: Tree, path: str) -> bool:
    """Whether a file of the patch belongs to this tree.

    A package has no release notes, and some distributions leave out the
    tests; a source tree takes all.
    """
    package = tree.project.package
    if tree.is_source_tree:
        return True
    if not path.startswith(f'{package}/'):
        return False
    return (not path.startswith(f'{package}/tests/')
            or (tree.root / path).is_file())


def _compare(tree: Tree, name: str,
             patches: list[unidiff.PatchedFile]) -> _Change:
    path = tree.root / name
    try:
        text = path.read_bytes().decode('utf-8')
    except FileNotFoundError:
        text = None
    except (OSError, UnicodeDecodeError) as exc:
        return _Change(path, FileReport(name, State.CONFLICT, str(exc)))
    # Backward first: the context that a pure addition is looked up by is
    # still there when the addition has been made.
    try:
        before = text
        for patch in reversed(patches):
            before = _convert(before, patch, forward=False)
        return _Change(path, FileReport(name, State.APPLIED), before, text)
    except _Mismatch as exc:
        not_patched = exc
    try:
        after = text
        for patch in patches:
            after = _convert(after, patch, forward=True)
        return _Change(path, FileReport(name, State.NOT_APPLIED), text, after)
    except _Mismatch as exc:
        detail = f'{exc} (and it is not the patched file: {not_patched})'
        return _Change(path, FileReport(name, State.CONFLICT, detail))


def _convert(text: str | None, patch: unidiff.PatchedFile, *,
             forward: bool) -> str | None:
    """Apply the hunks of one file, or take them back.

    :raises _Mismatch: names the first hunk that does not match
    """
    creates = patch.is_added_file if forward else patch.is_removed_file
    deletes = patch.is_removed_file if forward else patch.is_added_file
    if creates != (text is None):
        raise _Mismatch('the file is missing' if text is None
                        else 'the file is there already')
    lines = (text or '').splitlines(keepends=True)
    done = 0      # the lines up to here are behind us
    shift = 0     # how far the hunks before were from where they should be
    for number, hunk in enumerate(patch, 1):
        source = [line.value for line in hunk.source_lines()]
        target = [line.value for line in hunk.target_lines()]
        old, new = (source, target) if forward else (target, source)
        start = hunk.source_start if forward else hunk.target_start
        wanted = max(start - 1, 0) + shift
        at = _find(lines, old, wanted, done, at_end=not hunk[-1].is_context)
        if at is None:
            raise _Mismatch(f'hunk {number} does not match near line '
                            f'{max(start, 1)}')
        lines[at:at + len(old)] = new
        done = at + len(new)
        # The start of the next hunk is counted in the old file.
        shift = at - max(start - 1, 0) + len(new) - len(old)
    if deletes:
        if lines:
            raise _Mismatch('the file has more in it')
        return None
    return ''.join(lines)


def _find(lines: list[str], wanted: list[str], near: int, first: int, *,
          at_end: bool) -> int | None:
    """Find a run of lines: the one nearest to a place, not before another.

    A hunk without context behind it can only be at the end of its file.
    """
    last = len(lines) - len(wanted)
    places = range(max(first, last) if at_end else first, last + 1)
    for at in sorted(places, key=lambda place: abs(place - near)):
        if lines[at:at + len(wanted)] == wanted:
            return at
    return None


def _write(files: list[tuple[pathlib.Path, str | None]]) -> None:
    """Replace files. All of them are ready before the first is replaced.

    :raises PatchError: if a file can't be written; nothing is changed then
    """
    staged: list[tuple[str, pathlib.Path]] = []
    try:
        for path, text in files:
            if text is not None:
                staged.append((_stage(path, text), path))
            elif not os.access(path.parent, os.W_OK):
                raise PermissionError(13, 'Permission denied',
                                      str(path.parent))
        while staged:
            os.replace(*staged[-1])
            staged.pop()
        for path, text in files:
            if text is None:
                path.unlink()
    except OSError as exc:
        raise PatchError(
            f'{exc.filename or ""}: {exc.strerror}; run this as the user who '
            'owns the files') from exc
    finally:
        for name, _path in staged:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)


def _stage(path: pathlib.Path, text: str) -> str:
    """Write the new content beside a file, with its mode and owner."""
    handle, name = tempfile.mkstemp(prefix=f'.{path.name}.', dir=path.parent)
    try:
        with open(handle, 'wb') as stream:
            stream.write(text.encode('utf-8'))
            stream.flush()
            os.fsync(stream.fileno())
        if path.exists():
            stat = path.stat()
            os.chmod(name, stat.st_mode & 0o7777)
            if (stat.st_uid, stat.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(name, stat.st_uid, stat.st_gid)
        else:
            os.chmod(name, 0o644)
    except OSError:
        os.unlink(name)
        raise
    return name
