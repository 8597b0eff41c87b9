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

"""Say what a command is about to change, and ask."""

import argparse
import getpass
import os
import socket
import sys

from nova_ssm.cmd import main
from nova_ssm.engine import exception


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Let people say yes in advance."""
    parser.add_argument(
        '--yes', action='store_true', help='do it without asking')


def confirm(app: main.NovaSSMApp, parsed_args: argparse.Namespace,
            what: list[str]) -> None:
    """Ask whether to go on, unless that was said already.

    :param what: what is going to be done, a line each
    :raises NotSteerable: if the answer is no, or nobody is there to give it
    """
    if parsed_args.yes:
        return
    app.stderr.write('\n'.join(what) + '\n')
    if not sys.stdin.isatty():
        raise exception.NotSteerable(
            'nothing is done: nobody is there to be asked, say --yes')
    app.stderr.write('Go on? [y/N] ')
    app.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ('y', 'yes'):
        raise exception.NotSteerable('nothing is done')


def who() -> str:
    """Who gives the command, for those who ask later."""
    user = os.environ.get('SUDO_USER')
    if not user:
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = str(os.getuid())     # a container may not know its users
    return '%s@%s' % (user, socket.gethostname())
