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

from nova import objects
from oslo_config import cfg
import pytest

from nova_ssm import conf as ssm_conf
from nova_ssm.engine import attempts
from nova_ssm.engine import rows
from nova_ssm.engine import runner

# As every service of Nova does before it imports anything that names them.
objects.register_all()


@pytest.fixture
def conf(tmp_path):
    """Makes the options of a nova.conf with some text in it."""
    def make(text=''):
        path = tmp_path / 'nova.conf'
        path.write_text(text)
        made = cfg.ConfigOpts()
        made(['--config-file', str(path)])
        ssm_conf.register_opts(made)
        return made
    return make


@pytest.fixture(autouse=True)
def no_large_results():
    """A task that gives more than a row of the journal holds fails."""
    # Not the fixture: what tests patch has to be undone before their worlds.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.Runner, 'largest', rows.PIECE)
        yield


@pytest.fixture(autouse=True)
def no_patience():
    """What cannot be undone is not tried again: tests do not wait for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempts, 'PATIENCE', ())
        yield
