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

"""``nova-ssm flow report``: one flow as a page to be attached and shown."""

import argparse
import contextlib
import os
import tempfile

from cliff import command

from nova_ssm.cmd import db
from nova_ssm.cmd import flow
from nova_ssm.cmd import main
from nova_ssm.engine import exception
from nova_ssm.engine import page
from nova_ssm.engine import queries
from nova_ssm.engine import timeline


class Report(command.Command):
    """Write one flow, its graph and its timeline, as a page of HTML.

    The page needs nothing but a browser: no network and no script. Secrets
    are masked in it, as in the journal.
    """

    app: main.NovaSSMApp

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'flow', metavar='ID',
            help='the uuid of the flow, or its beginning')
        parser.add_argument(
            '-o', '--output', metavar='FILE', default='-',
            help='where to write it; an old one is replaced (default: to '
                 'standard output)')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        database = db.journal_database(self.app.conf)
        database.check()
        info = queries.find(database, parsed_args.flow)
        graph, missing = flow.graph_of(database, info)
        told = None
        with contextlib.suppress(exception.DamagedJournal):
            told = timeline.read(database, info.uuid)
        text = page.page(page.Content(
            info, graph, missing, told,
            queries.children(database, info.uuid), queries.clock(database)))
        if parsed_args.output == '-':
            self.app.stdout.write(text)
        else:
            try:
                _replace(parsed_args.output, text)
            except OSError as exc:
                raise exception.EngineError('%s cannot be written: %s' % (
                    parsed_args.output, exc.strerror)) from exc
            self.app.stdout.write('Written to %s\n' % parsed_args.output)


def _replace(path: str, text: str) -> None:
    """Write a file wholly, or leave what is there.

    It names projects and users: it is for its owner until he says otherwise.
    """
    directory = os.path.dirname(os.path.abspath(path))
    with tempfile.NamedTemporaryFile(
            'w', encoding='utf-8', dir=directory, delete=False) as new:
        try:
            new.write(text)
            new.close()
            os.replace(new.name, path)
        except BaseException:
            os.unlink(new.name)
            raise
