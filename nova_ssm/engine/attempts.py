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

"""Runs the tasks of a flow one after another, and does not give up at once.

* What undoes something, and fails, is tried again for a while: it may be done
  twice, and one connection that broke must not leave all of it behind.
* A task whose failure does not tell whether it was done looks, as behind a
  crash of its process.
"""

from concurrent import futures
import time
from typing import Any

from oslo_log import log as logging
from taskflow.engines.action_engine import executor
from taskflow.types import failure as taskflow_failure

from nova_ssm.engine import task as ssm_task

LOG = logging.getLogger(__name__)

#: Seconds before each further try: a database that is restarted is back.
PATIENCE: tuple[float, ...] = (0.5, 1, 2, 4, 8, 16)


class Executor(executor.SerialTaskExecutor):
    """Runs tasks in the thread of their engine."""

    def execute_task(self, task: Any, *args: Any,
                     **kwargs: Any) -> futures.Future:
        """Do it; see afterwards whether it was done if that is in doubt."""
        future = super().execute_task(task, *args, **kwargs)
        failure = _failure(future)
        if failure is not None and _in_doubt(task, failure):
            LOG.warning('Task %s failed with %s, it looks how far it came',
                        task.name, _kind(failure))
            task.recover_first()
            future = super().execute_task(task, *args, **kwargs)
        return future

    def revert_task(self, task: Any, *args: Any,
                    **kwargs: Any) -> futures.Future:
        """Undo it; try that again if it fails.

        :raises FlowLost: if the flow is let go of while it waits
        """
        future = super().revert_task(task, *args, **kwargs)
        for seconds in PATIENCE:
            failure = _failure(future)
            if failure is None:
                break
            LOG.warning('Task %s could not be undone: %s; trying again in %s '
                        'seconds', task.name, _kind(failure), seconds)
            getattr(task, 'wait', time.sleep)(seconds)
            future = super().revert_task(task, *args, **kwargs)
        return future


def _failure(future: futures.Future) -> taskflow_failure.Failure | None:
    """The failure of a task that has been run."""
    if future.exception() is not None:
        return None     # the flow is lost: who waits for the future is told
    _event, result = future.result()
    return result if isinstance(result, taskflow_failure.Failure) else None


def _in_doubt(task: Any, failure: taskflow_failure.Failure) -> bool:
    # TaskFlow has tasks of its own beside ours.
    return (isinstance(task, ssm_task.Task) and
            task.in_doubt(failure.exception))


def _kind(failure: taskflow_failure.Failure) -> str:
    # Its text may hold secrets.
    return str(next(iter(failure))).rpartition('.')[2]
