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

"""``nova-ssm flow plan``: what an operation would do."""

import argparse
from collections.abc import Iterable, Sequence
import importlib
from typing import Any

from cliff import lister

from nova_ssm.cmd import db
from nova_ssm.cmd import flow as flow_cmd
from nova_ssm.cmd import main
from nova_ssm.engine import drawing
from nova_ssm.engine import exception
from nova_ssm.engine import graphs

#: Exit code if something is not in order.
NOT_NOW = 3


class Plan(lister.Lister):
    """Show what an operation would do, and whether it could; change nothing.

    The checks only read: Nova's databases, placement, and the journal. What
    they cannot see are the scheduler's filters, quotas, and ports that ask
    for resources. Exit code 3 if something is not in order.
    """

    app: main.NovaSSMApp
    _code = 0
    _drawings: tuple[str, ...] = ()

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'operation', metavar='OPERATION',
            help='build, resize, migrate or live-migrate; or the name of a '
                 'flow, of which only the steps are shown')
        parser.add_argument(
            '--server', metavar='UUID', help='of which server')
        parser.add_argument(
            '--flavor', metavar='NAME|ID',
            help='its new flavor; for build and resize')
        parser.add_argument('--host', metavar='HOST', help='where to')
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Show it; the exit code tells whether all is in order."""
        return super().run(parsed_args) or self._code

    def take_action(self, parsed_args: argparse.Namespace) -> tuple:
        # It says how flows are changed.
        _ = self.app.conf
        planning: Any = importlib.import_module('nova_ssm.planning')
        operation = planning.OPERATIONS.get(parsed_args.operation)
        if operation:
            _check(operation, parsed_args)
        flows = (operation.flows if operation else (parsed_args.operation,))
        if operation and parsed_args.host and (
                flows == ('live_migrate',)):
            flows = ('live_migrate_forced',)
        found = [flow_cmd.catalog().graph(name) for name in flows]
        self._drawings = tuple(drawing.text(graph) for graph in found)
        rows: list[tuple[str, ...]] = []
        if operation:
            rows = self._checks(planning, operation, parsed_args)
        rows += [row for graph in found for row in _steps(graph)]
        return ('kind', 'name', 'what', 'result'), rows

    def _checks(self, planning: Any, operation: Any,
                parsed_args: argparse.Namespace) -> list[tuple[str, ...]]:
        setup: Any = importlib.import_module('nova_ssm.audit.setup')
        setup.configure(self.app.conf)
        journal = db.journal_database(self.app.conf)
        journal.check()
        rows: list[tuple[str, ...]] = []
        for check in planning.Planner(journal, setup.report_client).checks(
                operation, parsed_args.server,
                parsed_args.flavor if operation.flavor else None,
                parsed_args.host):
            if check.good is False:
                self._code = NOT_NOW
            rows.append(('check', check.what, check.found,
                         _SAID[check.good]))
        return rows

    def produce_output(self, parsed_args: argparse.Namespace,
                       column_names: Sequence[str],
                       data: Iterable[Sequence[Any]]) -> int:
        """Write the table, and draw the graphs below it."""
        result = super().produce_output(parsed_args, column_names, data)
        if parsed_args.formatter == 'table':
            for drawn in self._drawings:
                self.app.stdout.write('\n%s\n' % flow_cmd.readable(
                    self.app, drawn))
        return result


_SAID = {True: 'ok', False: 'NOT in order', None: 'note'}


def _check(operation: Any, parsed_args: argparse.Namespace) -> None:
    if operation.on_server and not parsed_args.server:
        raise exception.EngineError('say of which server: --server UUID')
    if operation.flavor and not parsed_args.flavor:
        raise exception.EngineError(
            'say which flavor it is to have: --flavor NAME')


def _steps(graph: graphs.Graph) -> list[tuple[str, ...]]:
    return [('step', '%s: %s' % (graph.name, atom.name), atom.does,
             _changes(atom)) for atom in graph.atoms()]


def _changes(atom: graphs.Atom) -> str:
    if not atom.effect:
        return 'only reads' + ('; undo: ' + atom.undone
                               if atom.undone else '')
    return '%s; %s' % (
        'changes something only sometimes' if atom.sometimes
        else 'changes something',
        'undo: ' + atom.undone if atom.undone else 'is not undone')
