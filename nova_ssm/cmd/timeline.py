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

"""``nova-ssm flow timeline``: what took how long, and who waited for whom."""

import argparse
from collections.abc import Iterator
import dataclasses
import shutil
from typing import Any

from cliff import lister

from nova_ssm.cmd import db
from nova_ssm.cmd import main
from nova_ssm.engine import database as database_module
from nova_ssm.engine import events
from nova_ssm.engine import exception
from nova_ssm.engine import queries
from nova_ssm.engine import timeline

#: How many children are shown at the most.
_CHILDREN = 100
#: What is beside the bar in a table, in characters; its least width.
_BESIDE, _LEAST = 78, 12

FLOW, NOBODY, CHILDREN = 'flow', 'nobody', 'children'


@dataclasses.dataclass(frozen=True)
class Bar:
    """Something that took its time.

    :param what: FLOW, NOBODY (it waited to be taken over), CHILDREN (it
        waited for the flows that it had posted), or what was done with a
        task: execute or undo
    :param began_at: seconds since the epoch, on the database's clock
    :param ended_at: None if it goes on, or that is not known
    :param exact: False if it was only somewhere between these times
    :param result: how it ended; empty if it went well
    """

    flow: str
    name: str
    task: str | None
    what: str
    began_at: float
    ended_at: float | None
    exact: bool
    result: str
    worker: str | None


class Timeline(lister.Lister):
    """Show what a flow and its children took time for.

    A task of which it is not known how long it took, since an older release
    ran it, was somewhere within its bar.
    """

    app: main.NovaSSMApp

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'flow', metavar='ID',
            help='the uuid of the flow, or its beginning')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple:
        database = db.journal_database(self.app.conf)
        database.check()
        bars = list(family(database, parsed_args.flow))
        if parsed_args.formatter not in ('table', 'value', 'csv'):
            names = [field.name for field in dataclasses.fields(Bar)]
            return (*names, 'seconds'), [
                (*dataclasses.astuple(bar), _seconds(bar)) for bar in bars]
        now = queries.clock(database)
        drawn = [_row(bar, bars[0].began_at, now) for bar in bars]
        columns = ('what', 'after', 'seconds', 'result', 'worker')
        if parsed_args.formatter != 'table':
            return columns, drawn
        scale = _Scale(bars, now, self._width(), self._blocks())
        return ('what', 'when', *columns[1:]), [
            (row[0], scale.draw(bar), *row[1:])
            for bar, row in zip(bars, drawn, strict=True)]

    def _width(self) -> int:
        return max(_LEAST, shutil.get_terminal_size(
            (120, 24)).columns - _BESIDE)

    def _blocks(self) -> str:
        """What bars are drawn with: done, undone, waited, uncertain."""
        try:
            _BLOCKS.encode(getattr(self.app.stdout, 'encoding', None) or
                           'utf-8')
        except UnicodeEncodeError:
            return '#<.='
        return _BLOCKS


_BLOCKS = '█▓·░'


def family(database: database_module.Database, uuid: str) -> Iterator[Bar]:
    """The bars of a flow, then those of the flows that it has posted.

    :raises FlowNotFound: if there is no such flow
    :raises DamagedJournal: if the journal of one of them cannot be read
    """
    info = queries.find(database, uuid)
    uuid = info.uuid
    children = queries.flows(database, parent=uuid, limit=_CHILDREN)[::-1]
    yield from of_flow(database, info)
    if children:
        ends = [child.finished_at for child in children]
        known = [end for end in ends if end is not None]
        yield Bar(uuid, info.name, None, CHILDREN,
                  min(child.created_at for child in children),
                  max(known) if len(known) == len(ends) else None, True, '',
                  None)
    for child in children:
        yield from of_flow(database, child)


def of_flow(database: database_module.Database,
            info: queries.FlowInfo) -> Iterator[Bar]:
    """The bars of one flow, in the order in which they began."""
    yield Bar(info.uuid, info.name, None, FLOW, info.created_at,
              info.finished_at, True, info.state, info.owner)
    try:
        made = timeline.read(database, info.uuid)
    except exception.DamagedJournal as exc:
        # A part of a family is better than nothing of it.
        yield Bar(info.uuid, info.name, None, 'unknown', info.created_at,
                  info.finished_at, False, str(exc), None)
        return
    bars = [Bar(info.uuid, info.name, span.task, span.what, span.began_at,
                span.ended_at, span.placed,
                'failed' if span.failed else '', span.writer)
            for span in made.spans]
    bars += [Bar(info.uuid, info.name, None, NOBODY, hold.began_at,
                 hold.ended_at, True, '', None)
             for hold in made.holds if hold.writer is None]
    yield from sorted(bars, key=lambda bar: bar.began_at)


def _seconds(bar: Bar) -> float | None:
    return None if bar.ended_at is None else bar.ended_at - bar.began_at


def _row(bar: Bar, start: float, now: float) -> tuple[Any, ...]:
    what = {FLOW: '%s %s' % (bar.name, bar.flow),
            NOBODY: '  (nobody had it)',
            CHILDREN: '  (waits for its children)'}.get(
                bar.what, '  ' + (bar.task or '(cannot be read)'))
    if bar.what == events.UNDO:
        what = '  undo ' + (bar.task or '')
    seconds = _seconds(bar)
    return (what, '%+.3f' % (bar.began_at - start),
            '%.3f' % seconds if seconds is not None else
            '%.3f so far' % max(0.0, now - bar.began_at),
            bar.result, bar.worker or '')


class _Scale:
    """Puts times into a line of characters.

    :param blocks: see Timeline._blocks
    """

    def __init__(self, bars: list[Bar], now: float, width: int,
                 blocks: str) -> None:
        self._start = min(bar.began_at for bar in bars)
        self._now = now
        self._width = width
        self._blocks = blocks
        ends = [self._end(bar) for bar in bars]
        self._span = max(max(ends) - self._start, 1e-6)

    def _end(self, bar: Bar) -> float:
        return max(bar.began_at, self._now if bar.ended_at is None
                   else bar.ended_at)

    def draw(self, bar: Bar) -> str:
        """A line as wide as all of them, with the bar where it belongs."""
        first, last = (min(self._width - 1, int(
            (at - self._start) / self._span * self._width))
            for at in (bar.began_at, self._end(bar)))
        done, undone, waited, uncertain = list(self._blocks)
        block = {events.UNDO: undone, NOBODY: waited,
                 CHILDREN: waited}.get(bar.what, done)
        if not bar.exact:
            block = uncertain
        return (' ' * first + block * (last - first + 1)).ljust(self._width)
