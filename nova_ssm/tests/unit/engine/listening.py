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

"""A listener that writes down what it is told."""

from nova_ssm.engine import events


class Scribe(events.Listener):
    """Writes down all that it is told.

    :ivar lines: each as one line of text
    :ivar flows: the flows that it was told of, by uuid
    :ivar steps: those that ended
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.flows: dict[str, events.Flow] = {}
        self.steps: list[events.Step] = []
        self.failures: list[str | None] = []

    def flow_began(self, flow, resumed):
        self.flows[flow.uuid] = flow
        self.lines.append('%s %s' % (
            flow.name, 'resumed' if resumed else 'began'))

    def step_began(self, flow, step):
        assert step.seconds is None and step.ended_at is None
        self.lines.append('%s %s' % (step.what, step.task))

    def step_ended(self, flow, step):
        assert step.ended_at >= step.began_at
        self.steps.append(step)
        self.lines.append('%s %s: %s' % (
            step.what, step.task,
            'failed' if step.failure else 'done'))

    def flow_ended(self, flow, state, seconds, failed_task, failure):
        assert seconds >= 0
        self.failures.append(failure)
        self.lines.append('%s %s' % (flow.name, state) + (
            ' by ' + failed_task if failed_task else ''))

    def flow_left(self, flow, why):
        self.lines.append('%s %s' % (flow.name, why))


class Deaf(events.Listener):
    """Fails whatever it is told."""

    def _fail(self, *args):
        raise RuntimeError('I hear nothing')

    flow_began = step_began = step_ended = flow_ended = flow_left = _fail
