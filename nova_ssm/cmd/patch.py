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
"""``nova-ssm patch``: the patches, looked at, put in, taken out.

Nova is what matters. That oslo.messaging cannot be patched is said, and keeps
nobody from patching Nova.
"""

import argparse
from collections.abc import Callable
import typing

from cliff import command
from cliff import show

from nova_ssm import patching

#: What the status command exits with, for scripts.
EXIT_CODES = {
    patching.State.APPLIED: 0,
    patching.State.NOT_APPLIED: 3,
    patching.State.PARTLY_APPLIED: 4,
    patching.State.CONFLICT: 4,
    patching.State.UNSUPPORTED: 5,
}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--nova-path', metavar='DIR',
        help='the directory that contains the nova package, for example a '
             'checkout of nova; default: the nova this Python imports. '
             'oslo.messaging is taken from there if it is there')
    parser.add_argument(
        '--release', choices=sorted(patching.NOVA.releases.values()),
        help='the release of nova, where it cannot be found out; default: '
             'from the version of the package')


def _messaging(nova: patching.Tree, nova_path: str | None) -> patching.Tree:
    """The oslo.messaging that goes with a Nova.

    :raises PatchError: if there is none
    """
    # A checkout of Nova has none, and runs with that of this Python.
    beside = nova_path and (nova.root / patching.MESSAGING.package).is_dir()
    return patching.find(patching.MESSAGING,
                         str(nova.root) if beside else None)


class Status(show.ShowOne):
    """Say whether nova is patched, and oslo.messaging.

    Exits with 0 if nova is, 3 if it is not, 4 if it is half patched or does
    not fit the patch, and 5 if there is no patch for its release.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add where nova is."""
        parser = super().get_parser(prog_name)
        _add_arguments(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Print the status and make an exit code of it."""
        super().run(parsed_args)
        return self._exit_code

    def take_action(self, parsed_args: argparse.Namespace
                    ) -> tuple[tuple[str, ...], tuple[typing.Any, ...]]:
        """Inspect both."""
        plain = parsed_args.formatter in ('table', 'value', 'shell')
        nova = patching.find(patching.NOVA, parsed_args.nova_path)
        report = patching.inspect(nova, parsed_args.release)
        self._exit_code = EXIT_CODES[report.state]
        try:
            messaging = _row(patching.inspect(
                _messaging(nova, parsed_args.nova_path)), None, plain)
        except patching.PatchError as exc:
            messaging = (str(exc), *[None] * 5)
        return (('status', 'nova', 'version', 'release', 'supported', 'files',
                 'messaging_status', 'messaging', 'messaging_version',
                 'messaging_release', 'messaging_supported',
                 'messaging_files'),
                _row(report, parsed_args.release, plain) + messaging)


def _row(report: patching.Report, release: str | None, plain: bool
         ) -> tuple[typing.Any, ...]:
    """What is shown of one of them."""
    tree = report.tree
    files = {file.path: f'{file.state.value}: {file.detail}'.rstrip(': ')
             for file in report.files}
    return (report.state.value, str(tree.root), tree.version or None,
            release or tree.release, tree.project.supported,
            '\n'.join(f'{path}: {state}' for path, state in files.items())
            if plain else files)


class _Change(command.Command):
    """Changes both, or finds that there is nothing to change."""

    change: Callable[..., patching.Report]
    already: str
    done: dict[str, str]    # name of the project -> text
    unpatched = ''          # what is said where oslo.messaging is left alone

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add where nova is."""
        parser = super().get_parser(prog_name)
        _add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Change nova, then oslo.messaging, and say what was done."""
        nova = patching.find(patching.NOVA, parsed_args.nova_path)
        self._change(nova, parsed_args.release)
        try:
            self._change(_messaging(nova, parsed_args.nova_path), None)
        except patching.PatchError as exc:
            self.app.stderr.write(f'warning: {exc}{self.unpatched}\n')

    def _change(self, tree: patching.Tree, release: str | None) -> None:
        before = patching.inspect(tree, release)
        after = type(self).change(tree, release)
        name = tree.project.name
        text = (self.already if before.state is after.state
                else self.done[name])
        self.app.stdout.write(
            f'{name} {tree.version} in {tree.root} {text}\n')


class Apply(_Change):
    """Patch nova, and oslo.messaging if its release has a patch.

    Each is all or nothing, and may be repeated. That oslo.messaging cannot be
    patched is a warning.
    """

    change = staticmethod(patching.apply)
    already = 'is patched already'
    done = {
        patching.NOVA.name: 'is patched; set [conductor] compute_task_manager '
                            '= nova_ssm and restart nova-conductor',
        patching.MESSAGING.name: 'is patched; restart nova-conductor'}
    unpatched = f'. Without the patch {patching.LOSSES}'


class Revert(_Change):
    """Take the patches out of nova and oslo.messaging.

    Each is all or nothing.
    """

    change = staticmethod(patching.revert)
    already = 'is not patched'
    done = dict.fromkeys((patching.NOVA.name, patching.MESSAGING.name),
                         'is as it was; restart nova-conductor')
