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

"""Resizing and cold migrating: a flow for each attempt of a server."""

from typing import Any

from nova.compute import task_states
from taskflow import flow as taskflow_flow
from taskflow.patterns import graph_flow
from taskflow.patterns import linear_flow

from nova_ssm.engine import registry
from nova_ssm.tasks import abandoned_moves
from nova_ssm.tasks import callers
from nova_ssm.tasks import cross_cell
from nova_ssm.tasks import moves
from nova_ssm.tasks import resize as tasks
from nova_ssm.tasks import steering
from nova_ssm.tasks import types


def resize(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done to move a server to a host of the scheduler's choice.

    1. work out what to ask the scheduler for
    2. create the migration record, let it hold the server's allocations
    3. have a host chosen and claimed, put down the new flavor
    4. in the cell of the server: tell that host's compute to prepare; in
       another cell: do with Nova's own steps what computes of two cells
       cannot do among themselves
    """
    flow = graph_flow.Flow('resize')
    prepare = linear_flow.Flow('prepare').add(
        tasks.ResizeEventsToErrorOnRevert(manager),
        tasks.ResizeStateOnRevert(manager),
        tasks.PrepareMove(manager),
        tasks.PreallocateMigration(manager),
    )
    schedule = tasks.ScheduleMove(manager)
    save = tasks.SaveRequestSpec(manager)
    same_cell = _same_cell(manager)
    other_cell = cross_cell.branch(manager)
    flow.add(prepare, schedule, save, same_cell, other_cell)
    flow.link(prepare, schedule)
    flow.link(schedule, save)
    for branch, decider in ((same_cell, _is_in_same_cell),
                            (other_cell, _is_in_other_cell)):
        flow.link(save, branch)
        flow.link(schedule, branch, decider=decider)
    return flow


def _same_cell(manager: types.Manager) -> taskflow_flow.Flow:
    return linear_flow.Flow('same_cell').add(
        moves.CheckMove(manager, task_states.RESIZE_PREP, 'pre-migrating'),
        moves.FinishEvents(manager),
        tasks.CastPrepResize(manager))


def _is_in_same_cell(history: dict[str, Any]) -> bool:
    """The host is in the cell of the server."""
    return history['ScheduleMove'][-1]


def _is_in_other_cell(history: dict[str, Any]) -> bool:
    """The host is in another cell."""
    return not _is_in_same_cell(history)


def reschedule_resize(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for a server whose new host could not take it.

    1. let the migration record hold the server's allocations again
    2. claim the next alternate host
    3. if the conductor is dead that the first one has called: wait until
       that one has given the server up
    4. tell the compute of the next host to prepare
    """
    return linear_flow.Flow('reschedule_resize').add(
        tasks.ResizeEventsToErrorOnRevert(manager),
        tasks.ResizeStateOnRevert(manager),
        tasks.PrepareMove(manager),
        tasks.PreallocateMigration(manager, again=True),
        tasks.ClaimNextHost(manager),
        tasks.SaveRequestSpec(manager),
        callers.OutliveCaller(manager),
        _same_cell(manager),
    )


def end_abandoned_resizes(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done once for each conductor that died during resizes.

    1. give servers back that a compute gave up, since its call to that
       conductor was not answered; also from ERROR, if it is certain that
       nobody has touched the guest
    """
    return linear_flow.Flow('end_abandoned_resizes').add(
        abandoned_moves.EndAbandonedResizes(manager),
    )


def flow_types(manager: types.Manager) -> list[registry.FlowType]:
    """The flows of this operation, for the registry."""
    return [
        registry.FlowType('resize', '1.0', lambda: resize(manager),
                          cancelled=steering.move_cancelled,
                          again=steering.resize_again),
        registry.FlowType('reschedule_resize', '1.0',
                          lambda: reschedule_resize(manager),
                          cancelled=steering.move_cancelled,
                          instead=steering.RESIZE_INSTEAD),
        registry.FlowType('end_abandoned_resizes', '1.0',
                          lambda: end_abandoned_resizes(manager),
                          instead=steering.FOR_A_WORKER),
    ]
