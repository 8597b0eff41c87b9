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

"""``nova-ssm flow``: what runs, who runs it, how far it is, why it failed."""

import argparse
from collections.abc import Sequence
import dataclasses
import importlib
import os
import textwrap
from typing import Any

from cliff import command
from cliff import lister
from cliff import show
from oslo_config import cfg

from nova_ssm.cmd import db
from nova_ssm.cmd import main
from nova_ssm.cmd import telling
from nova_ssm.engine import database as database_module
from nova_ssm.engine import drawing
from nova_ssm.engine import exception
from nova_ssm.engine import graphs
from nova_ssm.engine import orders
from nova_ssm.engine import progress
from nova_ssm.engine import queries
from nova_ssm.engine import states
from nova_ssm.engine import svg

_COLUMNS = ('uuid', 'name', 'subject', 'state', 'owner', 'task', 'since',
            'failure', 'trouble')


class List(lister.Lister):
    """List the flows, the newest first."""

    app: main.NovaSSMApp

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--unfinished', action='store_true',
            help='only the flows that are not over')
        parser.add_argument(
            '--server', metavar='UUID',
            help='only the flows that work on this server')
        parser.add_argument(
            '--request', metavar='ID',
            help='only the flows of this request (req-...)')
        parser.add_argument(
            '--project', metavar='ID', help='only the flows of this project')
        parser.add_argument(
            '--operation', metavar='NAME',
            help='only the flows of this name, e.g. resize or build_instance')
        parser.add_argument(
            '--state', choices=_STATES, type=str.upper,
            help='only the flows in this state')
        parser.add_argument(
            '--failed', action='store_true',
            help='only the flows that were reverted, given up, or could not '
                 'be undone')
        parser.add_argument(
            '--owner', metavar='WORKER|HOST',
            help='only the flows that this worker runs, or one on this host')
        parser.add_argument(
            '--older', type=_seconds, metavar='AGE',
            help='only the flows that were begun so long ago, or before: '
                 '90, 30m, 2h or 7d')
        parser.add_argument(
            '--newer', type=_seconds, metavar='AGE',
            help='only the flows that were begun since then')
        parser.add_argument(
            '--children-of', metavar='UUID',
            help='only the flows that this one has posted')
        parser.add_argument(
            '--marker', metavar='UUID',
            help='only the flows that come behind this one in the list')
        parser.add_argument(
            '--limit', type=positive, default=100, metavar='N',
            help='how many at the most (default: 100)')
        parser.add_argument(
            '--long', action='store_true', help='show all that is known')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple:
        database = db.journal_database(self.app.conf)
        database.check()
        parent, marker = (
            queries.find(database, uuid).uuid if uuid else None
            for uuid in (parsed_args.children_of, parsed_args.marker))
        found = queries.flows(
            database, unfinished=parsed_args.unfinished,
            subject=parsed_args.server, request_id=parsed_args.request,
            project_id=parsed_args.project, name=parsed_args.operation,
            state=parsed_args.state, failed=parsed_args.failed,
            owner=parsed_args.owner, older=parsed_args.older,
            newer=parsed_args.newer, parent=parent,
            limit=parsed_args.limit, marker=marker)
        columns: tuple[str, ...] = _COLUMNS
        if parsed_args.long or parsed_args.formatter not in _FOR_PEOPLE:
            columns = tuple(f.name for f in
                            dataclasses.fields(queries.FlowInfo))
        return columns, [
            [_short(parsed_args, _cell(info, name, parsed_args.formatter))
             for name in columns] for info in found]


class Show(show.ShowOne):
    """Show one flow, what its tasks did, and how far it is in its graph.

    Of each task: its state, when it began, how long it took and how often it
    was tried, whether it changes anything, and who ran it; of one that has
    failed the whole cause. No secret of the flow is shown.
    """

    app: main.NovaSSMApp
    _drawing = ''
    _told: telling.Told

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'flow', metavar='ID',
            help='the uuid of the flow, or its beginning')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple:
        database = db.journal_database(self.app.conf)
        database.check()
        info = queries.find(database, parsed_args.flow)
        steps = queries.steps(database, info.uuid)
        objects = queries.objects(database, info.uuid)
        names = [f.name for f in dataclasses.fields(queries.FlowInfo)]
        values = [_cell(info, name, parsed_args.formatter) for name in names]
        graph, reason = graph_of(database, info)
        self._told = telling.tell(database, info, graph)
        lines = '\n'.join(_line(step, steps[0].at) for step in steps)
        self._drawing = _drawn(self.app, graph, reason)
        if self._told.made is not None and _wants_all(parsed_args):
            return (*names, 'objects'), (*values, _wrapped(objects))
        if parsed_args.formatter in _FOR_PEOPLE:
            return (*names, 'objects', 'steps'), (
                *values, _wrapped(objects), lines)
        more = self._told.data()
        return (*names, 'objects', *more, 'steps', 'graph',
                'graph_missing'), (
            *values, objects, *more.values(),
            [dataclasses.asdict(step) for step in steps],
            graph.data() if graph is not None else None, reason)

    def produce_output(self, parsed_args: argparse.Namespace,
                       column_names: Sequence[str],
                       data: Sequence[Any]) -> int:
        """Write the table, what the tasks did, and draw the graph."""
        result = super().produce_output(parsed_args, column_names, data)
        if _wants_all(parsed_args):
            self._told.text(self.app.stdout, parsed_args)
            self.app.stdout.write('\n%s\n' % self._drawing)
        return result


class Graph(command.Command):
    """Draw a type of flow, or one flow and how far it is."""

    app: main.NovaSSMApp

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'flow', metavar='NAME|ID',
            help='the name of a type of flow, or the uuid of a flow, or its '
                 'beginning')
        parser.add_argument(
            '--format', choices=sorted(_FORMATS), default='text',
            help='text for a terminal (the default), mermaid and dot for '
                 'these programs, svg for a picture; tasks of a flow have the '
                 'colours of their states')
        parser.add_argument(
            '--color', choices=('auto', 'always', 'never'), default='auto',
            help='whether text has colours (default: if it is for a '
                 'terminal)')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        if queries.looks_like_uuid(parsed_args.flow):
            database = db.journal_database(self.app.conf)
            database.check()
            info = queries.find(database, parsed_args.flow)
            graph, reason = graph_of(database, info)
            if graph is None:
                raise exception.UnknownFlow(reason)
        else:
            # It says how they are changed.
            _ = self.app.conf
            graph = catalog().graph(parsed_args.flow)
        if parsed_args.format == 'text':
            colored = parsed_args.color == 'always' or (
                parsed_args.color == 'auto' and _is_terminal(self.app))
            drawn = readable(self.app, drawing.text(graph, colored))
        else:
            drawn = _FORMATS[parsed_args.format](graph)
        self.app.stdout.write(drawn + '\n')


_FORMATS = {'text': drawing.text, 'mermaid': drawing.mermaid,
            'dot': drawing.dot, 'svg': svg.picture}

_STATES = (states.PENDING, states.RUNNING, states.SUCCESS, states.REVERTED,
           states.FAILURE, states.KILLED)
_UNITS = {'s': 1, 'm': 60, 'h': 3600, 'd': 86400}

#: Width of a long text in a table, in characters.
_ROOM = 76

#: Formats that are read by people: dates instead of numbers.
_FOR_PEOPLE = ('table', 'value', 'csv')


def catalog() -> Any:
    """The flows of the installed plugins, as nova.conf changes them.

    They are imported now: with them comes Nova, which may not be importable,
    and takes its time.
    """
    return importlib.import_module('nova_ssm.catalog').installed().extended(
        cfg.CONF.ssm.extend)


def graph_of(database: database_module.Database, info: queries.FlowInfo
             ) -> tuple[graphs.Graph | None, str | None]:
    """The graph of a flow, or the reason why there is none."""
    try:
        graph = catalog().graph(info.name, info.version)
        progress.mark(graph, queries.atoms(database, info.uuid), info)
    except (exception.UnknownFlow, exception.DamagedJournal) as exc:
        return None, str(exc)
    except Exception as exc:  # noqa: BLE001 - a plugin may raise anything
        return None, '%s: %s' % (type(exc).__name__, exc)
    return graph, None


def _drawn(app: main.NovaSSMApp, graph: graphs.Graph | None,
           reason: str | None) -> str:
    if graph is None:
        return 'Not drawn: %s' % reason
    return readable(app, drawing.text(graph, _is_terminal(app)))


def _is_terminal(app: main.NovaSSMApp) -> bool:
    """Whether somebody sees colours. See https://no-color.org."""
    return app.stdout.isatty() and not os.environ.get('NO_COLOR')


def readable(app: main.NovaSSMApp, drawn: str) -> str:
    """A drawing that the terminal can show."""
    try:
        drawn.encode(getattr(app.stdout, 'encoding', None) or 'utf-8')
    except UnicodeEncodeError:
        return drawing.ascii_only(drawn)
    return drawn


def _wants_all(parsed_args: argparse.Namespace) -> bool:
    """Whether somebody reads it who has not chosen what to see."""
    return parsed_args.formatter == 'table' and not parsed_args.columns


def positive(text: str) -> int:
    """An option that is a number, at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError('must be a number, at least 1')
    return number


def positive_seconds(text: str) -> float:
    """An option that is a number of seconds, or e.g. 0.5, 2m."""
    seconds = _seconds(text)
    if not seconds:
        raise argparse.ArgumentTypeError('must be more than 0')
    return seconds


def _seconds(text: str) -> float:
    number, unit = text, 1
    if text[-1:] in _UNITS:
        number, unit = text[:-1], _UNITS[text[-1]]
    try:
        seconds = float(number) * unit
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e10:
        raise argparse.ArgumentTypeError(
            'must be a number of seconds, or one with s, m, h or d')
    return seconds


def _cell(info: queries.FlowInfo, name: str, formatter: str) -> Any:
    value = getattr(info, name)
    if formatter not in _FOR_PEOPLE:
        return value
    if name == 'owner':
        return _owner(info)
    if name == 'state':
        return state_for_people(info)
    if name == 'task':
        return task_for_people(info)
    if name in ('since', 'created_at', 'finished_at') and value is not None:
        return telling.date(value)
    return '' if value is None else value


def _short(parsed_args: argparse.Namespace, value: Any) -> Any:
    """As much of a text as a table of flows has room for."""
    if parsed_args.formatter != 'table' or parsed_args.long:
        return value
    return textwrap.shorten(value, _ROOM, placeholder=' ...') if isinstance(
        value, str) else value


def _wrapped(words: Sequence[str]) -> str:
    return '\n'.join(textwrap.wrap(', '.join(words), _ROOM))


def state_for_people(info: queries.FlowInfo) -> str:
    """Its state, and what is ordered of it."""
    if info.order is None or info.state in states.FINAL:
        return info.state
    if info.order == orders.PAUSE and not info.owner_alive:
        return info.state + ', paused'
    return '%s, to %s' % (info.state, info.order)


def _owner(info: queries.FlowInfo) -> str:
    if info.owner is None:
        return '' if info.state in states.FINAL else 'nobody'
    return info.owner if info.owner_alive else info.owner + ' (dead)'


def task_for_people(info: queries.FlowInfo) -> str:
    """How far it is."""
    if info.task is None:
        return 'begins'
    return '%s %s' % (info.task, info.task_state)


def _line(step: queries.StepInfo, began: float) -> str:
    what = step.task or {states.START: 'the flow begins',
                         states.CLAIM: 'taken over',
                         states.END: 'the flow ends'}.get(step.kind, '')
    return '%+9.3f s  %-32s %-9s %s' % (
        step.at - began, what, step.state or '', step.writer)
