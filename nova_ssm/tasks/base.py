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

"""What all tasks on Nova share."""

from collections.abc import Callable
import functools
import re
from typing import Any

from taskflow.types import failure as taskflow_failure

from nova_ssm.engine import exception as engine_exc
from nova_ssm.engine import failures
from nova_ssm.engine import journal
from nova_ssm.engine import task
from nova_ssm.tasks import types

Failure = taskflow_failure.Failure

_FRAME = re.compile(r'^  File "([^"]+)", line (\d+), in (\S+)$', re.M)


class NovaTask(task.Task):
    """A task that calls the helpers of Nova's own manager.

    :param manager: the conductor's ComputeTaskManager
    """

    def __init__(self, manager: types.Manager, **kwargs: Any) -> None:
        # Names are in the journal: they must not follow the module.
        kwargs.setdefault('name', type(self).__name__)
        super().__init__(**kwargs)
        self.manager = manager


class NovaHook(NovaTask, task.Hook):
    """A task on Nova that its flow goes on without when it fails."""


class NovaSpawn(NovaTask, journal.Spawn):
    """A task on Nova that posts the children of its flow."""


def cause_of(result: Any, flow_failures: types.Failures) -> BaseException:
    """Why a task is being reverted: its own failure, or another task's."""
    if isinstance(result, Failure):
        return failures.exception_of(result)
    return failures.exception_of(next(iter(flow_failures.values())))


def while_handling(exc: BaseException, work: Callable[..., Any],
                   *args: Any, **kwargs: Any) -> Any:
    """Call a helper that takes the traceback from sys.exc_info()."""
    try:
        _raise_where_it_was(exc)
    except type(exc):
        return work(*args, **kwargs)


def _raise_where_it_was(exc: BaseException) -> None:
    """Raise an exception with the traceback that it had.

    One that comes from the journal has its traceback as text only, but Nova
    shows users the frames. So it is raised through frames of these names.
    """
    frames: list[tuple[str, str, str]] = []
    cause = exc.__cause__
    if isinstance(cause, engine_exc.RemoteTraceback):
        exc = exc.with_traceback(None)
        frames = _FRAME.findall(cause.text.rpartition(
            'Traceback (most recent call last):')[2])

    def step() -> None:
        raise exc

    for path, line, function in reversed(frames):
        # Nothing of the text is run: it is a file name and a name.
        code = compile('\n' * (int(line) - 1) + 'step()', path, 'exec')
        step = functools.partial(
            exec, code.replace(co_name=function), {'step': step})
    step()
