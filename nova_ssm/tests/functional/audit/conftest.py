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

from oslo_config import cfg
import pytest

from nova_ssm.engine import database
from nova_ssm.tests.functional.audit import cloud as cloud_module


@pytest.fixture
def cloud(tmp_path):
    """A cloud of two cells, in which nothing has happened."""
    # Nova registers options of the command line, which it cannot once
    # another test has read some.
    cfg.CONF.reset()
    case = cloud_module.Case()
    case.setUp()
    url = 'sqlite:///%s' % (tmp_path / 'journal.db')
    database.upgrade(url)
    try:
        yield cloud_module.Cloud(case, url, cloud_module.vault())
    finally:
        case.doCleanups()
