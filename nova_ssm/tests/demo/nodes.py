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

"""Processes of the demo, as their parent sees them."""

import json
import os
import select
import signal
import subprocess
import sys
from typing import Any

TIMEOUT = 300  # seconds for an answer, on a very busy machine


class NodeError(Exception):
    """A process of the demo does not run, or ended."""


class Node:
    """A process that runs some services; see ``demo.node``.

    :param name: of its log file in the directory
    :param arguments: for ``demo.node``, beside the directory
    """

    def __init__(self, name: str, directory: str, *arguments: str) -> None:
        self.name = name
        self.log = os.path.join(directory, name + '.log')
        environment = dict(os.environ,
                           OS_NOVA_DISABLE_EVENTLET_PATCHING='True')
        # Without this each process compiles all of Nova anew.
        environment.pop('PYTHONDONTWRITEBYTECODE', None)
        with open(self.log, 'ab') as log:
            self.process = subprocess.Popen(
                [sys.executable, '-W', 'ignore', '-m',
                 'nova_ssm.tests.demo.node', '--directory', directory,
                 *arguments],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=environment, text=True)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def wait_ready(self) -> None:
        """Wait until its services run.

        :raises NodeError: it ended instead
        """
        self._read()

    def ask(self, do: str, **values: Any) -> Any:
        """Ask for something, return the answer.

        :raises NodeError: it ended instead
        """
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({'do': do, **values}) + '\n')
        self.process.stdin.flush()
        return self._read()

    def kill(self) -> None:
        """End it with SIGKILL: it gets no chance to do anything more."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _read(self) -> Any:
        stdout = self.process.stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], TIMEOUT)
        if not ready:
            raise NodeError('the process "%s" did not answer within %d '
                            'seconds; its output is in %s'
                            % (self.name, TIMEOUT, self.log))
        line = stdout.readline()
        if not line:
            raise NodeError('the process "%s" ended; its output is in %s'
                            % (self.name, self.log))
        return json.loads(line)
