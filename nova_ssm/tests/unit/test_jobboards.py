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

"""The job board that nova.conf names, and what it says when it cannot."""

import builtins
import sys

from oslo_config import cfg
import pytest

from nova_ssm.engine.coordination import base
from nova_ssm.engine.coordination import board
from nova_ssm.engine import database
from nova_ssm.engine import exception as engine_exc
from nova_ssm.engine import jobboard
from nova_ssm.engine import serialization
from nova_ssm import exception
from nova_ssm import jobboards
from nova_ssm import runtime
from nova_ssm.tests.servers import base as servers

KINDS = sorted(base.KINDS)


@pytest.fixture
def conf(conf, tmp_path):
    return lambda text: conf('[ssm]\nconnection = sqlite:///%s\n%s\n'
                             % (tmp_path / 'journal.db', text))


def made(conf):
    return jobboards.factory(conf)(
        database.Database(conf.ssm.connection), serialization.Serializer())


def test_sql_by_default(conf):
    assert isinstance(made(conf('')), jobboard.SQLJobBoard)


@pytest.mark.parametrize('kind', KINDS)
def test_another_board_is_not_asked_before_it_is_used(conf, kind):
    assert isinstance(made(conf('jobboard = %s' % kind)),
                      board.TaskflowBoard)


def test_an_unknown_board_is_said_with_those_there_are(conf):
    with pytest.raises(cfg.ConfigFileValueError, match='sql.*zookeeper'):
        made(conf('jobboard = blackboard'))


@pytest.mark.parametrize('text, says', (
    ('jobboard = etcd\njobboard_hosts = a:b', "'a:b' is not host:port"),
    ('jobboard = etcd\njobboard_hosts = :1', "':1' is not host:port"),
))
def test_hosts_are_looked_at_at_once(conf, text, says):
    with pytest.raises(engine_exc.BoardUnusable, match=says):
        made(conf(text))


@pytest.mark.parametrize('text, says', (
    ('jobboard = etcd\njobboard_sentinel = x', 'jobboard = redis'),
    ('jobboard = redis\njobboard_user = x', 'jobboard_password'),
    ('jobboard = etcd\njobboard_password = x', 'jobboard_user'),
))
def test_options_that_do_not_go_together(conf, text, says):
    with pytest.raises(exception.ConfigurationError, match=says):
        made(conf(text))


@pytest.mark.parametrize('kind', KINDS)
def test_hosts_have_the_usual_ports(kind):
    usual = base.KINDS[kind][1]
    server = base.Server(kind, ('one', 'two:17', '[::1]'))
    assert server.addresses == [
        ('one', usual), ('two', 17), ('::1', usual)]
    assert base.Server(kind).addresses == [('localhost', usual)]


@pytest.mark.parametrize('kind', KINDS)
def test_a_missing_library_is_named(conf, kind, monkeypatch):
    package, _port = base.KINDS[kind]
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition('.')[0] == package:
            raise ImportError('No module named %s' % name)
        return original(name, *args, **kwargs)

    monkeypatch.delitem(
        sys.modules, 'nova_ssm.engine.coordination.' + kind, raising=False)
    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(engine_exc.BoardUnusable) as caught:
        made(conf('jobboard = %s' % kind)).probe()
    assert 'Python package %s' % package in str(caught.value)
    assert 'nova-ssm[%s]' % kind in str(caught.value)


@pytest.mark.parametrize('kind', KINDS)
def test_a_conductor_says_that_the_server_is_away(conf, kind):
    """And its password is not in what it says."""
    port = servers.free_port()
    conf = conf('jobboard = %s\njobboard_hosts = 127.0.0.1:%d\n'
                'jobboard_user = nova\njobboard_password = verySecret\n'
                'lease = 2' % (kind, port))
    database.upgrade(conf.ssm.connection)
    with pytest.raises(engine_exc.BoardUnusable) as caught:
        runtime.Runtime(conf, 'conductor')
    assert '%s at 127.0.0.1:%d' % (kind, port) in str(caught.value)
    assert 'verySecret' not in str(caught.value)
    assert 'verySecret' not in repr(jobboards._server(conf))


def test_the_password_is_not_logged(conf):
    made = conf('jobboard_password = verySecret')
    lines = []

    class Log:
        """Takes what a service writes when it starts."""

        def log(self, level, text, *args):
            lines.append(text % args)

    made.log_opt_values(Log(), 0)
    assert 'ssm.jobboard_password' in '\n'.join(lines)
    assert 'verySecret' not in '\n'.join(lines)


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_asked_for_when_it_has_just_failed(conf, kind):
    """Nobody waits for a server that is known to be away."""
    one = made(conf('jobboard = %s\njobboard_hosts = 127.0.0.1:%d\nlease = 2'
                    % (kind, servers.free_port())))
    with pytest.raises(engine_exc.BoardUnusable):
        list(one.free_jobs('me'))
    with pytest.raises(engine_exc.BoardUnusable, match='just failed'):
        list(one.free_jobs('me'))
