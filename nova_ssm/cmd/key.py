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

"""``nova-ssm key``: the keys of the journal's secrets."""

import argparse

from cliff import command
from cryptography import fernet

from nova_ssm.cmd import db
from nova_ssm.cmd import main
from nova_ssm.engine import rotation
from nova_ssm.engine import serialization
from nova_ssm import exception


def _vault(keys: list[str]) -> serialization.Vault:
    try:
        return serialization.Vault(keys)
    except ValueError as exc:
        raise exception.ConfigurationError(
            '[ssm] encryption_keys: %s' % exc) from None


class New(command.Command):
    """Print a new key for [ssm] encryption_keys.

    Put it into nova.conf on every conductor. To change the key, put the new
    one first, keep the old one behind it, and run "nova-ssm key rotate".
    """

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        self.app.stdout.write(fernet.Fernet.generate_key().decode() + '\n')


class Rotate(command.Command):
    """Encrypt what is in the journal with the first of the keys.

    Run it when all conductors have been started with the new key in front.
    Then the old keys can be taken out of [ssm] encryption_keys. Conductors
    may run meanwhile.
    """

    app: main.NovaSSMApp

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--all', action='store_true',
            help='the flows that are over too; their secrets are never read '
                 'again, so without this they stay under the keys that they '
                 'have until the flows are purged')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        database = db.journal_database(self.app.conf)
        database.check()
        keys = self.app.conf.ssm.encryption_keys
        if not keys:
            raise exception.ConfigurationError(
                '[ssm] encryption_keys is empty: there is no key to encrypt '
                'with; "nova-ssm key new" makes one')
        done = rotation.rotate(database, _vault(keys),
                               finished=parsed_args.all)
        self.app.stdout.write(
            '%d rows of %d were encrypted anew with the first key.\n'
            % (done.changed, done.looked_at))
        if done.unreadable:
            self.app.stderr.write(
                'Left as they are, since a row of theirs is damaged: the '
                'flows %s.\n' % ', '.join(done.unreadable))
        if done.closed:
            raise exception.ConfigurationError(
                'none of the keys opens what is in %d rows of the flows %s: '
                'put the key that they were begun with back, behind the '
                'others, and rotate again'
                % (sum(done.closed.values()), ', '.join(sorted(done.closed))))
