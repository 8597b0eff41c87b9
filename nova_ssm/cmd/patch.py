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
"""``nova-ssm patch``: the patch for Nova, looked at, put in, taken out."""

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
             'checkout of nova; default: the nova this Python imports')
    parser.add_argument(
        '--release', choices=sorted(patching.RELEASES.values()),
        help='the release of nova, where it cannot be found out; default: '
             'from the version of the package')


class Status(show.ShowOne):
    """Say whether nova is patched.

    Exits with 0 if it is, 3 if it is not, 4 if it is half patched or does not
    fit the patch, and 5 if there is no patch for its release.
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
        """Inspect nova."""
        nova = patching.find_nova(parsed_args.nova_path)
        report = patching.inspect(nova, parsed_args.release)
        self._exit_code = EXIT_CODES[report.state]
        files = {file.path: f'{file.state.value}: {file.detail}'.rstrip(': ')
                 for file in report.files}
        plain = parsed_args.formatter in ('table', 'value', 'shell')
        return (('status', 'nova', 'version', 'release', 'supported',
                 'files'),
                (report.state.value, str(nova.root), nova.version or None,
                 parsed_args.release or nova.release, patching.supported(),
                 '\n'.join(f'{path}: {state}'
                           for path, state in files.items())
                 if plain else files))


class _Change(command.Command):
    """Changes nova, or finds that there is nothing to change."""

    change: Callable[..., patching.Report]
    already: str
    done: str

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add where nova is."""
        parser = super().get_parser(prog_name)
        _add_arguments(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Change nova and say what was done."""
        nova = patching.find_nova(parsed_args.nova_path)
        before = patching.inspect(nova, parsed_args.release)
        after = type(self).change(nova, parsed_args.release)
        text = self.already if before.state is after.state else self.done
        self.app.stdout.write(
            text.format(root=nova.root, version=nova.version or '') + '\n')


class Apply(_Change):
    """Patch nova. It is all or nothing, and may be repeated."""

    change = staticmethod(patching.apply)
    already = 'nova {version} in {root} is patched already'
    done = ('nova {version} in {root} is patched; set [conductor] '
            'compute_task_manager = nova_ssm and restart nova-conductor')


class Revert(_Change):
    """Take the patch out of nova. It is all or nothing."""

    change = staticmethod(patching.revert)
    already = 'nova {version} in {root} is not patched'
    done = ('nova {version} in {root} is as it was; restart nova-conductor')
