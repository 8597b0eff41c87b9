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
import json
from typing import Any
import zlib

import sqlalchemy as sa
from taskflow.persistence import models
from taskflow import states as taskflow_states

from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import journal
from nova_ssm.engine import records
from nova_ssm.engine import rows
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.engine import states


@dataclasses.dataclass
class Loaded:
    """What the journal says of a flow.

    :param detail: for TaskFlow
    :param started: tasks of which only the start is journaled
    :param failed: the task that failed first, and its exception
    :param stuck: the task that could not be reverted, and its exception
    :param seen: of each journaled task its state and intention
    :param ended: the state it ended in, None if it did not end
    :param missing: why secrets could not be read back
    """

    detail: models.FlowDetail
    started: set[str] = dataclasses.field(default_factory=set)
    failed: tuple[str, BaseException] | None = None
    stuck: tuple[str, BaseException] | None = None
    seen: dict[str, tuple[str, str]] = dataclasses.field(
        default_factory=dict)
    ended: str | None = None
    missing: list[str] = dataclasses.field(default_factory=list)


def load(db: database.Database, serializer: serialization.Serializer,
         uuid: str, name: str) -> Loaded:
    """Read a flow back.

    :raises FlowNotFound: if there is nothing to read
    :raises DamagedJournal: if it cannot be read; names flow and row
    """
    found = _rows(db, uuid)
    if not found or found[0].kind != states.START:
        raise exception.FlowNotFound('flow %s has no journal' % uuid)
    reading = serialization.Reading()
    try:
        journaled = rows.joined(found)
        detail = _detail(serializer, reading, uuid, name, journaled[0])
        loaded = Loaded(detail, missing=reading.missing)
        atoms: dict[str, dict[str, Any]] = {}
        for row in journaled[1:]:
            _apply(serializer, reading, loaded, atoms, row)
    except exception.DamagedJournal as exc:
        raise exception.DamagedJournal('flow %s: %s' % (uuid, exc)) from exc
    for atom, record in atoms.items():
        detail.add(records.restore(atom, record))
    return loaded


def _rows(db: database.Database, uuid: str) -> list[Any]:
    def work(connection: sa.Connection) -> list[Any]:
        return list(connection.execute(
            sa.select(schema.journal).where(
                schema.journal.c.flow_uuid == uuid).order_by(
                    schema.journal.c.seq)))
    return db.write(work)


def _detail(serializer: serialization.Serializer,
            reading: serialization.Reading, uuid: str, name: str,
            row: rows.Row) -> models.FlowDetail:
    # The context is read first: everything else is read in it.
    try:
        context, store = json.loads(zlib.decompress(row.payload))
    except (zlib.error, TypeError, ValueError) as exc:
        raise exception.DamagedJournal(
            'row %d cannot be read: %s' % (row.seq, exc)) from exc
    reading.context = serializer.decode(context, reading)
    values = serializer.decode(store, reading)
    return journal.new_detail(uuid, name,
                              {**values, 'context': reading.context})


def _apply(serializer: serialization.Serializer,
           reading: serialization.Reading, loaded: Loaded,
           atoms: dict[str, dict[str, Any]], row: rows.Row) -> None:
    if row.kind == states.END:
        loaded.ended = row.state
    if row.kind != states.ATOM:
        return
    try:
        unpacked = serializer.unpack(row.payload, reading)
    except exception.DamagedJournal as exc:
        raise exception.DamagedJournal(
            'row %d: %s' % (row.seq, exc)) from exc
    for atom, compacted in unpacked.items():
        record = records.full(compacted)
        atoms[atom] = record
        loaded.started.discard(atom)
        loaded.failed = records.first_failure(loaded.failed, atom, record)
        loaded.stuck = records.first_stuck(loaded.stuck, atom, record)
        loaded.seen[atom] = (record['state'], record['intention'])
    if row.state == taskflow_states.RUNNING:
        loaded.started.add(row.atom)
