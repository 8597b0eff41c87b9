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

"""A report of a flow, in a real browser: Chromium, without a network."""

from nova_ssm.tests.functional import embedded  # first: it patches

import os
import shutil
import struct
import subprocess
import zlib

from oslo_config import cfg
import pytest

from nova_ssm.cmd import main
from nova_ssm.engine import colors
from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import progress
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import serialization
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

assert embedded
CHROMIUM = shutil.which('chromium')
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason='needs a browser: apt-get install chromium')

#: Colours of the page's bars.
DONE, FAILED, UNDONE = (
    tuple(bytes.fromhex(colors.picture(state)[1:])) for state in (
        progress.DONE, progress.FAILED, progress.REVERTED))


def browse(home, url, *options):
    """Let the browser open a page; it may ask nobody for anything.

    :returns: what it writes, and its log
    """
    ended = subprocess.run(
        [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu',
         '--disable-dev-shm-usage', '--user-data-dir=%s' % home,
         '--host-resolver-rules=MAP * ~NOTFOUND', '--enable-logging=stderr',
         '--force-prefers-color-scheme=light', '--window-size=1200,1600',
         *options, url],
        capture_output=True, text=True, timeout=120, check=True,
        env={**os.environ, 'HOME': str(home)})
    return ended.stdout, ended.stderr


def colours(path):
    """The colours of a PNG of eight bits a channel, as browsers write it."""
    data = path.read_bytes()
    assert data[:8] == b'\x89PNG\r\n\x1a\n'
    place, packed = 8, b''
    while place < len(data):
        size, kind = struct.unpack('>I4s', data[place:place + 8])
        body = data[place + 8:place + 8 + size]
        if kind == b'IHDR':
            width, height, depth, colour = struct.unpack('>IIBB', body[:10])
        elif kind == b'IDAT':
            packed += body
        place += size + 12
    assert depth == 8
    step = {2: 3, 6: 4}[colour]
    return _pixels(zlib.decompress(packed), width, height, step)


def _pixels(raw, width, height, step):
    """Undo the filters of a PNG's lines; give the colours that are there."""
    found, above = set(), bytearray(width * step)
    for line in range(height):
        start = line * (width * step + 1)
        kind, now = raw[start], bytearray(
            raw[start + 1:start + 1 + width * step])
        for at in range(len(now)):
            left = now[at - step] if at >= step else 0
            up = above[at]
            corner = above[at - step] if at >= step else 0
            guess = left + up - corner
            now[at] = (now[at] + (
                0, left, up, (left + up) // 2,
                min((left, up, corner), key=lambda one, guess=guess: abs(
                    guess - one)))[kind]) & 255
        found |= {tuple(now[at:at + 3]) for at in range(0, len(now), step)}
        above = now
    return found


@pytest.fixture(scope='module')
def report(tmp_path_factory):
    """The report of a flow that failed, with a secret in its failure."""
    home = tmp_path_factory.mktemp('report')
    url = 'sqlite:///%s' % (home / 'journal.db')
    database.upgrade(url)
    world = helpers.World()
    world.failing['do c'] = ValueError(
        '<b>no</b> login with correct-horse-battery')
    known = registry.Registry()
    # By this name the installed plugins draw a graph.
    known.add(registry.FlowType('build_instance', '1.0',
                                examples.simple(world)['flow']))
    engine = runner.Runner(
        database.Database(url), serialization.Serializer(
            vault=serialization.Vault([helpers.KEY])), known, 'host',
        renew=False)
    outcome = engine.run(journal.FlowRequest(
        name='build_instance', store={
            'password': serialization.Secret('correct-horse-battery')}))
    engine.close()
    conf = home / 'nova.conf'
    conf.write_text('[ssm]\nconnection = %s\n' % url)
    page = home / 'flow.html'
    try:
        assert main.main(['--config-file', str(conf), 'flow', 'report',
                          outcome.uuid, '-o', str(page)]) == 0
    finally:
        # An embedded Nova has options of its own to parse.
        cfg.CONF.reset()
    return page


@pytest.fixture(scope='module')
def dom(report, tmp_path_factory):
    return browse(tmp_path_factory.mktemp('chromium'),
                  report.as_uri(), '--dump-dom')


def test_the_browser_reads_it_as_it_was_written(dom):
    text, _log = dom
    assert text.count('class="bar failed"') >= 1
    assert 'undo a' in text
    assert '<svg' in text
    assert 'CastBuild' in text
    assert '&lt;b&gt;no&lt;/b&gt; login' in text


def test_it_breaks_no_rule_of_its_own_and_asks_nobody(dom):
    _text, log = dom
    assert 'Refused to' not in log
    assert 'Content Security Policy' not in log
    assert 'net::ERR' not in log


def test_no_secret_is_in_it(dom):
    text, _log = dom
    assert 'correct-horse' not in text
    assert '***' in text


def test_its_bars_can_be_seen(report, tmp_path):
    picture = tmp_path / 'page.png'
    browse(tmp_path / 'home', report.as_uri(), '--screenshot=%s' % picture)
    assert {DONE, FAILED, UNDONE} <= colours(picture)
