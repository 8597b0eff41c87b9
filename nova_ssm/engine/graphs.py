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

"""What a flow looks like: its tasks, parts, retries and branches, as data.

Taken from the graph that TaskFlow compiles, so it is what runs.
"""

import dataclasses
import inspect
from typing import Any

from taskflow.engines.action_engine import compiler
from taskflow import flow as taskflow_flow
from taskflow import retry as taskflow_retry

from nova_ssm.engine import registry
from nova_ssm.engine import task as ssm_task


@dataclasses.dataclass(frozen=True)
class Choice:
    """Why a branch is taken.

    :param by: the task whose result tells
    :param when: what is asked of it
    """

    by: str
    when: str


@dataclasses.dataclass
class Atom:
    """A task, or a retry.

    :param does: one line on what it does
    :param effect: whether it changes anything; then it leaves a row
    :param sometimes: whether it has that effect only sometimes
    :param once: whether its start leaves a row too
    :param undone: one line on what its reverting does, None if nothing
    :param choices: why it is run, if that is a question
    :param state: how far it is in one flow, None in none
    """

    name: str
    does: str
    effect: bool = False
    sometimes: bool = False
    once: bool = False
    undone: str | None = None
    choices: list[Choice] = dataclasses.field(default_factory=list)
    state: str | None = None


@dataclasses.dataclass
class Part:
    """A flow: its tasks and the flows in it.

    :param retry: what tries it again
    :param layers: those of a layer run after all of the layers before it
        that they are linked to; those side by side are branches, or in no
        order
    :param links: which of them run right after which, by their names
    :param tries: how often it was begun, in one flow
    """

    name: str
    retry: Atom | None = None
    layers: list[list['Atom | Part']] = dataclasses.field(
        default_factory=list)
    links: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    choices: list[Choice] = dataclasses.field(default_factory=list)
    tries: int = 0

    def atoms(self) -> list[Atom]:
        """All tasks and retries in it, in a possible order."""
        found = [self.retry] if self.retry is not None else []
        for layer in self.layers:
            for item in layer:
                found += [item] if isinstance(item, Atom) else item.atoms()
        return found


@dataclasses.dataclass
class Graph:
    """One type of flow.

    :param before: of each atom those that have to be over before it begins
    """

    name: str
    version: str
    whole: Part
    before: dict[str, set[str]]

    def atoms(self) -> list[Atom]:
        """All tasks and retries, in a possible order."""
        return self.whole.atoms()

    def data(self) -> dict[str, Any]:
        """The graph as plain data: lists, dicts and texts."""
        return {'name': self.name, 'version': self.version,
                **_part_data(self.whole)}


def _part_data(part: Part) -> dict[str, Any]:
    data: dict[str, Any] = {
        'items': [_item_data(item) for layer in part.layers
                  for item in layer],
        'links': [{'from': before, 'to': after}
                  for before, after in part.links]}
    if part.retry is not None:
        data['retry'] = _atom_data(part.retry)
        data['tries'] = part.tries
    return data


def _item_data(item: Atom | Part) -> dict[str, Any]:
    data = (_atom_data(item) if isinstance(item, Atom) else
            {'flow': item.name, **_part_data(item)})
    if item.choices:
        data['choices'] = [dataclasses.asdict(c) for c in item.choices]
    return data


def _atom_data(atom: Atom) -> dict[str, Any]:
    data = dataclasses.asdict(atom)
    del data['choices']
    return {'task': data.pop('name'), **data}


def graph_of(flow_type: registry.FlowType) -> Graph:
    """The graph of a type of flow.

    :raises Exception: whatever its factory raises
    """
    compilation = compiler.PatternCompiler(flow_type.factory()).compile()
    graph = compilation.execution_graph
    links: dict[str, set[str]] = {}
    choices: dict[str, list[Choice]] = {}
    for before, after, data in graph.edges(data=True):
        if _is_inner(graph, before, after):
            continue
        name, target = _outer(before), after.name
        links.setdefault(target, set()).add(name)
        decider = data.get(taskflow_flow.LINK_DECIDER)
        if decider is not None:
            choices.setdefault(target, []).append(
                Choice(name, _says(decider)))
    whole = _part(compilation.hierarchy, links, choices)
    return Graph(flow_type.name, flow_type.version, whole, _before(graph))


def _outer(node: Any) -> str:
    """The name of a node as others of its part see it."""
    return (node.flow.name if isinstance(node, compiler.Terminator)
            else node.name)


def _is_inner(graph: Any, before: Any, after: Any) -> bool:
    """Whether an edge only enters a part, or leaves it."""
    return (graph.nodes[before]['kind'] == compiler.FLOW or
            graph.nodes[after]['kind'] == compiler.FLOW_END or
            taskflow_flow.LINK_RETRY in graph.edges[before, after])


def _before(graph: Any) -> dict[str, set[str]]:
    """Of each atom all those that come before it."""
    reached: dict[Any, set[str]] = {}
    for node in graph.topological_sort():
        reached[node] = set()
        for before in graph.predecessors(node):
            reached[node] |= reached[before]
            if graph.nodes[before]['kind'] in compiler.ATOMS:
                reached[node].add(before.name)
    return {node.name: names for node, names in reached.items()
            if graph.nodes[node]['kind'] in compiler.ATOMS}


def _part(tree: Any, links: dict[str, set[str]],
          choices: dict[str, list[Choice]]) -> Part:
    part = Part(tree.item.name, choices=choices.get(tree.item.name, []))
    items: dict[str, Atom | Part] = {}
    for node in tree:
        if isinstance(node.item, taskflow_retry.Retry):
            part.retry = _atom(node.item, [])
        elif isinstance(node.item, taskflow_flow.Flow):
            items[node.item.name] = _part(node, links, choices)
        else:
            items[node.item.name] = _atom(
                node.item, choices.get(node.item.name, []))
    inside = {name: links.get(name, set()) & set(items) for name in items}
    part.links = _direct(inside)
    part.layers = _layers(items, inside)
    return part


def _layers(items: dict[str, 'Atom | Part'],
            links: dict[str, set[str]]) -> list[list['Atom | Part']]:
    depths: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in depths:
            depths[name] = max((depth(before) + 1 for before in links[name]),
                               default=0)
        return depths[name]

    layers: list[list[Atom | Part]] = [
        [] for _depth in range(max(map(depth, items), default=-1) + 1)]
    for name, item in items.items():
        layers[depth(name)].append(item)
    return layers


def _direct(links: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The links without those that say no more than others together."""
    def reaches(start: str, end: str) -> bool:
        return any(before == end or reaches(before, end)
                   for before in links[start])

    return [(before, after) for after, all_before in links.items()
            for before in links if before in all_before and not any(
                reaches(other, before) for other in all_before - {before})]


def _atom(atom: Any, choices: list[Choice]) -> Atom:
    made = Atom(atom.name, _first_line(type(atom)), choices=choices)
    if isinstance(atom, ssm_task.Task):
        made.effect, made.once = atom.effect, atom.once
        made.sometimes = (
            type(atom).had_effect is not ssm_task.Task.had_effect)
        if atom.undoes():
            made.undone = atom.reversion or 'yes'
    elif not isinstance(atom, taskflow_retry.Retry):
        made.effect, made.undone = True, 'yes'
    return made


def _first_line(thing: Any) -> str:
    """The first line of a docstring."""
    line = (inspect.getdoc(thing) or '').partition('\n')[0].rstrip('.')
    return line.replace('``', '')    # people do not read markup


def _says(decider: Any) -> str:
    """What a decider asks, in words: its docstring or its name."""
    if inspect.getdoc(decider) and inspect.isroutine(decider):
        return _first_line(decider)
    name = getattr(decider, '__name__', type(decider).__name__)
    return name.strip('_<>').replace('_', ' ')
