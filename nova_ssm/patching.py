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
"""Finds the installed Nova and applies the patches of its release to it.

Nova is neither imported nor run: the work is done on its files, and either on
all of them or on none. A hunk must match exactly; it may have moved within its
file.
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

#: The Nova releases that have patches: major version -> OpenStack release.
RELEASES = {34: '2026.2'}

_PACKAGE = pathlib.Path(__file__).resolve().parent
# An installed package carries the patches inside, a checkout beside itself.
_PATCH_DIRS = (_PACKAGE / 'patches', _PACKAGE.parent / 'patches')


class PatchError(Exception):
    """Nothing was changed; the text says why and what to do."""

    exit_code = 1


class Unsupported(PatchError):
    """There is no patch for this release of Nova."""

    exit_code = 5


class State(enum.Enum):
    """What a Nova looks like, as a whole or one file of it."""

    APPLIED = 'applied'
    NOT_APPLIED = 'not applied'
    PARTLY_APPLIED = 'partly applied'
    CONFLICT = 'conflict'
    UNSUPPORTED = 'unsupported'


@dataclasses.dataclass(frozen=True)
class Nova:
    """A Nova on this machine.

    :ivar root: the directory that contains the ``nova`` package
    :ivar version: for example ``34.0.0``, or '' if it could not be found out
    """

    root: pathlib.Path
    version: str

    @property
    def release(self) -> str | None:
        """The OpenStack release, or None if there is no patch for it."""
        major = re.match(r'\d+', self.version)
        return RELEASES.get(int(major.group())) if major else None

    @property
    def is_source_tree(self) -> bool:
        """Whether this is a source tree, with all that is not installed."""
        return any((self.root / name).is_file()
                   for name in ('setup.cfg', 'pyproject.toml'))


@dataclasses.dataclass(frozen=True)
class FileReport:
    """The state of one file.

    :ivar path: relative to the root of Nova
    :ivar detail: for a conflict, which hunk it is and where it was expected
    """

    path: str
    state: State
    detail: str = ''


@dataclasses.dataclass(frozen=True)
class Report:
    """The state of a Nova, file by file."""

    nova: Nova
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


def find_nova(path: str | None = None) -> Nova:
    """Find Nova without importing it.

    :param path: a directory with the ``nova`` package, or that package itself;
        None for the Nova this Python would import
    :raises PatchError: if there is none
    """
    if path is None:
        spec = util.find_spec('nova')
        if spec is None or spec.origin is None:
            raise PatchError(
                'nova is not installed for this Python; name the directory '
                'that contains it with --nova-path')
        package = pathlib.Path(spec.origin).parent
    else:
        package = pathlib.Path(path)
        if not (package / 'conductor' / 'manager.py').is_file():
            package = package / 'nova'
    if not (package / 'conductor' / 'manager.py').is_file():
        raise PatchError(
            f'there is no nova in {package.parent}: '
            'nova/conductor/manager.py is missing')
    root = package.resolve().parent
    return Nova(root, _version(root, installed=path is None))


def _version(root: pathlib.Path, *, installed: bool) -> str:
    for dist in metadata.distributions(name='nova', path=[str(root)]):
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
            return metadata.version('nova')
    return ''


def supported() -> str:
    """Name the supported releases, for a message."""
    return ', '.join(f'{release} ({major}.x)'
                     for major, release in sorted(RELEASES.items()))


def inspect(nova: Nova, release: str | None = None) -> Report:
    """Say whether a Nova is patched. Changes nothing.

    :param release: for a Nova whose release can't be found out
    """
    release = release or nova.release
    if release is None or _patch_dir(release) is None:
        return Report(nova, State.UNSUPPORTED)
    return _report(nova, _changes(nova, release))


def apply(nova: Nova, release: str | None = None) -> Report:
    """Patch a Nova. Does nothing if it is patched, completes a half patch.

    :raises PatchError: if a hunk does not match or a file can't be written;
        nothing is changed then
    """
    return _transform(nova, release, State.APPLIED)


def revert(nova: Nova, release: str | None = None) -> Report:
    """Take the patch out again. Does nothing if it is not there.

    :raises PatchError: as :func:`apply` does
    """
    return _transform(nova, release, State.NOT_APPLIED)


def _transform(nova: Nova, release: str | None, goal: State) -> Report:
    release = release or nova.release
    if release is None or _patch_dir(release) is None:
        raise Unsupported(
            f'{nova.root}: nova {nova.version or "of an unknown version"} has '
            f'no patch; there are patches for {supported()}. Use '
            'nova-ssm-conductor in place of nova-conductor, or name the '
            'release of a source tree with --release')
    changes = _changes(nova, release)
    conflicts = [c.report for c in changes if c.report.state is State.CONFLICT]
    if conflicts:
        raise PatchError('; '.join(f'{c.path}: {c.detail}' for c in conflicts)
                         + f'. Nothing was changed in {nova.root}')
    _write([(c.path, c.patched if goal is State.APPLIED else c.unpatched)
            for c in changes if c.report.state is not goal])
    return inspect(nova, release)


def _report(nova: Nova, changes: list[_Change]) -> Report:
    files = tuple(change.report for change in changes)
    states = {report.state for report in files}
    if State.CONFLICT in states:
        state = State.CONFLICT
    elif len(states) > 1:
        state = State.PARTLY_APPLIED
    else:
        state = states.pop()
    return Report(nova, state, files)


def _patch_dir(release: str) -> pathlib.Path | None:
    for base in _PATCH_DIRS:
        if (base / release).is_dir():
            return base / release
    return None


def _changes(nova: Nova, release: str) -> list[_Change]:
    """Compare Nova with the patches of a release."""
    directory = _patch_dir(release)
    hunks: dict[str, list[unidiff.PatchedFile]] = {}
    for patch in sorted(directory.glob('*.patch')) if directory else ():
        for patched in unidiff.PatchSet(patch.read_text('utf-8')):
            if patched.is_rename or not len(patched):
                raise PatchError(
                    f'{patch}: {patched.path}: only changes of lines are '
                    'supported')
            hunks.setdefault(patched.path, []).append(patched)
    changes = [_compare(nova, path, patched)
               for path, patched in hunks.items() if _wanted(nova, path)]
    if not changes:
        raise PatchError(f'the patches for {release} are missing; install '
                         'nova-ssm again')
    return changes


def _wanted(nova: Nova, path: str) -> bool:
    """Whether a file of the patch belongs to this Nova.

    A package has no release notes, and some distributions leave out Nova's
    tests; a source tree takes all.
    """
    if nova.is_source_tree:
        return True
    if not path.startswith('nova/'):
        return False
    return (not path.startswith('nova/tests/')
            or (nova.root / path).is_file())


def _compare(nova: Nova, name: str,
             patches: list[unidiff.PatchedFile]) -> _Change:
    path = nova.root / name
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
            'owns the files of nova') from exc
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
