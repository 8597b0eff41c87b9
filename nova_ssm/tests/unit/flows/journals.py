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

"""Journals of flows as releases have written them, to be gone on with.

Files beside this one, in journals/, one a flow, its version and the way it
took. A release never changes one that another release has: it adds those of
its new versions::

    python -m nova_ssm.tests.unit.flows.journals

writes what is missing; ``--anew`` all, for versions that no release has.
"""

import base64
import json
import pathlib
import sys
import tempfile
from typing import Any

import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm.engine import registry
from nova_ssm.engine import schema
from nova_ssm.engine import stamps
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.flows import rehearsal

DIRECTORY = pathlib.Path(__file__).with_name('journals')
#: Opens the secrets in them, which are none.
KEY = 'bm9ib2R5IGhhcyB0byBoaWRlIHRoZXNlIHNlY3JldHM='
_COLUMNS = ('kind', 'atom', 'state')


def path(flow_type: registry.FlowType, way: bool) -> pathlib.Path:
    return DIRECTORY / ('%s-%s-%s.json' % (
        flow_type.name, flow_type.version, 'yes' if way else 'no'))


def record(flow_type: registry.FlowType, flow_types: Any,
           way: bool) -> dict[str, Any]:
    """What this release writes of a flow that succeeds."""
    with tempfile.TemporaryDirectory() as directory:
        url = 'sqlite:///%s/journal.db' % directory
        database.upgrade(url)
        play = rehearsal.Rehearsal(way)
        with rehearsal.references():
            outcome = play.conductor(url, flow_types, (KEY,)).runner.run(
                rehearsal.request(flow_type))
        assert outcome.state == 'SUCCESS', outcome
        c = schema.journal.c
        with helpers.shared(url).transaction() as connection:
            found = connection.execute(sa.select(schema.journal).where(
                c.flow_uuid == outcome.uuid).order_by(c.seq)).all()
        helpers.MortalDatabase.shared.pop(url).close()
    return {'name': flow_type.name, 'version': flow_type.version, 'rows': [
        {**{name: row._mapping[name] for name in _COLUMNS},
         # Without its stamp: it is put into a row of another flow.
         'payload': row.payload and base64.b64encode(
             stamps.opened(row.payload)).decode()}
        for row in found]}


def insert(url: str, uuid: str, journal: dict[str, Any], rows: int) -> None:
    """Leave a flow as a conductor left it that died behind so many rows."""
    with helpers.shared(url).transaction() as connection:
        connection.execute(schema.flows.insert().values(
            uuid=uuid, name=journal['name'], version=journal['version'],
            state='RUNNING', generation=0, priority='NORMAL', owner='dead',
            created_at=schema.now(), updated_at=schema.now()))
        for seq, row in enumerate(journal['rows'][:rows]):
            payload = row['payload'] and base64.b64decode(row['payload'])
            connection.execute(schema.journal.insert().values(
                **{**row, 'payload': payload}, flow_uuid=uuid, seq=seq,
                writer='dead', created_at=schema.now()))


def main(anew: bool) -> None:
    from nova_ssm.tests.unit.flows import test_flows
    DIRECTORY.mkdir(exist_ok=True)
    for flow_type in test_flows.flow_types():
        for way in (True, False):
            target = path(flow_type, way)
            if anew or not target.exists():
                written = record(flow_type, test_flows.flow_types(), way)
                target.write_text(json.dumps(written, indent=1) + '\n')


if __name__ == '__main__':
    main('--anew' in sys.argv)
