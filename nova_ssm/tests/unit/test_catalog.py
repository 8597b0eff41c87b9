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

"""The flows of the installed plugins, and the page that shows them."""

import pathlib
import sys

import pytest
import stevedore

from nova_ssm import catalog
from nova_ssm.engine import exception
from nova_ssm.engine import graphs
from nova_ssm.engine import registry
from nova_ssm import plugins

DOC = pathlib.Path(__file__).parents[3] / 'doc'

NAMES = catalog.installed().names()


def test_every_installed_plugin_is_there_and_has_flows():
    found = catalog.installed()
    assert found.broken == {}
    assert [plugin.name for plugin in found.plugins] == [*sorted(
        stevedore.ExtensionManager(plugins.NAMESPACE).names()), 'audit']
    assert all(plugin.flow_types for plugin in found.plugins)
    assert {'build_instance', 'live_migrate', 'resize'} <= set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_every_flow_has_a_graph_without_a_manager(name):
    graph = catalog.installed().graph(name)
    assert graph.name == name
    assert graph.atoms()
    for atom in graph.atoms():
        assert atom.does


@pytest.mark.parametrize('name', NAMES)
def test_a_branch_is_ignored_wholly_if_it_is_not_taken(name):
    """TaskFlow ignores the tasks of a branch, not the flows in it.

    At least not if only the branch is to be ignored, and not what follows.
    """
    def branches(part):
        for layer in part.layers:
            for item in layer:
                if isinstance(item, graphs.Part):
                    if item.choices:
                        yield item
                    yield from branches(item)

    for branch in branches(catalog.installed().graph(name).whole):
        assert branch.retry is None
        for layer in branch.layers:
            assert all(isinstance(item, graphs.Atom) for item in layer)


def test_every_choice_is_told_in_words():
    words = [choice.when for name in NAMES
             for choice in choices(catalog.installed().graph(name).whole)]
    assert words
    for word in words:
        assert 'lambda' not in word


def choices(part):
    for layer in part.layers:
        for item in layer:
            yield from item.choices
            if isinstance(item, graphs.Part):
                yield from choices(item)


def test_an_unknown_flow_is_told_of():
    with pytest.raises(exception.UnknownFlow,
                       match='no installed plugin has a flow named x'):
        catalog.installed().graph('x')


def test_a_version_that_is_not_known_is_told_of():
    with pytest.raises(exception.UnknownFlow, match='version 9.0 of the flow'):
        catalog.installed().graph('resize', '9.0')
    assert catalog.installed().graph('resize', '1.0').name == 'resize'


class Extension:

    def __init__(self, name, plugin):
        self.name = name
        self.plugin = plugin


class Good:
    """Is good."""

    def __init__(self, manager, runner):
        assert manager is None

    def flow_types(self):
        return [registry.FlowType('good', '1.0', None)]


class Needy:

    def __init__(self, manager, runner):
        self.name = manager.name


def test_a_broken_plugin_does_not_hide_the_others(monkeypatch):
    class Manager(list):
        def __init__(self, namespace, on_load_failure_callback):
            on_load_failure_callback(
                self, Extension('gone', None), ImportError('no module'))
            super().__init__([Extension('needy', Needy),
                              Extension('good', Good)])

    monkeypatch.setattr(stevedore, 'ExtensionManager', Manager)
    found = catalog.installed.__wrapped__()
    assert [plugin.name for plugin in found.plugins] == ['good', 'audit']
    assert found.plugins[0].about == 'Is good.'
    assert found.names()[0] == 'good'
    assert found.broken['gone'] == 'ImportError: no module'
    assert found.broken['needy'].startswith('AttributeError: ')


# -- the page --------------------------------------------------------------

@pytest.fixture
def page(monkeypatch):
    """The page of the documentation that draws the flows, as HTML."""
    core = pytest.importorskip('docutils.core')
    from docutils.parsers.rst import directives
    monkeypatch.setattr(sys, 'path', [str(DOC / 'ext'), *sys.path])
    monkeypatch.setattr(directives, '_directives',
                        dict(directives._directives))
    import flow_pictures

    class App:
        add_directive = staticmethod(directives.register_directive)

    flow_pictures.setup(App)
    return core.publish_string(
        (DOC / 'source' / 'flows.rst').read_text(), writer_name='html5',
        settings_overrides={'halt_level': 2, 'embed_stylesheet': False}
    ).decode()


def test_the_page_draws_every_flow_of_every_plugin(page):
    assert page.count('<svg') == len(NAMES)
    for plugin in catalog.installed().plugins:
        assert 'The plugin %s<' % plugin.name in page
    for name in NAMES:
        assert '<title>The flow %s</title>' % name in page
        assert '>%s</h' % name in page
        for atom in catalog.installed().graph(name).atoms():
            assert ' %s<' % atom.name in page or ' %s:' % atom.name in page


def test_the_page_names_no_flow_itself():
    """So a new one shows up by itself."""
    text = (DOC / 'source' / 'flows.rst').read_text()
    assert not [name for name in NAMES if name in text]
