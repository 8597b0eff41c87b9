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

import os
import shutil

import pytest

from nova_ssm.engine import database
from nova_ssm.tests.servers import mariadb
from nova_ssm.tests.servers import postgresql
from nova_ssm.tests.unit.engine import helpers


#: Runs these tests on a real server, with this set to mariadb or postgresql.
_KIND = os.environ.get('NOVA_SSM_TEST_DATABASE', 'sqlite')


@pytest.fixture(scope='session')
def _fresh(tmp_path_factory):
    """Makes the journal's tables for one test, given a directory of its."""
    if _KIND == 'sqlite':
        template = tmp_path_factory.mktemp('template') / 'journal.db'
        database.upgrade('sqlite:///%s' % template)

        def copy(home):
            shutil.copy(template, home / 'journal.db')
            return 'sqlite:///%s' % (home / 'journal.db')

        yield copy
        return
    kinds = {'mariadb': mariadb.MariaDB, 'postgresql': postgresql.PostgreSQL}
    with kinds[_KIND]() as server:
        def make(home):
            url = server.fresh()
            database.upgrade(url)
            return url

        yield make


@pytest.fixture
def url(_fresh, tmp_path):
    """The journal's tables of this test."""
    url = _fresh(tmp_path)
    yield url
    if url in helpers.MortalDatabase.shared:
        helpers.MortalDatabase.shared.pop(url).close()


@pytest.fixture
def db(url):
    return helpers.shared(url)


@pytest.fixture
def world():
    return helpers.World()


@pytest.fixture
def process(url, world):
    def make(flows, **kwargs):
        return helpers.Process(url, world, flows, **kwargs)
    return make


@pytest.fixture
def own_db(url):
    """A database the transactions of which a test may break."""
    made = database.Database(url, sqlite_synchronous=False)
    yield made
    made.close()
