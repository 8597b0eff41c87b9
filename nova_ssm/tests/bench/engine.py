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
"""The engine beside other runners of the same flow; see tools/bench.sh.

All of them are measured in turn, again and again: what else the machine does
meets them all alike. What is told is the median of the rounds.
"""

import argparse
from collections.abc import Iterator
import contextlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
from typing import Any

from rich import console
from rich import progress

from nova_ssm.tests.bench import engine_report
from nova_ssm.tests.bench import remote
from nova_ssm.tests.servers import mariadb
from nova_ssm.tests.servers import postgresql

DATABASES = ('sqlite', 'mariadb', 'postgresql')
_SERVERS = {'mariadb': mariadb.MariaDB, 'postgresql': postgresql.PostgreSQL}
#: Those that do not run on a database.
_NOT_ON = {'dbos': {'mariadb'}}


class Place:
    """Where the peers of one kind of database are measured."""

    def __init__(self, database: str, names: list[str], home: pathlib.Path,
                 stack: contextlib.ExitStack) -> None:
        self.database = database
        self._home = home
        self._server: Any = None
        if database in _SERVERS:
            # As a service would run it: what is committed is on the disk.
            self._server = stack.enter_context(
                _SERVERS[database](durable=True))
        self.peers: list[remote.Remote] = []
        for name in names:
            if database in _NOT_ON.get(name, ()):
                continue
            peer = remote.Remote(name, self._url(name))
            stack.callback(peer.close)
            self.peers.append(peer)

    def _url(self, name: str) -> str:
        if self._server is not None:
            return self._server.fresh()
        return 'sqlite:///%s' % (self._home / ('%s.db' % name))

    def turns(self, number: int) -> Iterator[remote.Remote]:
        """The peers, each round beginning with another one."""
        start = number % len(self.peers)
        yield from self.peers[start:]
        yield from self.peers[:start]


def measure(options: argparse.Namespace,
            said: progress.Progress | None = None) -> list[dict[str, Any]]:
    """Run all the flows.

    :returns: one dict for each database, peer and number of tasks
    """
    found = engine_report.Found()
    work = _work(options)
    with contextlib.ExitStack() as stack:
        home = pathlib.Path(stack.enter_context(
            tempfile.TemporaryDirectory(prefix='nova-ssm-bench-')))
        places = [Place(database, options.peers, home, stack)
                  for database in options.databases]
        task = said.add_task('measuring', total=len(work)) if said else None
        for number, (what, *args) in enumerate(work):
            for place in places:
                for peer in place.turns(number):
                    _do(found, place.database, peer, what, args)
            if said is not None and task is not None:
                said.advance(task)
    return found.figures()


def _work(options: argparse.Namespace) -> list[tuple]:
    """What each peer is told to do, in the order of it."""
    # The first ones fill the caches of Python, of SQLAlchemy and of the
    # database, and are not looked at.
    work: list[tuple] = [('warm', tasks) for tasks in options.tasks]
    work += [('count', tasks, 3) for tasks in options.tasks]
    work += [('time', tasks) for _round in range(options.rounds)
             for tasks in options.tasks]
    return work + [('together', 10, options.flows)
                   for _round in range(options.together)]


def _do(found: engine_report.Found, database: str, peer: remote.Remote,
        what: str, args: list[int]) -> None:
    if what == 'warm':
        peer.ask('time', *args)
        return
    try:
        answer = peer.ask(what, *args)
    except remote.PeerFailed as exc:
        # Some cannot run side by side on some databases.
        found.fail(database, peer.name, what, args[0], str(exc))
        if what != 'together':
            raise
    else:
        found.add(database, peer.name, what, args, answer)


def main(argv: list[str] | None = None) -> int:
    """Measure, and tell. Returns 0 if all that was asked for was measured."""
    options = _options(argv)
    out = console.Console(stderr=True)
    with progress.Progress(console=out, transient=True) as said:
        figures = measure(options, said)
    data = engine_report.data(figures)
    results = pathlib.Path(os.environ.get('NOVA_SSM_STATE', '.state'),
                           'results', 'bench')
    results.mkdir(parents=True, exist_ok=True)
    (results / 'engine.json').write_text(json.dumps(data, indent=1) + '\n')
    if options.format == 'json':
        print(json.dumps(data, indent=1))
    else:
        width = max(100, shutil.get_terminal_size((110, 24)).columns)
        engine_report.show(data, console.Console(width=width))
    if not options.quick:
        from nova_ssm.tests.bench import engine_plot
        for path in engine_plot.draw(data, results):
            out.print('drawn: %s' % path)
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='tools/bench.sh engine', description=__doc__)
    parser.add_argument('--databases', nargs='+', choices=DATABASES,
                        default=list(DATABASES))
    parser.add_argument('--peers', nargs='+', default=[
        'memory', 'floor', 'ours', 'dbos', 'taskflow'])
    parser.add_argument('--tasks', nargs='+', type=int, default=[1, 10, 40],
                        help='how many tasks the flows have')
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--together', type=int, default=3, metavar='ROUNDS',
                        help='rounds of flows side by side')
    parser.add_argument('--flows', type=int, default=64,
                        help='how many of them')
    parser.add_argument('--quick', action='store_true',
                        help='a short form: SQLite only, no DBOS, no plot')
    parser.add_argument('-f', '--format', choices=('table', 'json'),
                        default='table')
    options = parser.parse_args(argv)
    if options.quick:
        options.databases, options.together = ['sqlite'], 0
        options.peers = [p for p in options.peers if p != 'dbos']
        options.tasks, options.rounds = [1, 10], 3
    return options


if __name__ == '__main__':
    sys.exit(main())
