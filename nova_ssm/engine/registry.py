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

"""Which flows there are: names and versions to graphs.

A flow is resumed by the code that knows its name and version, so an older
conductor leaves a newer flow alone.
"""

from collections.abc import Callable
import dataclasses

from taskflow import flow as taskflow_flow

from nova_ssm.engine import exception


@dataclasses.dataclass(frozen=True)
class FlowType:
    """One kind of flow.

    :param name: as in the journal
    :param version: 'major.minor'; a new major for a graph that cannot go on
        from what an older one journaled: the older one stays registered
        beside it until no release begins it any more
    :param factory: makes a new graph
    """

    name: str
    version: str
    factory: Callable[[], taskflow_flow.Flow]


class Registry:
    """The flows that this process can run.

    A name may stand for one flow of each major version: what an older
    release began is finished with the older graph, new ones get the newest.
    """

    def __init__(self) -> None:
        self._types: dict[str, dict[int, FlowType]] = {}

    def add(self, flow_type: FlowType) -> None:
        """:raises ValueError: if the name is taken by another flow"""
        known = self._types.setdefault(flow_type.name, {})
        major = _parts(flow_type.version)[0]
        if known.setdefault(major, flow_type) != flow_type:
            raise ValueError('two flows are named %s' % flow_type.name)

    def get(self, name: str, version: str | None = None) -> FlowType:
        """The flow type that goes on with such a flow.

        :param version: as in the journal; None for the newest one
        :raises UnknownFlow: if there is none; says what is known
        """
        if version is not None:
            reason = self.why_not(name, version)
            if reason is not None:
                raise exception.UnknownFlow(reason)
            return self._types[name][_parts(version)[0]]
        if name not in self._types:
            raise exception.UnknownFlow(self._unknown(name))
        return self._types[name][max(self._types[name])]

    def why_not(self, name: str, version: str) -> str | None:
        """Why this process cannot go on with such a flow; None if it can."""
        if name not in self._types:
            return self._unknown(name)
        known = self._types[name]
        try:
            wanted = _parts(version)
        except ValueError:
            return 'the flow %s has no version but %r' % (name, version)
        if wanted[0] in known and wanted <= _parts(known[wanted[0]].version):
            return None
        return 'version %s of the flow %s is not known here, only %s' % (
            version, name, ', '.join(
                known[major].version for major in sorted(known)))

    def can_run(self, name: str, version: str) -> bool:
        """Whether this process can go on with such a flow."""
        return self.why_not(name, version) is None

    def _unknown(self, name: str) -> str:
        return 'no flow named %s is registered here, only %s' % (
            name, ', '.join(sorted(self._types)) or 'none')


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split('.'))
