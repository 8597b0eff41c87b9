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

"""A private server: own files, own port, gone when the test is.

Debian's packages bring the programs; their system services stay off. What is
started here listens on the loopback address only.
"""

from collections.abc import Sequence
import contextlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import psutil

HOST = '127.0.0.1'
#: Some of the programs refuse to be root.
_NOBODY = ('setpriv', '--reuid=nobody', '--regid=nogroup', '--clear-groups')
#: Below those that the kernel gives to clients.
_PORTS = range(15000, 32000)


class ServerError(Exception):
    """A server cannot be started; says what to do, or shows its log."""


class Server:
    """One process of a server, and its files.

    To be started in a thread that lives as long as it is needed: the kernel
    kills it when that thread ends.

    :cvar package: the Debian package that brings the program
    :cvar program: where the program is looked for
    :cvar patience: how long it may take to start, in seconds
    """

    package = ''
    program = ''
    patience = 60.0
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        if not (found := shutil.which(self.program)):
            raise ServerError('%s is not there: install the Debian package '
                              '%s' % (self.program, self.package))
        self.program = found
        self.home = pathlib.Path(tempfile.mkdtemp(prefix='nova-ssm-'))
        self.port = free_port()
        self._process: subprocess.Popen | None = None
        self._prepared = False

    # -- what each kind says of itself --------------------------------------

    def prepare(self) -> None:
        """Make the files that it needs, once."""

    def command(self) -> Sequence[str]:
        """The program and its arguments."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it answers. Also called before it does."""
        return listens(self.port)

    def environment(self) -> dict[str, str]:
        """What it sees of the world: nothing of the caller's."""
        return {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'LANG': 'C.UTF-8',
                'HOME': str(self.home), 'TZ': 'UTC'}

    # -- its life -----------------------------------------------------------

    def start(self) -> None:
        """Start it, and wait until it answers.

        :raises ServerError: if it does not; with the end of its log
        """
        if not self._prepared:
            own(self.home)
            self.prepare()
            self._prepared = True
        with open(self.log, 'ab') as log:
            self._process = subprocess.Popen(
                self._as_nobody(self.command(), '--pdeathsig=KILL'),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.home, env=self.environment(),
                start_new_session=True)
        limit = time.monotonic() + self.patience
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > limit:
                self.kill()
                raise ServerError('%s does not start; the end of its log:\n%s'
                                  % (self.program, self._tail()))
            time.sleep(0.05)

    @property
    def log(self) -> pathlib.Path:
        return self.home / 'log'

    def _tail(self) -> str:
        return '\n'.join(
            self.log.read_text(errors='replace').splitlines()[-20:])

    def stop(self) -> None:
        """Let it end in its own time; kill what is left of it then."""
        if self._process is None:
            return
        self.thaw()
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self) -> None:
        """End it as a power failure would: nothing of it is left then.

        :raises ServerError: if the kernel does not let go of one of them
        """
        if self._process is None:
            return
        self.freeze()       # no child is born while they are counted
        family = self._family()
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None
        limit = time.monotonic() + self.patience
        while any(map(_lives, family)):
            if time.monotonic() > limit:
                raise ServerError('%s does not end' % self.program)
            time.sleep(0.01)

    @property
    def running(self) -> bool:
        return self._process is not None

    def freeze(self) -> None:
        """Let it answer nobody until it is thawed."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _family(self) -> list[psutil.Process]:
        """It and its children: PostgreSQL's lead sessions of their own."""
        assert self._process is not None
        try:
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []       # it has ended by itself

    def _signal(self, number: int) -> None:
        for one in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def remove(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    # -- helpers ------------------------------------------------------------

    def run(self, *command: str) -> None:
        """Run a program of the server's, as the user that it runs as.

        :raises ServerError: if it fails
        """
        done = subprocess.run(
            self._as_nobody(command), cwd=self.home, text=True, check=False,
            env=self.environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise ServerError('%s failed:\n%s' % (
                command[0], done.stdout[-2000:]))

    @staticmethod
    def _as_nobody(command: Sequence[str], *options: str) -> list[str]:
        if os.geteuid():
            return [*('setpriv', *options), *command]
        return [*_NOBODY, *options, *command]


def _lives(process: psutil.Process) -> bool:
    """Whether it holds anything still: nobody may ask how it has ended."""
    try:
        return (process.is_running()
                and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def own(path: pathlib.Path) -> None:
    """Give a file or directory to the user that servers run as."""
    if not os.geteuid():
        shutil.chown(path, 'nobody', 'nogroup')


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    for port in random.sample(_PORTS, 100):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ServerError('there is no free port')


def listens(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((HOST, port)) == 0
