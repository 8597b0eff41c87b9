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

"""The flows of the installed plugins, to be looked at without a conductor."""

from collections.abc import Sequence
import dataclasses
import functools
import importlib
from typing import Any

from nova import objects
import stevedore

from nova_ssm.engine import exception
from nova_ssm.engine import graphs
from nova_ssm.engine import registry
from nova_ssm.engine import serialization


@dataclasses.dataclass(frozen=True)
class Plugin:
    """A plugin, and the flows that it runs.

    :param about: its docstring
    """

    name: str
    about: str
    flow_types: tuple[registry.FlowType, ...]


@dataclasses.dataclass(frozen=True)
class Catalog:
    """What is installed.

    :param broken: of each plugin that cannot be loaded the reason
    :param changed: the flows with the changes of an operator
    """

    plugins: tuple[Plugin, ...]
    broken: dict[str, str]
    changed: tuple[registry.FlowType, ...] = ()

    def names(self) -> list[str]:
        """The names of all flows."""
        return [flow_type.name for plugin in self.plugins
                for flow_type in plugin.flow_types]

    def graph(self, name: str, version: str | None = None) -> graphs.Graph:
        """The graph of a flow.

        :param version: as a journal has it, to be told if it is another one
        :raises UnknownFlow: if there is no such flow; says what to do
        """
        return graphs.graph_of(self.flow_type(name, version))

    def flow_type(self, name: str,
                  version: str | None = None) -> registry.FlowType:
        """A flow by its name.

        :param version: as a journal has it, to be told if it is another one
        :raises UnknownFlow: if there is no such flow; says what to do
        """
        known = self._known()
        for flow_type in self.changed:
            known.add(flow_type)
        if name not in self.names():
            raise exception.UnknownFlow(
                'no installed plugin has a flow named %s%s'
                % (name, ''.join('; the plugin %s cannot be loaded: %s' % one
                                 for one in self.broken.items())))
        return known.get(name, version)

    def extended(self, lines: Sequence[str]) -> 'Catalog':
        """The same with the changes of ``[ssm] extend``.

        :raises ConfigurationError: if one of them cannot be made
        """
        if not lines:
            return self
        module = importlib.import_module('nova_ssm.extensions')
        writer = importlib.import_module('nova_ssm.objects').serializer(
            serialization.Vault())
        return dataclasses.replace(self, changed=tuple(module.apply(
            lines, None, self._known(), writer.has_codec)))

    def _known(self) -> registry.Registry:
        known = registry.Registry()
        for plugin in self.plugins:
            for flow_type in plugin.flow_types:
                known.add(flow_type)
        return known


@functools.cache
def installed() -> Catalog:
    """Look at all plugins that are installed, enabled or not."""
    # Tasks name Nova's objects, which a service fills in before it imports
    # them.
    objects.register_all()
    namespace = importlib.import_module('nova_ssm.plugins').NAMESPACE
    broken: dict[str, str] = {}

    def failed(_manager: Any, entry_point: Any, exc: BaseException) -> None:
        broken[entry_point.name] = _reason(exc)

    found = []
    for extension in sorted(
            stevedore.ExtensionManager(
                namespace, on_load_failure_callback=failed),
            key=lambda extension: extension.name):
        try:
            # A task stores its manager until it runs: here none does.
            flow_types = tuple(extension.plugin(None, None).flow_types())
        except Exception as exc:  # noqa: BLE001 - a plugin may be anybody's
            broken[extension.name] = _reason(exc)
        else:
            found.append(Plugin(extension.name, extension.plugin.__doc__ or '',
                                flow_types))
    # It needs no entry point: every conductor with a plugin has it.
    audit = importlib.import_module('nova_ssm.workflows.audit').Audit
    found.append(Plugin('audit', audit.__doc__ or '',
                        tuple(audit(None, None).flow_types())))
    return Catalog(tuple(found), broken)


def _reason(exc: BaseException) -> str:
    return '%s: %s' % (type(exc).__name__, exc)
