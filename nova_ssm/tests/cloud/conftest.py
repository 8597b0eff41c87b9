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
"""Gives the cloud to pytest: ``$VENV/bin/pytest nova_ssm/tests/cloud``.

``NOVA_SSM_CLOUD_MODE=stock`` runs the tests against conductors without
nova_ssm, ``NOVA_SSM_CLOUD_DOWN=1`` stops the cloud at the end.
"""

import os
import sys
import time

import pytest

from nova_ssm.tests.cloud import cloud as cloud_module
from nova_ssm.tests.cloud import journal
from nova_ssm.tests.cloud import leftovers
from nova_ssm.tests.cloud import servers as servers_module


def _say(text):
    print(f'cloud: {text}', file=sys.stderr)


@pytest.fixture(scope='session')
def cloud():
    """A running cloud."""
    it = cloud_module.Cloud(say=_say)
    with it.reserved('pytest'):
        it.up(os.environ.get('NOVA_SSM_CLOUD_MODE', 'ssm'))
        yield it
        if os.environ.get('NOVA_SSM_CLOUD_DOWN') == '1':
            it.down()


@pytest.fixture
def servers(cloud):
    """Boots servers. Deletes them afterwards, and looks for leftovers."""
    it = servers_module.Servers(cloud)
    requests = []
    boot = it.boot

    def remember(*args, **kwargs):
        requests.append(boot(*args, **kwargs))
        return requests[-1]

    it.boot = remember
    yield it
    for name in cloud_module.BREAKABLE:
        if cloud.status_of(name).state == 'paused':
            cloud.resume(name)
    cloud.start(*cloud_module.BREAKABLE)
    left = [number for request in requests for number in it.delete(request)]
    assert left == []
    assert leftovers.wait(cloud, leftovers.EMPTY, *requests) == {}


@pytest.fixture
def working_conductor(cloud):
    """Waits for the flow of a request, returns the conductor that owns it."""
    def find(request_id, timeout=60):
        limit = time.monotonic() + timeout
        while True:
            owner = journal.owner(cloud, request_id)
            if owner:
                return owner
            assert time.monotonic() < limit, 'no flow for the request'
            time.sleep(0.02)
    return find
