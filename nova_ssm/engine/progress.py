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

"""How far a flow is in its graph, for people."""

from collections.abc import Mapping

from taskflow import states as taskflow_states

from nova_ssm.engine import graphs
from nova_ssm.engine import queries
from nova_ssm.engine import states

DONE = 'done'
RUNNING = 'running'
INTERRUPTED = 'interrupted'
FAILED = 'failed'
REVERTED = 'reverted'
FAILED_REVERTED = 'failed, reverted'
NOT_UNDONE = 'could not be undone'
SKIPPED = 'skipped'
NOT_REACHED = 'not reached'
#: Behind a state of a task in a branch of which the journal knows nothing.
OR_SKIPPED = ' or skipped'

_ENDED = {taskflow_states.SUCCESS: DONE, taskflow_states.IGNORE: SKIPPED,
          taskflow_states.FAILURE: FAILED,
          taskflow_states.REVERTED: REVERTED,
          taskflow_states.REVERT_FAILURE: NOT_UNDONE}
_PASSED = (taskflow_states.SUCCESS, taskflow_states.IGNORE)

Known = Mapping[str, queries.AtomInfo]


def mark(graph: graphs.Graph, known: Known, info: queries.FlowInfo) -> None:
    """Put into a graph how far a flow is.

    What leaves no row when it ends may be over already where this says that
    it is running.

    :param known: what its journal says of its tasks
    """
    optional = _optional(graph.whole, False)
    running = _running(graph, known) if _goes_on(known, info) else set()
    for atom in graph.atoms():
        atom.state = _state(atom, known, info, running)
        if atom.name in optional and atom.name not in known and (
                atom.state != NOT_REACHED):
            atom.state += OR_SKIPPED
    _count_tries(graph.whole, known)


def _goes_on(known: Known, info: queries.FlowInfo) -> bool:
    return info.state not in states.FINAL and not any(
        atom.state == taskflow_states.FAILURE for atom in known.values())


def _state(atom: graphs.Atom, known: Known, info: queries.FlowInfo,
           running: set[str]) -> str:
    told = known.get(atom.name)
    if told is not None and told.state in _ENDED:
        if told.state == taskflow_states.REVERTED:
            return _reverted(atom, told)
        return _ENDED[told.state]
    if info.state == states.SUCCESS:
        return DONE
    if atom.name in running:
        return RUNNING if info.owner_alive else INTERRUPTED
    return NOT_REACHED


def _reverted(atom: graphs.Atom, told: queries.AtomInfo) -> str:
    if atom.undone is None:
        # TaskFlow calls it reverted too, but nothing was undone.
        return FAILED if told.failed else DONE
    return FAILED_REVERTED if told.failed else REVERTED


def _running(graph: graphs.Graph, known: Known) -> set[str]:
    """What may have begun: up to and with the first that leaves a row."""
    atoms = {atom.name: atom for atom in graph.atoms()}

    def passed(name: str) -> bool:
        if name in known and known[name].state in _PASSED:
            return True
        # The names before one are all known: they come from the same graph.
        return not atoms[name].effect or atoms[name].sometimes

    return {name for name, before in graph.before.items()
            if all(map(passed, before))}


def _optional(part: graphs.Part, inside: bool) -> set[str]:
    """The names of what is in a branch, which may not be taken."""
    found: set[str] = set()
    inside = inside or bool(part.choices)
    for layer in part.layers:
        for item in layer:
            if isinstance(item, graphs.Part):
                found |= _optional(item, inside)
            elif inside or item.choices:
                found.add(item.name)
    return found


def _count_tries(part: graphs.Part, known: Known) -> None:
    if part.retry is not None and part.retry.name in known:
        part.tries = known[part.retry.name].tries
    for layer in part.layers:
        for item in layer:
            if isinstance(item, graphs.Part):
                _count_tries(item, known)
