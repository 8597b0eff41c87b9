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

"""What people want of a flow: that it waits, is undone, or is given up.

An order is a row. Who runs the flow sees it at its next look and obeys at the
next step, with nothing of the flow under way; of a flow that nobody runs, or
whose owner dies meanwhile, it is obeyed by who takes it::

    pause    nobody goes on with it, until somebody lets it
    cancel   what was done is undone, as if the next step had failed
    kill     it is over at once: nothing of it is undone

Only the owner of a flow writes its journal, also then. An order is answered
when it is obeyed, or turns out to be too late; a flow that waits keeps its
order for as long as it waits. A flow that is over, but for its children,
passes an order on to them.
"""

from collections.abc import Sequence
import dataclasses

from oslo_db import exception as db_exc
import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import schema
from nova_ssm.engine import states

PAUSE = 'pause'
CANCEL = 'cancel'
KILL = 'kill'
#: Obeyed at once, so only ever seen with its answer: see retries.
RETRY = 'retry'

_F, _O = schema.flows.c, schema.orders.c


@dataclasses.dataclass(frozen=True)
class Order:
    """What is wanted of a flow.

    :param by: who asks for it
    :param reason: why, in words for the users of what the flow does
    :param asked_at: when, on the clock of the database
    :param answer: what has become of it; None if nothing has yet
    :param over: the state that the flow has ended in; None if it has not
    """

    flow_uuid: str
    verb: str
    by: str
    reason: str | None
    asked_at: float
    answer: str | None = None
    over: str | None = None

    @property
    def open(self) -> bool:
        """Whether it is still to be obeyed, or the flow waits."""
        return self.answer is None

    @property
    def why(self) -> str:
        """One line on where it came from."""
        return ': '.join(filter(None, (self.by, self.reason)))


def of(db: database.Database, uuid: str) -> Order | None:
    """The last order for a flow, answered or not."""
    return of_all(db, [uuid]).get(uuid)


def of_all(db: database.Database, uuids: Sequence[str]) -> dict[str, Order]:
    """The last order for each of these flows that has one."""
    if not uuids:
        return {}
    with db.reading() as connection:
        return _read(connection, _O.flow_uuid.in_(uuids))


def pending(db: database.Database) -> dict[str, Order]:
    """What is not answered, by flow: few, most often none."""
    with db.transaction() as connection:
        return _read(connection, _O.answered_at.is_(None))


def _read(connection: sa.Connection,
          where: sa.ColumnElement[bool]) -> dict[str, Order]:
    rows = connection.execute(sa.select(
        _O.flow_uuid, _O.verb, _O.asked_by, _O.reason, _O.asked_at,
        _O.answer, sa.case((_F.finished_at.is_not(None), _F.state)),
    ).select_from(schema.orders).outerjoin(
        schema.flows, _F.uuid == _O.flow_uuid).where(where)).all()
    return {row.flow_uuid: Order(*row) for row in rows}


# -- giving -----------------------------------------------------------------

def give(db: database.Database, uuid: str, verb: str, by: str,
         reason: str | None = None) -> list[str]:
    """Order something of a flow, or of its children if it is over.

    :param verb: PAUSE, CANCEL or KILL
    :returns: the flows that have the order now
    :raises FlowNotFound: if there is no such flow
    :raises NotSteerable: if it is over, or under another order that this
        one does not replace
    """
    def work(connection: sa.Connection) -> list[str]:
        _forget_answered(connection, uuid)
        wanted = _open_of(connection, uuid)
        there = _read(connection, _O.flow_uuid.in_(wanted))
        refusals = {one: _refusal(there.get(one), verb) for one in wanted}
        given = [one for one in wanted if refusals[one] is None]
        if not given:
            raise exception.NotSteerable(refusals[wanted[0]])
        _put(connection, given, verb, by, reason)
        return given

    return _write(db, uuid, work)


def resume(db: database.Database, uuid: str) -> list[str]:
    """Let a flow go on that was to wait, or its children.

    :returns: the flows that go on
    :raises FlowNotFound: if there is no such flow
    :raises NotSteerable: if it was not to wait
    """
    def work(connection: sa.Connection) -> list[str]:
        _forget_answered(connection, uuid)
        there = _read(connection, sa.and_(
            _O.flow_uuid.in_(_open_of(connection, uuid)),
            _O.answered_at.is_(None)))
        waiting = sorted(one.flow_uuid for one in there.values()
                         if one.verb == PAUSE)
        if not waiting:
            raise exception.NotSteerable(
                'flow %s was not paused%s' % (uuid, ''.join(
                    ', but there is the order to %s it' % one.verb
                    for one in list(there.values())[:1])))
        connection.execute(schema.orders.delete().where(
            _O.flow_uuid.in_(waiting), _O.verb == PAUSE))
        return waiting

    return _write(db, uuid, work)


def _write(db: database.Database, uuid: str, work: database.Work) -> list[str]:
    try:
        return db.write(work)
    except db_exc.DBDuplicateEntry:
        raise exception.NotSteerable(
            'somebody else gave an order for flow %s at the same time: see '
            'it with "nova-ssm flow show", and give yours again if it is '
            'still wanted' % uuid) from None


def _forget_answered(connection: sa.Connection, uuid: str) -> None:
    # Also because SQLite wants the lock of who is going to write from the
    # beginning.
    connection.execute(schema.orders.delete().where(
        _O.flow_uuid == uuid, _O.answered_at.is_not(None)))


def _open_of(connection: sa.Connection, uuid: str) -> list[str]:
    """The flow itself, or what is not over of the flows that it posted.

    :raises FlowNotFound: if there is no such flow
    :raises NotSteerable: if all of it is over
    """
    row = connection.execute(sa.select(_F.state, _F.finished_at).where(
        _F.uuid == uuid)).first()
    if row is None:
        raise exception.FlowNotFound('there is no flow %s' % uuid)
    if row.finished_at is None:
        return [uuid]
    children = _children(connection, uuid)
    if not children:
        raise exception.NotSteerable(
            'flow %s is over: %s' % (uuid, row.state))
    return children


def _children(connection: sa.Connection, uuid: str) -> list[str]:
    return list(connection.execute(sa.select(_F.uuid).where(
        _F.parent_uuid == uuid, _F.finished_at.is_(None)).order_by(
            _F.created_at, _F.uuid)).scalars())


def _refusal(there: Order | None, verb: str) -> str | None:
    """Why an order does not replace the one before; None if it does."""
    if there is None or not there.open or there.verb == PAUSE != verb:
        return None
    if there.verb == verb:
        return 'flow %s has this order already, of %s' % (
            there.flow_uuid, there.by)
    if there.verb == CANCEL and verb == KILL:
        return None
    return ('flow %s is to be %s, as ordered by %s%s' % (
        there.flow_uuid, _PAST[there.verb], there.by,
        ': kill it if that takes too long' if there.verb == CANCEL else ''))


_PAST = {CANCEL: 'cancelled', KILL: 'killed'}


def _put(connection: sa.Connection, uuids: Sequence[str], verb: str, by: str,
         reason: str | None) -> None:
    connection.execute(schema.orders.delete().where(
        _O.flow_uuid.in_(uuids)))
    connection.execute(
        schema.orders.insert().values(asked_at=schema.now()),
        [{'flow_uuid': uuid, 'verb': verb, 'asked_by': by, 'reason': reason}
         for uuid in uuids])


# -- obeying ----------------------------------------------------------------

def answer(db: database.Database, order: Order, text: str) -> None:
    """Say what has become of an order."""
    db.write(lambda connection: _answer(connection, order, text),
             give_up=lambda: True)


def _answer(connection: sa.Connection, order: Order, text: str) -> bool:
    return connection.execute(schema.orders.update().where(
        _O.flow_uuid == order.flow_uuid, _O.verb == order.verb,
        _O.answered_at.is_(None)).values(
            answer=text, answered_at=schema.now())).rowcount == 1


def settle(db: database.Database, order: Order) -> None:
    """Answer an order for a flow that is over; its children get it.

    They have been posted since it was given. Any worker may do it, and
    several may at once.
    """
    def work(connection: sa.Connection) -> None:
        if not _answer(connection, order, 'the flow has ended: %s'
                       % order.over):
            return      # somebody else was faster
        if order.over == states.SUCCESS:
            children = set(_children(connection, order.flow_uuid))
            children -= _read(connection,
                              _O.flow_uuid.in_(children)).keys()
            if children:
                _put(connection, sorted(children), order.verb, order.by,
                     order.reason)

    db.write(work, give_up=lambda: True)
