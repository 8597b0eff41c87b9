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
it ended: a task that only reads leaves none, nor does one at once that is
deferred. So

* each of them looks before it leaps (``recover``) when it runs next,
* if one of them fails, those behind it that may have begun are undone too,
  though this run has not come to them,
* if the flow is cancelled, what may have begun is undone as if it had failed,
* if a secret cannot be read back that one of the tasks to come takes, no
  task begins: the flow reverts.
"""

from typing import Any

from oslo_log import log as logging
from taskflow.engines.action_engine import traversal
from taskflow import exceptions as taskflow_exc
from taskflow import retry as taskflow_retry
from taskflow import states as taskflow_states
from taskflow import task as taskflow_task
from taskflow.types import failure as taskflow_failure

from nova_ssm.engine import engine as engine_module
from nova_ssm.engine import exception
from nova_ssm.engine import failures
from nova_ssm.engine import loading
from nova_ssm.engine import masking
from nova_ssm.engine import task as ssm_task

LOG = logging.getLogger(__name__)

Engine = engine_module.Engine


def arm(engine: Engine, loaded: loading.Loaded,
        cancelled: Exception | None = None) -> None:
    """Let what may have begun already look before it leaps.

    :param cancelled: what the flow fails with, if it is to be undone
    """
    broken = _choose(engine, loaded.mask)
    tasks = [atom for atom in engine.atoms
             if isinstance(atom, taskflow_task.Task)]
    lacking = _lacking(engine, tasks, loaded)
    begun = {task.name: task for task in tasks
             if _may_have_begun(engine, task, loaded)}
    hopeless = next((lacking[task.name] for task in tasks
                     if task.name in lacking and
                     engine.state(task.name) == taskflow_states.PENDING),
                    None)
    for task in tasks:
        if task.name in begun and isinstance(task, ssm_task.Task):
            task.recover_first()
        _watch(engine, task, begun, loaded,
               hopeless or lacking.get(task.name))
    failed = [task for task in tasks
              if engine.state(task.name) == taskflow_states.FAILURE]
    if failed and loaded.failed:
        _undo_too(engine, begun, loaded.failed[1])
    elif broken is not None:
        _undo_too(engine, begun, broken)
    if cancelled is not None:
        _cancel(engine, tasks, begun, loaded, cancelled)


def too_late(engine: Engine, loaded: loading.Loaded) -> str | None:
    """Why a flow cannot be cancelled any more; None if it can.

    What is not to be begun twice unseen is not given up unseen either.
    """
    tasks = [atom for atom in engine.atoms
             if isinstance(atom, taskflow_task.Task)]
    for task in tasks:
        if getattr(task, 'once', False) and (
                task.name in loaded.started or
                engine.state(task.name) == taskflow_states.SUCCESS):
            return ('task %s has begun, behind which there is no way back'
                    % task.name)
    if all(engine.state(task.name) in _PASSED for task in tasks):
        return 'all of it is done'
    return None


def _cancel(engine: Engine, tasks: list[taskflow_task.Task],
            begun: dict[str, Any], loaded: loading.Loaded,
            exc: Exception) -> None:
    """Let all of it be undone, and nothing be tried again."""
    engine.gives_up = True
    if _is_being_undone(engine, tasks, loaded):
        return
    _undo_too(engine, begun, exc)
    states = {task.name: engine.state(task.name) for task in tasks}
    if taskflow_states.FAILURE in states.values():
        return
    # None that may have begun has anything to undo. Of the next one there is
    # all that it takes; one that a retry has undone can be undone again.
    for state in (taskflow_states.PENDING, taskflow_states.REVERTED):
        for name in states:
            if states[name] == state:
                _fail(engine, {name}, exc)
                return


def _is_being_undone(engine: Engine, tasks: list[taskflow_task.Task],
                     loaded: loading.Loaded) -> bool:
    """Whether a failure is there that reverts all, when retries give up."""
    if any(engine.state(task.name) == taskflow_states.FAILURE
           for task in tasks):
        return True
    return loaded.failed is not None and not any(
        isinstance(atom, taskflow_retry.Retry) and
        engine.storage.get_atom_intention(atom.name) == taskflow_states.RETRY
        for atom in engine.atoms)


def _choose(engine: Engine, mask: masking.Mask) -> Exception | None:
    """Know which branches are not taken: their tasks have not begun.

    :returns: why that cannot be told; the engine cannot go on either
    """
    try:
        engine.choose()
    except Exception as exc:  # noqa: BLE001 - a choice may raise anything
        LOG.error('Flow %s: a choice between branches broke: %s',
                  engine.storage.flow_uuid, mask.traceback(exc))
        return exc
    return None


def _may_have_begun(engine: Engine, task: taskflow_task.Task,
                    loaded: loading.Loaded) -> bool:
    # What ended, and is to run again, is PENDING in the row that its retry
    # left when it began the new try.
    if engine.state(task.name) != taskflow_states.PENDING:
        return False
    if getattr(task, 'once', False):
        return task.name in loaded.started
    return all(
        engine.state(before.name) in _PASSED or _quiet(engine, before)
        for before in traversal.depth_first_iterate(
            engine.compilation.execution_graph, task,
            traversal.Direction.BACKWARD))


_PASSED = frozenset((taskflow_states.SUCCESS, taskflow_states.IGNORE))


def _quiet(engine: Engine, atom: Any) -> bool:
    """Whether an atom may have ended without leaving a row."""
    state = engine.state(atom.name)
    if isinstance(atom, taskflow_retry.Retry):
        return state == taskflow_states.PENDING     # the first try
    return (state in (taskflow_states.PENDING, taskflow_states.FAILURE) and
            isinstance(atom, ssm_task.Task) and
            atom.name not in engine.choosers and
            (not atom.effect or atom.deferred or
             type(atom).had_effect is not ssm_task.Task.had_effect))


def _lacking(engine: Engine, tasks: list[taskflow_task.Task],
             loaded: loading.Loaded) -> dict[str, str]:
    """Why tasks cannot be executed: a secret in what they take is lost."""
    lost = dict(loaded.missing)
    for atom in engine.atoms:
        if atom.name in loaded.incomplete:
            lost.update(dict.fromkeys(atom.provides,
                                      loaded.incomplete[atom.name]))
    return {task.name: 'the flow was interrupted, and a secret that task %s '
            'needs (in %s) cannot be read back: %s' % (task.name, name, why)
            for task in tasks for name, why in sorted(lost.items())
            if name in task.requires}


def _watch(engine: Engine, task: taskflow_task.Task, begun: dict[str, Any],
           loaded: loading.Loaded, lacking: str | None) -> None:
    """Wrap the next execution of a task; each one if it lacks a secret."""
    first = task.execute

    def execute(*args: Any, **kwargs: Any) -> Any:
        if lacking is None:
            task.__dict__.pop('execute')
        begun.pop(task.name, None)
        try:
            if lacking is not None:
                return _without_secrets(task, loaded, lacking, *args,
                                        **kwargs)
            return first(*args, **kwargs)
        except Exception as exc:
            if begun:
                engine.storage.save(task.name, failures.to_failure(exc),
                                    taskflow_states.FAILURE)
                _undo_too(engine, begun, exc)
            raise

    task.__dict__['execute'] = execute


def _without_secrets(task: Any, loaded: loading.Loaded, lacking: str,
                     *args: Any, **kwargs: Any) -> Any:
    """Begin nothing, but see whether it was done already.

    A task with ``once`` that had begun must not be given up unseen: its
    recovery may find it done. It may not do it again, though.
    """
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise exception.SecretUnavailable(lacking)

    if task.name not in loaded.started:
        return refuse()
    task.__dict__['execute'] = refuse
    return task.recover(*args, **kwargs)


def _undo_too(engine: Engine, begun: dict[str, Any],
              exc: BaseException) -> None:
    """Let the engine revert what may have begun, as if it had failed."""
    undone = set()
    for task in begun.values():
        if (engine.state(task.name) != taskflow_states.PENDING or
                isinstance(task, ssm_task.Task) and not task.undoes()):
            continue
        if _can_undo(engine, task):
            undone.add(task.name)
        else:
            LOG.warning('Flow %s: task %s may have begun before it was '
                        'interrupted, but it cannot be undone: what it was '
                        'given is not known any more',
                        engine.storage.flow_uuid, task.name)
    begun.clear()
    _fail(engine, undone, exc)


def _fail(engine: Engine, names: set[str], exc: BaseException) -> None:
    """Let tasks have failed that have not run."""
    for atom in engine.atoms:
        if atom.name in names:
            engine.storage.save(atom.name, failures.to_failure(exc),
                                taskflow_states.FAILURE)
            names.remove(atom.name)
        elif (names and isinstance(atom, taskflow_retry.Retry) and
                engine.state(atom.name) == taskflow_states.PENDING):
            # The engine finds no way back through one that has not run.
            engine.storage.save(atom.name, None)


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
