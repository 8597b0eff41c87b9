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

"""The section of the Guru Meditation Report."""

import json

from oslo_reports import guru_meditation_report
import pytest

from nova_ssm.telemetry import meditation
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers


@pytest.fixture
def made(monkeypatch):
    """One that is the only one of this process."""
    monkeypatch.setattr(meditation, '_ALL', meditation.weakref.WeakSet())
    return meditation.Meditation('conductor')


def during(process, made, world, look):
    """Run a flow, and look at the report in the middle of a task."""
    class Looks(helpers.Do):
        def execute(self):
            seen.append(look())
            return super().execute()

    seen = []
    one = process({'flow': lambda: helpers.linear(
        helpers.Do('a', world), Looks('b', world))})
    one.runner.listeners.add(made)
    outcome = one.run()
    return outcome, seen[0]


def test_what_runs_is_in_it_and_what_it_is_at(process, made, world):
    outcome, seen = during(process, made, world, made.data)
    assert (seen['worker'], seen['running']) == ('conductor', 1)
    [(uuid, flow)] = seen['flows'].items()
    assert uuid == outcome.uuid
    assert flow['flow'] == 'flow 1.0'
    assert list(flow['tasks under way']) == ['b']
    assert flow['tasks under way']['b'].startswith('execute, for ')


@pytest.mark.parametrize('flows', (
    examples.simple, examples.failing(examples.simple)))
def test_what_is_over_is_not_in_it(process, made, world, flows):
    one = process(flows(world))
    one.runner.listeners.add(made)
    one.run()
    assert (made.data()['running'], made.data()['flows']) == (0, {})


def test_what_was_left_is_not_in_it(process, made, world):
    one = process(examples.simple(world))
    one.runner.listeners.add(made)
    world.kill_at = 4
    with pytest.raises(helpers.Killed):
        one.run()
    assert made.data()['flows'] == {}


def test_nova_writes_it_with_its_report(process, made, world):
    meditation.register(made)
    report = guru_meditation_report.TextGuruMeditation

    def look():
        sections = dict(report.persistent_sections)
        return str(sections[meditation.TITLE]().to_text())

    outcome, seen = during(process, made, world, look)
    assert outcome.uuid in seen
    assert 'execute, for' in seen


def test_it_is_there_once_however_many_are_made(made):
    for _time in range(2):
        meditation.register(made)
        meditation.register(meditation.Meditation('another'))
    titles = [title for title, _section in (
        guru_meditation_report.TextGuruMeditation.persistent_sections)]
    assert titles.count(meditation.TITLE) == 1


def test_it_can_be_had_as_data(process, made, world):
    meditation.register(made)
    _outcome, seen = during(
        process, made, world, lambda: meditation.section().to_json())
    assert json.loads(seen)['running'] == 1
