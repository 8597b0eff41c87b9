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
"""Finds out from outside which conductor works on a request.

The same means serve stock Nova and nova_ssm: the conductors' logs, the
processor time that they use and, for nova_ssm, its tables.
"""

import pathlib
import re

import psutil

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import journal
from nova_ssm.tests.cloud import settings

#: The first line that stock Nova logs for a request, when the scheduler has
#: answered. Nothing is logged before that.
_TAKEN = 'to select destinations'
#: All that a compute logs if its first or second call was not answered.
_LET_GO = re.compile('reverted task state from (None|scheduling) on failure')
_INSTANCE = re.compile(r'\[instance: ([0-9a-f-]{36})\]')


class Logs:
    """What is new in some logs since this object was made."""

    def __init__(self, it: cloud.Cloud, names: tuple[str, ...]) -> None:
        self._files = {name: it.settings.log / f'{name}.log'
                       for name in names}
        self._offsets = {name: self._size(path)
                         for name, path in self._files.items()}

    @staticmethod
    def _size(path: pathlib.Path) -> int:
        return path.stat().st_size if path.exists() else 0

    def lines(self, name: str) -> list[str]:
        """Return the new lines of one service."""
        path = self._files[name]
        if not path.exists():
            return []
        with open(path, 'rb') as stream:
            stream.seek(self._offsets[name])
            return stream.read().decode(errors='replace').splitlines()

    def taken(self, request_id: str) -> set[str]:
        """Return the services that had a request scheduled."""
        return {name for name in self._files
                if any(request_id in line and _TAKEN in line
                       for line in self.lines(name))}

    def timed_out(self) -> set[str]:
        """Return the instances for which a call was never answered.

        If that was one of the first calls of a build, a compute does not log
        the timeout, only that it took its hands off the server.
        """
        found: set[str] = set()
        for name in self._files:
            for line in self.lines(name):
                if 'MessagingTimeout' in line or _LET_GO.search(line):
                    found.update(_INSTANCE.findall(line))
        return found


class ProcessorTime:
    """The processor time of the conductors since this object was made."""

    def __init__(self, it: cloud.Cloud) -> None:
        self._cloud = it
        self._before = {name: self._now(name)
                        for name in settings.CONDUCTORS}

    def _now(self, name: str) -> float:
        total = 0.0
        for pid in self._cloud.members(name):
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def busiest(self) -> str:
        """Return the conductor that has worked most."""
        return max(settings.CONDUCTORS,
                   key=lambda name: self._now(name) - self._before[name])


def worker(it: cloud.Cloud, request_id: str, logs: Logs,
           used: ProcessorTime) -> tuple[str, str]:
    """Return the conductor that works on a request, and how that is known.

    :returns: its name, and ``journal``, ``log`` or ``processor time``
    """
    if it.mode == 'ssm':
        owner = journal.owner(it, request_id)
        if owner in settings.CONDUCTORS:
            return owner, 'journal'
    taken = sorted(logs.taken(request_id))
    if taken:
        return taken[0], 'log'
    return used.busiest(), 'processor time'
