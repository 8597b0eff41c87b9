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

"""``nova-ssm flow watch``: flows and how far they are, as they go on."""

import argparse
from collections.abc import Iterator
import dataclasses
import json
import textwrap
import time
from typing import Any

from cliff import command
from rich import console
from rich import live
from rich import padding
from rich import progress_bar
from rich import table
from rich import text

from nova_ssm.cmd import db
from nova_ssm.cmd import flow as flow_cmd
from nova_ssm.cmd import main
from nova_ssm.engine import database as database_module
from nova_ssm.engine import progress
from nova_ssm.engine import queries
from nova_ssm.engine import states

_STYLES = {states.SUCCESS: 'green', states.REVERTED: 'magenta',
           states.FAILURE: 'bold red', states.KILLED: 'red'}
_OVER = (progress.DONE, progress.SKIPPED)
#: Characters of a failure: two lines of a small terminal.
_MOST = 150


@dataclasses.dataclass(frozen=True)
class Seen:
    """A flow, and how far it is.

    :param done: how many of its tasks are done, or not needed
    :param tasks: how many it has; 0 if its graph is not known here
    """

    info: queries.FlowInfo
    done: int
    tasks: int

    @property
    def over(self) -> bool:
        return self.info.finished_at is not None

    def told(self) -> dict[str, Any]:
        """What of it is told to programs."""
        info = self.info
        return {'flow': info.uuid, 'name': info.name,
                'subject': info.subject, 'state': info.state,
                'order': info.order, 'owner': info.owner,
                'task': info.task, 'task_state': info.task_state,
                'done': self.done, 'tasks': self.tasks,
                'failure': info.failure}


class Watch(command.Command):
    """Show flows as they go on, until they are over.

    Without a flow or a server: all that is under way, until it is
    interrupted. What is no terminal gets a line for each change.
    """

    app: main.NovaSSMApp

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'flow', metavar='ID', nargs='*',
            help='the uuid of a flow, or its beginning; may be several')
        parser.add_argument(
            '--server', metavar='UUID',
            help='the flows under way that work on this server')
        parser.add_argument(
            '--interval', type=flow_cmd.positive_seconds, default=1.0,
            metavar='SECONDS', help='between two looks (default: 1)')
        parser.add_argument(
            '--limit', type=flow_cmd.positive, default=30, metavar='N',
            help='how many flows at the most (default: 30)')
        parser.add_argument(
            '--json', action='store_true',
            help='a JSON object a line for each change')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        database = db.journal_database(self.app.conf)
        database.check()
        look = _Look(database, parsed_args)
        try:
            if self.app.stdout.isatty() and not parsed_args.json:
                self._show(look, parsed_args)
            else:
                self._tell(look, parsed_args)
        except KeyboardInterrupt:
            pass        # the way to end it

    def _show(self, look: '_Look', parsed_args: argparse.Namespace) -> None:
        """Draw it anew again and again."""
        with live.Live(console=console.Console(file=self.app.stdout),
                       auto_refresh=False) as screen:
            while True:
                seen, now = look.again()
                screen.update(_screen(seen, now), refresh=True)
                if look.over(seen):
                    return
                time.sleep(parsed_args.interval)

    def _tell(self, look: '_Look', parsed_args: argparse.Namespace) -> None:
        """Write what has changed."""
        before: dict[str, Any] = {}
        while True:
            seen, _now = look.again()
            for one in seen:
                told = one.told()
                if before.get(one.info.uuid) != told:
                    before[one.info.uuid] = told
                    self.app.stdout.write(
                        (json.dumps(told) if parsed_args.json
                         else _line(one)) + '\n')
            self.app.stdout.flush()
            if look.over(seen):
                return
            time.sleep(parsed_args.interval)


class _Look:
    """Looks at the flows that are asked for, again and again."""

    def __init__(self, database: database_module.Database,
                 args: argparse.Namespace) -> None:
        self._database = database
        self._args = args
        #: A flow of a server that is over meanwhile is shown once more.
        self._known = [queries.find(database, uuid).uuid
                       for uuid in args.flow]

    def again(self) -> tuple[list[Seen], float]:
        """How far they are, and the time on the database's clock."""
        args = self._args
        infos = [queries.flow(self._database, uuid) for uuid in self._known]
        if not args.flow:
            known = {info.uuid for info in infos}
            infos += [info for info in queries.flows(
                self._database, unfinished=True, subject=args.server,
                limit=args.limit) if info.uuid not in known]
            self._known = [info.uuid for info in infos
                           if info.finished_at is None]
        return ([self._seen(info) for info in infos],
                queries.clock(self._database))

    def _seen(self, info: queries.FlowInfo) -> Seen:
        graph, _reason = flow_cmd.graph_of(self._database, info)
        if graph is None:
            return Seen(info, 0, 0)
        atoms = list(graph.atoms())
        return Seen(info, sum(atom.state in _OVER for atom in atoms),
                    len(atoms))

    def over(self, seen: list[Seen]) -> bool:
        """Whether there is nothing more to be seen."""
        if not self._args.flow and not self._args.server:
            return False
        return all(one.over for one in seen)


def _line(one: Seen) -> str:
    info = one.info
    return '%s  %s %s  %s  %s  %s' % (
        time.strftime('%H:%M:%S'), info.uuid, info.name,
        flow_cmd.state_for_people(info),
        '%d of %d tasks' % (one.done, one.tasks) if one.tasks else '-',
        info.failure or flow_cmd.task_for_people(info))


def _screen(seen: list[Seen], now: float) -> console.RenderableType:
    """All flows, each in three lines of a terminal of 80 columns."""
    if not seen:
        return text.Text('nothing is under way')
    return console.Group(*(part for one in seen for part in _flow(one, now)))


def _flow(one: Seen, now: float) -> Iterator[console.RenderableType]:
    info = one.info
    ended = now if info.finished_at is None else info.finished_at
    line = table.Table.grid(expand=True, padding=(0, 1, 0, 0))
    line.add_column(ratio=1, no_wrap=True)
    for width in (18, 14):
        line.add_column(width=width, no_wrap=True)
    for width in (6, 8):
        line.add_column(width=width, justify='right', no_wrap=True)
    style = _STYLES.get(info.state, 'cyan')
    line.add_row(
        text.Text(info.name, style='bold'),
        text.Text(flow_cmd.state_for_people(info), style=style),
        progress_bar.ProgressBar(
            total=max(one.tasks, 1), completed=one.done, width=14,
            complete_style=style, finished_style=style),
        '%d/%d' % (one.done, one.tasks) if one.tasks else '?',
        '%.0f s' % max(0.0, ended - info.created_at))
    yield line
    yield text.Text('  %s%s' % (
        info.uuid, ' of ' + info.subject if info.subject else ''),
        style='dim', no_wrap=True, overflow='ellipsis')
    if info.state != states.SUCCESS:
        yield padding.Padding(text.Text(_doing(info), style=(
            style if info.failure else '')), (0, 0, 0, 2))


def _doing(info: queries.FlowInfo) -> str:
    """What is worth a line of it: why it failed, or how far it is."""
    if info.failure:
        return textwrap.shorten(info.failure, _MOST, placeholder=' ...')
    if info.trouble:
        return textwrap.shorten(info.trouble, _MOST, placeholder=' ...')
    if info.task is None:
        return 'begins'
    return 'behind %s%s' % (flow_cmd.task_for_people(info), (
        '' if info.finished_at is not None else ', run by nobody'
        if info.owner is None else ', at %s%s' % (
            info.owner, '' if info.owner_alive else ' (dead)')))
