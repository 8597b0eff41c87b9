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

"""Changes flows as an operator says: tasks of others added, or put elsewhere.

A change is one line::

    FLOW: TASK after|before|replaces TASK

The flow that comes of it has a version of its own, ``1.0+5d41402a``: what
stands behind the plus tells the changes and the tasks that they brought, so
a flow is only resumed with the graph that it was begun with.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import hashlib
import json
import re
from typing import Any

from taskflow import flow as taskflow_flow
from taskflow.patterns import graph_flow
from taskflow.patterns import linear_flow

from nova_ssm.engine import exception
from nova_ssm.engine import registry
from nova_ssm.engine import task as ssm_task

#: Makes a task, by the name that it gets in the flow; None: there is none.
Maker = Callable[[str], ssm_task.Task]
Find = Callable[[str], Maker | None]

_LINE = re.compile(r'([\w.-]+)\s*:\s*([\w.-]+)\s+(\w+)\s+([\w.-]+)')
_PLACES = ('after', 'before', 'replaces')


@dataclasses.dataclass(frozen=True)
class Change:
    """One change of one flow.

    :param task: an installed one, or one that the flow has: then it is moved
    :param place: after, before or replaces
    :param other: the task that the place is told by
    """

    flow: str
    task: str
    place: str
    other: str

    def __str__(self) -> str:
        return '%s: %s %s %s' % (self.flow, self.task, self.place, self.other)


def parse(line: str) -> Change:
    """:raises BadExtension: if it is no such line"""
    found = _LINE.fullmatch(line.strip())
    if found is None or found[3] not in _PLACES:
        raise exception.BadExtension(
            '%r is not of the form "FLOW: TASK after|before|replaces TASK"'
            % line)
    return Change(*found.groups())


def extend(flow_type: registry.FlowType, changes: Sequence[Change],
           find: Find) -> registry.FlowType:
    """A type of flow with changes, one after the other.

    :param changes: those of this flow
    :param find: gives what makes an installed task
    :raises BadExtension: if one of them cannot be made; says which, and why
    """
    makers = {change: find(change.task) for change in changes}
    factory = functools.partial(_build, flow_type.factory, makers)
    try:
        brought = [[str(change), maker and _told(maker(change.task))]
                   for change, maker in makers.items()]
        factory()
    except exception.BadExtension:
        raise
    except Exception as exc:
        # A task of somebody else may raise anything when it is made.
        raise exception.BadExtension('%s: %s: %s' % (
            changes[0], type(exc).__name__, exc)) from exc
    mark = hashlib.sha256(json.dumps(brought).encode()).hexdigest()[:8]
    return dataclasses.replace(
        flow_type, version='%s+%s' % (flow_type.version, mark),
        factory=factory)


def _told(task: Any) -> Any:
    """What of a task decides whether a journal can be gone on with."""
    if not isinstance(task, ssm_task.Task):
        return None
    return [task.revision, sorted(task.requires), sorted(task.optional),
            sorted(task.provides), task.effect, task.once,
            isinstance(task, ssm_task.Hook)]


def _build(factory: Callable[[], taskflow_flow.Flow],
           makers: dict[Change, Maker | None]) -> taskflow_flow.Flow:
    flow = factory()
    for change, maker in makers.items():
        flow = _changed(flow, change, maker)
    return flow


def _changed(flow: taskflow_flow.Flow, change: Change,
             maker: Maker | None) -> taskflow_flow.Flow:
    names = {task.name for task in tasks(flow)}
    if change.other not in names:
        raise exception.BadExtension(
            '%s: the flow %s has no task %s, only %s' % (
                change, change.flow, change.other, ', '.join(sorted(names))))
    if maker is not None:
        if change.task in names:
            raise exception.BadExtension(
                '%s: the flow %s has a task of that name already: the '
                'installed one needs another name' % (change, change.flow))
        # Choices and journals know a task by its name: it stays.
        task = maker(change.other if change.place == 'replaces'
                     else change.task)
        if not isinstance(task, ssm_task.Task):
            raise exception.BadExtension(
                '%s: %s is not a task: it must be made from a subclass of '
                'nova_ssm.engine.task.Task' % (change, change.task))
        return _edited(flow, change, task)
    if change.task not in names:
        raise exception.BadExtension(
            '%s: no task %s is installed, and the flow %s has none to be '
            'moved' % (change, change.task, change.flow))
    if change.place == 'replaces' or change.task == change.other:
        raise exception.BadExtension(
            '%s: a task of the flow can only be moved after or before '
            'another one' % change)
    moved = next(task for task in tasks(flow) if task.name == change.task)
    return _edited(_without(flow, change), change, moved)


def tasks(flow: taskflow_flow.Flow) -> list[Any]:
    """The tasks of a flow, and of the flows in it."""
    found = []
    for item, _data in flow.iter_nodes():
        found += (tasks(item) if isinstance(item, taskflow_flow.Flow)
                  else [item])
    return found


class _Parts:
    """What a flow is made of, to make it anew."""

    def __init__(self, flow: taskflow_flow.Flow) -> None:
        self.flow = flow
        self.items = [item for item, _data in flow.iter_nodes()]
        # What a linear flow, or a flow itself, links, it will link again.
        self.links = [(before, after, data)
                      for before, after, data in flow.iter_links()
                      if taskflow_flow.LINK_MANUAL in data]

    def find(self, name: str) -> Any:
        """The task of that name, None if it is in a flow inside, or none."""
        return next((item for item in self.items if item.name == name and
                     not isinstance(item, taskflow_flow.Flow)), None)

    def put(self, old: Any, new: Any) -> None:
        """Let something take the place of something else."""
        self.items = [new if item is old else item for item in self.items]
        self.links = [(new if before is old else before,
                       new if after is old else after, data)
                      for before, after, data in self.links]

    def make(self) -> taskflow_flow.Flow:
        made = type(self.flow)(self.flow.name, self.flow.retry)
        made.add(*self.items)
        for before, after, data in self.links:
            made.link(before, after,
                      decider=data.get(taskflow_flow.LINK_DECIDER),
                      decider_depth=data.get(
                          taskflow_flow.LINK_DECIDER_DEPTH))
        return made


def _inside(flow: taskflow_flow.Flow, name: str,
            edit: Callable[[_Parts, Any], None]) -> taskflow_flow.Flow:
    """A flow with the part edited in which a task stands directly."""
    parts = _Parts(flow)
    task = parts.find(name)
    if task is not None:
        edit(parts, task)
    else:
        for item in parts.items:
            if isinstance(item, taskflow_flow.Flow) and name in {
                    task.name for task in tasks(item)}:
                parts.put(item, _inside(item, name, edit))
    return parts.make()


def _edited(flow: taskflow_flow.Flow, change: Change,
            task: Any) -> taskflow_flow.Flow:
    def edit(parts: _Parts, other: Any) -> None:
        if change.place == 'replaces':
            parts.put(other, task)
            return
        if not isinstance(parts.flow, linear_flow.Flow | graph_flow.Flow):
            raise exception.BadExtension(
                '%s: the tasks beside %s are in no order'
                % (change, change.other))
        at = parts.items.index(other)
        parts.items.insert(at + (change.place == 'after'), task)
        if isinstance(parts.flow, graph_flow.Flow):
            _link(parts, change, task, other)

    return _inside(flow, change.other, edit)


def _link(parts: _Parts, change: Change, task: Any, other: Any) -> None:
    """Link a task between another one and those right after or before it."""
    if change.place == 'after':
        parts.links += [(other, task, {})] + [
            (task, after, {}) for before, after, _data in parts.links
            if before is other]
    else:
        # Where a choice leads to the other one, it leads to both.
        parts.links += [(task, other, {})] + [
            (before, task, data) for before, after, data in parts.links
            if after is other]


def _without(flow: taskflow_flow.Flow, change: Change) -> taskflow_flow.Flow:
    def edit(parts: _Parts, task: Any) -> None:
        links = parts.links
        if any(taskflow_flow.LINK_DECIDER in data
               for before, after, data in links if task in (before, after)):
            raise exception.BadExtension(
                '%s: %s cannot be moved: a choice between branches hangs on '
                'it' % (change, change.task))
        parts.items.remove(task)
        parts.links = [link for link in links if task not in link[:2]] + [
            (before, after, {}) for before, end, _data in links
            if end is task for start, after, _more in links if start is task]

    return _inside(flow, change.task, edit)
