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
"""The rows of the journal: written in pieces, and read back as one.

What a task gives may be larger than what a database takes in one statement
or gives in one row of an answer. So a payload is cut into pieces: the row
holds the first, rows of kind MORE right behind it hold the others. They are
written in one transaction, so either all of them are there or none is.
"""

from collections.abc import Iterable, Sequence
import dataclasses
from typing import Any

import sqlalchemy as sa

from nova_ssm.engine import exception
from nova_ssm.engine import schema
from nova_ssm.engine import stamps
from nova_ssm.engine import states

#: Bytes in a row. MariaDB refuses statements, and rows of an answer, above
#: max_allowed_packet, which is 16 MiB by default; bytes may be written
#: there as two characters each.
PIECE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is to be written of one step of a flow."""

    kind: str
    atom: str | None = None
    state: str | None = None
    payload: bytes | None = None


def build(flow_uuid: str, seq: int, writer: str,
          entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """The rows of some entries, numbered from ``seq`` on."""
    built: list[dict[str, Any]] = []
    for entry in entries:
        payload = entry.payload
        if payload is not None:
            payload = stamps.stamped(flow_uuid, seq + len(built), payload)
        first = payload if payload is None else payload[:PIECE]
        pieces = [(entry.kind, entry.atom, entry.state, first)]
        for start in range(PIECE, len(payload or b''), PIECE):
            assert payload is not None
            pieces.append((states.MORE, None, None,
                           payload[start:start + PIECE]))
        for kind, atom, state, piece in pieces:
            built.append({
                'flow_uuid': flow_uuid, 'seq': seq + len(built),
                'kind': kind, 'atom': atom, 'state': state,
                'writer': writer, 'payload': piece})
    return built


def insert(connection: sa.Connection, built: list[dict[str, Any]]) -> None:
    """Append rows, which nobody else may have written.

    :raises oslo_db.exception.DBDuplicateEntry: if somebody has
    """
    connection.execute(
        _INSERT, built if len(built) > 1 else built[0])


_INSERT = schema.journal.insert().values(created_at=schema.now())


@dataclasses.dataclass
class Row:
    """A row of the journal with its whole payload; what is NULL is empty."""

    seq: int
    kind: str
    atom: str
    state: str
    payload: bytes


def joined(found: Iterable[Any]) -> list[Row]:
    """The rows of one flow, in their order, each with its whole payload.

    :raises DamagedJournal: if rows are missing in between
    """
    return [_row(pieces, stamps.opened(whole(pieces)))
            for pieces in grouped(found)]


def complete(flow_uuid: str, found: Sequence[Any]) -> list[Row]:
    """The same, if they are all there and stand where they were written.

    :raises DamagedJournal: if not; names the row
    :raises Unreadable: if a row is of a kind that is not known here
    """
    if not found or (found[0].seq, found[0].kind) != (0, states.START):
        raise exception.DamagedJournal(
            'row 0, which holds what the flow was given, is missing')
    for seq, row in enumerate(found):
        if row.seq != seq:
            raise exception.DamagedJournal('row %d is missing' % seq)
        if row.kind not in states.KINDS:
            raise exception.Unreadable(
                'row %d is of a kind that is not known here: %s'
                % (seq, row.kind))
    return [_row(pieces, stamps.checked(
        flow_uuid, pieces[0].seq, whole(pieces)))
        for pieces in grouped(found)]


def _row(pieces: Sequence[Any], payload: bytes) -> Row:
    return Row(pieces[0].seq, pieces[0].kind, pieces[0].atom or '',
               pieces[0].state or '', payload)


def whole(pieces: Sequence[Any]) -> bytes:
    """The payload that some rows hold together."""
    if len(pieces) == 1:
        return pieces[0].payload or b''
    return b''.join(piece.payload or b'' for piece in pieces)


def grouped(found: Iterable[Any]) -> list[list[Any]]:
    """The rows of one flow, in their order, with those that go on with one.

    :raises DamagedJournal: if rows are missing in between
    """
    groups: list[list[Any]] = []
    for row in found:
        if row.kind != states.MORE:
            groups.append([row])
        elif not groups or row.seq != groups[-1][-1].seq + 1:
            raise exception.DamagedJournal(
                'row %d goes on with a row that is not there' % row.seq)
        else:
            groups[-1].append(row)
    return groups
