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

"""The manager routes an operation to its workflow, or to Nova."""

import inspect
from unittest import mock

from nova.conductor import manager as nova_manager
from oslo_config import cfg
import pytest

from nova_ssm import computes
from nova_ssm.engine import database
from nova_ssm import exception
from nova_ssm import manager
from nova_ssm import plugins
from nova_ssm import runtime

CONF = cfg.CONF


@pytest.fixture
def journal(tmp_path, monkeypatch):
    """nova.conf with a journal whose tables are there."""
    manager.conf.register_opts(CONF)
    url = 'sqlite:///%s' % (tmp_path / 'journal.db')
    database.upgrade(url)
    CONF.set_override('connection', url, 'ssm')
    CONF.set_override('workflows', ['build_instances'], 'ssm')
    # Nova's own part asks for a cloud.
    monkeypatch.setattr(nova_manager.ComputeTaskManager, '__init__',
                        lambda self: setattr(self, 'host', 'conductor'))
    yield url
    for name in ('connection', 'workflows', 'encryption_keys', 'extend'):
        CONF.clear_override(name, 'ssm')


#: What the service calls, not a client.
HOOKS = ('reset', 'post_start_hook', 'set_shutdown_in_progress',
         'graceful_shutdown', 'ssm_answer')

#: Hands on whatever Nova's takes.
HANDED_ON = ('migrate_server',)

METHODS = {
    name: [parameter.name for parameter in inspect.signature(
        method).parameters.values()][2:]
    for name, method in vars(manager.ComputeTaskManager).items()
    if name in ('_live_migrate', '_cold_migrate') or
    not name.startswith('_') and name not in HOOKS + HANDED_ON}


@pytest.mark.parametrize('method', METHODS)
def test_takes_what_nova_takes(method):
    """Names and defaults: both are a part of the RPC API."""
    ours, novas = (
        inspect.signature(getattr(cls, method)).parameters.values()
        for cls in (manager.ComputeTaskManager,
                    nova_manager.ComputeTaskManager))
    assert [(p.name, p.default) for p in ours] == [
        (p.name, p.default) for p in novas]


@pytest.mark.parametrize('taken', (True, False))
@pytest.mark.parametrize('method', METHODS)
def test_routes(journal, monkeypatch, method, taken):
    """Every argument arrives, by its name."""
    routed = manager.ComputeTaskManager()
    workflow = mock.Mock()
    workflow.takes.return_value = taken
    routed._workflows = {method: workflow}
    stock = mock.Mock()
    monkeypatch.setattr(nova_manager.ComputeTaskManager, method, stock)
    kwargs = {name: object() for name in METHODS[method]}
    getattr(routed, method)('context', **kwargs)
    chosen, other = getattr(workflow, method), stock
    if not taken:
        chosen, other = other, chosen
    chosen.assert_called_once_with('context', **kwargs)
    other.assert_not_called()
    workflow.takes.assert_called_once_with(method, **kwargs)


@pytest.mark.parametrize('method', METHODS)
def test_routes_to_nova_what_is_not_named(journal, monkeypatch, method):
    CONF.set_override('workflows', [], 'ssm')
    stock = mock.Mock()
    monkeypatch.setattr(nova_manager.ComputeTaskManager, method, stock)
    getattr(manager.ComputeTaskManager(), method)(
        'context', **dict.fromkeys(METHODS[method]))
    stock.assert_called_once()


def test_there_are_methods():
    assert {'build_instances', '_live_migrate', '_cold_migrate'} <= set(
        METHODS)


class _Moving:
    """Nova's method, which closes an event behind the move."""

    def __init__(self, before=None, behind=None):
        self.before, self.behind, self.given = before, behind, []

    def __call__(self, this, *args, **kwargs):
        self.given.append((args, kwargs))
        if self.before:
            raise self.before
        this._cold_migrate('context', *[None] * 6)
        if self.behind:
            raise self.behind


def _migrate(monkeypatch, moving, named=True, **move):
    made = manager.ComputeTaskManager()
    made._workflows = {'_cold_migrate': mock.Mock(
        _cold_migrate=mock.Mock(**move))} if named else {}
    monkeypatch.setattr(nova_manager.ComputeTaskManager, '_cold_migrate',
                        mock.Mock())
    monkeypatch.setattr(
        nova_manager.ComputeTaskManager, 'migrate_server',
        lambda this, *args, **kwargs: moving(this, *args, **kwargs))
    made.migrate_server('context', 'instance', live=False)
    assert moving.given == [(('context', 'instance'), {'live': False})]


def test_a_move_that_went_well_is_answered_so(journal, monkeypatch, caplog):
    _migrate(monkeypatch, _Moving(behind=ValueError('the event')))
    assert 'could not be closed' in caplog.text


def test_a_move_that_goes_well_is_not_talked_about(
        journal, monkeypatch, caplog):
    _migrate(monkeypatch, _Moving())
    assert 'could not be closed' not in caplog.text


def test_a_move_that_fails_is_answered_so(journal, monkeypatch):
    with pytest.raises(KeyError):
        _migrate(monkeypatch, _Moving(behind=ValueError()),
                 side_effect=KeyError())


def test_a_move_that_does_not_begin_is_answered_so(journal, monkeypatch):
    with pytest.raises(ValueError):
        _migrate(monkeypatch, _Moving(before=ValueError()))


def test_one_move_does_not_answer_for_another(journal, monkeypatch):
    made = manager.ComputeTaskManager()
    made._workflows = {'_cold_migrate': mock.Mock()}
    answers = [_Moving(), _Moving(before=ValueError())]
    monkeypatch.setattr(
        nova_manager.ComputeTaskManager, 'migrate_server',
        lambda this, *args, **kwargs: answers.pop(0)(this, *args, **kwargs))
    made.migrate_server('context')
    with pytest.raises(ValueError):
        made.migrate_server('context')


def test_a_move_of_nova_is_answered_as_by_nova(journal, monkeypatch):
    with pytest.raises(ValueError):
        _migrate(monkeypatch, _Moving(behind=ValueError()), named=False)


def test_loads_all_that_is_installed(journal):
    CONF.set_override('workflows', plugins.installed(), 'ssm')
    assert set(manager.ComputeTaskManager()._workflows) == {
        *METHODS, 'ssm_answer'}


def test_loads_what_is_named(journal):
    assert set(manager.ComputeTaskManager()._workflows) == {
        'schedule_and_build_instances', 'build_instances', 'ssm_answer'}


def test_its_flows_are_changed_as_nova_conf_says(journal):
    CONF.set_override('extend', ['build_instance: CreateTags after '
                                 'MapInstance'], 'ssm')
    version = manager.ComputeTaskManager().ssm.runner.registry.get(
        'build_instance').version
    assert '+' in version


def test_does_not_start_with_a_change_that_cannot_be(journal):
    CONF.set_override('extend', ['resize: A after B'], 'ssm')
    with pytest.raises(exception.ConfigurationError,
                       match='no flow resize is run here; name its workflow'):
        manager.ComputeTaskManager()


def test_tells_others_who_it_is(journal):
    made = manager.ComputeTaskManager()
    assert made.ssm_answer('context') == made.ssm.runner.worker.id
    made.ssm.stop()


def test_tells_others_that_it_keeps_no_journal(journal):
    CONF.set_override('workflows', [], 'ssm')
    assert manager.ComputeTaskManager().ssm_answer('context') is None


@pytest.mark.parametrize('workflows', ([], ['build_instances']))
def test_recovers_in_each_worker_if_there_is_a_workflow(journal, monkeypatch,
                                                        workflows):
    started = mock.Mock()
    monkeypatch.setattr(runtime.Runtime, 'start', started)
    CONF.set_override('workflows', workflows, 'ssm')
    made = manager.ComputeTaskManager()
    started.assert_not_called()
    made.post_start_hook()
    assert started.call_count == len(workflows)


def test_the_service_stops_what_runs_within_its_own_time(journal,
                                                         monkeypatch):
    calls = mock.Mock()
    monkeypatch.setattr(runtime.Runtime, 'suspend', calls.suspend)
    monkeypatch.setattr(runtime.Runtime, 'stop', calls.stop)
    made = manager.ComputeTaskManager()
    made.set_shutdown_in_progress()
    made.graceful_shutdown(12)
    assert calls.mock_calls == [mock.call.suspend(), mock.call.stop(12)]


def test_the_service_is_not_kept_when_no_time_is_left(journal, monkeypatch):
    """Nova does not wait for us then, but goes on beside us."""
    stop = mock.Mock()
    monkeypatch.setattr(runtime.Runtime, 'stop', stop)
    made = manager.ComputeTaskManager()
    made.graceful_shutdown(0)
    stop.assert_not_called()


# -- what stops the start, and what it says -------------------------------

def start():
    with pytest.raises(exception.ConfigurationError) as caught:
        manager.ComputeTaskManager()
    assert '\n' not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_an_unknown_workflow_stops_the_start(journal):
    CONF.set_override('workflows', ['nonsense'], 'ssm')
    assert "'nonsense', which is not installed" in start()


def test_missing_tables_stop_the_start(journal, tmp_path):
    CONF.set_override('connection', 'sqlite:///%s' % (tmp_path / 'new.db'),
                      'ssm')
    assert 'run "nova-ssm db sync"' in start()


def test_a_wrong_key_stops_the_start(journal):
    CONF.set_override('encryption_keys', ['short'], 'ssm')
    said = start()
    assert '[ssm] encryption_keys' in said and 'nova-ssm key new' in said
    assert 'short' not in said


def test_no_database_stops_the_start(journal, monkeypatch):
    monkeypatch.setattr(runtime.ssm_conf, 'journal_url', lambda conf: None)
    assert 'set [ssm] connection' in start()


def test_an_unreachable_database_stops_the_start(journal):
    CONF.set_override('connection',
                      'mysql+pymysql://nova:secret@127.0.0.1:1/nova', 'ssm')
    said = start()
    assert '127.0.0.1:1' in said
    assert 'secret' not in said


def test_computes_are_spoken_to_in_the_same_way_after_a_reload(
        journal, monkeypatch):
    """Nova makes its client anew on SIGHUP: to ask for their versions."""
    made = manager.ComputeTaskManager()
    before = made.compute_rpcapi
    reset = mock.Mock()
    monkeypatch.setattr(nova_manager.ComputeTaskManager, 'reset', reset)
    made.reset()
    reset.assert_called_once_with()
    assert made.compute_rpcapi is not before
    for client in (before, made.compute_rpcapi):
        assert isinstance(client, computes.ComputeAPI)
