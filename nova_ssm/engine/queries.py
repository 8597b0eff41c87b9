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

"""What people ask the journal: which flows there are, and how far they are.

Reads states only, never what a task was given: no secret is touched.
"""

from collections.abc import Sequence
import dataclasses
import json
import re
from typing import Any
import zlib

import sqlalchemy as sa
from taskflow import states as taskflow_states

from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import filters
from nova_ssm.engine import orders
from nova_ssm.engine import payloads
from nova_ssm.engine import records
from nova_ssm.engine import rows
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.engine import states


@dataclasses.dataclass(frozen=True)
class FlowInfo:
    """A flow as people see it.

    Times are seconds since the epoch on the database's clock.

    :param owner_alive: whether the owner's lease has not expired
    :param task: the task that was journaled last
    :param task_state: and its state
    :param since: when that was
    :param trouble: why nobody goes on with it; None if somebody does
    :param order: what people have ordered, and is not obeyed yet; one to
        pause stays for as long as the flow waits
    :param answer: what has become of the last order
    """

    uuid: str
    parent_uuid: str | None
    name: str
    version: str
    state: str
    subject: str | None
    project_id: str | None
    user_id: str | None
    request_id: str | None
    owner: str | None
    owner_alive: bool
    claims: int
    task: str | None
    task_state: str | None
    since: float
    created_at: float
    finished_at: float | None
    failure: str | None
    trouble: str | None
    order: str | None = None
    answer: str | None = None


@dataclasses.dataclass(frozen=True)
class StepInfo:
    """One row of a flow's journal."""

    seq: int
    kind: str
    task: str | None
    state: str | None
    writer: str
    at: float


@dataclasses.dataclass(frozen=True)
class AtomInfo:
    """What is known of a task, or a retry.

    :param state: TaskFlow's name of it; RUNNING only if it runs once
    :param failed: whether it failed, though it may be reverted by now
    :param tries: how often it ended; more than once for retries only
    """

    state: str
    failed: bool = False
    tries: int = 1


#: Less of a uuid is too likely to be meant for something else.
_BEGINNING = re.compile(r'[0-9a-f]{4}[0-9a-f-]{0,32}', re.IGNORECASE)
_LENGTH, _SOME = 36, 4

_F, _J, _W = schema.flows.c, schema.journal.c, schema.workers.c


def flows(db: database.Database, limit: int = 100,
          marker: str | None = None, **wanted: Any) -> list[FlowInfo]:
    """The newest flows first.

    :param limit: how many at the most
    :param marker: the uuid of a flow: only those that come behind it
    :param wanted: see :class:`nova_ssm.engine.filters.Filters`
    :raises FlowNotFound: if the marker is not there
    :raises DatabaseUnusable: if the database cannot be read
    """
    chosen = filters.Filters(**wanted)
    with db.reading() as connection:
        behind = [_behind(connection, marker)] if marker else []
        queries = list(chosen.chosen(limit, *behind))
        if len(queries) > 1:
            found = sorted(
                ((row.created_at, row.uuid) for query in queries
                 for row in connection.execute(query)), reverse=True)
            queries = [sa.select(_F.uuid).where(_F.uuid.in_(
                [uuid for _created_at, uuid in found[:limit]]))]
        rows = connection.execute(_query(queries[0])).all()
    return _infos(db, rows)


def _behind(connection: sa.Connection, marker: str) -> Any:
    row = connection.execute(sa.select(_F.created_at, _F.uuid).where(
        _F.uuid == marker)).first()
    if row is None:
        raise exception.FlowNotFound('there is no flow %s' % marker)
    return sa.and_(_F.created_at <= row.created_at, sa.or_(
        _F.created_at < row.created_at, _F.uuid < row.uuid))


def flow(db: database.Database, uuid: str) -> FlowInfo:
    """The flow with that uuid.

    :raises FlowNotFound: if there is no such flow
    :raises DatabaseUnusable: if the database cannot be read
    """
    with db.reading() as connection:
        row = connection.execute(_query(sa.select(_F.uuid).where(
            _F.uuid == uuid))).first()
    if row is None:
        raise exception.FlowNotFound('there is no flow %s' % uuid)
    return _infos(db, [row])[0]


def looks_like_uuid(text: str) -> bool:
    """Whether something may be a uuid, or the beginning of one."""
    return _BEGINNING.fullmatch(text) is not None


def find(db: database.Database, text: str) -> FlowInfo:
    """The flow with that uuid, or the only one whose uuid begins like that.

    :raises FlowNotFound: if there is no such flow
    :raises AmbiguousFlow: if there are several; names some
    :raises DatabaseUnusable: if the database cannot be read
    """
    found: list[str] = []
    if looks_like_uuid(text) and len(text) < _LENGTH:
        query = sa.select(_F.uuid).where(_F.uuid.startswith(
            text.lower(), autoescape=True)).order_by(_F.uuid).limit(_SOME + 1)
        with db.reading() as connection:
            found = list(connection.execute(query).scalars())
    if len(found) > 1:
        raise exception.AmbiguousFlow(
            'several flows begin with %s, say more of it: %s%s' % (
                text, ', '.join(found[:_SOME]),
                ', ...' if len(found) > _SOME else ''))
    try:
        return flow(db, found[0] if found else text.lower())
    except exception.FlowNotFound:
        raise exception.FlowNotFound(
            'there is no flow %s; "nova-ssm flow list" shows those that '
            'there are' % text) from None


def subjects_finished(db: database.Database, names: Sequence[str],
                      since: float, until: float | None = None) -> list[str]:
    """What the flows of these names worked on that have succeeded then.

    :param since: when the first may have ended, as :func:`clock` has it
    :param until: when the last may have; None for now
    """
    query = sa.select(_F.subject).where(
        _F.name.in_(names), _F.state == states.SUCCESS,
        _F.subject.is_not(None), _F.finished_at > since)
    if until is not None:
        query = query.where(_F.finished_at <= until)
    with db.transaction() as connection:
        return list(dict.fromkeys(connection.execute(query).scalars()))


def ended_by(db: database.Database, writer: str,
             since: float) -> list[FlowInfo]:
    """The flows that a worker has run to their end.

    :param since: when the first may have ended, as :func:`clock` has it
    """
    chosen = sa.select(_F.uuid).where(
        _F.finished_at > since, sa.exists().where(
            _J.flow_uuid == _F.uuid, _J.kind == states.END,
            _J.writer == writer).correlate(schema.flows))
    with db.reading() as connection:
        rows = connection.execute(_query(chosen)).all()
    return _infos(db, rows)


def children(db: database.Database, uuid: str) -> list[FlowInfo]:
    """The flows that a flow has posted, the newest first."""
    with db.reading() as connection:
        rows = connection.execute(_query(
            sa.select(_F.uuid).where(_F.parent_uuid == uuid))).all()
    return _infos(db, rows)


def subjects_unfinished(db: database.Database, subjects: Sequence[str],
                        but: str) -> set[str]:
    """Those of the subjects that a flow works on, or waits to.

    :param subjects: as many as one query takes
    :param but: flows whose names begin with this do not count
    """
    query = sa.select(_F.subject).distinct().where(
        _F.subject.in_(subjects), _F.finished_at.is_(None),
        ~_F.name.startswith(but, autoescape=True))
    with db.transaction() as connection:
        return set(connection.execute(query).scalars())


def project_unfinished(db: database.Database, project_id: str,
                       name: str) -> bool:
    """Whether a flow of that name is under way for a project."""
    query = sa.select(_F.uuid).where(
        _F.finished_at.is_(None), _F.project_id == project_id,
        _F.name == name).limit(1)
    with db.transaction() as connection:
        return connection.execute(query).first() is not None


def has_flows(db: database.Database, names: Sequence[str],
              since: float) -> bool:
    """Whether a flow of these names runs, or has ended since then."""
    named = sa.select(_F.uuid).where(_F.name.in_(names)).limit(1)
    with db.transaction() as connection:
        # One after the other: both at once is nothing for an index.
        return any(
            connection.execute(query).first() is not None for query in (
                named.where(_F.finished_at.is_(None)).order_by(
                    schema.alike(_F.finished_at), _F.created_at, _F.uuid),
                named.where(_F.finished_at > since).order_by(
                    _F.finished_at, _F.created_at, _F.uuid)))


def clock(db: database.Database) -> float:
    """Now, on the clock of the database."""
    with db.transaction() as connection:
        return float(connection.execute(
            sa.select(schema.now())).scalar_one())


def living(db: database.Database) -> dict[str, str]:
    """The workers whose leases have not expired: hosts by id."""
    query = sa.select(_W.id, _W.host).where(_W.expires_at > schema.now())
    with db.transaction() as connection:
        return {row.id: row.host.rpartition('/')[0]
                for row in connection.execute(query)}


def lease_end(db: database.Database, worker_id: str) -> float | None:
    """When the lease of a worker ends, or did; None if it is forgotten."""
    with db.transaction() as connection:
        return connection.execute(sa.select(_W.expires_at).where(
            _W.id == worker_id)).scalar()


def steps(db: database.Database, uuid: str) -> list[StepInfo]:
    """The journal of a flow, in the order in which it was written."""
    with db.reading() as connection:
        found = connection.execute(sa.select(
            _J.seq, _J.kind, _J.atom, _J.state, _J.writer,
            _J.created_at).where(
                _J.flow_uuid == uuid, _J.kind != states.MORE).order_by(
                    _J.seq)).all()
    return [StepInfo(*row) for row in found]


def atoms(db: database.Database, uuid: str) -> dict[str, AtomInfo]:
    """How far the tasks of a flow are, as its journal knows it.

    What only reads is known with the next row. Results are not looked at.
    """
    known: dict[str, AtomInfo] = {}
    try:
        found = rows.joined(_journal(db, uuid))
    except exception.DamagedJournal as exc:
        raise exception.DamagedJournal('flow %s: %s' % (uuid, exc)) from exc
    for row in found:
        if row.kind != states.ATOM:
            continue
        try:
            noted = {name: _atom(records.full(record)) for name, record in
                     json.loads(zlib.decompress(row.payload)).items()}
        except (zlib.error, TypeError, ValueError, AttributeError,
                LookupError) as exc:
            raise exception.DamagedJournal(
                'flow %s: row %d cannot be read: %s'
                % (uuid, row.seq, exc)) from exc
        known |= noted
        if row.state == taskflow_states.RUNNING:
            known[row.atom] = AtomInfo(row.state)
    return known


def left(db: database.Database, uuid: str) -> str:
    """In words: what a flow has done that is not undone, as far as known."""
    try:
        known = atoms(db, uuid)
    except exception.DamagedJournal as exc:
        return 'what it has done cannot be read: %s' % exc
    names = [name for name, atom in known.items() if atom.state not in (
        taskflow_states.PENDING, taskflow_states.IGNORE,
        taskflow_states.REVERTED)]
    if not names:
        return 'it had done nothing that its journal knows of'
    return 'not undone: %s, and what was under way' % ', '.join(names)


def objects(db: database.Database, uuid: str) -> list[str]:
    """The versioned objects in the journal of a flow, with their versions.

    What cannot be read is left out.
    """
    versions: set[tuple[str, str]] = set()
    try:
        for row in rows.joined(_journal(db, uuid)):
            if row.payload:
                versions |= payloads.object_versions(
                    serialization.Serializer.expand(row.payload))
    except exception.DamagedJournal:
        # That it is damaged, and where, stands in the flow's trouble.
        pass
    return ['%s %s' % one for one in sorted(versions)]


def _journal(db: database.Database, uuid: str) -> list[Any]:
    with db.reading() as connection:
        return list(connection.execute(sa.select(
            _J.seq, _J.kind, _J.atom, _J.state, _J.payload).where(
                _J.flow_uuid == uuid).order_by(_J.seq)))


def _atom(record: dict[str, Any]) -> AtomInfo:
    tries = 1
    if record['kind'] == 'RETRY_DETAIL':
        tries = len(record.get('results') or ())
    return AtomInfo(record['state'], 'failure' in record, tries)


def _query(chosen: sa.Select) -> sa.Select:
    """What is shown of some flows, the newest first.

    Also of one without a journal, which something else than we has damaged.
    """
    flow_uuids = chosen.subquery('chosen')
    # The last row is found by the primary key, for each flow shown.
    inner = schema.journal.alias('inner')
    last = sa.select(inner.c.seq).where(
        inner.c.flow_uuid == _F.uuid,
        inner.c.kind.in_((states.START, states.ATOM))
    ).order_by(inner.c.seq.desc()).limit(1).correlate(
        schema.flows).scalar_subquery()
    alive = sa.exists().where(_W.id == _F.owner, _W.expires_at > schema.now())
    return sa.select(
        schema.flows, alive.label('owner_alive'), _J.atom,
        _J.state.label('atom_state'),
        _J.created_at.label('since')).select_from(schema.flows).join(
            flow_uuids, flow_uuids.c.uuid == _F.uuid).outerjoin(
                schema.journal, sa.and_(
                    _J.flow_uuid == _F.uuid, _J.seq == last)).order_by(
                        _F.created_at.desc(), _F.uuid.desc())


def _infos(db: database.Database, rows: Sequence[Any]) -> list[FlowInfo]:
    ordered = orders.of_all(db, [row.uuid for row in rows])
    return [_info(row, ordered.get(row.uuid)) for row in rows]


def _info(row: Any, order: orders.Order | None) -> FlowInfo:
    return FlowInfo(
        uuid=row.uuid, parent_uuid=row.parent_uuid, name=row.name,
        version=row.version, state=row.state, subject=row.subject,
        project_id=row.project_id, user_id=row.user_id,
        request_id=row.request_id, owner=row.owner,
        owner_alive=bool(row.owner_alive), claims=row.generation,
        task=row.atom, task_state=row.atom_state,
        since=row.created_at if row.since is None else row.since,
        created_at=row.created_at, finished_at=row.finished_at,
        failure=row.failure, trouble=_trouble(row),
        order=order.verb if order is not None and order.open else None,
        answer=order.answer if order is not None else None)


def _trouble(row: Any) -> str | None:
    """What is written, unless it is out of date.

    A worker of a release that does not know the column leaves it there.
    """
    if row.finished_at is not None or row.owner_alive:
        return None
    return row.trouble
