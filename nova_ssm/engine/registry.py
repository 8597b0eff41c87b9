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

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from taskflow import flow as taskflow_flow

from nova_ssm.engine import exception


@dataclasses.dataclass(frozen=True)
class FlowType:
    """One kind of flow.

    :param name: as in the journal
    :param version: 'major.minor'; a new major for a graph that cannot go on
        from what an older one journaled: the older one stays registered
        beside it until no release begins it any more. Behind a plus: which
        changes an operator has made to the graph (see
        :mod:`nova_ssm.engine.extending`)
    :param factory: makes a new graph
    :param cancelled: makes the failure of a flow that somebody cancels, from
        words for its users
    :param again: called before a flow that was reverted is begun again, with
        what it was given: sets up what the request had set up, or raises if
        that is not possible any more. May be called more than once. None for
        flows that cannot be begun again
    :param renewed: of a flow that is begun again for the n-th time: which of
        its inputs are others than those that it was given, from these and n.
        The same each time
    :param instead: of a flow that cannot be begun again: what people can do
        when it was reverted, and why it cannot
    """

    name: str
    version: str
    factory: Callable[[], taskflow_flow.Flow]
    cancelled: Callable[[str], Exception] = exception.FlowCancelled
    again: Callable[[Mapping[str, Any]], None] | None = None
    renewed: Callable[[Mapping[str, Any], int],
                      Mapping[str, Any]] = lambda given, number: {}
    instead: str = 'make the request again'


class Registry:
    """The flows that this process can run.

    A name may stand for one flow of each major version: what an older
    release began is finished with the older graph, new ones get the newest.
    Beside each may stand the same with changes of the operator: what was
    begun without them is finished without them.
    """

    def __init__(self) -> None:
        self._types: dict[str, dict[tuple[int, str], FlowType]] = {}

    def add(self, flow_type: FlowType) -> None:
        """:raises ValueError: if the name is taken by another flow"""
        known = self._types.setdefault(flow_type.name, {})
        if known.setdefault(_key(flow_type.version), flow_type) != flow_type:
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
            return self._types[name][_key(version)]
        if name not in self._types:
            raise exception.UnknownFlow(self._unknown(name))
        # With changes rather than without.
        return self._types[name][max(self._types[name])]

    def plain(self) -> list[FlowType]:
        """All flow types, without those that an operator has changed."""
        return [flow_type for known in self._types.values()
                for key, flow_type in known.items() if not key[1]]

    def why_not(self, name: str, version: str) -> str | None:
        """Why this process cannot go on with such a flow; None if it can."""
        if name not in self._types:
            return self._unknown(name)
        known = self._types[name]
        try:
            key, wanted = _key(version), _numbers(version)
        except ValueError:
            return 'the flow %s has no version but %r' % (name, version)
        if key in known and wanted <= _numbers(known[key].version):
            return None
        here = ', '.join(known[one].version for one in sorted(known))
        if key not in known and key[1] and (key[0], '') in known:
            return ('the flow %s was begun with changes by an operator that '
                    'are not the same here: it has version %s, here are %s'
                    % (name, version, here))
        return 'version %s of the flow %s is not known here, only %s' % (
            version, name, here)

    def can_run(self, name: str, version: str) -> bool:
        """Whether this process can go on with such a flow."""
        return self.why_not(name, version) is None

    def _unknown(self, name: str) -> str:
        return 'no flow named %s is registered here, only %s' % (
            name, ', '.join(sorted(self._types)) or 'none')


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition('+')[0].split('.'))


def _key(version: str) -> tuple[int, str]:
    """The major version, and which changes were made to it."""
    return _numbers(version)[0], version.partition('+')[2]
