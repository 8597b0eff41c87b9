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

"""A conductor without Nova: a real process that owns flows.

Its tasks write what they do to a file that all processes share: when each
began, and when its effect was there. It may stop itself (SIGSTOP) at a point
that it is told, as if it were paused right there.

Each line that it reads from its input is the name of a flow to run.
"""

import json
import logging
import pathlib
import signal
import sys
import threading
import time
from typing import Any

from taskflow.patterns import linear_flow

from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import recovery
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import serialization
from nova_ssm.engine import task

LOG = logging.getLogger(__name__)

#: The tasks of each flow; what ends in -waits does so until it may go on.
FLOWS = {'steps': ('one', 'two', 'three', 'four'),
         'long': tuple('step-%d' % number for number in range(12)),
         'waits': ('before', 'down-waits', 'after')}


class Step(task.Task):
    """Has one effect: a line in the file."""

    def __init__(self, name: str, conductor: 'Conductor') -> None:
        super().__init__(name=name)
        self.conductor = conductor

    def execute(self, number: str) -> None:
        self.conductor.say('begin', number, self.name)
        while self.name.endswith('-waits') and self.conductor.must_wait:
            self.wait(0.05)
        time.sleep(self.conductor.pace)
        self.conductor.freeze('middle', self.name)
        self.conductor.say('effect', number, self.name)
        self.conductor.freeze('done', self.name)

    def recover(self, number: str) -> None:
        if not self.conductor.has_done(number, self.name):
            self.execute(number)


class Conductor:
    """One process.

    :param told: url, host, lease, file; optionally freeze, pace, interval,
        concurrency, and recover: False takes no flows of others
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self.pace = told.get('pace', 0.05)
        self._host = told['host']
        self._file = pathlib.Path(told['file'])
        self._recovers = told.get('recover', True)
        self._freeze = tuple(told.get('freeze') or ())
        flows = registry.Registry()
        for name in FLOWS:
            flows.add(registry.FlowType(
                name, '1.0', lambda name=name: self._flow(name)))
        self.runner = runner.Runner(
            database.Database(told['url']), serialization.Serializer(),
            flows, told['host'], lease=told['lease'])
        self.runner.after_commit = self._after_commit
        self.recovery = recovery.Recovery(
            self.runner, told['host'], interval=told.get('interval', 0.2),
            concurrency=told.get('concurrency', 32))

    def _flow(self, name: str) -> linear_flow.Flow:
        return linear_flow.Flow(name).add(
            *(Step(step, self) for step in FLOWS[name]))

    @property
    def must_wait(self) -> bool:
        return not self._file.with_suffix('.go').exists()

    def say(self, what: str, number: str, step: str) -> None:
        line = json.dumps([time.time(), self._host, what, number, step])
        # One write of a line is not mixed with another process's.
        with open(self._file, 'ab', buffering=0) as stream:
            stream.write(line.encode() + b'\n')

    def has_done(self, number: str, step: str) -> bool:
        return any(line[2:] == ['effect', number, step]
                   for line in lines(self._file))

    def freeze(self, *point: str) -> None:
        if point == self._freeze:
            self._freeze = ()
            # Not between the statement and the commit of a renewal: its row
            # would stay locked for as long as the process sleeps.
            with self.runner.worker._renewing:
                # To this thread: another one would have to wake up first,
                # and this one would go on meanwhile.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    def _after_commit(self, uuid: str, kind: str, atom: str | None,
                      state: str | None) -> None:
        self.freeze('row', atom or kind)

    def serve(self) -> None:
        """Run what is asked for until SIGTERM."""
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *args: stop.set())
        if self._recovers:
            self.recovery.start()
        LOG.info('%s is registered', self.runner.worker.id)
        threading.Thread(target=self._read, daemon=True).start()
        while not stop.wait(0.05):
            pass
        # As Nova's graceful shutdown does.
        self.recovery.suspend()
        self.runner.suspend()
        self.recovery.stop()
        self.runner.close(patience=30)

    def _read(self) -> None:
        for line in sys.stdin:
            name, number = line.split()
            threading.Thread(target=self.runner.run, args=(
                journal.FlowRequest(name=name, store={'number': number},
                                    subject=number),), daemon=True).start()


def lines(path: pathlib.Path) -> list[list[Any]]:
    """What all processes have done: time, host, what, number, step."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == '__main__':
    Conductor(json.loads(sys.argv[1])).serve()
