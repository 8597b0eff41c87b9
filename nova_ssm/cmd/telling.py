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

"""What ``nova-ssm flow show`` tells of the tasks of a flow."""

import argparse
from collections.abc import Iterable
import dataclasses
import datetime
import textwrap
from typing import Any

from cliff.formatters import table

from nova_ssm.engine import accounts
from nova_ssm.engine import database as database_module
from nova_ssm.engine import events
from nova_ssm.engine import exception
from nova_ssm.engine import graphs
from nova_ssm.engine import queries
from nova_ssm.engine import timeline

_COLUMNS = ('task', 'state', 'when', 'seconds', 'tries', 'effect', 'worker')
#: A traceback may be as long as the exception wanted it.
_LINES = 60


@dataclasses.dataclass(frozen=True)
class Told:
    """All that is known of what a flow did.

    :param made: None if the journal cannot be read
    :param missing: why it cannot
    """

    info: queries.FlowInfo
    tasks: list[accounts.Account]
    made: timeline.Timeline | None
    missing: str | None

    def data(self) -> dict[str, Any]:
        """It as plain JSON."""
        made = self.made or timeline.Timeline()
        return {
            'tasks': [one.data() for one in self.tasks],
            'failures': [dataclasses.asdict(one) for one in made.failures],
            'owners': [dataclasses.asdict(one) for one in made.holds],
            'journal_missing': self.missing}

    def text(self, stdout: Any, parsed_args: argparse.Namespace) -> None:
        """Write it for people."""
        if self.made is None:
            stdout.write('\nThe journal cannot be read: %s\n' % self.missing)
            return
        columns = list(_COLUMNS)
        if len({hold.writer for hold in self.made.holds} - {None}) < 2:
            columns.remove('worker')    # there is one only: it stands below
        stdout.write('\n')
        table.TableFormatter().emit_list(
            columns, [_row(one, self.made)[:len(columns)]
                      for one in self.tasks], stdout, parsed_args)
        stdout.write('\n%s\n' % '\n'.join(_holds(self.info, self.made)))
        for failure in self.made.failures:
            stdout.write('\n%s\n' % '\n'.join(_failure(failure)))


def tell(database: database_module.Database, info: queries.FlowInfo,
         graph: graphs.Graph | None) -> Told:
    """Find out what a flow did.

    :param graph: its graph with the states of its tasks, if there is one
    """
    try:
        made, missing = timeline.read(database, info.uuid), None
    except exception.DamagedJournal as exc:
        made, missing = None, str(exc)
    return Told(info, accounts.accounts(graph, made), made, missing)


def date(seconds: float) -> str:
    """A time of the database's clock, for people."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return when.strftime('%Y-%m-%d %H:%M:%S')


def _row(one: accounts.Account, made: timeline.Timeline) -> tuple[str, ...]:
    return (one.task, one.state,
            '' if one.began_at is None else '+%.3f' % (
                one.began_at - made.began_at),
            _took(one), str(one.tries or ''), _effect(one),
            one.worker or '')


def _took(one: accounts.Account) -> str:
    """How long it took, to be executed and to be undone."""
    undo = _seconds(one, events.UNDO)
    return _seconds(one, events.EXECUTE) + (
        ', undo ' + undo if undo else '')


def _seconds(one: accounts.Account, what: str) -> str:
    seconds, within = one.seconds(what), one.within(what)
    if seconds is not None:
        return '%.3f' % seconds
    return '' if within is None else 'below %.3f' % within


def _effect(one: accounts.Account) -> str:
    if one.effect is None:
        return ''
    if not one.effect:
        return 'only reads'
    return 'sometimes' if one.sometimes else 'yes'


def _holds(info: queries.FlowInfo, made: timeline.Timeline) -> Iterable[str]:
    """Who had it when, with its beginning and its end."""
    what = 'the flow begins'
    if not made.holds:
        yield _line(0.0, what, '')
    for hold in made.holds:
        after = hold.began_at - made.began_at
        if hold.writer is None:
            what = 'taken over'
            yield _line(after, 'nobody runs it', 'for %.3f s' % (
                (hold.ended_at or made.last) - hold.began_at))
        else:
            yield _line(after, what, hold.writer)
    if made.ended_at is not None:
        yield _line(made.ended_at - made.began_at, 'the flow ends',
                    info.state)


def _line(after: float, what: str, who: str) -> str:
    return ('%+9.3f s  %-16s %s' % (after, what, who)).rstrip()


def _failure(failure: timeline.Failure) -> Iterable[str]:
    yield '%s%s failed on %s, run by %s' % (
        'Undoing ' if failure.what == events.UNDO else '', failure.task,
        date(failure.at), failure.writer)
    yield '%s: %s' % (failure.cause.removeprefix('builtins.'),
                      failure.message)
    lines = failure.traceback.rstrip().splitlines()
    if len(lines) > _LINES:
        lines = [*lines[:_LINES // 2], '... (%d lines: see -f json)' % (
            len(lines) - _LINES), *lines[-_LINES // 2:]]
    yield textwrap.indent('\n'.join(lines), '    ')
