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
    revert    undo it, also when it only half happened, or never did.
    recover   an earlier attempt may have happened: look at the world, then
              finish or skip. Default: execute again.
"""

from collections.abc import Callable
import time
from typing import Any, ClassVar

from taskflow import task as taskflow_task


class Task(taskflow_task.Task):
    """A TaskFlow task with the three duties of a durable one.

    A task whose ``execute`` has no effect outside of the process sets
    ``effect`` to False: its result is journaled along with the next effect
    and it costs no commit. A task whose effect shows nowhere at once (a
    message on its way) sets ``once``: then the journal says before it begins
    that it begins, and ``recover`` is called only if it did begin.
    """

    #: Whether execute changes anything outside of this process.
    effect: ClassVar[bool] = True
    #: Whether the start is journaled too, before anything happens.
    once: ClassVar[bool] = False
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
