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
"""The command line of the cloud; see tools/cloud.sh."""

import argparse
import dataclasses
import json
import os
import shlex
import sys
import time

from rich import console
from rich import table

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import services
from nova_ssm.tests.cloud import settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='cloud.sh', description='An OpenStack control plane of real '
        'processes on this machine: keystone, placement, glance, neutron, '
        'and Nova with two conductors and three fake computes.')
    commands = parser.add_subparsers(dest='command', required=True)
    up = commands.add_parser('up', help='start what does not run')
    up.add_argument('--stock', dest='mode', action='store_const',
                    const='stock', help='conductors without nova_ssm')
    up.add_argument('--ssm', dest='mode', action='store_const', const='ssm',
                    help='conductors with nova_ssm (the default at first)')
    down = commands.add_parser('down', help='stop everything')
    down.add_argument('--wipe', action='store_true',
                      help='remove all data of the cloud, too')
    status = commands.add_parser('status', help='show the services')
    status.add_argument('-f', '--format', choices=('table', 'json'),
                        default='table')
    for name, text in (
            ('kill', 'SIGKILL the process group of a service'),
            ('pause', 'SIGSTOP the process group of a service'),
            ('resume', 'SIGCONT the process group of a service'),
            ('start', 'start a service'), ('stop', 'stop a service'),
            ('restart', 'stop and start a service')):
        one = commands.add_parser(name, help=text)
        one.add_argument('name', nargs='+', choices=services.ALL,
                         metavar='NAME', help=', '.join(services.ALL))
    logs = commands.add_parser('logs', help='show the end of the logs')
    logs.add_argument('name', nargs='?', choices=services.ALL, metavar='NAME')
    logs.add_argument('-n', type=int, default=20, metavar='LINES')
    logs.add_argument('-f', '--follow', action='store_true')
    commands.add_parser('env', help='print exports for a shell')
    mode = commands.add_parser('mode', help='show or change the conductors')
    mode.add_argument('mode', nargs='?', choices=cloud.MODES)
    run = commands.add_parser('tempest', help='run tempest against it')
    run.add_argument('--compare', action='store_true',
                     help='run on stock, then with nova_ssm; status 1 if a '
                     'test that passes on stock does not with nova_ssm')
    run.add_argument('-j', '--workers', type=int, default=3)
    run.add_argument('regex', nargs='?', help='default: the tests of servers '
                     'and migrations')
    return parser


def _status(it: cloud.Cloud, form: str) -> int:
    rows = it.status()
    if form == 'json':
        print(json.dumps({
            'mode': it.mode,
            'services': [dataclasses.asdict(row) for row in rows]}, indent=1))
    else:
        shown = table.Table(title=f'conductors in {it.mode} mode')
        for column in ('name', 'pid', 'state', 'port', 'memory MiB'):
            shown.add_column(column, justify='left' if column in (
                'name', 'state') else 'right')
        for row in rows:
            shown.add_row(row.name, str(row.pid or ''), row.state,
                          str(row.port or ''), str(row.memory or ''))
        console.Console().print(shown)
    return 0 if all(row.state == 'up' for row in rows) else 1


def _logs(it: cloud.Cloud, name: str | None, lines: int,
          follow: bool) -> int:
    files = [str(path) for path in map(
        it.log_file, [name] if name else services.ALL) if path.exists()]
    if not files:
        raise settings.CloudError('no logs yet; start it: tools/cloud.sh up')
    sys.stdout.flush()
    os.execvp('tail', ['tail', f'-n{lines}', *(['-F'] if follow else []),
                       *files])


def _env(it: cloud.Cloud) -> int:
    for key, value in it.settings.credentials.items():
        print(f'export {key}={shlex.quote(value)}')
    print(f'export PATH={shlex.quote(str(it.settings.venv / "bin"))}:$PATH')
    print(f'export NOVA_ETC={shlex.quote(str(it.settings.etc / "nova"))}')
    print('nova-ssm() { command nova-ssm --config-file "$NOVA_ETC/nova.conf" '
          '--config-file "$NOVA_ETC/cond1.conf" "$@"; }')
    return 0


def _dispatch(it: cloud.Cloud, args: argparse.Namespace) -> int:
    match args.command:
        case 'up':
            it.up(args.mode)
        case 'down':
            it.down(args.wipe)
        case 'status':
            return _status(it, args.format)
        case 'logs':
            return _logs(it, args.name, args.n, args.follow)
        case 'env':
            return _env(it)
        case 'mode':
            if args.mode:
                it.set_mode(args.mode)
            print(it.mode)
        case 'tempest':
            from nova_ssm.tests.cloud import tempest
            return tempest.main(it, args.regex, args.workers, args.compare)
        case _:
            _services(it, args.command, args.name)
    return 0


def _services(it: cloud.Cloud, command: str, names: list[str]) -> None:
    if command in ('stop', 'restart'):
        it.stop(*names)
    if command in ('start', 'restart'):
        it.start(*names)
    if command in ('kill', 'pause', 'resume'):
        for name in names:
            getattr(it, command)(name)


def main() -> int:
    """Run one command. Returns the status of the process."""
    args = _parser().parse_args()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f'[{time.monotonic() - began:5.0f} s] {text}', file=sys.stderr,
              flush=True)

    try:
        return _dispatch(cloud.Cloud(say=say), args)
    except settings.CloudError as error:
        print(f'cloud: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
