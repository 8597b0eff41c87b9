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

"""What a task of a durable flow owes.

::

    execute   do it. Safe to run again after a crash at any point inside it.
    revert    undo it, also when it only half happened, or never did. One
              that fails is tried again for half a minute, then the flow
              stops there.
    recover   an earlier attempt may have happened: look at the world, then
              finish or skip. Default: execute again.
"""

from collections.abc import Callable
import functools
import time
from typing import Any, ClassVar

from oslo_log import log as logging
from taskflow import task as taskflow_task

from nova_ssm.engine import masking

LOG = logging.getLogger(__name__)


class Task(taskflow_task.Task):
    """A TaskFlow task with the three duties of a durable one.

    A task whose ``execute`` has no effect outside of the process sets
    ``effect`` to False: its result is journaled along with the next effect
    and it costs no commit. Nor does a task cost one whose effect ``recover``
    finds whatever has been done since, if it sets ``deferred``. A task whose
    effect shows nowhere at once (a message on its way) sets ``once``: then
    the journal says before it begins that it begins, and ``recover`` is
    called only if it did begin.
    """

    #: Whether execute changes anything outside of this process.
    effect: ClassVar[bool] = True
    #: Whether its end waits for the next row: then it is recovered after a
    #: crash also if other tasks have ended behind it.
    deferred: ClassVar[bool] = False
    #: Whether the start is journaled too, before anything happens.
    once: ClassVar[bool] = False
    #: Of a task that an operator adds to a flow: counts the releases of it
    #: that cannot go on with what an earlier one journaled.
    revision: ClassVar[int] = 1
    #: One line on what revert does, shown to people.
    reversion: ClassVar[str] = ''
    #: Waits for some seconds, in the middle of a task. A flow that is to go
    #: on elsewhere stops right there, as if its process were killed, and one
    #: that only waits keeps no other from being resumed.
    wait: Callable[[float], None] = staticmethod(time.sleep)

    def recover(self, *args: Any, **kwargs: Any) -> Any:
        """Finish what an earlier attempt of execute may have begun.

        Takes and gives what execute takes and gives.
        """
        return self.execute(*args, **kwargs)

    def in_doubt(self, exc: BaseException) -> bool:
        """Whether it may have been done, though it raised this.

        Then ``recover`` finds out, before anything is undone; only what that
        raises counts.
        """
        return False

    def had_effect(self, result: Any) -> bool:
        """Whether this run changed anything, told by its result."""
        return self.effect

    @classmethod
    def undoes(cls) -> bool:
        """Whether revert does anything."""
        return cls.revert is not Task.revert

    def recover_first(self) -> None:
        """Let the next execution be a recovery, only that one."""
        def execute(*args: Any, **kwargs: Any) -> Any:
            self.__dict__.pop('execute', None)
            return self.recover(*args, **kwargs)
        self.__dict__['execute'] = execute


class Hook(Task):
    """A task that its flow goes on without when it fails.

    Then that is logged, and it counts as done. So it may stand behind the
    step that cannot be taken back. It provides nothing.
    """

    #: Takes the secrets of the flow out of what is logged.
    mask: masking.Mask = masking.Mask()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ('execute', 'recover', 'revert'):
            if name in vars(cls):
                setattr(cls, name, _harmless(vars(cls)[name]))


def _harmless(method: Callable[..., Any]) -> Callable[..., None]:
    # TaskFlow reads the signature of what is wrapped.
    @functools.wraps(method)
    def harmless(self: Hook, *args: Any, **kwargs: Any) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as exc:  # noqa: BLE001 - it may raise anything
            LOG.error('The hook %s failed, its flow goes on without it: %s',
                      self.name, self.mask.traceback(exc))
    return harmless
