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

"""Computes that wait for the answer of a conductor that is dead.

A compute that cannot take a resize sends the server on: it calls a conductor
and waits until that one has told the next host. If the conductor dies, the
compute hears no heartbeat of it any more, and gives up after
rpc_response_timeout. Whatever has become of the server meanwhile, it then
puts it into ERROR, and the migration record into ``error``. Who has gone on
with the move before would have it broken in the middle. So who goes on waits
for that, and takes the server back.
"""

import time
from typing import Any

from nova.compute import task_states
from nova.compute import vm_states
from nova import exception
from oslo_log import log as logging

from nova_ssm.tasks import abandoned
from nova_ssm.tasks import base
from nova_ssm.tasks import moves
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

#: Seconds between two looks.
POLL = 0.5


def caller(manager: types.Manager, instance: types.Instance) -> types.Caller:
    """What is to be known of a compute that calls this conductor."""
    return {'conductor': manager.ssm.runner.worker.id,
            'vm_state': instance.vm_state}


class OutliveCaller(base.NovaTask):
    """Let the compute give up whose call died with its conductor.

    Does nothing in the conductor that was called. It stands before the last
    look at the move, behind which nothing can be taken back.
    """

    def execute(self, context: types.Context, instance: types.Instance,
                caller: types.Caller) -> bool:
        return outlive(self, context, instance, caller)

    def had_effect(self, result: Any) -> bool:
        return bool(result)


def outlive(task: base.NovaTask, context: types.Context,
            instance: types.Instance, caller: types.Caller,
            going_on: bool = True) -> bool:
    """Wait until the compute that waits for a dead conductor has given up.

    If it does not within the time that it has, it is dead itself, or it was
    answered after all.

    :param task: that waits
    :param instance: brought up to date
    :param caller: None if nobody waits
    :param going_on: whether the migration record is needed as it was
    :returns: whether it has put the server into ERROR, which was taken back
    """
    here = task.manager.ssm.runner.worker.id
    if caller is None or caller['conductor'] == here:
        return False
    until = time.monotonic() + abandoned.window()
    # One that was in ERROR before had been given up by another compute.
    gave_up = (_await_end(task, context, instance, until) and
               caller['vm_state'] != vm_states.ERROR)
    if gave_up:
        _take_back(context, instance, caller, going_on)
    # In memory: the next task need not wait, but who goes on after a crash.
    caller['conductor'] = here
    return gave_up


def _await_end(task: base.NovaTask, context: types.Context,
               instance: types.Instance, until: float) -> bool:
    """Wait until a compute has put a server into ERROR.

    :param until: when it must have
    :returns: whether it has
    """
    while True:
        now = moves.current(context, instance.uuid)
        if now is None or now.task_state not in (None,
                                                 task_states.RESIZE_PREP):
            return False
        gave_up = now.vm_state == vm_states.ERROR
        # It takes the task state back at the very end.
        if now.task_state is None or time.monotonic() > until:
            return gave_up
        task.wait(POLL)


def _take_back(context: types.Context, instance: types.Instance,
               caller: dict[str, str], going_on: bool) -> None:
    """Let the server be on the move again."""
    LOG.info('The compute that has sent the server on gave it up, since the '
             'conductor that it called is dead: taking it back',
             instance=instance)
    if going_on:
        migration = moves.newest(context, instance.uuid)
        if (migration is not None and migration.status == 'error' and
                not migration.is_live_migration):
            migration.status = 'pre-migrating'
            migration.save()
    # Last: who dies before it looks at a server in ERROR again.
    try:
        instance.refresh()
        instance.vm_state = caller['vm_state']
        instance.task_state = task_states.RESIZE_PREP
        instance.save(expected_vm_state=[vm_states.ERROR],
                      expected_task_state=[None, task_states.RESIZE_PREP])
    except (exception.InstanceNotFound,
            exception.InstanceUpdateConflict) as exc:
        LOG.info('Somebody else was faster: %s', exc, instance=instance)
