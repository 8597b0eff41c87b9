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

"""Pictures that are drawn from the code.

``flow-pictures`` draws all flows, ``layer-picture`` the parts of nova_ssm.

One section a plugin, one below it for each of its flows. A flow of a plugin
that is installed shows up by itself.
"""

import ast
import html
import importlib
import inspect
import pathlib

from docutils import nodes
from docutils.parsers.rst import Directive

import nova_ssm
from nova_ssm import catalog
from nova_ssm.engine import drawing
from nova_ssm.engine import graphs
from nova_ssm.engine import svg


class FlowPictures(Directive):
    """Draws the flows of the installed plugins."""

    def run(self) -> list[nodes.Node]:
        found = catalog.installed()
        if found.broken:
            raise self.severe('plugins that cannot be loaded: %s'
                              % found.broken)
        return [self._plugin(plugin) for plugin in found.plugins]

    def _plugin(self, plugin: catalog.Plugin) -> nodes.section:
        section = self._section('The plugin %s' % plugin.name)
        about = inspect.cleandoc(plugin.about).partition('\n\n')[0]
        section += nodes.paragraph(text=about)
        for flow_type in plugin.flow_types:
            section += self._flow(graphs.graph_of(flow_type))
        return section

    def _flow(self, graph: graphs.Graph) -> nodes.section:
        section = self._section(graph.name)
        section += nodes.raw('', '<div class="flow">%s</div>'
                             % svg.picture(graph), format='html')
        # What has no pictures gets the lines.
        section += nodes.raw('', drawing.text(graph), format='text')
        return section

    def _section(self, title: str) -> nodes.section:
        section = nodes.section(ids=[nodes.make_id(title)], names=[title])
        section += nodes.title(text=title)
        self.state.document.note_implicit_target(section, section)
        return section

class LayerPicture(Directive):
    """Draws which parts of nova_ssm import which, as they do."""

    def run(self) -> list[nodes.Node]:
        root = pathlib.Path(nova_ssm.__file__).parent
        imports = {name: _imports(root, name) for name in _LAYERS}
        for name in _LAYERS:
            back = imports[name] & _ABOVE.get(name, set())
            if back:
                raise self.severe('%s imports %s, which stands above it'
                                  % (name, ', '.join(sorted(back))))
        text = '\n'.join('%-10s %s\n%10s imports %s' % (
            name, _about(name), '', ', '.join(sorted(imports[name])) or '-')
            for name in _LAYERS)
        return [nodes.raw('', _boxes(imports), format='html'),
                nodes.raw('', text, format='text')]


def _boxes(imports: dict[str, set[str]]) -> str:
    """The parts as boxes, an arrow from each to what it imports."""
    middle = {name: 30 + 60 * at for at, name in enumerate(_LAYERS)}
    drawn = []
    for name, y in middle.items():
        drawn.append(
            '<rect x="1" y="%d" width="560" height="40" rx="6"/>'
            '<text x="14" y="%d"><tspan font-weight="bold">%s</tspan>'
            '<tspan dx="12">%s</tspan></text>' % (
                y - 20, y + 5, name, html.escape(_about(name))))
        for other in imports[name]:
            reach = 24 + 12 * abs(_LAYERS.index(other) - _LAYERS.index(name))
            drawn.append(
                '<path d="M562 %d C %d %d, %d %d, 566 %d" '
                'marker-end="url(#imports)"/>' % (
                    y, 562 + reach, y, 562 + reach, middle[other],
                    middle[other]))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="660" height="%d" '
        'font-size="13" role="img" aria-label="the parts of nova_ssm" '
        'fill="none" stroke="#888"><defs><marker id="imports" '
        'markerWidth="8" markerHeight="8" refX="1" refY="4" '
        'orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" '
        'fill="#888"/></marker></defs>%s</svg>' % (
            60 * len(_LAYERS), ''.join(drawn).replace(
                '<text ', '<text stroke="none" fill="currentColor" ')))


#: From the request to the journal.
_LAYERS = ('manager', 'workflows', 'plugins', 'flows', 'tasks', 'engine')
#: What a part must not import: those that use it.
_ABOVE = {'engine': {'manager', 'workflows', 'plugins', 'flows', 'tasks'},
          'tasks': {'manager', 'workflows', 'plugins', 'flows'},
          'flows': {'manager', 'workflows', 'plugins'},
          'plugins': {'manager', 'workflows'}, 'workflows': {'manager'}}


def _about(name: str) -> str:
    doc = importlib.import_module('nova_ssm.' + name).__doc__ or ''
    return doc.strip().partition('\n')[0].rstrip('.')


def _imports(root: pathlib.Path, name: str) -> set[str]:
    """The other parts that a part imports."""
    path = root / name
    files = path.rglob('*.py') if path.is_dir() else [root / (name + '.py')]
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {'%s.%s' % (node.module, one.name)
                          for one in node.names}
    parts = {one.split('.')[1] for one in found
             if one.startswith('nova_ssm.')}
    return parts & set(_LAYERS) - {name}


def setup(app: object) -> dict[str, bool]:
    app.add_directive('flow-pictures', FlowPictures)
    app.add_directive('layer-picture', LayerPicture)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
