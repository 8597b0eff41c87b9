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

from nova_ssm.cmd import main
from nova_ssm.tests.unit import cmd


@pytest.fixture
def url(tmp_path):
    """The journal's database: a file."""
    return 'sqlite:///%s' % (tmp_path / 'journal.db')


@pytest.fixture
def nova_ssm(capsys, tmp_path, url):
    """Runs the command; gives its exit code, output and errors."""
    path = tmp_path / 'nova.conf'
    path.write_text('[ssm]\nconnection = %s\n' % url)

    def run(*argv, conf=path):
        with cmd.one_process():
            code = main.main(['--config-file', str(conf), *argv])
        return (code, *capsys.readouterr())
    yield run
    cfg.CONF.reset()
