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

"""Types the commands of a page of the documentation, and looks what they show.

What is typed is each ``code-block`` of bash, in one shell, in their order. A
comment behind it, ``.. shows: REGEX``, says what must be found in what it
prints. Whatever else the page tells is not run.
"""

import dataclasses
import datetime
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from docutils import frontend
from docutils import nodes
from docutils.parsers import rst
from docutils.parsers.rst import directives
from docutils.parsers.rst import roles
from docutils import utils

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import settings

PAGE = settings.ROOT / 'doc' / 'source' / 'first-evening.rst'


@dataclasses.dataclass
class Block:
    """Some commands of the page.

    :param title: of the section that they stand in
    :param shows: what must be found in what they print, None for nothing
    """

    title: str
    commands: str
    shows: str | None = None


class _Code(rst.Directive):
    """A code block, with its language as a class."""

    has_content = True
    optional_arguments = 1

    def run(self):
        text = '\n'.join(self.content)
        return [nodes.literal_block(text, text, classes=self.arguments)]


def blocks(text: str) -> list[Block]:
    """The commands of a page.

    :raises ValueError: if something must be shown, and nothing was typed
    """
    directives.register_directive('code-block', _Code)
    # What Sphinx knows, and docutils does not.
    roles.register_local_role('doc', roles.GenericRole('doc', nodes.literal))
    document = utils.new_document('page', frontend.get_default_settings(
        rst.Parser))
    rst.Parser().parse(text, document)
    found: list[Block] = []
    title = ''
    for node in document.findall():
        if isinstance(node, nodes.title):
            title = node.astext()
        elif isinstance(node, nodes.literal_block) and (
                'bash' in node['classes']):
            found.append(Block(title, node.astext()))
        elif isinstance(node, nodes.comment) and (
                node.astext().startswith('shows:')):
            if not found or found[-1].shows is not None:
                raise ValueError('nothing to show: ' + node.astext())
            found[-1].shows = node.astext().partition(':')[2].strip()
    return found


@dataclasses.dataclass
class Typed:
    """What became of a block.

    :param wrong: what is wrong with it, None if nothing
    """

    block: Block
    seconds: float
    printed: str
    wrong: str | None


class Shell:
    """A bash that remembers what was typed before.

    :param patience: seconds that one block may take
    """

    def __init__(self, directory: pathlib.Path,
                 patience: float = 900) -> None:
        self._patience = patience
        self._files = pathlib.Path(tempfile.mkdtemp(prefix='evening-'))
        self._number = 0
        self._process = subprocess.Popen(
            ['bash', '--noprofile', '--norc', '-e', '-o', 'pipefail'],
            stdin=subprocess.PIPE, cwd=directory, text=True,
            start_new_session=True)

    def type(self, block: Block) -> Typed:
        """Type a block, and wait for its end."""
        self._number += 1
        commands, printed, done = (
            self._files / f'{self._number}.{kind}'
            for kind in ('sh', 'out', 'done'))
        commands.write_text(block.commands + '\n')
        began = time.monotonic()
        assert self._process.stdin is not None
        # Not in a shell of its own: variables and functions stay. A command
        # that fails ends it.
        self._process.stdin.write(
            f'. {commands} >{printed} 2>&1 </dev/null; touch {done}\n')
        self._process.stdin.flush()
        while not done.exists() and self._process.poll() is None and (
                time.monotonic() - began < self._patience):
            time.sleep(0.05)
        text = printed.read_text(errors='replace')
        return Typed(block, time.monotonic() - began, text,
                     self._wrong(block, done.exists(), text))

    def _wrong(self, block: Block, done: bool, text: str) -> str | None:
        if not done:
            if self._process.poll() is None:
                return 'it did not end within %d s' % self._patience
            return 'a command failed, with status %d' % (
                self._process.returncode)
        if block.shows is not None and not re.search(block.shows, text):
            return 'it does not show %r' % block.shows
        return None

    def close(self) -> None:
        """End it, and forget what was printed."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for path in self._files.iterdir():
            path.unlink()
        self._files.rmdir()


def evening(text: str, directory: pathlib.Path) -> bool:
    """Type all blocks of a page; show each as it ends.

    :returns: whether all of them did what the page says
    """
    shell = Shell(directory)
    try:
        for block in blocks(text):
            typed = shell.type(block)
            print('-- %s\n%s\n   %s, %.1f s' % (
                block.title, block.commands, typed.wrong or 'as it should be',
                typed.seconds), flush=True)
            if typed.wrong:
                print(typed.printed[-4000:])
                return False
    finally:
        shell.close()
    return True


def _wake(it: cloud.Cloud) -> None:
    """Let go on what the page has put to sleep, should it have failed."""
    for name in cloud.BREAKABLE:
        if it.status_of(name).state == 'paused':
            it.resume(name)


def _tidy(it: cloud.Cloud, since: datetime.datetime) -> None:
    """Delete the servers that came since then: their names are wanted."""
    for row in it.db('SELECT uuid FROM nova_cell1.instances '
                     'WHERE deleted = 0 AND created_at >= %s', since):
        it.client.compute.delete_server(row['uuid'], ignore_missing=True)


def run(it: cloud.Cloud) -> bool:
    """Type the page on a cloud, and leave that as it was.

    :returns: whether everything did what the page says
    :raises CloudError: if somebody uses the cloud, or it does not come back
    """
    before = it.mode
    since = datetime.datetime.now(datetime.UTC).replace(
        microsecond=0, tzinfo=None)
    with it.reserved('the evening of the documentation'):
        # The page's own commands change the conductors.
        os.environ[settings.HOLDER] = str(os.getpid())
        try:
            return evening(PAGE.read_text(), settings.ROOT)
        finally:
            _wake(it)
            it.up(before)
            _tidy(it, since)


def main() -> int:
    """Run the evening. Returns the status of the process."""
    try:
        passed = run(cloud.Cloud())
    except settings.CloudError as error:
        print('cloud: %s' % error, file=sys.stderr)
        return 1
    print('the evening of the documentation: %s' % (
        'passed' if passed else 'FAILED'))
    return 0 if passed else 1


if __name__ == '__main__':
    sys.exit(main())
