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

"""Why a flow that nobody runs is left alone, where people see it.

Written by a worker that could not go on with a flow, into the flow's row;
cleared by the one that can. What a worker of an older release leaves there
when it goes on is not shown: see :mod:`nova_ssm.engine.queries`.
"""

import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import masking
from nova_ssm.engine import records
from nova_ssm.engine import schema

_F = schema.flows.c
_LONGEST = 1000


def text(host: str, reason: object) -> str:
    """What is written: who could not go on, and why."""
    return records.storable(masking.masked(
        'host %s cannot go on: %s' % (host, reason)))[:_LONGEST]


def same(one: str, other: str | None) -> bool:
    """Whether two troubles have one reason, though of other hosts.

    They all look again and again: it is written once.
    """
    return other is not None and (
        one.partition(': ')[2] == other.partition(': ')[2])


def tell(db: database.Database, uuid: str, trouble: str) -> None:
    """Write it down, unless it is there already or the flow is over."""
    _set(db, sa.and_(_F.uuid == uuid, _F.finished_at.is_(None), sa.or_(
        _F.trouble.is_(None), _F.trouble != trouble)), trouble)


def clear(db: database.Database, uuid: str) -> None:
    """Somebody can go on with it."""
    _set(db, _F.uuid == uuid, None)


def _set(db: database.Database, where: sa.ColumnElement[bool],
         trouble: str | None) -> None:
    update = schema.flows.update().where(where).values(trouble=trouble)
    db.write(lambda connection: connection.execute(update),
             give_up=lambda: True)
