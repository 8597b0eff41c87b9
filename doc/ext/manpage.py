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

"""Makes the manual page of nova-ssm from the help of its commands.

``python doc/ext/manpage.py doc/man/nova-ssm.1`` writes it.
"""

import argparse
import os
import pathlib
import sys

from cliff import command as cliff_command
from docutils import core

from nova_ssm.cmd import main as main_module

_HEAD = '''\
========
nova-ssm
========

-------------------------------------------------
looks after the durable workflows of nova-conductor
-------------------------------------------------

:Manual section: 1
:Manual group: OpenStack

SYNOPSIS
========

**nova-ssm** [--config-file *PATH*] [--config-dir *DIR*] *COMMAND* ...

DESCRIPTION
===========

nova_ssm runs the long operations of nova-conductor as task graphs that survive
the conductor. This command shows them, and looks after their journal. It reads
nova.conf.

OPTIONS
=======

%(options)s

COMMANDS
========

%(commands)s

FILES
=====

nova.conf, where Nova looks for it; sections [ssm], [conductor] and [database].

SEE ALSO
========

**nova-conductor**\\(8), **nova-manage**\\(8)
'''


def _text(words: str | None) -> str:
    """Words of a help, as they are."""
    for character in '\\*`|':
        words = (words or '').replace(character, '\\' + character)
    return ' '.join(words.split())


def _options(parser: argparse.ArgumentParser) -> str:
    lines = []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS or action.dest == 'help':
            continue
        names = ', '.join(action.option_strings) or (
            action.metavar if isinstance(action.metavar, str)
            else action.dest)
        if action.option_strings and action.nargs != 0:
            names += ' ' + str(action.metavar or action.dest.upper())
        help_ = (action.help or '') % {
            **vars(action), 'prog': 'nova-ssm',
            'default': action.default} if '%' in (
                action.help or '') else action.help
        lines += ['**%s**' % _text(names), '    %s' % (_text(help_) or '-'),
                  '']
    return '\n'.join(lines)


def _own(parser: argparse.ArgumentParser,
         known: set[str]) -> argparse.ArgumentParser:
    """The parser without what all commands of cliff have."""
    parser._actions = [one for one in parser._actions
                       if one.dest not in known]
    return parser


def page() -> str:
    """The manual page, as roff."""
    # Help is folded to the width of the terminal.
    os.environ['COLUMNS'] = '78'
    app = main_module.NovaSSMApp()
    app.options = app.parser.parse_args([])
    commands = []
    manager = app.command_manager
    for name in sorted(manager.commands):
        if name in ('complete', 'help'):
            continue
        factory, _name, _rest = manager.find_command(name.split())
        made: cliff_command.Command = factory(app, None, cmd_name=name)
        parser = made.get_parser('nova-ssm ' + name)
        shared = _shared(type(made))
        usage = ' '.join(['nova-ssm', name, *(
            str(action.metavar or action.dest).upper()
            for action in parser._actions if not action.option_strings)])
        commands += [_text(usage), '-' * len(_text(usage)), '',
                     _text(made.get_description()), '',
                     _options(_own(parser, shared))]
    source = _HEAD % {'options': _options(app.parser),
                      'commands': '\n'.join(commands)}
    made_page = core.publish_string(
        source, writer_name='manpage', settings_overrides={
            'report_level': 3, 'halt_level': 3, 'output_encoding': 'unicode',
            'datestamp': None})
    # docutils names itself and its version.
    return ''.join(line for line in str(made_page).splitlines(True)
                   if 'docutils' not in line.lower())


def _shared(cls: type) -> set[str]:
    """The options that a kind of command has from cliff."""
    bases = [one for one in cls.__mro__ if one.__module__.startswith('cliff.')]
    parser = type('Bare', (bases[0],), {
        '__doc__': '', 'take_action': lambda self, args: None})(
            main_module.NovaSSMApp(), None).get_parser('x')
    return {action.dest for action in parser._actions
            if action.dest != 'help'}


if __name__ == '__main__':
    pathlib.Path(sys.argv[1]).write_text(page(), encoding='utf-8')
