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

"""Writes events of servers' actions into the cells, many at once.

For all flows of a batch together there is one look into the API database and,
in each cell, one transaction: two SELECTs, an INSERT of many rows, and an
UPDATE of many. Nova's objects would take two transactions an event.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
import contextlib
import datetime
import time
from typing import Any

from nova import context as nova_context
from nova.db.main import api as main_db
from nova.db.main import models
from nova import objects
from oslo_db import api as oslo_db_api
from oslo_db import exception as db_exc
from oslo_log import log as logging
import sqlalchemy as sa

from nova_ssm.telemetry import tracks

LOG = logging.getLogger(__name__)

#: How many servers are looked up, or events are written, by one statement.
_MOST = 500

_ACTIONS, _EVENTS = models.InstanceAction, models.InstanceActionEvent


def write(wanted: Sequence[tracks.Track]) -> tuple[set[str], set[str]]:
    """Write the events of flows whose actions are there.

    :returns: the uuids of the flows whose actions were found, and of those
        whose cells cannot be written now
    :raises Exception: if the API database cannot be read
    """
    found: set[str] = set()
    failed: set[str] = set()
    context = nova_context.get_admin_context()
    for start in range(0, len(wanted), _MOST):
        some = wanted[start:start + _MOST]
        for cell, theirs in _by_cell(context, some):
            try:
                with _target(context, cell) as target:
                    found |= _write_cell(target, theirs)
            except Exception as exc:  # noqa: BLE001 - the others go on
                LOG.debug('Cell %s cannot be written: %s',
                          cell.identity if cell else 'of this conductor',
                          exc)
                failed.update(track.flow.uuid for track in theirs)
    return found, failed


def _by_cell(context: Any, wanted: Sequence[tracks.Track]
             ) -> Iterator[tuple[Any, list[tracks.Track]]]:
    """Where the servers are; those that are nowhere yet are left out."""
    try:
        mappings = objects.InstanceMappingList.get_by_instance_uuids(
            context, sorted({track.key[0] for track in wanted}))
    except db_exc.CantStartEngineError:
        # The conductor of a cell, which knows no other.
        yield None, list(wanted)
        return
    cells = {mapping.instance_uuid: mapping.cell_mapping
             for mapping in mappings}
    groups: dict[str, list[tracks.Track]] = collections.defaultdict(list)
    for track in wanted:
        cell = cells.get(track.key[0])
        # What is in cell0 was never built: the event of the request itself
        # says why, and it is to be the only one.
        if cell is not None and not cell.is_cell0():
            groups[cell.uuid].append(track)
    by_uuid = {cell.uuid: cell for cell in cells.values() if cell}
    for uuid, theirs in groups.items():
        yield by_uuid[uuid], theirs


@contextlib.contextmanager
def _target(context: Any, cell: Any) -> Iterator[Any]:
    if cell is None:
        yield context
        return
    with nova_context.target_cell(context, cell) as target:
        yield target


@oslo_db_api.wrap_db_retry(max_retries=5, retry_on_deadlock=True)
def _write_cell(context: Any, wanted: Sequence[tracks.Track]) -> set[str]:
    with main_db.get_context_manager(context).writer.using(
            context) as session:
        actions = _actions(session, wanted)
        there = _there(session, actions.values())
        changes = tracks.Changes()
        rows = []
        now = time.time()
        found = set()
        for track in wanted:
            action = actions.get(track.key)
            if action is None:
                continue
            found.add(track.flow.uuid)
            mine = tracks.compare(track, there[action], now)
            rows += [_row(action, event) for event in mine.new]
            changes.ends.update(mine.ends)
        for start in range(0, len(rows), _MOST):
            session.execute(sa.insert(_EVENTS.__table__),
                            rows[start:start + _MOST])
        if changes.ends:
            session.connection().execute(_END, [
                {'row_id': row_id, **_end(event)}
                for row_id, event in changes.ends.items()])
    return found


def _actions(session: Any, wanted: Iterable[tracks.Track]
             ) -> dict[tuple[str, str], int]:
    """The ids of the servers' actions by server and request."""
    uuids = {track.key[0] for track in wanted}
    requests = {track.key[1] for track in wanted}
    return {(row.instance_uuid, row.request_id): row.id
            for row in session.execute(sa.select(
                _ACTIONS.id, _ACTIONS.instance_uuid,
                _ACTIONS.request_id).where(
                    _ACTIONS.instance_uuid.in_(uuids),
                    _ACTIONS.request_id.in_(requests)))}


def _there(session: Any, actions: Iterable[int]) -> dict[int, list[Any]]:
    """Our events of the actions."""
    found: dict[int, list[Any]] = collections.defaultdict(list)
    for row in session.execute(sa.select(
            _EVENTS.id, _EVENTS.action_id, _EVENTS.event,
            _EVENTS.finish_time, _EVENTS.details).where(
                _EVENTS.action_id.in_(set(actions)),
                _EVENTS.event.startswith(tracks.PREFIX, autoescape=True)
            ).order_by(_EVENTS.id)):
        found[row.action_id].append(row._mapping)
    return found


_END = sa.update(_EVENTS.__table__).where(
    _EVENTS.__table__.c.id == sa.bindparam('row_id')).values({
        name: sa.bindparam(name) for name in (
            'finish_time', 'result', 'traceback', 'details', 'updated_at')})


def _row(action: int, event: tracks.Event) -> dict[str, Any]:
    """The row of a new event; the API orders them by when they were made."""
    end = _end(event)
    return {'action_id': action, 'event': event.name, 'host': event.host,
            'start_time': _time(event.began_at),
            'created_at': _time(event.began_at), **end, 'updated_at': None}


def _end(event: tracks.Event) -> dict[str, Any]:
    ended = None if event.ended_at is None else _time(event.ended_at)
    return {'finish_time': ended, 'result': event.result,
            'traceback': event.traceback, 'details': event.details,
            'updated_at': ended}


def _time(seconds: float) -> datetime.datetime:
    """As Nova writes it: UTC, without a time zone."""
    return datetime.datetime.fromtimestamp(
        seconds, datetime.UTC).replace(tzinfo=None)
