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

"""Prepares a resumed flow for what may have happened already.

The journal tells which tasks have ended with an effect. Behind those any
task may have begun, up to and with the first that would have left a row when
it ended: a task that only reads leaves none. So

* each task looks before it leaps (``recover``) when it runs next,
* if one of them fails, those behind it that may have begun are undone too,
  though this run has not come to them,
* if a secret cannot be read back, no task begins: the flow reverts.
"""

from typing import Any, TypeAlias

from oslo_log import log as logging
from taskflow.engines.action_engine import compiler
from taskflow.engines.action_engine import engine as action_engine
from taskflow.engines.action_engine import traversal
from taskflow import exceptions as taskflow_exc
from taskflow import states as taskflow_states
from taskflow import task as taskflow_task
from taskflow.types import failure as taskflow_failure

from nova_ssm.engine import exception
from nova_ssm.engine import failures
from nova_ssm.engine import loading
from nova_ssm.engine import task as ssm_task

LOG = logging.getLogger(__name__)

Engine: TypeAlias = action_engine.SerialActionEngine


def atoms(engine: Engine) -> list[Any]:
    """The tasks and retries of a compiled flow, in a possible order."""
    graph = engine.compilation.execution_graph
    return [node for node in graph.topological_sort()
            if graph.nodes[node]['kind'] in compiler.ATOMS]


def arm(engine: Engine, loaded: loading.Loaded) -> None:
    """Let what may have begun already look before it leaps."""
    tasks = [atom for atom in atoms(engine)
             if isinstance(atom, taskflow_task.Task)]
    begun = {task.name: task for task in tasks
             if _may_have_begun(engine, task, loaded)}
    for task in tasks:
        # Also those that ended: a retry may have been about to run them
        # again, and done it.
        if isinstance(task, ssm_task.Task) and (
                not task.once or task.name in loaded.started):
            task.recover_first()
        _watch(engine, task, begun, loaded)
    failed = [task for task in tasks if engine.storage.get_atom_state(
        task.name) == taskflow_states.FAILURE]
    if failed and loaded.failed:
        _undo_too(engine, begun, loaded.failed[1])


def _may_have_begun(engine: Engine, task: taskflow_task.Task,
                    loaded: loading.Loaded) -> bool:
    if _state(engine, task) == taskflow_states.SUCCESS:
        return False
    if getattr(task, 'once', False):
        return task.name in loaded.started
    return all(
        _state(engine, before) in (taskflow_states.SUCCESS,
                                   taskflow_states.IGNORE) or _quiet(before)
        for before in traversal.depth_first_iterate(
            engine.compilation.execution_graph, task,
            traversal.Direction.BACKWARD))


def _quiet(atom: Any) -> bool:
    """Whether an atom may have ended without leaving a row."""
    return isinstance(atom, ssm_task.Task) and (
        not atom.effect or
        type(atom).had_effect is not ssm_task.Task.had_effect)


def _state(engine: Engine, atom: Any) -> str:
    return engine.storage.get_atom_state(atom.name)


def _watch(engine: Engine, task: taskflow_task.Task, begun: dict[str, Any],
           loaded: loading.Loaded) -> None:
    """Wrap the next execution of a task."""
    first = task.execute

    def execute(*args: Any, **kwargs: Any) -> Any:
        if not loaded.missing:
            task.__dict__.pop('execute')
        begun.pop(task.name, None)
        try:
            if loaded.missing:
                return _without_secrets(task, loaded, *args, **kwargs)
            return first(*args, **kwargs)
        except Exception as exc:
            if begun:
                engine.storage.save(task.name, failures.to_failure(exc),
                                    taskflow_states.FAILURE)
                _undo_too(engine, begun, exc)
            raise

    task.__dict__['execute'] = execute


def _without_secrets(task: Any, loaded: loading.Loaded, *args: Any,
                     **kwargs: Any) -> Any:
    """Begin nothing, but see whether it was done already.

    A task with ``once`` that had begun must not be given up unseen: its
    recovery may find it done. It may not do it again, though.
    """
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise exception.SecretUnavailable(
            'the flow was interrupted, and a secret that it needs to go on '
            'cannot be read back: %s' % loaded.missing[0])

    if task.name not in loaded.started:
        return refuse()
    task.__dict__['execute'] = refuse
    return task.recover(*args, **kwargs)


def _undo_too(engine: Engine, begun: dict[str, Any],
              exc: BaseException) -> None:
    """Let the engine revert what may have begun, as if it had failed."""
    for task in begun.values():
        if (_state(engine, task) != taskflow_states.PENDING or
                isinstance(task, ssm_task.Task) and not task.undoes()):
            continue
        if _can_undo(engine, task):
            engine.storage.save(task.name, failures.to_failure(exc),
                                taskflow_states.FAILURE)
        else:
            LOG.warning('Flow %s: task %s may have begun before it was '
                        'interrupted, but it cannot be undone: what it was '
                        'given is not known any more',
                        engine.storage.flow_uuid, task.name)
    begun.clear()


def _can_undo(engine: Engine, task: taskflow_task.Task) -> bool:
    """Whether there is everything that its revert takes."""
    try:
        given = engine.storage.fetch_mapped_args(
            task.revert_rebind, atom_name=task.name,
            optional_args=task.revert_optional)
    except taskflow_exc.NotFound:
        return False
    # What a failed task should have provided is its failure to TaskFlow.
    return not any(isinstance(value, taskflow_failure.Failure)
                   for value in given.values())
