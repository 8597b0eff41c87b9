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

"""Flows that are over, and are to be tried again.

One in FAILURE, which could not be undone, is undone from where that failed:
people have mended what it failed at. One that was reverted begins again with
what it was given, if its type says how. Either is a change of the flow's row
alone: the next owner reads in the journal that the flow was over.
"""

from collections.abc import Callable

from oslo_db import exception as db_exc
import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import orders
from nova_ssm.engine import schema
from nova_ssm.engine import states

_F, _O = schema.flows.c, schema.orders.c


def retry(db: database.Database, uuid: str, by: str,
          refusal: Callable[[str, str], str | None] = lambda *_: None
          ) -> str:
    """Have a flow tried again that has failed.

    :param by: who asks for it
    :param refusal: why a flow of that name and version that was reverted
        cannot be begun again, and what to do instead; None if it can. One
        that turns out not to be is reverted at once
    :returns: the state that it was in
    :raises FlowNotFound: if there is no such flow
    :raises NotSteerable: if there is nothing to be tried again
    """
    def work(connection: sa.Connection) -> str:
        connection.execute(schema.orders.delete().where(
            _O.flow_uuid == uuid, sa.exists().where(
                _F.uuid == uuid, _F.finished_at.is_not(None))))
        row = connection.execute(sa.select(schema.flows).where(
            _F.uuid == uuid)).first()
        if row is None:
            raise exception.FlowNotFound('there is no flow %s' % uuid)
        reason = _why_not(row)
        if reason is None and row.state == states.REVERTED:
            reason = refusal(row.name, row.version)
        if reason is None:
            reason = _busy(connection, row)
        if reason is not None:
            raise exception.NotSteerable(
                'flow %s cannot be tried again: %s' % (uuid, reason))
        if not _reopen(connection, row):
            raise exception.NotSteerable(
                'flow %s is being tried again by somebody else' % uuid)
        connection.execute(schema.orders.insert().values(
            flow_uuid=uuid, verb=orders.RETRY, asked_by=by,
            asked_at=schema.now(), answered_at=schema.now(),
            answer='tried again; it was %s' % row.state))
        return row.state

    try:
        return db.write(work)
    except db_exc.DBDuplicateEntry:
        raise exception.NotSteerable(
            'flow %s is being tried again by somebody else' % uuid) from None


def _why_not(row: sa.Row) -> str | None:
    """Why there is nothing to be tried again, as far as its row tells."""
    if row.finished_at is None:
        if row.owner is not None:
            return 'it is not over: cancel it first, or let it go on'
        return ('it is not over, and is tried again by itself%s'
                % (': ' + row.trouble if row.trouble else ''))
    if row.state == states.KILLED:
        return ('it was given up, with what it has done: let "nova-ssm audit" '
                'undo that, then make the request again')
    if row.state == states.SUCCESS:
        return ('it has succeeded; for what it has posted see "nova-ssm flow '
                'list --children-of"')
    return None


def _busy(connection: sa.Connection, row: sa.Row) -> str | None:
    """Which other flow is at work on what this one works on."""
    if row.subject is None:
        return None
    other = connection.execute(sa.select(_F.uuid, _F.name).where(
        _F.subject == row.subject, _F.finished_at.is_(None)).limit(1)).first()
    if other is None:
        return None
    return 'flow %s (%s) works on %s now: wait for its end' % (
        other.uuid, other.name, row.subject)


def _reopen(connection: sa.Connection, row: sa.Row) -> bool:
    return connection.execute(schema.flows.update().where(
        _F.uuid == row.uuid, _F.finished_at.is_not(None),
        _F.generation == row.generation).values(
            state=states.RUNNING, owner=None, finished_at=None, failure=None,
            generation=row.generation + 1,
            updated_at=schema.now())).rowcount == 1
