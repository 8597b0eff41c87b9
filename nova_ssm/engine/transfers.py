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

"""Flows that somebody wants to go on elsewhere.

What is asked for is a row; the worker that runs the flow sees it at its next
look and lets go of the flow at the next step, with nothing of it under way.
Whom it is for takes it then, and removes the row. If that worker dies before,
anybody may take the flow, as any other.
"""

import dataclasses

import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import exception
from nova_ssm.engine import schema
from nova_ssm.engine import worker

_F, _T = schema.flows.c, schema.transfers.c


@dataclasses.dataclass(frozen=True)
class Transfer:
    """A flow that is wanted elsewhere.

    :param target: the worker or host that is to run it, None for any other
        than its owner
    """

    flow_uuid: str
    target: str | None


def pending(db: database.Database) -> dict[str, Transfer]:
    """What is asked for and not done, by flow: few, most often none."""
    with db.transaction() as connection:
        rows = connection.execute(sa.select(_T.flow_uuid, _T.target)).all()
    return {row.flow_uuid: Transfer(*row) for row in rows}


def done(db: database.Database, uuid: str) -> None:
    """It is where it was to be, or nobody is there who could have it."""
    db.write(lambda connection: connection.execute(
        schema.transfers.delete().where(_T.flow_uuid == uuid)),
        give_up=lambda: True)


def ask(db: database.Database, uuid: str,
        target: str | None = None) -> str | None:
    """Let a flow go on at another worker.

    :param target: the id of a worker, or the name of a host
    :returns: who owns it now; None if nobody does
    :raises FlowNotFound: if there is no such flow
    :raises NotTransferable: if it is over, or where it is to be; or nobody
        lives who could take it
    """
    living = [one for one in worker.registered(db) if not one.expired]

    def work(connection: sa.Connection) -> str | None:
        # What asked for flows that are over by now is of no use.
        connection.execute(schema.transfers.delete().where(sa.or_(
            _T.flow_uuid == uuid, ~sa.exists().where(
                _F.uuid == _T.flow_uuid, _F.finished_at.is_(None)))))
        row = connection.execute(sa.select(
            _F.state, _F.owner, _F.finished_at).where(
                _F.uuid == uuid)).first()
        if row is None:
            raise exception.FlowNotFound('there is no flow %s' % uuid)
        if row.finished_at is not None:
            raise exception.NotTransferable(
                'flow %s is over: %s' % (uuid, row.state))
        _check_target(uuid, row.owner, target, living)
        connection.execute(schema.transfers.insert().values(
            flow_uuid=uuid, target=target, asked_at=schema.now()))
        return row.owner

    return db.write(work)


def _check_target(uuid: str, owner: str | None, target: str | None,
                  living: list[worker.Registered]) -> None:
    if target is None:
        if not any(one.id != owner for one in living):
            raise exception.NotTransferable(
                'no worker lives that could go on with flow %s, other than '
                'its owner' % uuid)
        return
    fit = [one for one in living if one.is_on(target)]
    if not fit:
        raise exception.NotTransferable(
            'no worker or host named %s lives; there are: %s' % (
                target, ', '.join(sorted(one.id for one in living)) or
                'none'))
    if any(one.id == owner for one in fit):
        raise exception.NotTransferable(
            'flow %s is run by %s already' % (uuid, owner))
