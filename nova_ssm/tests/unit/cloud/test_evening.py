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

"""The commands of the documentation: found, typed, and real."""

import pathlib
import re
import shlex
import subprocess

from cliff import commandmanager
import pytest

from nova_ssm.cmd import main
from nova_ssm.tests.cloud import evening
from nova_ssm.tests.cloud import settings

PAGES = [settings.ROOT / 'README.rst',
         *sorted((settings.ROOT / 'doc' / 'source').glob('*.rst'))]
PAGE = '''
A page
======

Words, and :doc:`other` words.

.. code-block:: bash

   number=7
   double() { echo $((2 * $1)); }

Not typed::

   exit 9

.. code-block:: bash

   double $number

.. shows: 14

.. code-block:: ini

   number = 8
'''


def page(*commands):
    return 'T\n=\n' + ''.join(
        '\n.. code-block:: bash\n\n   %s\n\n%s' % one for one in commands)


# -- finding -----------------------------------------------------------------

def test_what_is_typed_is_what_the_page_calls_bash():
    found = evening.blocks(PAGE)
    assert [(one.title, one.shows) for one in found] == [
        ('A page', None), ('A page', '14')]
    assert found[1].commands == 'double $number'


@pytest.mark.parametrize('text', [
    'T\n=\n\n.. shows: 1\n', page(('true', '.. shows: 1\n\n.. shows: 2\n'))])
def test_nothing_is_shown_that_was_not_typed(text):
    with pytest.raises(ValueError, match='nothing to show'):
        evening.blocks(text)


# -- typing ------------------------------------------------------------------

def test_variables_and_functions_stay(tmp_path, capsys):
    assert evening.evening(PAGE, tmp_path)
    assert capsys.readouterr().out.count('as it should be') == 2


@pytest.mark.parametrize('command, wrong', [
    (('false', ''), 'a command failed, with status 1'),
    (('exit 4', ''), 'a command failed, with status 4'),
    (('no-such-command', ''), 'a command failed, with status 127'),
    (('false | true', ''), 'a command failed, with status 1'),
    (('echo 13', '.. shows: ^14\n'), "it does not show '^14'")])
def test_what_is_wrong_ends_the_evening(tmp_path, capsys, command, wrong):
    assert not evening.evening(
        page(('true', ''), command, ('touch never', '')), tmp_path)
    assert wrong in capsys.readouterr().out
    assert not (tmp_path / 'never').exists()


def test_a_command_that_does_not_end_is_wrong(tmp_path):
    shell = evening.Shell(tmp_path, patience=0.3)
    typed = shell.type(evening.Block('T', 'sleep 60'))
    shell.close()
    assert typed.wrong == 'it did not end within 0 s'


# -- the real pages ----------------------------------------------------------

def test_the_first_evening_is_bash():
    found = evening.blocks(evening.PAGE.read_text())
    assert len(found) > 8
    assert sum(one.shows is not None for one in found) > 6
    for one in found:
        subprocess.run(['bash', '-n'], input=one.commands, text=True,
                       check=True)
        if one.shows:
            re.compile(one.shows)


def commands():
    """Each call of ``nova-ssm`` in a block of commands of some page."""
    for path in PAGES:
        for line in path.read_text().splitlines():
            found = re.match(r' {2,}(?:\S+=\$\()?nova-ssm ([a-z].*)', line)
            if found:
                yield pytest.param(
                    found[1], id='%s: %s' % (path.stem, found[1][:40]))


def words_of(line):
    """The words of a command, without what the shell makes of the rest."""
    line = re.split(r' {2,}#|\||\)$|>', line)[0]
    return shlex.split(re.sub(r'"?\$\w+"?|<[^>]*>', 'X', line))


@pytest.mark.parametrize('line', commands())
def test_each_command_of_the_documentation_is_there(line):
    """It exists, and takes the options that it is given."""
    app = main.NovaSSMApp()
    manager: commandmanager.CommandManager = app.command_manager
    factory, name, rest = manager.find_command(words_of(line))
    parser = factory(app, None, cmd_name=name).get_parser('nova-ssm ' + name)
    known = set(parser._option_string_actions)
    for word in rest:
        if word.startswith('-'):
            assert word.partition('=')[0] in known, (name, word)


def test_there_are_many():
    assert len(list(commands())) > 20


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_each_script_of_the_documentation_is_there(path):
    for name in re.findall(r'tools/[\w-]+\.(?:sh|py)', path.read_text()):
        assert pathlib.Path(settings.ROOT, name).exists(), name
