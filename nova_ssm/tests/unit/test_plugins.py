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

"""From an RPC call to a flow, and back to its result or exception."""

import importlib.metadata
from unittest import mock

import pytest
import stevedore

from nova_ssm.engine import registry
from nova_ssm import exception
from nova_ssm import plugins


# -- loading --------------------------------------------------------------

class Other(plugins.Workflow):
    """A plugin of somebody else."""

    methods = ('live_migrate_instance',)

    def flow_types(self):
        return [registry.FlowType('other', '1.0', mock.Mock())]


class Rival(Other):
    """One that wants what BuildInstances has."""

    methods = ('build_instances',)


@pytest.fixture
def install(monkeypatch):
    """Pretend that there are entry points of those names."""
    def _install(**targets):
        points = [importlib.metadata.EntryPoint(
            name, target, plugins.NAMESPACE)
            for name, target in targets.items()]
        monkeypatch.setattr(stevedore.ExtensionManager,
                            'list_entry_points', lambda self: points)
        monkeypatch.setattr(stevedore.ExtensionManager,
                            'entry_points_names',
                            lambda self: sorted(targets))
    return _install


def load(*names):
    engine = mock.Mock(registry=registry.Registry())
    return plugins.load(list(names), mock.Mock(), engine), engine.registry


def test_load():
    by_method, known = load('build_instances')
    assert set(by_method) == {'schedule_and_build_instances',
                              'build_instances'}
    assert known.can_run('build_instance', '1.0')


def test_load_nothing():
    assert load()[0] == {}


def test_load_of_an_unknown_name_says_which_there_are():
    with pytest.raises(exception.ConfigurationError) as caught:
        load('build_instance')
    assert str(caught.value) == (
        "[ssm] workflows names 'build_instance', which is not installed; "
        'installed are: ' + ', '.join(plugins.installed()))
    assert 'build_instances' in plugins.installed()


def test_load_plugins_of_others(install):
    install(build_instances='nova_ssm.workflows.build_instances:BuildInstances',
            other=__name__ + ':Other')
    by_method, known = load('other', 'build_instances')
    assert type(by_method['live_migrate_instance']).__name__ == 'Other'
    assert known.can_run('other', '1.0')


def test_load_two_for_one_method(install):
    install(build_instances='nova_ssm.workflows.build_instances:BuildInstances',
            rival=__name__ + ':Rival')
    with pytest.raises(exception.ConfigurationError) as caught:
        load('build_instances', 'rival')
    assert 'both run build_instances' in str(caught.value)
    assert 'leave one of them out' in str(caught.value)


@pytest.mark.parametrize('target', (
    'no.such.module:Workflow', __name__ + ':Missing', 'nova_ssm.conf:cfg'))
def test_load_a_broken_one(install, target):
    install(broken=target)
    with pytest.raises(exception.ConfigurationError) as caught:
        load('broken')
    assert "the plugin 'broken'" in str(caught.value)
    assert 'take its name out' in str(caught.value)
