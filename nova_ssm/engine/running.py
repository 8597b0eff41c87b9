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

"""Runs the graph of a flow to its end, and says how it ended."""

from typing import Any

from oslo_log import log as logging
from taskflow import states as taskflow_states

from nova_ssm.engine import engine as engine_module
from nova_ssm.engine import failures
from nova_ssm.engine import journal
from nova_ssm.engine import states

LOG = logging.getLogger(__name__)


def run(engine: engine_module.Engine, log: journal.FlowLog) -> str:
    """Run a graph to its end.

    :returns: the state of the flow
    """
    try:
        engine.run()
    except Exception as exc:  # noqa: BLE001 - a task may raise anything
        # The failure of a task comes out here too; the log has it.
        state = engine.storage.get_flow_state()
        if state == taskflow_states.FAILURE and _blame(engine, log, exc):
            return run(engine, log)
    state = engine.storage.get_flow_state()
    if state not in _STATES:
        raise RuntimeError('flow %s stopped in state %s' % (log.uuid, state))
    if state == taskflow_states.REVERTED and not _is_undone(engine):
        # TaskFlow says so of a flow too that was killed behind a revert that
        # failed.
        return states.FAILURE
    return _STATES[state]


def _is_undone(engine: engine_module.Engine) -> bool:
    return all(engine.state(atom.name) in _UNDONE for atom in engine.atoms)


def _blame(engine: engine_module.Engine, log: journal.FlowLog,
           exc: Exception) -> bool:
    """Let a task fail with what kept the engine from going on.

    TaskFlow would stop where it is if the result of a task cannot be
    journaled, its arguments are not there, or the choice between branches
    that it is asked for breaks: nothing would be undone.

    :returns: whether there is a task to be blamed, and to be undone
    """
    by_state: dict[str, list[Any]] = {}
    for atom in engine.atoms:
        by_state.setdefault(engine.state(atom.name), []).append(atom)
    guilty = by_state.get(taskflow_states.RUNNING, [])
    if not guilty and _UNTROUBLED.issuperset(by_state):
        guilty = by_state.get(taskflow_states.SUCCESS, [])[-1:]
    if not guilty:
        LOG.error('Flow %s broke: %s', log.uuid, log.mask.traceback(exc))
        if log.failed is None:
            log.failed = ('engine', exc)
        return False
    LOG.error('Flow %s: task %s failed: %s', log.uuid, guilty[0].name,
              log.mask(str(exc)))
    engine.storage.save(guilty[0].name, failures.to_failure(exc),
                        taskflow_states.FAILURE)
    return True


#: States of the tasks of a flow that has left nothing.
_UNDONE = frozenset((taskflow_states.PENDING, taskflow_states.REVERTED,
                     taskflow_states.IGNORE))
#: States of the tasks of a flow in which none has failed.
_UNTROUBLED = frozenset((taskflow_states.PENDING, taskflow_states.SUCCESS,
                         taskflow_states.IGNORE))

#: TaskFlow's names of a flow's end, and ours.
_STATES = {taskflow_states.SUCCESS: states.SUCCESS,
           taskflow_states.REVERTED: states.REVERTED,
           taskflow_states.FAILURE: states.FAILURE}
