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

"""What a flow has done when, as its journal tells it.

The journal says when a task ended that has a row of its own, on the clock of
the database, and of each task how long it took, on that of its conductor.
Tasks of a flow run one after the other, so those that only read, and go along
with the row of the next one, are put behind each other from the row before on.

The first releases did not write how long tasks took. Of these it is known but
that one began no earlier than the row before was written; and of one that only
reads, that it was somewhere between two rows.

Reads states, and failures without the secrets of their flow; never what a task
was given.
"""

from collections.abc import Iterator
import dataclasses
import json
from typing import Any
import zlib

import sqlalchemy as sa
from taskflow import states as taskflow_states

from nova_ssm.engine import database
from nova_ssm.engine import events
from nova_ssm.engine import exception
from nova_ssm.engine import masking
from nova_ssm.engine import payloads
from nova_ssm.engine import records
from nova_ssm.engine import rows
from nova_ssm.engine import schema
from nova_ssm.engine import stamps
from nova_ssm.engine import states

_J = schema.journal.c


@dataclasses.dataclass(frozen=True)
class Span:
    """One time that a task was executed, or undone.

    Times are seconds since the epoch on the database's clock.

    :param what: events.EXECUTE or events.UNDO
    :param began_at: when; at the earliest if it is not known how long it took
    :param ended_at: when, or at the latest; None if the journal knows of its
        beginning only
    :param failed: whether it failed
    :param exact: whether it has a row of its own
    :param writer: the worker that ran it
    :param seconds: how long it took, as its worker has measured it; None if
        that is not known: it was within those times
    """

    task: str
    what: str
    began_at: float
    ended_at: float | None
    failed: bool
    exact: bool
    writer: str
    seconds: float | None = None

    @property
    def placed(self) -> bool:
        """Whether these are its times, not only some that it was within."""
        return self.exact or self.seconds is not None


@dataclasses.dataclass(frozen=True)
class Failure:
    """What a task has failed with, without the secrets of its flow.

    :param what: events.EXECUTE or events.UNDO
    :param at: when that was written
    :param cause: the class of the exception, with its module
    :param message: what it says
    :param traceback: of where it was raised, with those that led to it
    """

    task: str
    what: str
    at: float
    writer: str
    cause: str
    message: str
    traceback: str


@dataclasses.dataclass(frozen=True)
class Hold:
    """A time in which one worker had the flow, or nobody did.

    :param writer: None if nobody ran it: it waited to be taken over
    :param ended_at: None if it goes on
    """

    writer: str | None
    began_at: float
    ended_at: float | None


@dataclasses.dataclass
class Timeline:
    """What a flow has done, in its order, who had it, and what failed."""

    spans: list[Span] = dataclasses.field(default_factory=list)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    holds: list[Hold] = dataclasses.field(default_factory=list)
    began_at: float = 0.0
    ended_at: float | None = None

    @property
    def last(self) -> float:
        """When the last row was written."""
        times = [self.began_at, self.ended_at or 0.0,
                 *(span.ended_at or span.began_at for span in self.spans),
                 *(hold.ended_at or hold.began_at for hold in self.holds)]
        return max(times)


def read(db: database.Database, uuid: str,
         before_claim: bool = False) -> Timeline:
    """The timeline of a flow.

    :param before_claim: up to when it was taken over the last time
    :raises DamagedJournal: if its journal cannot be read; names the flow
    :raises DatabaseUnusable: if the database cannot be read
    """
    made = Timeline()
    try:
        before: Any = None
        for row, payload in _rows(db, uuid, before_claim):
            _take(made, row, payload, before)
            before = row
    except exception.DamagedJournal as exc:
        raise exception.DamagedJournal('flow %s: %s' % (uuid, exc)) from exc
    return made


def _rows(db: database.Database, uuid: str,
          before_claim: bool) -> Iterator[tuple[Any, bytes]]:
    with db.reading() as connection:
        found = connection.execute(sa.select(
            _J.seq, _J.kind, _J.atom, _J.state, _J.writer, _J.created_at,
            # What a flow was given is nobody's business here.
            sa.case((_J.kind.in_((states.ATOM, states.MORE)), _J.payload)
                    ).label('payload')).where(
                        _J.flow_uuid == uuid).order_by(_J.seq)).all()
    groups = rows.grouped(found)
    if before_claim:
        claims = [number for number, pieces in enumerate(groups)
                  if pieces[0].kind == states.CLAIM]
        groups = groups[:claims[-1]] if claims else groups
    for pieces in groups:
        yield pieces[0], stamps.opened(rows.whole(pieces)) if (
            pieces[0].kind == states.ATOM) else b''


def _take(made: Timeline, row: Any, payload: bytes, before: Any) -> None:
    if row.kind == states.START:
        made.began_at = row.created_at
        if row.writer:
            made.holds.append(Hold(row.writer, row.created_at, None))
    elif row.kind == states.CLAIM:
        # It was over, and somebody has had it tried again.
        made.ended_at = None
        _hand_over(made, row, before)
    elif row.kind == states.ATOM:
        _take_steps(made, row, payload, before or row)
    elif row.kind == states.END:
        made.ended_at = row.created_at
        if made.holds:
            made.holds[-1] = dataclasses.replace(
                made.holds[-1], ended_at=row.created_at)


def _hand_over(made: Timeline, row: Any, before: Any) -> None:
    """Nobody has run it since the row before, as far as that is known."""
    since = before.created_at if before is not None else row.created_at
    if made.holds:
        made.holds[-1] = dataclasses.replace(made.holds[-1], ended_at=since)
    made.holds += [Hold(None, since, row.created_at),
                   Hold(row.writer, row.created_at, None)]


def _take_steps(made: Timeline, row: Any, payload: bytes,
                before: Any) -> None:
    # Up to here something is known to have run.
    until = before.created_at
    for name, record in _records(row, payload):
        own = name == row.atom and row.state != taskflow_states.RUNNING
        what = _what(record)
        # What has no row of its own may undo nothing at all.
        if what is None or what == events.UNDO and not own:
            continue
        open_span = _open(made, name, what)
        seconds = _seconds(record)
        began, ended = _times(until, row.created_at, own, seconds)
        if not own and seconds is not None:
            until = ended
        if open_span is not None:
            began = open_span.began_at
        made.spans.append(Span(name, what, began, ended,
                               record['state'] in _FAILED, own, row.writer,
                               seconds))
        if own and record['state'] in _FAILED:
            made.failures.append(_failure(row, name, what, record))
    if row.state == taskflow_states.RUNNING:
        _open(made, row.atom, events.EXECUTE)
        made.spans.append(Span(row.atom, events.EXECUTE, row.created_at,
                               None, False, True, row.writer))


def _times(since: float, until: float, own: bool,
           seconds: float | None) -> tuple[float, float]:
    """When a task began and ended that ran between two times.

    :param own: whether it ended with the later one
    :param seconds: how long it took
    """
    if seconds is None:
        return since, until
    if own:
        return max(since, until - seconds), until
    return since, min(since + seconds, until)


def _seconds(record: dict[str, Any]) -> float | None:
    seconds = record.get('seconds')
    return float(seconds) if isinstance(seconds, (int, float)) else None


def _failure(row: Any, name: str, what: str,
             record: dict[str, Any]) -> Failure:
    field = 'failure' if what == events.EXECUTE else 'revert_failure'
    try:
        plain = record[field][payloads.TAG][1]
        cause, message, told = (
            str(plain[part]) for part in ('class', 'text', 'traceback'))
    except (LookupError, TypeError) as exc:
        raise exception.DamagedJournal(
            'row %d does not hold what %s failed with' % (row.seq, name)
        ) from exc
    return Failure(name, what, row.created_at, row.writer,
                   cause.replace(':', '.'), masking.masked(message),
                   masking.masked(told))


def _what(record: dict[str, Any]) -> str | None:
    """What of a task a record says the end of; None of nothing."""
    what = _WHAT.get(record['state'])
    if record['kind'] != 'TASK_DETAIL' or (
            # It has ended before: now it is known that it will be undone.
            what == events.EXECUTE and
            record['intention'] != taskflow_states.EXECUTE):
        return None
    return what


def _open(made: Timeline, name: str, what: str) -> Span | None:
    """Take out the task's beginning, which goes on with its end."""
    for span in reversed(made.spans):
        if span.task == name:
            if span.ended_at is None and span.what == what:
                made.spans.remove(span)
                return span
            return None
    return None


def _records(row: Any, payload: bytes
             ) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        for name, record in json.loads(zlib.decompress(payload)).items():
            if not records.is_record(record):
                raise ValueError('no record of %s' % name)
            yield name, records.full(record)
    except (zlib.error, TypeError, ValueError, AttributeError) as exc:
        raise exception.DamagedJournal(
            'row %d cannot be read: %s' % (row.seq, exc)) from exc


_WHAT = {taskflow_states.SUCCESS: events.EXECUTE,
         taskflow_states.FAILURE: events.EXECUTE,
         taskflow_states.REVERTED: events.UNDO,
         taskflow_states.REVERT_FAILURE: events.UNDO}
_FAILED = (taskflow_states.FAILURE, taskflow_states.REVERT_FAILURE)
