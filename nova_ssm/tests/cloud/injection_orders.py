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
"""Points of a flow at which a conductor may be told to die, and the files.

Both sides use them: the test, which gives orders, and the conductors, which
carry them out and write down every point that they come by. All is in one
directory:

* ``kill.json``: the point at which one conductor is to die. Who comes by
  takes it away by renaming it, so that it is carried out once.
* ``fail.json``: a task that is to fail, in every conductor, until the file
  is removed.
* ``trace.jsonl``: a line for each point that was passed.

Needs nothing but the standard library: it is loaded before Nova.
"""

from collections.abc import Iterator
import dataclasses
import json
import os
import pathlib
from typing import Any

#: Names the directory to the conductors.
VARIABLE = 'NOVA_SSM_ORDERS'

# Where in a flow, in the order of time.
START = 'start'        # the flow is journaled
BEGUN = 'begun'        # the row that tells that a task begins is committed
MIDDLE = 'middle'      # in a task: its first change has been answered
DONE = 'done'          # a task has returned, nothing of that is journaled
BOUNDARY = 'boundary'  # the row of a task is committed
END = 'end'            # the last row of the flow is committed

EXECUTE, REVERT = 'execute', 'revert'


@dataclasses.dataclass(frozen=True)
class Point:
    """One moment in a flow.

    :param task: empty for the start and the end of the flow
    :param phase: ``execute`` or ``revert``, empty as well
    :param at: one of the names above
    :param turn: which run of the task, from 1: a retry runs it again
    :param change: in the middle: after which of its changes, from 1; 0 for
        right before its return, if it changes nothing
    """

    flow: str
    task: str
    phase: str
    at: str
    turn: int = 1
    change: int = 0

    def __str__(self) -> str:
        parts = [self.flow]
        if self.task:
            parts.append(self.task)
        if self.phase == REVERT:
            parts.append('revert')
        last = self.at
        if self.change > 1:
            last += f' {self.change}'
        if self.turn > 1:
            last += f', turn {self.turn}'
        return '/'.join([*parts, last])


@dataclasses.dataclass(frozen=True)
class Passed:
    """One line of the trace.

    :param subject: of the flow: the uuid of a server
    :param state: what the journal's row says, None if there is no row
    :param what: the change that was answered
    :param resumed: whether this conductor took the flow from another one
    :param killed: the token of the order that was carried out here
    """

    point: Point
    time: float
    host: str
    pid: int
    flow_uuid: str
    subject: str | None
    state: str | None = None
    what: str = ''
    resumed: bool = False
    killed: str | None = None


class Orders:
    """The files of one directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self._kill = directory / 'kill.json'
        self._fail = directory / 'fail.json'
        self._trace = directory / 'trace.jsonl'

    # -- the side of the test

    def kill_at(self, point: Point, token: str,
                subject: str | None = None) -> None:
        """Order the next conductor that comes by to die.

        :param subject: of the flow; None for any
        """
        _replace(self._kill, {'point': dataclasses.asdict(point),
                              'token': token, 'subject': subject})

    def fail_in(self, flow: str, task: str) -> None:
        """Let a task fail, always."""
        _replace(self._fail, {'flow': flow, 'task': task})

    def clear(self) -> None:
        """Take all orders back."""
        self._fail.unlink(missing_ok=True)
        self._kill.unlink(missing_ok=True)

    @property
    def pending(self) -> bool:
        """Whether there is a conductor to be killed still."""
        return self._kill.exists()

    def end_of_trace(self) -> int:
        """Where the next line of the trace will begin."""
        return self._trace.stat().st_size if self._trace.exists() else 0

    def trace(self, since: int = 0) -> Iterator[Passed]:
        """Read the trace from there."""
        if not self._trace.exists():
            return
        with open(self._trace, 'rb') as stream:
            stream.seek(since)
            for line in stream.read().splitlines(keepends=True):
                if line.endswith(b'\n'):
                    fields = json.loads(line)
                    fields['point'] = Point(**fields['point'])
                    yield Passed(**fields)

    # -- the side of the conductors

    def take(self, point: Point, subject: str | None) -> str | None:
        """Take the order to die at this point.

        :returns: its token, None if there is no such order
        """
        order = _read(self._kill)
        if (order is None or Point(**order['point']) != point or
                order['subject'] not in (None, subject)):
            return None
        try:
            os.rename(self._kill,
                      self._kill.with_name(f'killed-{order["token"]}.json'))
        except FileNotFoundError:
            return None     # another one was faster
        return order['token']

    def fails(self, flow: str, task: str) -> bool:
        """Whether this task is to fail."""
        return _read(self._fail) == {'flow': flow, 'task': task}

    def write(self, passed: Passed) -> None:
        """Append a line to the trace."""
        line = json.dumps(dataclasses.asdict(passed)) + '\n'
        # One write of one line to a file opened for appending is not torn.
        with open(self._trace, 'a') as stream:
            stream.write(line)


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def _replace(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Write a file that is never seen half written."""
    new = path.with_suffix('.new')
    new.write_text(json.dumps(content))
    new.rename(path)
