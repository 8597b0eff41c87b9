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

"""TaskFlow's engine, with what a durable flow asks of retries and choices.

Beside TaskFlow's own

* a retry that gives up reverts the whole flow, not its own part only,
* a new try has forgotten the failures of the one before; the retry's history
  has them,
* a retry that breaks while it decides gives up,
* what undoes something is tried again: see :mod:`nova_ssm.engine.attempts`.
"""

import collections
from collections.abc import Iterator
import functools
import logging as python_logging
import threading
from typing import Any

from oslo_log import log as logging
from taskflow import atom as taskflow_atom
from taskflow.engines.action_engine import compiler
from taskflow.engines.action_engine import deciders
from taskflow.engines.action_engine import engine as action_engine
from taskflow.engines.action_engine import selector
from taskflow import flow as taskflow_flow
from taskflow.persistence.backends import impl_memory
from taskflow.persistence import base
from taskflow.persistence import models
from taskflow import retry as taskflow_retry
from taskflow import states as taskflow_states
from taskflow import storage as taskflow_storage
from taskflow.utils import misc

from nova_ssm.engine import attempts
from nova_ssm.engine import masking
from nova_ssm.engine import registry

LOG = logging.getLogger(__name__)

for _name in ('builder', 'completer'):
    python_logging.getLogger(
        'taskflow.engines.action_engine.' + _name).addFilter(
            masking.NoFailures())


class _Lock:
    """TaskFlow's lock of a storage, for one thread: cheap to take."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def read_lock(self) -> Any:
        return self._lock

    write_lock = read_lock


class Storage(taskflow_storage.Storage):
    """What TaskFlow knows of the atoms of a flow.

    Without its lock, which each of hundreds of looks a flow would take: one
    thread runs the flow. All that tasks report from threads of their own is
    their progress, and that needs none.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = _Lock()

    def _save_atom_detail(self, conn: base.Connection,
                          original_atom_detail: models.AtomDetail,
                          atom_detail: models.AtomDetail
                          ) -> models.AtomDetail:
        # TaskFlow would try three times: the journal does that by itself.
        original_atom_detail.update(conn.update_atom_details(atom_detail))
        return original_atom_detail

    def given(self) -> frozenset[str]:
        """The names of what the flow was given."""
        detail, _clone = self._atomdetail_by_name(self.injector_name)
        return frozenset(detail.results)

    def set_task_progress(self, task_name: str, progress: float,
                          details: Any = None) -> None:
        """Note how far a task is; nothing of that is journaled."""
        detail, _clone = self._atomdetail_by_name(task_name)
        detail.meta[taskflow_storage.META_PROGRESS] = progress
        if details is not None:
            detail.meta[taskflow_storage.META_PROGRESS_DETAILS] = {
                'at_progress': progress, 'details': details}

    def set_atom_state(self, atom_name: str, state: str) -> None:
        """Set a state; an atom that is to run again begins with nothing."""
        if state == taskflow_states.PENDING:
            # Or the next revert would be told of a failure of another try.
            self.reset(atom_name)
        else:
            super().set_atom_state(atom_name, state)


def _unlocked(method: Any) -> Any:
    """What TaskFlow calls under a lock; None if it does not take one."""
    where = getattr(method, '__globals__', {}).get('__name__')
    return method.__wrapped__ if where == 'fasteners.lock' else None


for _name, _method in vars(taskflow_storage.Storage).items():
    if _name not in vars(Storage) and _unlocked(_method):
        setattr(Storage, _name, _unlocked(_method))


class Selector(selector.Selector):
    """Says which atoms are ready when one has ended.

    TaskFlow asks all that stand behind it, and each of them all before it:
    for a flow that is one line, the square of its length. But none is ready
    behind one that has not ended, if none can be ignored.
    """

    def __init__(self, runtime: Any) -> None:
        super().__init__(runtime)
        self._has_choices = any(
            taskflow_flow.LINK_DECIDER in data for _before, _after, data
            in self._execution_graph.edges(data=True))

    def _browse_atoms_for_execute(self, atom: Any = None
                                  ) -> Iterator[tuple[Any, Any]]:
        if atom is None or self._has_choices:
            yield from super()._browse_atoms_for_execute(atom)
            return
        for behind in self._next_behind(atom):
            is_ready, decider = self._get_maybe_ready_for_execute(behind)
            if is_ready:
                yield behind, decider

    def _next_behind(self, atom: Any) -> Iterator[Any]:
        """The atoms behind one, on each way to the first that has to run."""
        graph = self._execution_graph
        todo = collections.deque(graph.successors(atom))
        seen = set()
        while todo:
            node = todo.popleft()
            if node in seen:
                continue
            seen.add(node)
            if graph.nodes[node]['kind'] in compiler.ATOMS:
                yield node
                state = self._storage.get_atom_state(node.name)
                if state != taskflow_states.SUCCESS:
                    continue
            todo.extend(graph.successors(node))


class Engine(action_engine.SerialActionEngine):
    """Runs one flow in the calling thread.

    :ivar choosers: the atoms whose results choose between branches
    :ivar atoms: the tasks and retries of the flow, in a possible order
    """

    def __init__(self, flow: taskflow_flow.Flow, detail: models.FlowDetail,
                 backend: base.Backend | None) -> None:
        super().__init__(flow, detail, backend, {'defer_reverts': True})
        self._task_executor = attempts.Executor()
        self.choosers: set[str] = set()
        self.atoms: list[Any] = []
        #: Whether nothing is tried again: retries give up.
        self.gives_up = False
        #: With which inputs everything is there that the atoms require.
        self._proven: set[frozenset[str]] = set()

    def renew(self, detail: models.FlowDetail,
              backend: base.Backend) -> None:
        """Get ready to run another flow of the same type, from its start."""
        self._flow_detail, self._backend = detail, backend
        # In its place: all parts of the engine refer to it.
        self.storage.__init__(
            detail, backend=backend, scope_fetcher=self._scopes)
        self._storage_ensured = self._validated = False

    @misc.cachedproperty
    def storage(self) -> Storage:
        return Storage(self._flow_detail, backend=self._backend,
                       scope_fetcher=self._scopes)

    def _scopes(self, atom_name: str) -> Any:
        if not self._compiled:
            return None
        return self._runtime.fetch_scopes_for(atom_name)

    def compile(self) -> None:
        """Make the graph of the flow."""
        if not self._compiled:
            super().compile()
            # Where it looks for the one that it would make.
            self._runtime._selector = Selector(self._runtime)
            self.choosers = choosers(self.compilation)
            self.atoms = atoms(self.compilation)
            for atom in self.atoms:
                if isinstance(atom, taskflow_retry.Retry):
                    _guard(self, atom)

    def validate(self) -> None:
        """See that there is everything that the atoms require.

        :raises taskflow.exceptions.MissingDependencies: if not
        """
        given = self.storage.given()
        if given in self._proven:
            self._validated = True
            return
        super().validate()
        self._proven.add(given)

    def state(self, name: str) -> str:
        """The state of an atom."""
        return self.storage.get_atom_state(name)

    def choose(self) -> None:
        """Let the choices be made of which all is known.

        The engine would make them when it comes to the branches.
        """
        for atom in self.atoms:
            links = self._runtime.fetch_edge_deciders(atom)
            if (links and self.state(atom.name) == taskflow_states.PENDING and
                    all(self._is_over(link.from_node) for link in links)):
                deciders.IgnoreDecider(atom, links).check_and_affect(
                    self._runtime)

    def _is_over(self, node: Any) -> bool:
        return isinstance(node, taskflow_atom.Atom) and (
            self.state(node.name) in (taskflow_states.SUCCESS,
                                      taskflow_states.IGNORE))


class Engines:
    """Makes engines, and keeps some for the next flow of their type.

    To make one, with all that TaskFlow works out about a graph, takes as
    long as to run several tasks.

    :param spare: how many of each type to keep
    """

    def __init__(self, spare: int = 16) -> None:
        self._spare: dict[registry.FlowType, collections.deque[Engine]] = (
            collections.defaultdict(
                lambda: collections.deque(maxlen=spare)))
        self._nobody = models.FlowDetail('none', 'none')
        self._nowhere = impl_memory.MemoryBackend({'deep_copy': False})

    def take(self, flow_type: registry.FlowType, detail: models.FlowDetail,
             backend: base.Backend) -> Engine:
        """An engine for a flow that begins; nobody else has it."""
        try:
            engine = self._spare[flow_type].pop()
        except IndexError:
            return Engine(flow_type.factory(), detail, backend)
        engine.renew(detail, backend)
        return engine

    def give_back(self, flow_type: registry.FlowType,
                  engine: Engine) -> None:
        """Keep an engine whose flow has begun with it, and succeeded.

        Nothing of what the flow was given, secrets among it, is kept.
        """
        engine.renew(self._nobody, self._nowhere)
        self._spare[flow_type].append(engine)


def atoms(compilation: compiler.Compilation) -> list[Any]:
    """The tasks and retries of a compiled flow, in a possible order."""
    graph = compilation.execution_graph
    return [node for node in graph.topological_sort()
            if graph.nodes[node]['kind'] in compiler.ATOMS]


def choosers(compilation: compiler.Compilation) -> set[str]:
    """The names of the atoms whose results choose between branches."""
    return {before.name for before, _after, data
            in compilation.execution_graph.edges(data=True)
            if taskflow_flow.LINK_DECIDER in data and hasattr(before, 'name')}


def _guard(engine: Engine, retry: taskflow_retry.Retry) -> None:
    """Let a retry give up that cannot say whether to try again.

    TaskFlow would stop where it is, with nothing undone.
    """
    decide = retry.on_failure

    @functools.wraps(decide)
    def on_failure(*args: Any, **kwargs: Any) -> Any:
        if engine.gives_up:
            return taskflow_retry.REVERT_ALL
        try:
            return decide(*args, **kwargs)
        except Exception:  # noqa: BLE001 - whatever it may raise
            LOG.exception('Retry %s broke while it looked at a failure: it '
                          'gives up', retry.name)
            return taskflow_retry.REVERT_ALL

    retry.__dict__['on_failure'] = on_failure
