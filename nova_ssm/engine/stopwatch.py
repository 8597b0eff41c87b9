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

"""How long tasks take: measured where they run, on a clock that nobody sets.

What is measured goes along with the row that is written anyway, so it costs
neither a statement nor a commit.
"""

import dataclasses
import time

from taskflow import states as taskflow_states

#: What is done with a task.
EXECUTE, UNDO = 'execute', 'undo'

BEGINS = {taskflow_states.RUNNING: EXECUTE, taskflow_states.REVERTING: UNDO}
ENDS = {taskflow_states.SUCCESS: EXECUTE, taskflow_states.FAILURE: EXECUTE,
        taskflow_states.REVERTED: UNDO, taskflow_states.REVERT_FAILURE: UNDO}


@dataclasses.dataclass
class Lap:
    """One time that a task was executed, or undone, in this process.

    :param what: EXECUTE or UNDO
    :param began_at: when, in seconds since the epoch, on this clock
    :param began: the same on a clock that nobody sets
    :param seconds: how long it took; None if it has not ended
    """

    what: str
    began_at: float
    began: float
    seconds: float | None = None


class Stopwatch:
    """Measures the tasks of one flow."""

    def __init__(self) -> None:
        self._laps: dict[str, Lap] = {}

    def note(self, name: str, state: str) -> None:
        """Take in the state that TaskFlow reports of a task.

        It may report the same one again, with its progress only, or with
        another intention.
        """
        lap = self._laps.get(name)
        if state in BEGINS:
            if lap is None or lap.seconds is not None or (
                    lap.what != BEGINS[state]):
                self._laps[name] = Lap(BEGINS[state], time.time(),
                                       time.monotonic())
        elif lap is not None and lap.seconds is None and (
                lap.what == ENDS.get(state)):
            lap.seconds = time.monotonic() - lap.began

    def lap(self, name: str) -> Lap | None:
        """The last one of a task; None if it did not begin here."""
        return self._laps.get(name)

    def seconds(self, name: str, state: str) -> float | None:
        """How long that took which has ended in this state, if it is known."""
        lap = self._laps.get(name)
        if lap is None or lap.what != ENDS.get(state) or lap.seconds is None:
            return None
        return round(lap.seconds, 6)
