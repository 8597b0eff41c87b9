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

"""``nova-ssm status upgrade check``: whether all is ready for a start."""

import argparse
import contextlib
import json
import typing

from cliff import command

from nova_ssm import checks
from nova_ssm.cmd import main


class UpgradeCheck(command.Command):
    """Check what has to be in order before a conductor is (re)started.

    As "nova-status upgrade check", exits with 0 if it is, 1 if something
    should be looked at, and 2 if something has to be done first. Run it with
    the release that is to be started, while the old one still runs.
    """

    app: main.NovaSSMApp

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--json', action='store_true',
            help='print the results as JSON, in place of a table')
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Check, and make an exit code of the results."""
        return self.take_action(parsed_args)

    def take_action(self, parsed_args: argparse.Namespace) -> int:
        made = checks.Checks(self.app.conf)
        if not parsed_args.json:
            # oslo.upgradecheck prints.
            with contextlib.redirect_stdout(
                    typing.cast(typing.TextIO, self.app.stdout)):
                return int(made.check())
        results = made.results()
        self.app.stdout.write(json.dumps({
            'name': made.display_title, 'checks': [
                {'check': name, 'result': int(result.code),
                 'details': result.details} for name, result in results],
        }) + '\n')
        return max(int(result.code) for _name, result in results)
