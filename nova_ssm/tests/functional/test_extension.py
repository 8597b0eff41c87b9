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

"""The example of examples/cmdb, installed, in the build of a real Nova."""

import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

ROOT = pathlib.Path(__file__).parents[3]
PROCESS = pathlib.Path(__file__).with_name('extension_process.py')
LINES = ('build_instance: RecordInCmdb after MapInstance',
         'build_instance: TellCmdb after CastBuild')


class Cmdb:
    """A CMDB that speaks HTTP.

    :ivar servers: what it knows, by the path of the server
    :ivar asked: each request: its method, and the state that it brought
    :ivar then: called once, when the next record has been made
    """

    def __init__(self):
        self.servers, self.asked, self.then = {}, [], None
        cmdb = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_PUT(self):
                record = json.loads(self.rfile.read(
                    int(self.headers['Content-Length'])))
                cmdb.servers.setdefault(self.path, {}).update(record)
                cmdb.asked.append(('PUT', record['state']))
                then, cmdb.then = cmdb.then, None
                if then is not None:
                    then()
                self.answer(204)

            def do_DELETE(self):
                cmdb.asked.append(('DELETE', None))
                self.answer(204 if cmdb.servers.pop(self.path, None)
                            else 404)

            def answer(self, code):
                try:
                    self.send_response(code)
                    self.end_headers()
                except BrokenPipeError:
                    pass    # who has asked is dead

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(
            ('127.0.0.1', 0), Handler)
        self.url = 'http://127.0.0.1:%d' % self.server.server_port
        threading.Thread(target=self.server.serve_forever,
                         daemon=True).start()


@pytest.fixture
def cmdb():
    made = Cmdb()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope='module')
def package(tmp_path_factory):
    """Where the example is installed; what it needs is there."""
    target = tmp_path_factory.mktemp('cmdb') / 'site'
    subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '-q', '--no-deps',
         '--no-index', '--no-build-isolation', '--target', str(target),
         str(ROOT / 'examples' / 'cmdb')], check=True, capture_output=True)
    return target


@pytest.fixture
def start(package, cmdb, tmp_path):
    def _start(do, *lines):
        path = os.pathsep.join((str(package), str(ROOT)))
        with open(tmp_path / ('%s.log' % do), 'ab') as log:
            return subprocess.Popen(
                [sys.executable, str(PROCESS), str(tmp_path / 'nova'), do,
                 cmdb.url, *lines], stdout=subprocess.PIPE, stderr=log,
                env={**os.environ, 'PYTHONPATH': path})
    return _start


def told(process):
    """What a process has printed when it ended well."""
    out, _err = process.communicate(timeout=180)
    assert process.returncode == 0
    return json.loads(out)


def child(told_):
    flow, = [flow for flow in told_['flows']
             if flow['name'] == 'build_instance']
    return flow


def test_a_killed_build_goes_on_only_where_its_tasks_are(start, cmdb):
    """Killed in the middle of the vendor's task, which had its effect."""
    process = start('boot', *LINES)
    cmdb.then = lambda: os.kill(process.pid, signal.SIGKILL)
    assert process.wait(180) == -signal.SIGKILL
    assert cmdb.asked == [('PUT', 'building')]

    without = told(start('look'))
    flow = child(without)
    assert '+' in flow['version']
    assert flow['trouble'].endswith(
        'was begun with changes by an operator that are not the same here: '
        'it has version %s, here are %s' % (
            flow['version'], flow['version'].partition('+')[0]))
    assert set(without['servers'].values()) == {'BUILD'}

    after = told(start('look', *LINES))
    assert child(after)['state'] == 'SUCCESS'
    assert child(after)['trouble'] is None
    server, = after['servers']
    assert after['servers'][server] == 'ACTIVE'
    assert cmdb.asked == [('PUT', 'building'), ('PUT', 'building'),
                          ('PUT', 'handed over')]
    assert cmdb.servers['/servers/' + server]['state'] == 'handed over'
