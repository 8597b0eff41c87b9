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
"""What a task gives is journaled whatever its size, on real databases."""

import os

import pytest
import sqlalchemy as sa
from taskflow.patterns import linear_flow

from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import loading
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.engine import task
from nova_ssm.tests.servers import mariadb
from nova_ssm.tests.servers import postgresql

#: More than twice what MariaDB takes in one statement by default.
SIZE = 40 << 20


@pytest.fixture(scope='module', params=[mariadb.MariaDB,
                                        postgresql.PostgreSQL])
def url(request):
    with request.param() as server:
        made = server.fresh()
        database.upgrade(made)
        yield made


class Large(task.Task):
    """Give what cannot be compressed."""

    default_provides = 'large'

    def __init__(self, given):
        super().__init__()
        self.given = given

    def execute(self):
        return self.given


class Small(task.Task):
    """Have an effect."""

    def execute(self, large):
        return len(large)


def test_a_result_of_40_mib_is_written_and_read_back(url):
    given = os.urandom(SIZE)
    flows = registry.Registry()
    flows.add(registry.FlowType(
        'flow', '1.0',
        lambda: linear_flow.Flow('flow').add(Large(given), Small())))
    db = database.Database(url)
    serializer = serialization.Serializer()
    one = runner.Runner(db, serializer, flows, 'host')
    outcome = one.run(journal.FlowRequest(name='flow', store={}))
    assert (outcome.state, outcome.failure) == ('SUCCESS', None)
    loaded = loading.load(db, serializer, outcome.uuid, 'flow')
    details = {detail.name: detail for detail in loaded.detail}
    [large] = [detail.results for name, detail in details.items()
               if name.endswith('Large')]
    assert large == given
    with db.transaction() as connection:
        sizes = list(connection.execute(sa.select(sa.func.length(
            schema.journal.c.payload)).where(
                schema.journal.c.flow_uuid == outcome.uuid,
                schema.journal.c.kind.in_(['atom', 'more']))).scalars())
    # Hardly more than was given, and nothing that a server may refuse.
    assert SIZE < sum(sizes) < 1.1 * SIZE
    assert max(sizes) <= 1 << 20
    one.close()
