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

"""Tasks of others in the flows of this package: found, placed or refused."""

import importlib.metadata
import pathlib

from nova import objects as nova_objects
import pytest

from nova_ssm import catalog
from nova_ssm.engine import graphs
from nova_ssm.engine import registry
from nova_ssm.engine import serialization
from nova_ssm.engine import task
from nova_ssm import exception
from nova_ssm import extensions
from nova_ssm.flows import build_instances
from nova_ssm import objects
from nova_ssm.tasks import base

CMDB = pathlib.Path(__file__).parents[3] / 'examples' / 'cmdb'
LINES = ('build_instance: RecordInCmdb after MapInstance',
         'build_instance: TellCmdb after CastBuild')


class Record(base.NovaTask):
    """Gives an object of Nova's."""

    default_provides = 'recorded'

    def execute(self, instance) -> nova_objects.Instance | None:
        raise NotImplementedError


class Old(task.Task):
    """Cannot be called as it must."""

    def __init__(self):
        super().__init__()

    def execute(self) -> None:
        raise NotImplementedError


HERE = __name__ + ':'


@pytest.fixture
def install(monkeypatch):
    """Pretends that there are entry points."""
    real = importlib.metadata.entry_points

    def _install(*pairs, **targets):
        points = importlib.metadata.EntryPoints(
            importlib.metadata.EntryPoint(name, target, extensions.NAMESPACE)
            for name, target in (*pairs, *targets.items()))
        monkeypatch.setattr(
            importlib.metadata, 'entry_points', lambda **kwargs: (
                points.select(**kwargs)
                if kwargs.get('group') == extensions.NAMESPACE
                else real(**kwargs)))
    return _install


def known():
    made = registry.Registry()
    for flow_type in build_instances.flow_types(None):
        made.add(flow_type)
    return made


def apply(*lines, into=None):
    writer = objects.serializer(serialization.Vault())
    return extensions.apply(lines, None, into or known(), writer.has_codec)


@pytest.fixture
def cmdb(install, monkeypatch):
    """The example package, as if it were installed."""
    monkeypatch.syspath_prepend(str(CMDB))
    config = (CMDB / 'setup.cfg').read_text()
    lines = config.partition('nova_ssm.tasks =\n')[2].partition('\n\n')[0]
    install(*([part.strip() for part in line.split('=')]
              for line in lines.splitlines()))


def test_the_example_is_put_where_its_documentation_says(cmdb):
    made, = apply(*LINES)
    names = [atom.name for atom in graphs.graph_of(made).atoms()]
    assert names[names.index('MapInstance'):] == [
        'MapInstance', 'RecordInCmdb', 'DeleteBuildRequest', 'CreateArqs',
        'CastBuild', 'TellCmdb']


def test_both_flows_are_known_then(cmdb):
    flows = known()
    made, = apply(*LINES, into=flows)
    assert flows.get('build_instance') is made
    for plain in (flows.get('build_instance', '1.0'),
                  flows.get('schedule_and_build_instances')):
        assert '+' not in plain.version


def test_its_tasks_may_give_nova_s_objects(install):
    install(Record=HERE + 'Record')
    made, = apply('build_instance: Record after MapInstance')
    assert '+' in made.version


def test_nothing_is_changed_without_lines():
    assert apply() == []
    found = catalog.installed()
    assert found.extended([]) is found


def test_the_catalog_shows_them(cmdb):
    found = catalog.installed().extended(LINES)
    names = [atom.name for atom in found.graph('build_instance').atoms()]
    assert 'RecordInCmdb' in names
    assert 'RecordInCmdb' not in [
        atom.name for atom in found.graph('build_instance', '1.0').atoms()]


def test_installed(cmdb):
    assert extensions.installed() == ['RecordInCmdb', 'TellCmdb']


@pytest.mark.parametrize('line, reason', [
    ('build: RecordInCmdb after MapInstance',
     'no flow build is run here; name its workflow'),
    ('build_instance: RecordInCmdb after Boot', 'has no task Boot'),
    ('build_instance: Cmdb after MapInstance', 'no task Cmdb is installed'),
    ('build_instance: RecordInCmdb after CastBuild',
     'behind CastBuild, which cannot be taken back'),
    ('build_instance: RecordInCmdb before PrepareBuild', 'needs host, which'),
    ('schedule_and_build_instances: RecordInCmdb after CreateInstances',
     'needs host, instance, which no task before it'),
    ('build_instance: TellCmdb after MapInstance', 'needs cmdb_url'),
    ('build_instance: MapInstance replaces CreateTags', 'only be moved'),
    ('build_instance: PrepareBuild after CreateArqs',
     'needs .*which no task before it provides')])
def test_what_cannot_be_is_refused_with_the_reason(cmdb, line, reason):
    with pytest.raises(exception.ConfigurationError, match=reason) as caught:
        apply(line)
    assert str(caught.value).startswith('[ssm] extend: ')
    assert str(caught.value).endswith('Mend the line, or take it out')


@pytest.mark.parametrize('target, reason', [
    ('no.such:Thing', 'cannot be loaded: ModuleNotFoundError'),
    (HERE + 'Nothing', 'cannot be loaded: AttributeError'),
    (HERE + 'known', 'is not a task: it must be a subclass'),
    (HERE + 'Old', 'Mine after MapInstance: TypeError')])
def test_what_is_no_task_is_refused_with_the_reason(install, target, reason):
    install(Mine=target)
    with pytest.raises(exception.ConfigurationError, match=reason):
        apply('build_instance: Mine after MapInstance')


def test_two_packages_with_one_name(install):
    install(('Mine', HERE + 'Record'), ('Mine', HERE + 'Old'))
    with pytest.raises(exception.ConfigurationError,
                       match='two packages install a task named Mine'):
        apply('build_instance: Mine after MapInstance')


def test_a_line_twice(cmdb):
    with pytest.raises(exception.ConfigurationError, match='there twice'):
        apply(LINES[0], LINES[0])
