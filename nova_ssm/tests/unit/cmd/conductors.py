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

"""Conductors for the tests of commands that change what they do."""

import threading

from taskflow.patterns import linear_flow

from nova_ssm.engine import database
from nova_ssm.engine import recovery
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import serialization
from nova_ssm.engine import task


class Hold(task.Task):
    """Waits until it may go on."""

    go: threading.Event
    begun: threading.Event

    def execute(self):
        self.begun.set()
        while not self.go.is_set():
            self.wait(0.02)


class Mark(task.Task):
    """Is there, and can be undone, if that does not fail."""

    there: set[str]
    broken = False

    def execute(self):
        self.there.add(self.name)

    def revert(self, result, flow_failures):
        if self.broken:
            raise ValueError('placement is away')
        self.there.discard(self.name)


class Tell(task.Task):
    """What cannot be taken back."""

    once = True

    def execute(self):
        self.wait(0)


def hold():
    return linear_flow.Flow('hold').add(
        Mark(name='Mark'), Hold(name='Hold'), Tell(name='Tell'))


def make(url, host):
    """A conductor that runs, and resumes, flows named hold."""
    known = registry.Registry()
    known.add(registry.FlowType('hold', '1.0', hold))
    one = runner.Runner(database.Database(url), serialization.Serializer(),
                        known, host)
    one.recovery = recovery.Recovery(one, host, interval=0.05)
    one.recovery.start()
    return one, one.worker.id
