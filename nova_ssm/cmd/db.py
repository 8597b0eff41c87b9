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

"""``nova-ssm db``: the tables of the journal."""

import argparse

from cliff import command
from cliff import show
from oslo_config import cfg

from nova_ssm.cmd import main
from nova_ssm import conf as ssm_conf
from nova_ssm.engine import database
from nova_ssm import exception


def journal_database(conf: cfg.ConfigOpts) -> database.Database:
    """The journal's database, as nova.conf names it.

    :raises ConfigurationError: if it names none
    """
    url = ssm_conf.journal_url(conf)
    if not url:
        raise exception.ConfigurationError(
            'no database is configured: nova.conf has neither [ssm] '
            'connection nor [database] connection (give it with '
            '--config-file)')
    return database.Database(url)


class Sync(command.Command):
    """Make the tables of the journal, or bring them up to date."""

    app: main.NovaSSMApp

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        db = journal_database(self.app.conf)
        before = db.version()
        database.upgrade(db.url)
        after = db.version()
        if before == after:
            self.app.stdout.write(
                'The tables in %s are up to date (revision %s).\n'
                % (db.safe_url, after))
        else:
            self.app.stdout.write(
                'The tables in %s were brought from %s to revision %s.\n'
                % (db.safe_url,
                   'nothing' if before is None else 'revision ' + before,
                   after))


class Version(show.ShowOne):
    """Show the revision of the tables, and the one this release needs."""

    app: main.NovaSSMApp

    def take_action(self, parsed_args: argparse.Namespace) -> tuple:
        db = journal_database(self.app.conf)
        return (('database', 'revision', 'needed'),
                (db.safe_url, db.version() or 'none', database.head()))
