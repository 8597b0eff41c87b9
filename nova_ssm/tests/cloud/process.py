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
"""Services as process groups: start, stop, kill, freeze.

Every service is the leader of a session of its own, so that a signal meets
its workers too: a killed worker alone would be started again by its master.
"""

import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import time

import psutil

from nova_ssm.tests.cloud import settings


@dataclasses.dataclass(frozen=True)
class Service:
    """How one service is started."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str]
    #: The TCP port it answers on, if any.
    port: int | None = None
    #: The signal that asks it to stop.
    stop_signal: signal.Signals = signal.SIGTERM
    #: How long it may take to stop, in seconds.
    stop_timeout: float = 20.0


@dataclasses.dataclass(frozen=True)
class Status:
    """What is seen of one service."""

    name: str
    pid: int | None
    #: ``up``, ``paused``, ``down`` (not started or stopped) or ``dead``.
    state: str
    port: int | None
    #: Proportional set size of all its processes, in MiB.
    memory: int


def _started(pid: int) -> int | None:
    """Return the start time of a process in clock ticks, None if gone."""
    try:
        text = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(')')[2].split()
    return None if fields[0] == 'Z' else int(fields[19])


def listening(port: int) -> bool:
    """Tell whether something accepts connections on a loopback port."""
    with socket.socket() as sock:
        sock.settimeout(2)
        return sock.connect_ex((settings.HOST, port)) == 0


class Supervisor:
    """Keeps a pid file for each service under one directory."""

    def __init__(self, run: pathlib.Path, log: pathlib.Path) -> None:
        self._run = run
        self._log = log

    def _file(self, name: str) -> pathlib.Path:
        return self._run / f'{name}.pid'

    def pid(self, name: str) -> int | None:
        """Return the pid of the leader, None if it was never started.

        A pid that now belongs to another program counts as None.
        """
        try:
            pid, started = map(int, self._file(name).read_text().split())
        except FileNotFoundError:
            return None
        # While a group has members, the kernel gives its id to nobody else:
        # only a living leader needs a second look.
        if _started(pid) not in (None, started):
            return None
        return pid

    def members(self, name: str) -> list[int]:
        """Return the pids of all living processes of a service."""
        pid = self.pid(name)
        if pid is None:
            return []
        found = []
        for other in psutil.pids():
            try:
                if os.getsid(other) == pid and _started(other) is not None:
                    found.append(other)
            except (ProcessLookupError, PermissionError):
                continue
        return found

    def start(self, service: Service) -> bool:
        """Start a service unless it runs. Returns whether it was started.

        :raises CloudError: if another program holds its port
        """
        if self.members(service.name):
            return False
        if service.port and listening(service.port):
            raise settings.CloudError(
                f'{service.name}: port {service.port} is taken by another '
                'program; stop that, or set NOVA_SSM_CLOUD_PORT to the first '
                'of ten free ports')
        with open(self._log / f'{service.name}.out', 'ab') as out:
            process = subprocess.Popen(
                service.argv, env=service.env, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True, cwd=self._run)
        self._file(service.name).write_text(
            f'{process.pid} {_started(process.pid) or 0}\n')
        return True

    def signal(self, name: str, number: int) -> bool:
        """Send a signal to the whole group. Returns whether one was there."""
        if not self.members(name):
            return False
        pid = self.pid(name)
        assert pid is not None
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait_gone(self, name: str, timeout: float) -> bool:
        """Wait until no process of a service is left.

        :param timeout: in seconds
        """
        limit = time.monotonic() + timeout
        while self.members(name):
            if time.monotonic() > limit:
                return False
            time.sleep(0.1)
        self._file(name).unlink(missing_ok=True)
        return True

    def kill(self, name: str) -> bool:
        """SIGKILL the whole group. Returns whether one was there."""
        found = self.signal(name, signal.SIGKILL)
        self.wait_gone(name, 10)
        return found

    def stop(self, service: Service) -> None:
        """Ask a service to stop; kill what is left after its time."""
        # A stopped process does not see SIGTERM before it goes on.
        self.signal(service.name, signal.SIGCONT)
        self.signal(service.name, service.stop_signal)
        if not self.wait_gone(service.name, service.stop_timeout):
            self.kill(service.name)

    def status(self, name: str, port: int | None) -> Status:
        """Look at one service."""
        members = self.members(name)
        if not members:
            state = 'dead' if self._file(name).exists() else 'down'
            return Status(name, None, state, port, 0)
        states, memory = set(), 0
        for pid in members:
            try:
                process = psutil.Process(pid)
                states.add(process.status())
                memory += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        state = 'paused' if states == {psutil.STATUS_STOPPED} else 'up'
        return Status(name, self.pid(name), state, port, memory >> 20)
