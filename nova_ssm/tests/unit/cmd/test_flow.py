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

"""``nova-ssm flow``: what runs, who runs it, how far it is, why it failed."""

import json
import re
from xml.dom import minidom

from oslo_versionedobjects import base as ovo_base
import pytest
from taskflow.patterns import linear_flow

from nova_ssm import catalog
from nova_ssm.cmd import flow as flow_cmd
from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import serialization
from nova_ssm.engine import stopwatch
from nova_ssm.engine import task
from nova_ssm.engine import troubles
from nova_ssm.tests.unit import cmd


class Claim(task.Task):
    """Succeeds, and is undone."""

    reversion = 'free it'

    def execute(self):
        pass

    def revert(self, result, flow_failures):
        pass


class Boot(task.Task):
    """Does as it is told."""

    def execute(self, fails, password):
        if fails:
            raise ValueError('no bootable device')


def boot():
    return linear_flow.Flow('boot').add(Claim(name='Claim'),
                                        Boot(name='Boot'))


@pytest.fixture
def engine(url):
    database.upgrade(url)
    known = registry.Registry()
    known.add(registry.FlowType('boot', '1.0', boot))
    made = runner.Runner(database.Database(url), serialization.Serializer(),
                         known, 'host1', renew=False)
    yield made
    made.close()


@pytest.fixture
def flows(engine):
    """Three flows: one that failed, one that is done, one under way."""
    def request(server, fails):
        return journal.FlowRequest(
            'boot', {'fails': fails, 'password': 'topsecret'},
            subject=server, request_id='req-' + server)
    failed, done, pending = (
        request('a1', True), request('b2', False), request('c3', False))
    engine.run(failed)
    engine.run(done)
    engine.board.start(pending, owner=engine.worker.id)
    return {'failed': failed.uuid, 'done': done.uuid,
            'pending': pending.uuid}


def listed(nova_ssm, *args):
    code, out, err = nova_ssm('flow', 'list', '-f', 'json', *args)
    assert (code, err) == (0, '')
    return json.loads(out)


def test_list_shows_the_newest_first(nova_ssm, flows):
    rows = listed(nova_ssm)
    assert [row['uuid'] for row in rows] == [
        flows['pending'], flows['done'], flows['failed']]
    assert [row['state'] for row in rows] == [
        'RUNNING', 'SUCCESS', 'REVERTED']
    assert rows[2]['failure'] == 'Boot: ValueError: no bootable device'
    assert (rows[1]['owner'], rows[1]['failure']) == (None, None)


@pytest.mark.parametrize('args, names', (
    (('--unfinished',), ['pending']),
    (('--server', 'b2'), ['done']),
    (('--server', 'b2', '--unfinished'), []),
    (('--request', 'req-a1'), ['failed']),
    (('--limit', '2'), ['pending', 'done']),
    (('--operation', 'boot'), ['pending', 'done', 'failed']),
    (('--operation', 'shutdown'), []),
    (('--state', 'success'), ['done']),
    (('--state', 'RUNNING'), ['pending']),
    (('--failed',), ['failed']),
    (('--failed', '--server', 'b2'), []),
    (('--owner', 'host1'), ['pending']),
    (('--owner', 'host'), []),
    (('--newer', '1h'), ['pending', 'done', 'failed']),
    (('--older', '1h'), []),
    (('--older', '0'), ['pending', 'done', 'failed']),
))
def test_list_finds(nova_ssm, flows, args, names):
    assert [row['uuid'] for row in listed(nova_ssm, *args)] == [
        flows[name] for name in names]


def test_list_goes_on_behind_a_flow(nova_ssm, flows):
    rows = listed(nova_ssm, '--marker', flows['pending'], '--limit', '1')
    assert [row['uuid'] for row in rows] == [flows['done']]
    rows = listed(nova_ssm, '--marker', flows['done'][:8])
    assert [row['uuid'] for row in rows] == [flows['failed']]
    assert listed(nova_ssm, '--marker', flows['failed']) == []


def test_list_of_what_a_flow_has_posted(nova_ssm, flows, engine):
    child = journal.FlowRequest('boot', {'fails': False, 'password': ''},
                                parent_uuid=flows['done'])
    engine.board.start(child, owner=None)
    rows = listed(nova_ssm, '--children-of', flows['done'])
    assert [row['uuid'] for row in rows] == [child.uuid]
    assert listed(nova_ssm, '--children-of', flows['failed']) == []


@pytest.mark.parametrize('option', ('--marker', '--children-of'))
def test_list_of_what_comes_from_no_flow(nova_ssm, flows, option):
    cmd.assert_one_line(nova_ssm('flow', 'list', option, 'dead'),
                        'there is no flow dead')


@pytest.mark.parametrize('age', ('x', '-1', '5w', 'nan', ''))
def test_an_age_is_a_number(nova_ssm, flows, age):
    with pytest.raises(SystemExit) as caught:
        nova_ssm('flow', 'list', '--older=' + age)
    assert caught.value.code == 2


def test_the_graph_has_colours_for_a_terminal(nova_ssm, flows, plugin):
    plugin()
    _code, plain, _err = nova_ssm('flow', 'graph', flows['done'])
    _code, out, _err = nova_ssm('flow', 'graph', flows['done'], '--color',
                                'always')
    assert '\033' not in plain
    assert '\033[32mdone\033[0m' in out
    assert re.sub('\033\\[[0-9;]*m', '', out) == plain


@pytest.mark.parametrize('form, color', (
    ('dot', 'color="#2e9e4f"'), ('svg', 'stroke="#2e9e4f"'),
    ('mermaid', 'class Claim,Boot c2e9e4f')))
def test_pictures_have_the_colours_of_states(nova_ssm, flows, plugin, form,
                                             color):
    plugin()
    _code, out, _err = nova_ssm('flow', 'graph', flows['done'], '--format',
                                form)
    assert color in out
    _code, out, _err = nova_ssm('flow', 'graph', 'boot', '--format', form)
    assert '2e9e4f' not in out


def test_the_plan_of_a_flow_is_its_steps(nova_ssm, plugin):
    plugin()
    code, out, _err = nova_ssm('flow', 'plan', 'boot', '-f', 'json')
    assert code == 0
    rows = json.loads(out)
    assert [(row['kind'], row['name']) for row in rows] == [
        ('step', 'boot: Claim'), ('step', 'boot: Boot')]
    assert rows[0]['result'] == 'changes something; undo: free it'
    _code, out, _err = nova_ssm('flow', 'plan', 'boot')
    assert '● Claim' in out


def test_the_plan_of_nothing_that_is_known(nova_ssm, plugin):
    plugin()
    cmd.assert_one_line(nova_ssm('flow', 'plan', 'dance'), 'dance')


@pytest.mark.parametrize('args, wanted', (
    (('resize',), '--server UUID'),
    (('resize', '--server', 'x'), '--flavor NAME'),
    (('live-migrate',), '--server UUID'), (('build',), '--flavor NAME')))
def test_the_plan_of_an_operation_wants_to_know_more(nova_ssm, args, wanted):
    cmd.assert_one_line(nova_ssm('flow', 'plan', *args), wanted)


def test_list_for_people(nova_ssm, flows):
    _code, out, _err = nova_ssm('flow', 'list', '-f', 'csv')
    header, *lines = out.splitlines()
    assert header.replace('"', '').split(',')[:4] == [
        'uuid', 'name', 'subject', 'state']
    assert '(dead)' not in out
    assert 'begins' in lines[0]
    assert re.search(r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', lines[0])
    assert 'Boot' in lines[2] and 'None' not in out


def test_list_shows_a_dead_owner(nova_ssm, flows, engine):
    with engine.db.transaction() as connection:
        connection.exec_driver_sql('UPDATE ssm_workers SET expires_at = 0')
    _code, out, _err = nova_ssm('flow', 'list', '-f', 'csv', '--unfinished')
    assert '%s (dead)' % engine.worker.id in out


def test_list_shows_that_nobody_has_it(nova_ssm, flows, engine):
    engine.board.release(flows['pending'], engine.worker.id)
    _code, out, _err = nova_ssm('flow', 'list', '-f', 'csv', '--unfinished')
    assert 'nobody' in out


def test_list_long(nova_ssm, flows):
    _code, out, _err = nova_ssm('flow', 'list', '-f', 'csv', '--long')
    assert 'request_id' in out.splitlines()[0]


@pytest.mark.parametrize('limit', ('0', '-1', 'x'))
def test_list_limit_is_a_number(nova_ssm, flows, capsys, limit):
    with pytest.raises(SystemExit) as caught:
        nova_ssm('flow', 'list', '--limit', limit)
    assert caught.value.code == 2
    assert 'argument --limit: must be a number, at least 1' in (
        capsys.readouterr().err)


def test_show(nova_ssm, flows):
    code, out, _err = nova_ssm('flow', 'show', flows['failed'], '-f', 'json')
    shown = json.loads(out)
    assert code == 0
    assert (shown['uuid'], shown['state'], shown['subject']) == (
        flows['failed'], 'REVERTED', 'a1')
    steps = shown['steps']
    assert [step['kind'] for step in (steps[0], steps[-1])] == [
        'start', 'end']
    assert ['Boot', 'FAILURE'] in [
        [step['task'], step['state']] for step in steps]
    assert [step['seq'] for step in steps] == list(range(len(steps)))


def test_show_for_people(nova_ssm, flows):
    _code, out, _err = nova_ssm('flow', 'show', flows['failed'])
    for words in ('the flow begins', 'Claim', 'Boot', 'failed',
                  'the flow ends', '+0.000 s'):
        assert words in out
    header = next(line for line in out.splitlines() if '| task  ' in line and
                  'seconds' in line)
    assert header.replace('|', ' ').split() == [
        'task', 'state', 'when', 'seconds', 'tries', 'effect']


@pytest.mark.parametrize('form', ('table', 'value'))
def test_who_has_chosen_what_to_see_sees_only_that(nova_ssm, flows, plugin,
                                                   form):
    plugin()
    for column, word in (('state', 'REVERTED'), ('steps', 'the flow begins')):
        code, out, _err = nova_ssm('flow', 'show', flows['failed'], '-f',
                                   form, '-c', column)
        assert code == 0
        assert word in out
        assert '●' not in out and 'Traceback' not in out


def test_show_tells_the_whole_cause_of_a_failure(nova_ssm, flows):
    _code, out, _err = nova_ssm('flow', 'show', flows['failed'])
    assert 'Boot failed on ' in out
    assert '\nValueError: no bootable device\n' in out
    assert '    Traceback (most recent call last):' in out
    assert "raise ValueError('no bootable device')" in out


def test_show_gives_the_tasks_as_data(nova_ssm, flows, plugin, engine):
    plugin()
    _code, out, _err = nova_ssm('flow', 'show', flows['failed'], '-f', 'json')
    shown = json.loads(out)
    claim, boots = shown['tasks']
    assert (claim['task'], claim['state'], claim['effect']) == (
        'Claim', 'reverted', True)
    assert claim['worker'] == engine.worker.id
    assert claim['seconds'] >= 0 and claim['undo_seconds'] >= 0
    assert claim['tries'] == 1 and len(claim['runs']) == 2
    assert boots['state'] == 'failed'
    [failure] = shown['failures']
    assert (failure['task'], failure['cause'], failure['message']) == (
        'Boot', 'builtins.ValueError', 'no bootable device')
    assert 'Traceback' in failure['traceback']
    [owner] = shown['owners']
    assert owner['writer'] == engine.worker.id
    assert shown['journal_missing'] is None


def test_show_names_the_workers_if_there_were_several(nova_ssm, flows, url,
                                                      engine, plugin):
    plugin()
    engine.board.release(flows['pending'], engine.worker.id)
    known = registry.Registry()
    known.add(registry.FlowType('boot', '1.0', boot))
    other = runner.Runner(database.Database(url), serialization.Serializer(),
                          known, 'host2', renew=False)
    try:
        [job] = other.board.iterjobs(only_unclaimed=True)
        other.resume(job)
        _code, out, _err = nova_ssm('flow', 'show', flows['pending'])
        for words in ('| worker', 'nobody runs it', 'taken over',
                      other.worker.id):
            assert words in out
    finally:
        other.close()


def test_show_of_what_took_some_time_at_the_most(nova_ssm, flows, engine,
                                                 monkeypatch):
    """As the first releases have written it."""
    monkeypatch.setattr(stopwatch.Stopwatch, 'seconds',
                        lambda self, name, state: None)
    request = journal.FlowRequest('boot', {'fails': False, 'password': ''})
    engine.run(request)
    _code, out, _err = nova_ssm('flow', 'show', request.uuid)
    assert re.search(r'\| Claim +\| done +\| \+[\d.]+ \| below ', out)


@pytest.mark.parametrize('command', (('list', '--long'), ('show', 'done')))
def test_no_secret_is_shown(nova_ssm, flows, command):
    verb, arg = command
    for form in ('json', 'table'):
        _code, out, _err = nova_ssm(
            'flow', verb, flows.get(arg, arg), '-f', form)
        assert out and 'topsecret' not in out


# -- the graph -------------------------------------------------------------

@pytest.fixture
def plugin(monkeypatch):
    """Installs a plugin that has the flow."""
    def install(version='1.0', factory=boot, broken=None):
        found = catalog.Catalog((catalog.Plugin('boots', 'Boots.', (
            registry.FlowType('boot', version, factory),)),), broken or {})
        monkeypatch.setattr(catalog, 'installed', lambda: found)
    return install


def test_show_draws_the_graph_below_the_table(nova_ssm, flows, plugin):
    plugin()
    _code, out, _err = nova_ssm('flow', 'show', flows['failed'])
    drawn = out.splitlines()
    at = drawn.index('boot 1.0')
    assert drawn[at:at + 3] == [
        'boot 1.0',
        '● Claim   reverted  undo: free it',
        '● Boot    failed']


def test_show_gives_the_graph_as_data(nova_ssm, flows, plugin):
    plugin()
    for name, states in (('failed', ['reverted', 'failed']),
                         ('done', ['done', 'done']),
                         ('pending', ['running', 'not reached'])):
        _code, out, _err = nova_ssm('flow', 'show', flows[name], '-f', 'json')
        shown = json.loads(out)
        assert [item['state'] for item in shown['graph']['items']] == states
        assert shown['graph']['links'] == [{'from': 'Claim', 'to': 'Boot'}]
        assert shown['graph_missing'] is None


@pytest.mark.parametrize('form', ('value', 'shell'))
def test_other_formats_have_no_drawing(nova_ssm, flows, plugin, form):
    plugin()
    _code, out, _err = nova_ssm('flow', 'show', flows['failed'], '-f', form)
    assert '●' not in out


def no_graph(nova_ssm, flows):
    """Why there is no graph, as data and in the drawing's place."""
    code, out, err = nova_ssm('flow', 'show', flows['done'])
    assert (code, err) == (0, '')
    assert 'the flow begins' in out
    _code, data, _err = nova_ssm('flow', 'show', flows['done'], '-f', 'json')
    shown = json.loads(data)
    assert shown['graph'] is None
    assert out.endswith('\nNot drawn: %s\n' % shown['graph_missing'])
    return shown['graph_missing']


def test_show_of_a_flow_that_no_plugin_has(nova_ssm, flows):
    assert no_graph(nova_ssm, flows) == (
        'no installed plugin has a flow named boot')


def test_show_of_a_flow_of_another_version(nova_ssm, flows, plugin):
    plugin('2.1')
    assert no_graph(nova_ssm, flows) == (
        'version 1.0 of the flow boot is not known here, only 2.1')


def test_show_with_a_flow_that_cannot_be_made(nova_ssm, flows, plugin):
    def broken():
        raise AttributeError('no manager')

    plugin(factory=broken)
    assert no_graph(nova_ssm, flows) == 'AttributeError: no manager'


def test_show_without_nova(nova_ssm, flows, monkeypatch):
    def no_nova(name):
        raise ImportError('No module named nova')

    monkeypatch.setattr(flow_cmd.importlib, 'import_module', no_nova)
    assert no_graph(nova_ssm, flows) == 'ImportError: No module named nova'


def test_show_with_a_damaged_journal(nova_ssm, flows, engine, plugin):
    plugin()
    with engine.db.transaction() as connection:
        connection.exec_driver_sql(
            "UPDATE ssm_journal SET payload = 'x' WHERE seq > 0")
    assert 'row 1 cannot be read' in no_graph(nova_ssm, flows)


def test_graph_of_a_type_needs_no_database(nova_ssm, plugin, tmp_path):
    plugin()
    empty = tmp_path / 'empty.conf'
    empty.write_text('')
    code, out, err = nova_ssm('flow', 'graph', 'boot', conf=empty)
    assert (code, err) == (0, '')
    assert out.splitlines()[:3] == [
        'boot 1.0', '● Claim   undo: free it', '● Boot']


def test_graph_of_a_flow_has_its_states(nova_ssm, flows, plugin):
    plugin()
    _code, out, _err = nova_ssm('flow', 'graph', flows['failed'])
    assert re.search('Boot +failed', out)


@pytest.mark.parametrize('form, begins', (
    ('text', 'boot 1.0'), ('mermaid', 'flowchart'), ('dot', 'digraph'),
    ('svg', '<svg')))
def test_graph_in_every_format(nova_ssm, flows, plugin, form, begins):
    plugin()
    for flow in ('boot', flows['failed']):
        _code, out, _err = nova_ssm('flow', 'graph', flow, '--format', form)
        assert out.startswith(begins)
        assert 'Claim' in out and 'Boot' in out
        assert 'topsecret' not in out
    if form == 'svg':
        assert minidom.parseString(out.encode())


def test_graph_for_a_terminal_that_knows_ascii_only():
    app = flow_cmd.main.NovaSSMApp()

    class Terminal:
        encoding = 'ascii'

    app.stdout = Terminal()
    assert flow_cmd.readable(app, '● a') == '* a'
    Terminal.encoding = 'utf-8'
    assert flow_cmd.readable(app, '● a') == '● a'


def test_graph_of_nothing_that_is_known_is_one_line(nova_ssm, plugin, url):
    database.upgrade(url)
    plugin(broken={'shoes': 'ImportError: no laces'})
    cmd.assert_one_line(
        nova_ssm('flow', 'graph', 'sandal'),
        'no installed plugin has a flow named sandal',
        'the plugin shoes cannot be loaded: ImportError: no laces')
    unknown = '00000000-0000-0000-0000-000000000000'
    cmd.assert_one_line(nova_ssm('flow', 'graph', unknown),
                        'there is no flow ' + unknown)


def test_graph_of_a_flow_that_no_plugin_has_is_one_line(nova_ssm, flows):
    cmd.assert_one_line(nova_ssm('flow', 'graph', flows['done']),
                        'no installed plugin has a flow named boot')


def test_graph_draws_what_is_installed(nova_ssm):
    code, out, err = nova_ssm('flow', 'graph', 'build_instance')
    assert (code, err) == (0, '')
    assert re.search('^◉ CastBuild', out, re.M)


# -- what is wrong ---------------------------------------------------------

def test_show_of_an_unknown_flow_is_one_line(nova_ssm, flows):
    cmd.assert_one_line(nova_ssm('flow', 'show', 'nonsense'),
                        'there is no flow nonsense')


@pytest.mark.parametrize('command', (('list',), ('show', 'x')))
def test_missing_tables_are_one_line(nova_ssm, command):
    cmd.assert_one_line(nova_ssm('flow', *command), 'nova-ssm db sync')


# -- what cannot go on -------------------------------------------------------

@pytest.fixture
def left_alone(engine):
    """A flow that one host cannot go on with, and nobody runs."""
    uuid = engine.board.post('boot', details={
        'fails': False, 'password': 'topsecret'}).uuid
    troubles.tell(engine.db, uuid, troubles.text(
        'host9', 'row 3: RequestSpec 1.99 is not known here, only 1.14: '
        'https://nova:topsecret@host/' + 20 * ' and more'))
    return uuid


@pytest.mark.parametrize('formatter', ['json', 'table'])
def test_list_says_why_a_flow_is_left_alone(nova_ssm, left_alone, formatter):
    code, out, _err = nova_ssm('flow', 'list', '-f', formatter)
    assert code == 0
    assert 'host host9 cannot go on: row 3: RequestSpec 1.99' in out
    assert 20 * ' and more' in out or formatter == 'table'
    assert 'topsecret' not in out


def test_show_says_it_all(nova_ssm, left_alone):
    code, out, _err = nova_ssm('flow', 'show', '-f', 'json', left_alone)
    assert code == 0
    shown = json.loads(out)
    assert shown['trouble'].endswith(20 * ' and more')
    assert shown['objects'] == []
    assert 'topsecret' not in out


@ovo_base.VersionedObjectRegistry.register
class Bootable(ovo_base.VersionedObject):
    VERSION = '1.3'


@pytest.mark.parametrize('formatter', ['json', 'table'])
def test_show_names_the_objects_and_their_versions(nova_ssm, engine,
                                                   formatter):
    uuid = engine.board.post('boot', details={
        'fails': [Bootable()], 'password': ''}).uuid
    code, out, _err = nova_ssm('flow', 'show', '-f', formatter, uuid)
    assert code == 0
    assert 'Bootable 1.3' in out
