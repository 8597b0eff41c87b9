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

"""The directive ``flow-pictures``: all flows, drawn from the code.

One section a plugin, one below it for each of its flows. A flow of a plugin
that is installed shows up by itself.
"""

import inspect

from docutils import nodes
from docutils.parsers.rst import Directive

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


def setup(app: object) -> dict[str, bool]:
    app.add_directive('flow-pictures', FlowPictures)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
