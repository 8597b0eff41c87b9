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

"""Sees that a flow with tasks of others can still keep its promises.

Of each task there must be what it takes, what it gives must have a name of
its own and fit into the journal, and nothing that can fail may come behind a
step that cannot be taken back.
"""

from collections.abc import Callable, Collection
import datetime
import types
import typing
from typing import Any

from oslo_versionedobjects import base as ovo_base
from taskflow.engines.action_engine import compiler

from nova_ssm.engine import exception
from nova_ssm.engine import registry
from nova_ssm.engine import serialization
from nova_ssm.engine import task as ssm_task

#: Whether values of a class have a form in the journal.
Writable = Callable[[type], bool]

_PLAIN: tuple[type, ...] = (
    bool, int, float, str, bytes, datetime.datetime, type(None),
    BaseException, serialization.Secret, ovo_base.VersionedObject)
_CONTAINERS = (list, dict, tuple, set, frozenset)


class _Graph:
    """The atoms of a flow, and those that come before each of them."""

    def __init__(self, flow_type: registry.FlowType) -> None:
        graph = compiler.PatternCompiler(
            flow_type.factory()).compile().execution_graph
        reached: dict[Any, set[str]] = {}
        self.atoms: dict[str, Any] = {}
        self.before: dict[str, set[str]] = {}
        for node in graph.topological_sort():
            reached[node] = set()
            for before in graph.predecessors(node):
                reached[node] |= reached[before]
                if graph.nodes[before]['kind'] in compiler.ATOMS:
                    reached[node].add(before.name)
            if graph.nodes[node]['kind'] in compiler.ATOMS:
                self.atoms[node.name] = node
                self.before[node.name] = reached[node]

    def given(self, name: str) -> set[str]:
        """What there is when an atom begins, beside the flow's inputs."""
        return {result for before in self.before[name]
                for result in self.atoms[before].provides}

    def lacks(self, name: str) -> set[str]:
        """What an atom takes that no atom before it gives."""
        atom = self.atoms[name]
        taken = set(atom.requires)
        # Its own result is there when it is reverted.
        return taken - self.given(name)


def check(plain: registry.FlowType, extended: registry.FlowType,
          writable: Writable | None = None) -> None:
    """See that an extended flow can be run, and resumed.

    :param plain: the flow as it was
    :param writable: tells the classes that the journal has a form for
        beside its own
    :raises BadExtension: if it cannot; says which task, and why
    """
    was, now = _Graph(plain), _Graph(extended)
    inputs = {name for atom in was.atoms for name in was.lacks(atom)}
    new = [name for name, atom in now.atoms.items()
           if name not in was.atoms or
           type(atom) is not type(was.atoms[name])]
    for name in new:
        _check_names(now, inputs, name)
        _check_results(now.atoms[name], writable or (lambda cls: False))
    for name in now.atoms:
        missing = now.lacks(name) - inputs
        if missing:
            raise exception.BadExtension(
                'the task %s needs %s, which no task before it provides, '
                'nor is the flow given it; there are: %s' % (
                    name, ', '.join(sorted(missing)),
                    ', '.join(sorted(inputs | now.given(name)))))
    _check_end(was, now, new)


def _check_names(graph: _Graph, inputs: Collection[str], name: str) -> None:
    for result in graph.atoms[name].provides:
        if result in inputs:
            raise exception.BadExtension(
                'the task %s provides %s, which the flow is given: what it '
                'gives needs a name of its own' % (name, result))
        for other, atom in graph.atoms.items():
            if other != name and result in atom.provides:
                raise exception.BadExtension(
                    'the tasks %s and %s both provide %s: one of them needs '
                    'another name' % (other, name, result))


def _check_results(task: ssm_task.Task, writable: Writable) -> None:
    """See that what a task gives has a form in the journal."""
    if not task.provides:
        return
    try:
        hints = typing.get_type_hints(type(task).execute)
    except Exception as exc:
        raise exception.BadExtension(
            'the annotations of the task %s cannot be read: %s'
            % (task.name, exc)) from exc
    if 'return' not in hints:
        raise exception.BadExtension(
            'the task %s provides %s, and its execute() does not say of '
            'which type: annotate what it returns' % (
                task.name, ', '.join(sorted(task.provides))))
    stranger = _stranger(hints['return'], writable)
    if stranger is not None:
        raise exception.BadExtension(
            'the task %s provides %s, of a type that cannot be journaled '
            '(%s): give a versioned object, or what JSON can say' % (
                task.name, ', '.join(sorted(task.provides)),
                getattr(stranger, '__qualname__', stranger)))


def _stranger(hint: Any, writable: Writable) -> Any:
    """What in an annotation the journal has no form for, None if nothing."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) or origin in _CONTAINERS:
        return next((found for one in inner if one is not Ellipsis and
                     (found := _stranger(one, writable)) is not None), None)
    if hint is None or isinstance(hint, type) and origin is None and (
            issubclass(hint, (*_PLAIN, *_CONTAINERS)) or writable(hint)):
        return None
    return hint


def _check_end(was: _Graph, now: _Graph, new: Collection[str]) -> None:
    """See that nothing can fail behind what cannot be taken back."""
    for last, atom in was.atoms.items():
        if not _is_final(atom):
            continue
        if not _is_final(now.atoms.get(last)):
            raise exception.BadExtension(
                'the task %s cannot be replaced by one that may begin twice '
                'unseen, or that can be undone' % last)
    for name, atom in now.atoms.items():
        hook = isinstance(atom, ssm_task.Hook)
        if hook and (atom.provides or atom.once or name in was.atoms):
            raise exception.BadExtension(
                'the flow goes on without the hook %s when it fails: it must '
                'provide nothing, not be done once only, and replace nothing'
                % name)
        for last in now.before[name]:
            if (not hook and _is_final(now.atoms[last]) and
                    last not in was.before.get(name, ())):
                raise exception.BadExtension(
                    'the task %s would come behind %s, which cannot be taken '
                    'back: only a nova_ssm.engine.task.Hook may' % (
                        name, last))


def _is_final(atom: Any) -> bool:
    return (isinstance(atom, ssm_task.Task) and atom.once and
            not atom.undoes())
