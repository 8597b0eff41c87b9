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
"""The ``nova-ssm`` command. Its subcommands are entry points."""

import argparse
import functools
from importlib import metadata
import logging
import sys
import typing
import warnings

from cliff import app
from cliff import command
from cliff import commandmanager
from oslo_config import cfg

from nova_ssm import conf
from nova_ssm import version

COMMANDS = 'nova_ssm.cli'


class CommandManager(commandmanager.CommandManager):
    """Finds the commands without importing them.

    Only the one that is run is imported: the patch commands are for a Nova
    that may not be importable, and the others are quicker.
    """

    def load_commands(self, namespace: str) -> None:
        """Read the names of the commands."""
        self.group_list.append(namespace)
        for entry_point in metadata.entry_points(group=namespace):
            self.commands[entry_point.name.replace('_', ' ')] = entry_point


class NovaSSMApp(app.App):
    """Looks after the options of all commands and after errors."""

    NAME = 'nova-ssm'
    CONSOLE_MESSAGE_FORMAT = '%(levelname)s: %(message)s'

    def __init__(self) -> None:
        self._exit_code = 1
        super().__init__(
            description='Look after the durable workflows of nova-conductor',
            version=version.__version__,
            command_manager=CommandManager(COMMANDS),
            deferred_help=True)

    def build_option_parser(
            self, description: str | None, version: str | None,
            argparse_kwargs: dict[str, typing.Any] | None = None,
    ) -> argparse.ArgumentParser:
        """Add the options that say where the configuration is."""
        parser = super().build_option_parser(
            description, version, argparse_kwargs)
        parser.add_argument(
            '--config-file', action='append', default=[], metavar='PATH',
            help="nova's configuration file; may be repeated, later files "
                 'win; default: nova.conf where nova looks for it')
        parser.add_argument(
            '--config-dir', action='append', default=[], metavar='DIR',
            help='a directory of .conf files, read after the files')
        return parser

    @functools.cached_property
    def conf(self) -> cfg.ConfigOpts:
        """Nova's configuration, read when a command first asks for it.

        It is oslo.config's global object, the one that Nova registers its
        options with; section [ssm] is registered.

        :raises cfg.Error: if a file is missing or has errors
        """
        args = [f'--config-file={path}' for path in self.options.config_file]
        args += [f'--config-dir={path}' for path in self.options.config_dir]
        cfg.CONF(args, project='nova', prog='nova-ssm',
                 version=version.__version__)
        conf.register_opts(cfg.CONF)
        return cfg.CONF

    def configure_logging(self) -> None:
        """Keep the chatter of libraries off the console without --debug."""
        if not self.options.debug:
            for name in ('stevedore', 'alembic', 'taskflow', 'sqlalchemy',
                         'oslo_service', 'nova'):
                logging.getLogger(name).setLevel(logging.ERROR)
        super().configure_logging()

    def interact(self) -> None:
        """Show the help to who names no command: there is no shell of ours."""
        self.run_subcommand(['help'])

    def run_subcommand(self, argv: list[str]) -> int:
        """Run a command and let its error choose the exit code."""
        self._exit_code = 1
        result = super().run_subcommand(argv)
        return self._exit_code if result == 1 else result

    def clean_up(self, cmd: command.Command, result: int,
                 err: BaseException | None) -> None:
        """Remember the exit code of an error."""
        self._exit_code = getattr(err, 'exit_code', 1)


def main(argv: list[str] | None = None) -> int:
    """Run nova-ssm.

    :param argv: the arguments; None for those of the process
    :returns: the exit code
    """
    if not sys.warnoptions:
        # What libraries say of each other is not for who runs a command.
        warnings.simplefilter('ignore')
    return NovaSSMApp().run(sys.argv[1:] if argv is None else argv)
