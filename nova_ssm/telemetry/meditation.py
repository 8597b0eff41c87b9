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

"""The section of the Guru Meditation Report: what this process runs.

Nova's services write the report to their log when they get SIGUSR2. It is
made while anything may hang, so it waits for no lock and asks no database.
"""

import dataclasses
import os
import time
from typing import Any
import weakref

from oslo_reports import guru_meditation_report
from oslo_reports.models import with_default_views

from nova_ssm.engine import events

TITLE = 'nova-ssm flows'


@dataclasses.dataclass
class _Run:
    """A flow that is being run.

    :param steps: what is done with each of its tasks that is under way, and
        since when
    """

    flow: events.Flow
    resumed: bool
    since: float
    steps: dict[str, tuple[str, float]] = dataclasses.field(
        default_factory=dict)


class Meditation(events.Listener):
    """Keeps in mind what runs, for the report.

    :param name: of the worker, in the report
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._runs: dict[str, _Run] = {}

    def flow_began(self, flow: events.Flow, resumed: bool) -> None:
        self._runs[flow.uuid] = _Run(flow, resumed, time.monotonic())

    def step_began(self, flow: events.Flow, step: events.Step) -> None:
        run = self._runs.get(flow.uuid)
        if run is not None:
            run.steps[step.task] = (step.what, time.monotonic())

    def step_ended(self, flow: events.Flow, step: events.Step) -> None:
        run = self._runs.get(flow.uuid)
        if run is not None:
            run.steps.pop(step.task, None)

    def flow_ended(self, flow: events.Flow, state: str, seconds: float,
                   failed_task: str | None, failure: str | None) -> None:
        self._runs.pop(flow.uuid, None)

    def flow_left(self, flow: events.Flow, why: str) -> None:
        self._runs.pop(flow.uuid, None)

    def data(self) -> dict[str, Any]:
        """What runs, the longest first; ages in seconds."""
        now = time.monotonic()
        # Copied in one step: who runs flows goes on meanwhile.
        runs = sorted(self._runs.values(), key=lambda run: run.since)
        return {'worker': self.name, 'pid': os.getpid(),
                'running': len(runs),
                'flows': {run.flow.uuid: _described(run, now)
                          for run in runs}}


def _described(run: _Run, now: float) -> dict[str, Any]:
    steps = {task: '%s, for %.1f s' % (what, now - since)
             for task, (what, since) in list(run.steps.items())}
    return {'flow': '%s %s' % (run.flow.name, run.flow.version),
            'subject': run.flow.subject,
            'request': run.flow.request_id,
            'parent': run.flow.parent_uuid,
            'taken over': run.resumed,
            'age': '%.1f s' % (now - run.since),
            'tasks under way': steps or 'none'}


#: Of all runtimes of this process: the report knows no way to take a section
#: out again.
_ALL: 'weakref.WeakSet[Meditation]' = weakref.WeakSet()
_REGISTERED: list[bool] = []


def register(meditation: Meditation) -> None:
    """Let the report of this process have the section from now on."""
    _ALL.add(meditation)
    if not _REGISTERED:
        _REGISTERED.append(True)
        guru_meditation_report.TextGuruMeditation.register_section(
            TITLE, section)


def section() -> with_default_views.ModelWithDefaultViews:
    """The section as oslo.reports has it."""
    found = [one.data() for one in list(_ALL)]
    return with_default_views.ModelWithDefaultViews(
        data=found[0] if len(found) == 1 else {
            '%d' % number: one for number, one in enumerate(found)})
