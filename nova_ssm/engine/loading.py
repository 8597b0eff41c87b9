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

"""Read a flow back from its journal."""

import dataclasses
from typing import Any

import sqlalchemy as sa
from taskflow.persistence import models
from taskflow import states as taskflow_states

from nova_ssm.engine import database
from nova_ssm.engine import events
from nova_ssm.engine import exception
from nova_ssm.engine import journal
from nova_ssm.engine import masking
from nova_ssm.engine import orders
from nova_ssm.engine import records
from nova_ssm.engine import rows
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.engine import states


@dataclasses.dataclass
class Loaded:
    """What the journal says of a flow.

    :param detail: for TaskFlow
    :param flow: which one it is, in the version in which it was begun
    :param started: tasks of which only the start is journaled
    :param failed: the task that failed first, and its exception
    :param stuck: the task that could not be reverted, and its exception
    :param seen: of each journaled task its state and intention
    :param ended: the state it ended in, None if it did not end
    :param missing: of each input that lacks a secret why it does
    :param incomplete: the same of each task, by its name, for what it gave
    :param again: whether it begins again, from its start
    :param number: how often it was begun again
    :param order: what people want of it
    :param trouble: what the last one said who could not go on with it
    :param mask: knows the secrets of the flow
    """

    detail: models.FlowDetail
    flow: events.Flow
    started: set[str] = dataclasses.field(default_factory=set)
    failed: tuple[str, BaseException] | None = None
    stuck: tuple[str, BaseException] | None = None
    seen: dict[str, tuple[str, str]] = dataclasses.field(
        default_factory=dict)
    ended: str | None = None
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    incomplete: dict[str, str] = dataclasses.field(default_factory=dict)
    again: bool = False
    number: int = 0
    order: orders.Order | None = None
    trouble: str | None = None
    mask: masking.Mask = dataclasses.field(default_factory=masking.Mask)


def load(db: database.Database, serializer: serialization.Serializer,
         uuid: str, name: str) -> Loaded:
    """Read a flow back.

    :raises FlowNotFound: if there is nothing to read
    :raises DamagedJournal: if it cannot be read; names flow and row
    """
    flow, found = _rows(db, uuid)
    if flow is None:
        raise exception.FlowNotFound('there is no flow %s' % uuid)
    loaded = Loaded(models.FlowDetail(name, uuid), events.Flow.of(flow),
                    trouble=flow.trouble)
    reading = serialization.Reading(mask=loaded.mask)
    try:
        journaled = rows.complete(uuid, found)
        detail = _detail(serializer, reading, loaded, uuid, name,
                         journaled[0])
        loaded.detail = detail
        atoms: dict[str, dict[str, Any]] = {}
        undoing: dict[str, dict[str, Any]] = {}
        for row in journaled[1:]:
            if loaded.ended is not None:
                _go_on(loaded, atoms, undoing)
            _apply(serializer, reading, loaded, atoms, row)
            undoing.update(
                (atom, record) for atom, record in atoms.items()
                if record['state'] != taskflow_states.REVERT_FAILURE)
    except exception.DamagedJournal as exc:
        raise type(exc)('flow %s: %s' % (uuid, exc)) from exc
    for atom, record in atoms.items():
        detail.add(records.restore(atom, record))
    return loaded


def unreadable(db: database.Database,
               serializer: serialization.Serializer,
               uuid: str) -> str | None:
    """Why a flow cannot be read back here, None if it probably can.

    Nothing that it refers to is looked up, so this is no work for somebody
    who may not get the flow.
    """
    flow, found = _rows(db, uuid)
    if flow is None:
        return None
    try:
        for row in rows.complete(uuid, found):
            if row.kind in (states.START, states.ATOM):
                _check(serializer, row)
    except exception.DamagedJournal as exc:
        return str(exc)
    return None


def _check(serializer: serialization.Serializer, row: rows.Row) -> None:
    plain = _expand(serializer, row)
    try:
        serializer.check(plain)
    except exception.DamagedJournal as exc:
        raise type(exc)('row %d: %s' % (row.seq, exc)) from exc


def _rows(db: database.Database, uuid: str) -> tuple[Any, list[Any]]:
    def work(connection: sa.Connection) -> tuple[Any, list[Any]]:
        flow = connection.execute(sa.select(schema.flows).where(
            schema.flows.c.uuid == uuid)).first()
        return flow, list(connection.execute(
            sa.select(schema.journal).where(
                schema.journal.c.flow_uuid == uuid).order_by(
                    schema.journal.c.seq)))
    return db.write(work)


def _detail(serializer: serialization.Serializer,
            reading: serialization.Reading, loaded: Loaded, uuid: str,
            name: str, row: rows.Row) -> models.FlowDetail:
    # The context is read first: everything else is read in it.
    context, store = _expand(serializer, row)
    inputs = {'context': context, **store}
    for key, value in inputs.items():
        inputs[key] = serializer.decode(value, reading)
        if key == 'context':
            reading.context = inputs[key]
        _note_missing(reading, loaded.missing, key)
    return journal.new_detail(uuid, name, inputs)


def _note_missing(reading: serialization.Reading, missing: dict[str, str],
                  name: str) -> None:
    if reading.missing:
        missing[name] = reading.missing[0]
        reading.missing.clear()


def _expand(serializer: serialization.Serializer, row: rows.Row) -> Any:
    try:
        plain = serializer.expand(row.payload)
    except exception.DamagedJournal as exc:
        raise type(exc)('row %d: %s' % (row.seq, exc)) from exc
    if not (_is_request(plain) if row.kind == states.START else
            _is_step(row, plain)):
        raise exception.DamagedJournal(
            'row %d does not hold what a row of its kind does' % row.seq)
    return plain


def _is_request(plain: Any) -> bool:
    return (isinstance(plain, list) and len(plain) == 2 and
            isinstance(plain[1], dict))


def _is_step(row: rows.Row, plain: Any) -> bool:
    """Whether it holds records of tasks, and that of the row's own task."""
    return (isinstance(plain, dict) and
            all(records.is_record(record) for record in plain.values()) and
            (row.atom in plain or row.state == taskflow_states.RUNNING))


def _apply(serializer: serialization.Serializer,
           reading: serialization.Reading, loaded: Loaded,
           atoms: dict[str, dict[str, Any]], row: rows.Row) -> None:
    if row.kind == states.END:
        loaded.ended = row.state
    if row.kind != states.ATOM:
        return
    loaded.again = False
    for atom, plain in _expand(serializer, row).items():
        try:
            record = records.full(serializer.decode(plain, reading))
        except exception.DamagedJournal as exc:
            raise type(exc)('row %d: %s' % (row.seq, exc)) from exc
        loaded.incomplete.pop(atom, None)
        _note_missing(reading, loaded.incomplete, atom)
        atoms[atom] = record
        loaded.started.discard(atom)
        loaded.failed = records.first_failure(loaded.failed, atom, record)
        loaded.stuck = records.first_stuck(loaded.stuck, atom, record)
        loaded.seen[atom] = (record['state'], record['intention'])
    if row.state == taskflow_states.RUNNING:
        loaded.started.add(row.atom)


def _go_on(loaded: Loaded, atoms: dict[str, dict[str, Any]],
           undoing: dict[str, dict[str, Any]]) -> None:
    """The flow was over, but somebody has had it tried again.

    One that was reverted begins again. What could not be undone is undone
    from where that failed.

    :param undoing: what was known of the tasks before their revert failed
    """
    if loaded.ended == states.REVERTED:
        atoms.clear()
        loaded.seen.clear()
        loaded.started.clear()
        loaded.incomplete.clear()
        loaded.failed, loaded.again = None, True
        loaded.number += 1
    for atom, record in list(atoms.items()):
        if record['state'] != taskflow_states.REVERT_FAILURE:
            continue
        if atom in undoing:
            atoms[atom] = {**undoing[atom],
                           'intention': taskflow_states.REVERT}
            loaded.seen[atom] = (atoms[atom]['state'],
                                 taskflow_states.REVERT)
        else:
            # It only read, and left no row: as if it may have begun.
            del atoms[atom], loaded.seen[atom]
    loaded.stuck = loaded.ended = None
