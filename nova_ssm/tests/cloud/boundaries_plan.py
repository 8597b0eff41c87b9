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
"""Which points of the graphs a conductor is to be killed at.

The graphs say which points there are; the trace of an operation that nobody
disturbs says which of them it comes by. So a new task is covered without a
case of its own, and none is left out unseen.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Set
import dataclasses
from typing import Any

from nova import objects
import stevedore
from taskflow.engines.action_engine import compiler
from taskflow import retry as taskflow_retry

from nova_ssm.engine import registry
from nova_ssm.engine import task as ssm_task
from nova_ssm.tests.cloud import injection_orders as orders
from nova_ssm.tests.cloud import settings

KINDS = (orders.BOUNDARY, orders.MIDDLE, orders.DONE)
#: What else counts as a boundary.
_ROWS = (orders.START, orders.BEGUN, orders.END)


@dataclasses.dataclass(frozen=True)
class Atom:
    """A task or a retry of a graph."""

    flow: str
    name: str
    once: bool
    undoes: bool


@dataclasses.dataclass(frozen=True)
class Step:
    """A point that is to be tried.

    :param ends: how the task ends here when nobody disturbs it: the state of
        its row, None if it leaves none
    :param what: the change that is answered at this point
    """

    point: orders.Point
    ends: str | None = None
    what: str = dataclasses.field(default='', compare=False)


def kind(at: str) -> str:
    """Return what ``--point`` calls a point: one of KINDS."""
    return orders.BOUNDARY if at in _ROWS else at


def workflows() -> list[str]:
    """Return the names of all plugins that are installed."""
    return sorted(plugin.name for plugin in _plugins())


def flow_types() -> dict[str, registry.FlowType]:
    """Return the flows of all plugins that are installed, by name."""
    found = {}
    for plugin in _plugins():
        # Their factories only hand the manager on.
        nobody: Any = None
        for flow_type in plugin.plugin(nobody, nobody).flow_types():
            found[flow_type.name] = flow_type
    return found


def _plugins() -> stevedore.ExtensionManager:
    # The plugins name Nova's objects as soon as they are imported.
    objects.register_all()
    return stevedore.ExtensionManager(
        'nova_ssm.workflows', on_load_failure_callback=_broken)


def _broken(_manager: Any, plugin: Any, error: BaseException) -> None:
    raise settings.CloudError(
        f'the plugin {plugin.name} cannot be loaded: {error}') from error


def atoms(flow_type: registry.FlowType) -> list[Atom]:
    """Return the tasks and retries of a graph, in a possible order."""
    graph = compiler.PatternCompiler(
        flow_type.factory()).compile().execution_graph
    found = []
    for node in graph.topological_sort():
        if graph.nodes[node]['kind'] not in compiler.ATOMS:
            continue
        if isinstance(node, ssm_task.Task):
            once, undoes = node.once, node.undoes()
        else:
            once = False
            undoes = type(node).revert is not taskflow_retry.Retry.revert
        found.append(Atom(flow_type.name, node.name, once, undoes))
    return found


def possible(flow_type: registry.FlowType) -> Iterator[orders.Point]:
    """Yield the points of a graph, without repetitions by retries."""
    name = flow_type.name
    yield orders.Point(name, '', '', orders.START)
    for atom in atoms(flow_type):
        if atom.once:
            yield orders.Point(name, atom.name, orders.EXECUTE, orders.BEGUN)
        for at in (orders.MIDDLE, orders.DONE, orders.BOUNDARY):
            yield orders.Point(name, atom.name, orders.EXECUTE, at)
    for atom in reversed(atoms(flow_type)):
        for at in (orders.MIDDLE, orders.DONE, orders.BOUNDARY):
            if atom.undoes:
                yield orders.Point(name, atom.name, orders.REVERT, at)
    yield orders.Point(name, '', '', orders.END)


def plain(point: orders.Point) -> orders.Point:
    """Return the point as ``possible`` has it."""
    return dataclasses.replace(point, turn=1, change=0)


def steps(trace: Iterable[orders.Passed],
          every_change: bool = False) -> list[Step]:
    """Return what is worth a kill in an undisturbed run.

    :param every_change: try all changes of a task, not only the first one
    """
    trace = list(trace)
    ends: dict[tuple, str | None] = {}
    for passed in trace:
        if passed.point.at == orders.BOUNDARY:
            ends[_run(passed.point)] = passed.state
    found = []
    for passed in trace:
        point = passed.point
        if point.change > 1 and not every_change:
            continue
        # The return of a task that has changed nothing is its middle.
        if point.at == orders.DONE and not any(
                _run(other.point) == _run(point) and other.point.change
                for other in trace):
            continue
        found.append(Step(point, ends.get(_run(point)) if point.task
                          else passed.state, passed.what))
    return found


def from_failure_on(found: list[Step]) -> list[Step]:
    """Return the steps from the first task on that fails."""
    for index, step in enumerate(found):
        if step.ends == 'FAILURE':
            return found[index:]
    return found


def _run(point: orders.Point) -> tuple:
    return point.flow, point.task, point.phase, point.turn


def missing(flow_type: registry.FlowType,
            seen: Set[orders.Point]) -> list[orders.Point]:
    """Return the points of a graph that are not among those seen.

    :param seen: as ``plain`` gives them
    """
    return [point for point in possible(flow_type)
            if point not in seen and not (
                point.at == orders.DONE and
                dataclasses.replace(point, at=orders.MIDDLE) in seen)]


def failing(flow_type: registry.FlowType,
            found: Iterable[Step]) -> str | None:
    """Return the task whose failure has the most to be undone.

    That is the one that tells a compute, which cannot be undone any more, or
    the last one.

    :param found: of a run that nobody disturbs
    :returns: None if there is nothing to be undone
    """
    known = {atom.name: atom for atom in atoms(flow_type)}
    ran = [known[one.point.task] for one in found
           if one.point.flow == flow_type.name and one.point.task and
           one.point.at == orders.BOUNDARY]
    for index, atom in enumerate(ran):
        if atom.once:
            ran = ran[:index + 1]
            break
    if not any(atom.undoes for atom in ran):
        return None
    return ran[-1].name
