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

import shutil

import pytest

from nova_ssm.engine import database
from nova_ssm.tests.unit.engine import helpers


@pytest.fixture(scope='session')
def _template(tmp_path_factory):
    path = tmp_path_factory.mktemp('template') / 'journal.db'
    database.upgrade('sqlite:///%s' % path)
    return path


@pytest.fixture
def url(_template, tmp_path):
    """The journal's tables in a file of this test."""
    shutil.copy(_template, tmp_path / 'journal.db')
    url = 'sqlite:///%s' % (tmp_path / 'journal.db')
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
