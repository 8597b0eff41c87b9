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

import pytest

from nova_ssm.tests.unit.engine import conftest as engine
from nova_ssm.tests.unit.tasks import live_world
from nova_ssm.tests.unit.tasks import world as world_module

# The journal's tables in a file of the test.
_fresh, url = engine._fresh, engine.url


@pytest.fixture
def world():
    """A world in which nothing has happened."""
    with world_module.World().entered() as entered:
        yield entered


@pytest.fixture
def live():
    """A world in which the API has asked for a live migration."""
    with live_world.LiveWorld().entered() as entered:
        yield entered
