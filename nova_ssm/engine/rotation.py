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

"""Encrypts the secrets in the journal anew, beside running workers.

A row of the journal is never written twice but here, and only with the same
values under another key: an update takes place if the row is still as it was
read. Whoever reads it meanwhile gets either, and opens both.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import payloads
from nova_ssm.engine import rows
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.engine import stamps

_F, _J = schema.flows.c, schema.journal.c


@dataclasses.dataclass
class Rotated:
    """What one rotation has done, in rows of the journal.

    :param looked_at: rows with a payload, a large one counted once
    :param changed: rows with a secret that is under the first key now
    :param closed: of each flow with secrets that no key opens how many rows
        have them
    :param unreadable: flows with a row that cannot be read at all
    """

    looked_at: int = 0
    changed: int = 0
    closed: dict[str, int] = dataclasses.field(default_factory=dict)
    unreadable: list[str] = dataclasses.field(default_factory=list)


def rotate(db: database.Database, vault: serialization.Vault,
           finished: bool = False, batch: int = 100) -> Rotated:
    """Put what is sealed in the journal under the first key.

    Can be interrupted at any point and run again.

    :param finished: the flows that are over, too; nobody reads their secrets
        any more
    :param batch: how many flows are looked up at once
    """
    done = Rotated()
    for uuid in _flows(db, finished, batch):
        try:
            for pieces in rows.grouped(_rows(db, uuid)):
                _rotate(db, vault, pieces, done)
        except exception.DamagedJournal:
            done.unreadable.append(uuid)
    return done


def _rotate(db: database.Database, vault: serialization.Vault,
            pieces: list[Any], done: Rotated) -> None:
    before = rows.whole(pieces)
    if not before:
        return
    done.looked_at += 1
    plain = serialization.Serializer.expand(before)
    try:
        if not payloads.reseal(plain, vault.reseal):
            return
    except exception.SecretUnavailable:
        uuid = pieces[0].flow_uuid
        done.closed[uuid] = done.closed.get(uuid, 0) + 1
        return
    after = stamps.stamped(pieces[0].flow_uuid, pieces[0].seq,
                           serialization.Serializer.compress(plain))
    done.changed += db.write(
        lambda connection: _swap(connection, pieces, after))


def _swap(connection: sa.Connection, pieces: list[Any],
          payload: bytes) -> bool:
    """Write a payload into the rows that hold it.

    :returns: False if they are not any more as they were read: whoever
        changes them does what we do
    """
    size = -(-len(payload) // len(pieces))
    with connection.begin_nested() as savepoint:
        for number, row in enumerate(pieces):
            update = schema.journal.update().where(
                _J.flow_uuid == row.flow_uuid, _J.seq == row.seq,
                _J.payload == row.payload)
            piece = payload[number * size:(number + 1) * size]
            if not connection.execute(
                    update.values(payload=piece)).rowcount:
                savepoint.rollback()
                return False
    return True


def _flows(db: database.Database, finished: bool,
           batch: int) -> Iterator[str]:
    last = ''
    while True:
        query = sa.select(_F.uuid).where(_F.uuid > last).order_by(
            _F.uuid).limit(batch)
        if not finished:
            query = query.where(_F.finished_at.is_(None))
        with db.transaction() as connection:
            found = connection.execute(query).scalars().all()
        yield from found
        if len(found) < batch:
            return
        last = found[-1]


def _rows(db: database.Database, uuid: str) -> list[Any]:
    with db.transaction() as connection:
        return list(connection.execute(
            sa.select(_J.flow_uuid, _J.seq, _J.kind, _J.payload).where(
                _J.flow_uuid == uuid).order_by(_J.seq)))
