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

"""What any release has journaled, this one can go on with.

From each row on at which a conductor may have died. See journals.py.
"""

import json

import pytest

from nova_ssm.engine import queries
from nova_ssm.tests.unit.engine import conftest as engine
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.flows import journals
from nova_ssm.tests.unit.flows import rehearsal
from nova_ssm.tests.unit.flows import test_flows

_fresh, url = engine._fresh, engine.url
FILES = sorted(journals.DIRECTORY.glob('*.json'))


@pytest.mark.parametrize('flow_type', test_flows.flow_types(),
                         ids=lambda flow_type: flow_type.name)
def test_each_version_of_a_flow_has_its_journals(flow_type):
    for way in (True, False):
        assert journals.path(flow_type, way).exists(), (
            'run  python -m nova_ssm.tests.unit.flows.journals')


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_it_is_gone_on_with_from_each_row(url, path):
    journal = json.loads(path.read_text())
    with rehearsal.references():
        for rows in range(1, len(journal['rows'])):
            uuid = 'f%07d-0000-4000-8000-000000000001' % rows
            journals.insert(url, uuid, journal, rows)
            play = rehearsal.Rehearsal(path.stem.endswith('-yes'))
            conductor = play.conductor(url, test_flows.flow_types(),
                                       (journals.KEY,))
            assert conductor.registry.can_run(
                journal['name'], journal['version']), (
                'an older release may have begun it: keep it registered')
            assert conductor.runner.unreadable(uuid) is None
            [mine] = [outcome for outcome in conductor.resume_all()
                      if outcome.uuid == uuid]
            assert (mine.state, mine.failure) == ('SUCCESS', None)
            assert_nothing_twice(play, journal, rows)
            [info] = [queries.flow(conductor.db, uuid)]
            assert info.trouble is None


def assert_nothing_twice(play, journal, rows):
    """What has ended by its row is not called again."""
    ended = {row['atom'] for row in journal['rows'][:rows]
             if row['kind'] == 'atom' and row['state'] == 'SUCCESS'}
    called = [name for what, name in play.calls]
    assert not ended & set(called)
    begun = {row['atom'] for row in journal['rows'][:rows]
             if row['state'] == 'RUNNING'} - ended
    for name in begun:
        assert ('recover', name) in play.calls


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_this_release_writes_it_as_it_is_kept(path):
    """The same steps, of the same objects: else it is another version."""
    kept = json.loads(path.read_text())
    known = {(one.name, one.version): one for one in test_flows.flow_types()}
    flow_type = known.get((kept['name'], kept['version']))
    if flow_type is None:
        pytest.skip('of another version than this release begins')
    now = journals.record(flow_type, test_flows.flow_types(),
                          path.stem.endswith('-yes'))
    assert shape(now) == shape(kept), (
        'bump the version of the flow, and run  '
        'python -m nova_ssm.tests.unit.flows.journals')


def shape(journal):
    """The rows of a journal, and of what the payloads are made.

    Which versions Nova's objects have is Nova's: see
    test_what_is_journaled_whole_is_known.
    """
    return [(row['kind'], row['atom'], row['state'],
             test_flows.form_of(row['payload'])) for row in journal['rows']]


def test_secrets_of_the_kept_journals_are_sealed():
    for path in FILES:
        assert rehearsal.MARKED not in json.dumps([
            test_flows.unpacked(row['payload'])
            for row in json.loads(path.read_text())['rows']])
    assert helpers.KEY != journals.KEY
