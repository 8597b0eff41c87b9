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
        from what an older one journaled
    :param factory: makes a new graph
    """

    name: str
    version: str
    factory: Callable[[], taskflow_flow.Flow]


class Registry:
    """The flows that this process can run."""

    def __init__(self) -> None:
        self._types: dict[str, FlowType] = {}

    def add(self, flow_type: FlowType) -> None:
        """:raises ValueError: if the name is taken by another flow"""
        known = self._types.get(flow_type.name)
        if known is not None and known != flow_type:
            raise ValueError('two flows are named %s' % flow_type.name)
        self._types[flow_type.name] = flow_type

    def get(self, name: str) -> FlowType:
        """:raises UnknownFlow: if there is no flow of that name"""
        try:
            return self._types[name]
        except KeyError:
            raise exception.UnknownFlow(
                'no flow named %s is registered here, only %s'
                % (name, ', '.join(sorted(self._types)) or 'none')) from None

    def can_run(self, name: str, version: str) -> bool:
        """Whether this process can go on with such a flow."""
        known = self._types.get(name)
        return known is not None and _readable(version, known.version)


def _readable(written: str, known: str) -> bool:
    """Same major version, and not newer than what is known."""
    wanted, have = _parts(written), _parts(known)
    return wanted[0] == have[0] and wanted <= have


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split('.'))
