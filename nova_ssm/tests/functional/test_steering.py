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

"""People steer the flows of real requests, with the command."""

from nova_ssm.tests.functional import embedded  # first: it patches

import json
import os
import subprocess
import sys
import threading
import time

from nova.conductor import manager as conductor_manager
from nova.scheduler.client import report
from nova.tests.functional.api import client as api_client
import pytest

from nova_ssm.engine import database
from nova_ssm import planning
from nova_ssm.tasks import moves
from nova_ssm.tests.demo import watch

# Events of tasks are written behind the flows: a plan that changes nothing
# would be blamed for them.
OPTIONS = {'ssm': {'recovery_interval': 0.2, 'task_events': False}}


@pytest.fixture
def nova(tmp_path):
    with embedded.EmbeddedNova(
            str(tmp_path), options=OPTIONS,
            workflows=['build_instances', 'resize', 'live_migrate']) as one:
        yield one


@pytest.fixture
def files(tmp_path):
    return watch.Files(str(tmp_path))


class Gate:
    """Holds whoever comes first, until it is opened.

    :ivar held: what that one was called with
    """

    def __init__(self, original):
        self._original = original
        self.reached, self.open = threading.Event(), threading.Event()

    def open_when_ordered(self, files):
        """Open it as soon as there is an order for a flow."""
        def wait():
            while not files.rows('ssm', 'SELECT * FROM ssm_orders '
                                 'WHERE answered_at IS NULL'):
                if self.open.wait(0.05):
                    return
            time.sleep(1)       # until the owner has seen it
            self.open.set()

        threading.Thread(target=wait, daemon=True).start()

    def __call__(self, *args, **kwargs):
        if not self.reached.is_set():
            self.held = [*args, *kwargs.values()]
            self.reached.set()
            assert self.open.wait(120)
        return self._original(*args, **kwargs)


@pytest.fixture
def gate(monkeypatch):
    """Makes gates in front of functions; all are open at the end."""
    made = []

    def make(owner, name):
        one = Gate(getattr(owner, name))
        # A plain function, so that it is a method where it was one.
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: one(
            *args, **kwargs))
        made.append(one)
        return one

    yield make
    for one in made:
        one.open.set()


@pytest.fixture
def nova_ssm(nova, tmp_path):
    """Runs the command in a process of its own; gives what it shows."""
    conf = tmp_path / 'nova-ssm.conf'
    conf.write_text('[ssm]\nconnection = sqlite:///%s\n'
                    % (tmp_path / 'ssm.db'))

    def process(*args):
        return subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', 'import sys; from '
             'nova_ssm.cmd import main; sys.exit(main.main())',
             '--config-file', str(conf), *args],
            capture_output=True, text=True, env=os.environ, timeout=300)

    def run(*args, code=0):
        done = process(*args, '-f', 'json')
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    run.run = process
    return run


def steer(nova_ssm, verb, flow, code=0):
    [row] = nova_ssm('flow', verb, '--yes', '--wait', '--timeout', '120',
                     flow, code=code)
    return row['state'], row['result']


def flow_of(nova_ssm, server, *args):
    """The one flow of a server that is chosen by these options."""
    [flow] = nova_ssm('flow', 'list', '--server', server, *args)
    return flow['uuid']


def resized(nova, gate):
    """A server that is being resized: the word to the compute is next."""
    nova.boot('vm')
    [server] = nova.servers()
    before = nova.wait(server['id'])
    flavor = next(one for one in nova.api.get_flavors()
                  if one['name'] == 'm1.small')
    check = gate(moves, 'check')
    nova.api.post_server_action(server['id'], {
        'resize': {'flavorRef': flavor['id']}})
    assert check.reached.wait(120)
    return server['id'], before, check


def test_a_resize_is_cancelled_and_begun_again(nova, files, gate, nova_ssm):
    server, before, check = resized(nova, gate)
    flow = flow_of(nova_ssm, server, '--operation', 'resize', '--unfinished')
    assert len(files.rows('placement', 'SELECT DISTINCT consumer_id '
                          'FROM allocations')) == 2
    check.open_when_ordered(files)
    assert steer(nova_ssm, 'cancel', flow) == ('REVERTED', 'all is undone')
    after = nova.wait(server)
    assert after['flavor'] == before['flavor']
    assert after['OS-EXT-SRV-ATTR:host'] == before['OS-EXT-SRV-ATTR:host']
    assert_nothing_left(nova, files)
    assert files.rows('nova_cell1', 'SELECT status FROM migrations') == [
        ('error',)]
    # Its user sees it.
    [action] = [one for one in nova.api.get_instance_actions(server)
                if one['action'] == 'resize']
    events = nova.api.api_get('/servers/%s/os-instance-actions/%s' % (
        server, action['request_id'])).body['instanceAction']['events']
    assert 'Error' in {one['result'] for one in events}

    assert steer(nova_ssm, 'retry', flow)[0] == 'SUCCESS'
    after = nova.wait(server, 'VERIFY_RESIZE')
    assert after['flavor']['original_name'] == 'm1.small'


def assert_nothing_left(nova, files):
    guests = {host: nova.services[host].manager.driver.list_instance_uuids()
              for host in nova.hosts}
    found = {kind: names for kind, names in files.leftovers(guests).items()
             if names}
    assert found == {}


def test_what_was_changed_meanwhile_is_not_begun_again(nova, files, gate,
                                                       nova_ssm):
    server, _before, check = resized(nova, gate)
    flow = flow_of(nova_ssm, server, '--operation', 'resize')
    check.open_when_ordered(files)
    steer(nova_ssm, 'cancel', flow)
    nova.wait(server)
    nova.api.post_server_action(server, {'os-stop': None})
    nova.wait(server, 'SHUTOFF')
    state, result = steer(nova_ssm, 'retry', flow, code=3)
    assert state == 'REVERTED'
    assert 'the server has had another action since: stop' in result
    assert nova.wait(server, 'SHUTOFF')


def test_a_server_that_was_deleted_meanwhile_is_not_resized(
        nova, files, gate, nova_ssm):
    server, _before, check = resized(nova, gate)
    flow = flow_of(nova_ssm, server, '--operation', 'resize')
    check.open_when_ordered(files)
    steer(nova_ssm, 'cancel', flow)
    nova.wait(server)
    nova.api.delete_server(server)
    while nova.servers():
        time.sleep(0.1)
    state, _result = steer(nova_ssm, 'retry', flow, code=3)
    assert state == 'REVERTED'
    assert files.rows('placement', 'SELECT * FROM allocations') == []


@pytest.mark.parametrize('forced', (False, True))
def test_a_live_migration_is_cancelled_and_begun_again(
        nova, files, gate, nova_ssm, forced):
    nova.boot('vm')
    [server] = nova.servers()
    before = nova.wait(server['id'])['OS-EXT-SRV-ATTR:host']
    [other] = {'host1', 'host2'} - {before}
    check = gate(moves, 'check')
    before_that, nova.api.microversion = nova.api.microversion, '2.34'
    nova.api.post_server_action(server['id'], {'os-migrateLive': {
        'host': other if forced else None, 'block_migration': 'auto',
        **({'force': True} if forced else {})}})
    nova.api.microversion = before_that
    assert check.reached.wait(120)
    [flow] = nova_ssm('flow', 'list', '--server', server['id'],
                      '--unfinished')
    assert flow['name'] == ('live_migrate_forced' if forced
                            else 'live_migrate')
    check.open_when_ordered(files)
    assert steer(nova_ssm, 'cancel', flow['uuid']) == (
        'REVERTED', 'all is undone')
    assert nova.wait(server['id'])['OS-EXT-SRV-ATTR:host'] == before
    assert_nothing_left(nova, files)

    assert steer(nova_ssm, 'retry', flow['uuid'])[0] == 'SUCCESS'
    while nova.wait(server['id'])['OS-EXT-SRV-ATTR:host'] != other:
        time.sleep(0.1)
    # Each time has a record of its own.
    statuses = 'SELECT status FROM migrations ORDER BY id'
    while files.rows('nova_cell1', statuses)[1:] != [('completed',)]:
        time.sleep(0.1)
    assert files.rows('nova_cell1', statuses)[0] == ('error',)
    assert files.rows('placement', 'SELECT DISTINCT consumer_id '
                      'FROM allocations') == [(server['id'],)]


def built(nova, gate):
    """Two servers whose flows have their records, and wait."""
    bdms = gate(conductor_manager.ComputeTaskManager,
                '_create_block_device_mapping')
    nova.boot('vm', 2)
    assert bdms.reached.wait(120)
    return bdms


def held_build(nova_ssm, bdms):
    """The flow of the server that waits; its sibling may be over."""
    [flow] = [one for one in nova_ssm(
        'flow', 'list', '--operation', 'build_instance', '--unfinished')
        if one['subject'] in bdms.held]
    return flow


def states(files):
    """The API checks what it says, and does not know all of a build."""
    return dict(files.rows('nova_cell1',
                           'SELECT uuid, vm_state FROM instances'))


def test_a_build_is_cancelled_and_its_sibling_goes_on(nova, files, gate,
                                                      nova_ssm):
    bdms = built(nova, gate)
    flow = held_build(nova_ssm, bdms)
    bdms.open_when_ordered(files)
    assert steer(nova_ssm, 'cancel', flow['uuid']) == (
        'REVERTED', 'all is undone')
    while set(states(files).values()) != {'active', 'error'}:
        time.sleep(0.1)
    by_id = states(files)
    assert by_id.pop(flow['subject']) == 'error'
    [sibling] = by_id
    holders = files.rows('placement',
                         'SELECT DISTINCT consumer_id FROM allocations')
    assert holders == [(sibling,)]
    fault = nova.api.get_server(flow['subject'])['fault']
    assert 'cancelled by an operator' in json.dumps(fault)

    # It holds nothing to begin from; nor does Nova rebuild what never ran.
    said = nova_ssm.run('flow', 'retry', '--yes', flow['uuid'])
    assert said.returncode == 1
    for words in ('the hosts that were claimed for it are free again',
                  'openstack server delete', 'Nova rebuilds no server'):
        assert words in said.stderr
    with pytest.raises(api_client.OpenStackApiException, match='409'):
        nova.api.post_server_action(flow['subject'], {
            'rebuild': {'imageRef': embedded.IMAGE}})


def test_a_build_waits_and_goes_on(nova, files, gate, nova_ssm):
    bdms = built(nova, gate)
    flow = held_build(nova_ssm, bdms)
    bdms.open_when_ordered(files)
    _state, result = steer(nova_ssm, 'pause', flow['uuid'])
    assert result.startswith('paused behind ')
    while 'active' not in states(files).values():
        time.sleep(0.1)
    assert states(files)[flow['subject']] == 'building'
    steer(nova_ssm, 'resume', flow['uuid'])
    nova.wait(flow['subject'])
    assert_nothing_left(nova, files)


def test_a_resize_is_given_up_and_nothing_is_undone(nova, files, gate,
                                                    nova_ssm):
    server, _before, check = resized(nova, gate)
    flow = flow_of(nova_ssm, server, '--operation', 'resize')
    check.open_when_ordered(files)
    state, result = steer(nova_ssm, 'kill', flow)
    assert state == 'KILLED'
    assert 'ScheduleMove' in result
    assert len(files.rows('placement', 'SELECT DISTINCT consumer_id '
                          'FROM allocations')) == 2
    assert flow_of(nova_ssm, server, '--failed') == flow


# -- plans --------------------------------------------------------------------

@pytest.fixture
def plan(nova, tmp_path):
    """Plans in this process: what it asks is here, and changes nothing."""
    db = database.Database('sqlite:///%s' % (tmp_path / 'ssm.db'))

    def rows():
        files = watch.Files(str(tmp_path))
        return {(name, table): files.rows(name, 'SELECT * FROM ' + table)
                for name in ('nova_api', 'nova_cell1', 'placement', 'ssm')
                for table, in files.rows(
                    name, "SELECT name FROM sqlite_master WHERE type='table'")
                # Services live meanwhile.
                if table not in ('services', 'compute_nodes', 'ssm_workers')}

    def make(operation, **kwargs):
        before = rows()
        checks = list(planning.Planner(
            db, report.report_client_singleton).checks(
                planning.OPERATIONS[operation], **kwargs))
        assert rows() == before
        return {check.what: check for check in checks}

    yield make
    db.close()


def bad(checks):
    return {what for what, check in checks.items() if check.good is False}


def test_the_plan_of_what_is_possible(nova, plan):
    nova.boot('vm')
    [server] = nova.servers()
    host = nova.wait(server['id'])['OS-EXT-SRV-ATTR:host']
    [other] = {'host1', 'host2'} - {host}
    for operation, more in (('resize', {'flavor': 'm1.small'}),
                            ('migrate', {}), ('migrate', {'host': other}),
                            ('live-migrate', {})):
        checks = plan(operation, server=server['id'], **more)
        assert not bad(checks), checks
        assert other in checks['room'].found
    assert not bad(plan('build', flavor='m1.tiny'))


def test_the_plan_of_what_is_not_possible(nova, plan, gate):
    server, _before, _check = resized(nova, gate)
    assert bad(plan('resize', server=server, flavor='m1.tiny')) == {
        'task', 'other flows', 'new flavor'}
    assert bad(plan('resize', server=server, flavor='m9')) == {'flavor'}
    assert bad(plan('migrate', server='nobody')) == {'server'}
    assert 'the compute of the destination' in bad(
        plan('migrate', server=server, host='mars'))
    assert bad(plan('build', flavor='m1.tiny', host='mars')) == {'room'}
