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

import logging
import threading

from oslo_config import cfg
import pytest

from nova_ssm.cmd import main
from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.tests.unit import cmd
from nova_ssm.tests.unit.cmd import conductors


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


@pytest.fixture
def conductor(url, monkeypatch):
    """Makes conductors that run, and resume, flows named hold."""
    # What they log is not the command's.
    for name in ('nova_ssm.engine', 'taskflow'):
        monkeypatch.setattr(logging.getLogger(name), 'propagate', False)
    database.upgrade(url)
    conductors.Hold.go, conductors.Mark.there = threading.Event(), set()
    conductors.Hold.begun = threading.Event()
    made = []

    def make(host):
        made.append(conductors.make(url, host))
        return made[-1]

    make.made = made
    yield make
    conductors.Hold.go.set()
    for one, _name in made:
        one.recovery.stop()
        one.close(patience=30)


@pytest.fixture
def flow(conductor):
    """A flow that waits at the conductor one."""
    one, _name = conductor('one')
    request = journal.FlowRequest('hold', {}, subject='server')
    thread = threading.Thread(target=one.run, args=(request,))
    thread.start()
    assert conductors.Hold.begun.wait(60)
    yield request.uuid
    conductors.Hold.go.set()
    thread.join(30)
    assert not thread.is_alive()
