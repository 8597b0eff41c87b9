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

"""No flow leaves a secret where people, or their backups, see it.

Each flow that is installed runs into success and into the failure of each of
its tasks, with secrets in all that it is given and gives, and in what is
raised. Then all that was written anywhere is searched.
"""

import base64
import json
import logging
import re
import zlib

import pytest
import sqlalchemy as sa

from nova_ssm.engine import masking
from nova_ssm.engine import schema
from nova_ssm.tests.unit import cmd
from nova_ssm.tests.unit.engine import conftest as engine
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.flows import rehearsal
from nova_ssm.tests.unit.flows import test_flows

_fresh, url = engine._fresh, engine.url
TYPES = test_flows.TYPES


class Everything(logging.Handler):
    """All log records as they would be written, with tracebacks."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


@pytest.fixture
def logged():
    root, handler = logging.getLogger(), Everything()
    handler.setFormatter(logging.Formatter('%(name)s %(message)s'))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(level)


def texts_of(value):
    """All texts in a column: as it is, unpacked, and decoded."""
    if isinstance(value, bytes):
        try:
            value = zlib.decompress(value)
        except zlib.error:
            pass
        value = value.decode('utf-8', 'replace')
    text = str(value)
    yield text
    for found in re.findall(r'[A-Za-z0-9+/_-]{8,}={0,2}', text):
        for decode in (base64.b64decode, base64.urlsafe_b64decode):
            try:
                yield decode(found + '=' * (-len(found) % 4)).decode(
                    'latin-1')
            except ValueError:
                continue


def assert_nothing_in_tables(db):
    looked_at = 0
    with db.transaction() as connection:
        for table in schema.metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                for name, value in row._mapping.items():
                    looked_at += 1
                    for text in texts_of(value):
                        assert rehearsal.MARKED not in text, (
                            table.name, name, row._mapping, text)
    assert looked_at > 20


def known_to(flow_type):
    return [rehearsal.TOKEN, *rehearsal.secrets_in(
        rehearsal.inputs(flow_type))]


def run_all(url, name, way, keys):
    """Run a flow into success, and into the failure of each task."""
    flow_type = TYPES[name]
    play = rehearsal.Rehearsal(way)
    conductor = play.conductor(url, TYPES.values(), keys)
    tasks = [atom.name for atom in rehearsal.atoms(flow_type.factory)]
    play.known = known_to(flow_type)
    outcomes = []
    for play.failing in (None, *tasks):
        outcomes.append(conductor.runner.run(rehearsal.request(flow_type)))
    return conductor, outcomes


@pytest.mark.parametrize('keys', [(helpers.KEY,), ()], ids=['key', 'no key'])
@pytest.mark.parametrize('way', [True, False])
@pytest.mark.parametrize('name', TYPES)
def test_nothing_leaks(url, name, way, keys, logged):
    with rehearsal.references():
        conductor, outcomes = run_all(url, name, way, keys)
    assert outcomes[0].state == 'SUCCESS'
    failed = [outcome for outcome in outcomes if outcome.failed_task]
    assert failed
    for outcome in failed:
        assert rehearsal.TOKEN in str(outcome.failure), 'it was planted'
    assert_nothing_in_tables(conductor.db)
    assert not [line for line in logged if rehearsal.MARKED in line]


@pytest.mark.parametrize('keys', [(helpers.KEY,), ()], ids=['key', 'no key'])
@pytest.mark.parametrize('name', TYPES)
def test_nothing_leaks_from_a_flow_that_is_gone_on_with(
        url, name, keys, logged):
    """Killed behind each of its rows; then each task fails that is left."""
    flow_type = TYPES[name]
    rows, ended = 0, False
    with rehearsal.references():
        while not ended:
            rows += 1
            play = rehearsal.Rehearsal()
            play.known = [secret for secret in known_to(flow_type)
                          if keys or secret == rehearsal.USER_DATA]
            conductor = play.conductor(url, TYPES.values(), keys)
            conductor.world.kill_at = rows
            try:
                conductor.runner.run(rehearsal.request(flow_type))
                ended = True
            except helpers.Killed:
                helpers.expire_leases(url)
                other = play.conductor(url, TYPES.values(), keys)
                play.failing = rehearsal.atoms(flow_type.factory)[-1].name
                for outcome in other.resume_all():
                    assert outcome.state in ('SUCCESS', 'REVERTED')
    assert_nothing_in_tables(helpers.shared(url))
    assert not [line for line in logged if rehearsal.MARKED in line]


@pytest.mark.parametrize('formatter', ['json', 'table'])
def test_no_command_shows_any(url, capsys, tmp_path, formatter, logged):
    from nova_ssm.cmd import main
    conf = tmp_path / 'nova.conf'
    conf.write_text('[ssm]\nconnection = %s\nencryption_keys = %s\n'
                    % (url, helpers.KEY))
    uuids = []
    with rehearsal.references():
        for name in TYPES:
            play = rehearsal.Rehearsal()
            play.known = known_to(TYPES[name])
            conductor = play.conductor(url, TYPES.values())
            play.failing = rehearsal.atoms(TYPES[name].factory)[-1].name
            uuids.append(conductor.runner.run(
                rehearsal.request(TYPES[name])).uuid)
    capsys.readouterr()
    for argv in (['flow', 'list', '--long'], ['db', 'version'],
                 *(['flow', 'show', uuid] for uuid in uuids)):
        with cmd.one_process():
            assert main.main(['--config-file', str(conf), *argv,
                              '-f', formatter]) == 0
    for argv in (['key', 'rotate', '--all'], ['db', 'sync']):
        with cmd.one_process():
            assert main.main(['--config-file', str(conf), *argv]) == 0
    out, err = capsys.readouterr()
    assert 'Leak' in out and masking.MASK in out
    assert rehearsal.MARKED not in out + err
    if formatter == 'json':
        assert json.dumps(rehearsal.TOKEN)[1:-1] not in out


def test_what_is_searched_for_would_be_found(url):
    """The search itself: everything is found that is not hidden."""
    with helpers.shared(url).transaction() as connection:
        connection.execute(schema.workers.insert().values(
            id=base64.b64encode(rehearsal.FILE.encode()).decode(), host='h',
            pid=1, process_started=0, started_at=0, expires_at=0))
        for seq, payload in enumerate((b'', zlib.compress(b'x' * 20))):
            connection.execute(schema.journal.insert().values(
                flow_uuid='u', seq=seq, kind='atom', writer='w',
                created_at=0, payload=payload))
    with pytest.raises(AssertionError, match='ssm_workers'):
        assert_nothing_in_tables(helpers.shared(url))
    assert any(rehearsal.MARKED in text for text in texts_of(
        zlib.compress(rehearsal.TOKEN.encode())))
