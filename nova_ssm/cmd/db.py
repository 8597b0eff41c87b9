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
import dataclasses
import importlib
import math
from typing import Any

from cliff import command
from cliff import show
from oslo_config import cfg

from nova_ssm.cmd import main
from nova_ssm import conf as ssm_conf
from nova_ssm.engine import database
from nova_ssm.engine import purge
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


class Purge(command.Command):
    """Remove flows that are over, and old.

    The conductors do that by themselves, as [ssm] keep_finished and
    keep_failed say. This is for who wants them gone sooner, or keeps them
    for ever there. May be interrupted, and run beside the conductors.
    """

    app: main.NovaSSMApp

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--older-than', type=_days, metavar='DAYS',
            help='flows that have been over for that many days, e.g. 30 or '
                 '0.5 (default: as [ssm] keep_finished says)')
        parser.add_argument(
            '--failed', action='store_true',
            help='also flows in FAILURE, which are cases for people '
                 '(default: as [ssm] keep_failed says)')
        parser.add_argument(
            '--batch', type=_number, default=purge.BATCH, metavar='N',
            help='flows in one transaction (default: %(default)s)')
        parser.add_argument(
            '--dry-run', action='store_true',
            help='only count them')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        db = journal_database(self.app.conf)
        db.check()
        ages = self._ages(parsed_args)
        counts = purge.count(db, ages)
        total = sum(counts.values())
        said = ', '.join('%d %s' % (counts[state], state)
                         for state in sorted(counts)) or 'none'
        if parsed_args.dry_run:
            self.app.stdout.write('Would remove %d flows (%s).\n'
                                  % (total, said))
            return
        removed = 0
        for number in purge.batches(db, ages, parsed_args.batch):
            removed += number
            self._progress('\r%d of %d' % (removed, total))
        rows = sum(purge.strays(db, parsed_args.batch))
        self._progress('\r\x1b[K')
        self.app.stdout.write('Removed %d flows.\n' % removed)
        if rows:
            self.app.stdout.write('Removed %d rows of the journal that '
                                  'belonged to no flow.\n' % rows)

    def _ages(self, parsed_args: argparse.Namespace) -> purge.Ages:
        # oslo.messaging comes with it, and takes its time.
        retention: Any = importlib.import_module('nova_ssm.retention')
        ages: purge.Ages = retention.ages(self.app.conf)
        if parsed_args.older_than is not None:
            age = retention.checked(self.app.conf, '--older-than',
                                    parsed_args.older_than * 86400)
            ages = dataclasses.replace(ages, finished=age)
        if parsed_args.failed:
            ages = dataclasses.replace(ages, failed=ages.finished)
        return ages

    def _progress(self, text: str) -> None:
        if self.app.stderr.isatty():
            self.app.stderr.write(text)
            self.app.stderr.flush()


def _days(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if number < 0 or not math.isfinite(number):
        raise argparse.ArgumentTypeError('must be a number of days')
    return number


def _number(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not 0 < number <= 1000:
        raise argparse.ArgumentTypeError('must be a number from 1 to 1000')
    return number
