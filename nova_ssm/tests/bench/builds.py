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

"""What a build costs the conductor beside stock, in one process.

Nova runs in this process. Its API makes the requests; what it asks the
conductor for is not run but kept, and then given to stock Nova's manager
and to ours in turn. Counted is what the conductor itself does, to the cast
to the compute: no compute takes it. What the scheduler and placement do is
left out, and so are the computes' calls, which are the same in both.
"""

from nova_ssm.tests.functional import embedded  # first: it patches

# ruff: noqa: E402
import argparse
import collections
from collections.abc import Callable, Iterator
import contextlib
import cProfile
import dataclasses
import functools
import gc
import json
import os
import pathlib
import queue
import re
import signal
import statistics
import sys
import tempfile
import time
from typing import Any

from nova.conductor import manager as conductor_manager
from nova import context as nova_context
from rich import console
from rich import table
import sqlalchemy as sa
from sqlalchemy import event

from nova_ssm.tests.bench import conductor_profile

MODES = ('stock', 'ssm')
#: Files in memory: what the kernel does for a commit to a disk would be most
#: of what a commit costs the processor.
_MEMORY = '/dev/shm'  # noqa: S108
#: No time of Nova's or ours comes while something is measured.
_NEVER = 360000
#: Seconds of processor between two samples: no divisor of what runs by it.
_SAMPLE = 0.00199
_TABLE = re.compile(r'\b(?:FROM|INTO|UPDATE)\s+["`]?(\w+)')

Counts = collections.Counter[tuple[str, str]]


@dataclasses.dataclass
class Used:
    """What one request has used.

    :param cpu: seconds of processor, in all threads
    :param seconds: from the call of the manager until it is back
    :param sql: statements by verb and table, commits by database
    :param calls: of functions, if they are counted
    """

    cpu: float
    seconds: float
    sql: Counts
    calls: int = 0


class Meter:
    """Counts what this process does while it is on, but for placement."""

    def __init__(self) -> None:
        self._on = False
        self._sql: Counts = collections.Counter()
        self._cpu = self._seconds = 0.0

    def listen(self) -> None:
        """Hear of all statements from now on."""
        event.listen(sa.Engine, 'before_cursor_execute', self._said)
        event.listen(sa.Engine, 'commit', self._committed)

    def _said(self, connection: sa.Connection, _cursor: Any, statement: str,
              *_rest: Any) -> None:
        name = _TABLE.search(statement)
        self._count(connection, statement.split(None, 1)[0].upper(),
                    name[1] if name else '')

    def _committed(self, connection: sa.Connection) -> None:
        self._count(connection, 'COMMIT', _database(connection))

    def _count(self, connection: sa.Connection, verb: str, of: str) -> None:
        if self._on and _database(connection) != 'placement':
            self._sql[verb, of] += 1

    def measure(self, work: Callable[[], Any]) -> Used:
        """Do something, and tell what that has used."""
        self._sql = collections.Counter()
        self._cpu = self._seconds = 0.0
        gc.collect()
        self._run(work, 1)
        return Used(self._cpu, self._seconds, self._sql)

    def leave_out(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, not counted in what calls it."""
        def left_out(*args: Any, **kwargs: Any) -> Any:
            return self._run(lambda: work(*args, **kwargs), -1)
        return left_out

    def _run(self, work: Callable[[], Any], sign: int) -> Any:
        cpu, seconds = time.process_time(), time.monotonic()
        self._on = sign > 0
        try:
            return work()
        finally:
            self._on = sign < 0
            self._cpu += sign * (time.process_time() - cpu)
            self._seconds += sign * (time.monotonic() - seconds)


def _database(connection: sa.Connection) -> str:
    return pathlib.Path(connection.engine.url.database or '').stem


class Requests:
    """Makes requests as users do, and keeps what the conductor is asked for.

    :param nova: whose conductor does none of it by itself
    """

    def __init__(self, nova: embedded.EmbeddedNova) -> None:
        self._nova = nova
        self._asked: queue.Queue[tuple[Any, dict]] = queue.Queue()
        manager = nova.services['conductor'].manager.compute_task_mgr
        # The endpoint of RPC calls it for each message anew.
        manager.schedule_and_build_instances = (
            lambda context, **kwargs: self._asked.put((context, kwargs)))

    def make(self, servers: int) -> tuple[Any, dict]:
        """What the conductor is asked for to build some servers."""
        self._nova.boot('vm', servers)
        return self._asked.get(timeout=60)


class Managers:
    """Stock Nova's manager and ours.

    :ivar run: of each mode what does a request
    """

    def __init__(self, nova: embedded.EmbeddedNova, meter: Meter) -> None:
        ours: Any = nova.services['conductor'].manager.compute_task_mgr
        stock: Any = conductor_manager.ComputeTaskManager()
        for manager in (ours, stock):
            client = manager.query_client
            client.select_destinations = meter.leave_out(
                client.select_destinations)
        # Not what Requests has put in its place.
        method = type(ours).schedule_and_build_instances
        flush = ours.ssm.telemetry.actions.flush

        def run_ours(context: nova_context.RequestContext,
                     **kwargs: Any) -> None:
            method(ours, context, **kwargs)
            flush()     # the events of its tasks, which else come later

        self.run: dict[str, Callable[..., Any]] = {
            'stock': stock.schedule_and_build_instances, 'ssm': run_ours}


class Sampler:
    """Notes where the main thread is, by the clock of the processor."""

    def __init__(self) -> None:
        self._stacks: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def sampling(self) -> Iterator[None]:
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, _SAMPLE, _SAMPLE)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _sample(self, _signal: int, frame: Any) -> None:
        stack = []
        while frame is not None:
            code = frame.f_code
            stack.append(f'{code.co_qualname} ({code.co_filename}:1)')
            frame = frame.f_back
        self._stacks[';'.join(reversed(stack))] += 1

    def write(self, path: pathlib.Path) -> None:
        """Write the stacks as py-spy does."""
        path.write_text(''.join(f'{stack} {count}\n' for stack, count
                                in self._stacks.items()))


class Bench:
    """Gives each mode the same requests, in turn.

    :ivar found: of each mode, and number of servers, what each request used
    """

    def __init__(self, options: argparse.Namespace, directory: str) -> None:
        self._options = options
        self._directory = directory
        self._meter = Meter()
        self.samplers = {mode: Sampler() for mode in MODES}
        self.found: dict[tuple[str, int], list[Used]] = (
            collections.defaultdict(list))

    def play(self) -> None:
        """Play all rounds; the mode that begins changes from one to one."""
        with embedded.EmbeddedNova(
                self._directory, workflows=['build_instances'],
                options=_settings(self._options)) as nova:
            for host in nova.hosts:
                nova.services[host].rpcserver.stop()
            requests = Requests(nova)
            managers = Managers(nova, self._meter)
            self._meter.listen()
            for number in range(-1, self._options.rounds):
                for servers in self._options.servers:
                    for mode in MODES[::-1] if number % 2 else MODES:
                        self._turn(requests, managers, mode, servers,
                                   kept=number >= 0)

    def _turn(self, requests: Requests, managers: Managers, mode: str,
              servers: int, kept: bool) -> None:
        context, kwargs = requests.make(servers)
        context.update_store()
        sampled = (self.samplers[mode].sampling()
                   if self._options.profile and kept
                   else contextlib.nullcontext())
        with sampled:
            used = self._measure(functools.partial(
                managers.run[mode], context, **kwargs))
        if kept:
            self.found[mode, servers].append(used)

    def _measure(self, work: Callable[[], Any]) -> Used:
        if not self._options.calls:
            return self._meter.measure(work)
        profile = cProfile.Profile()
        used = self._meter.measure(lambda: profile.runcall(work))
        used.calls = sum(one.callcount for one in profile.getstats())
        return used


def _settings(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    return {
        'DEFAULT': {'report_interval': _NEVER, 'service_down_time':
                    10 * _NEVER, 'periodic_enable': False},
        'quota': {'instances': -1, 'cores': -1, 'ram': -1},
        # One thread does it all if it is looked at.
        'ssm': {'concurrency': 1 if options.profile or options.calls
                else options.concurrency,
                'task_events_interval': 3600, 'lease': 3600,
                'recovery_interval': 3600, 'audit_interval': 0}}


def data(options: argparse.Namespace,
         found: dict[tuple[str, int], list[Used]]) -> dict[str, Any]:
    """The figures, for each server: medians, and the counts of a request."""
    figures = []
    for (mode, servers), used in found.items():
        counts: Counts = sum((one.sql for one in used),
                             collections.Counter())
        each = servers * len(used)
        figures.append({
            'mode': mode, 'servers': servers,
            'cpu_ms': 1000 / servers * statistics.median(
                one.cpu for one in used),
            'cpu_ms_least': 1000 / servers * min(one.cpu for one in used),
            'cpu_ms_all': [1000 / servers * one.cpu for one in used],
            'ms': 1000 / servers * statistics.median(
                one.seconds for one in used),
            'calls': sum(one.calls for one in used) / each,
            'sql': {' '.join(key): counts[key] / each
                    for key in sorted(counts)}})
    return {'rounds': options.rounds, 'concurrency': options.concurrency,
            'load': os.getloadavg()[0], 'cores': os.cpu_count(),
            'figures': figures}


def tables(found: dict[str, Any]) -> Iterator[table.Table]:
    """The figures: one table for each number of servers in a request."""
    by_key = {(one['mode'], one['servers']): one for one in found['figures']}
    for servers in sorted({servers for _mode, servers in by_key}):
        stock, ours = (by_key[mode, servers] for mode in MODES)
        shown = table.Table(title='for each server, of %d in a request'
                            % servers)
        shown.add_column('')
        for title in ('stock', 'nova_ssm', 'ratio'):
            shown.add_column(title, justify='right')
        for name, title in (('cpu_ms', 'processor, ms (median)'),
                            ('cpu_ms_least', 'processor, ms (least)'),
                            ('ms', 'time, ms (median)'),
                            ('calls', 'calls of functions')):
            _add(shown, title, stock[name], ours[name])
        verbs: dict[str, list[str]] = {}
        for key in sorted({*stock['sql'], *ours['sql']}):
            verbs.setdefault(key.split()[0], []).append(key)
        for verb, keys in verbs.items():
            _add(shown, verb, *(sum(one['sql'].get(key, 0) for key in keys)
                                for one in (stock, ours)))
            for key in keys:
                _add(shown, '  ' + key.partition(' ')[2], *(
                    one['sql'].get(key, 0) for one in (stock, ours)))
        yield shown


def _add(shown: table.Table, title: str, stock: float, ours: float) -> None:
    shown.add_row(title, f'{stock:.2f}', f'{ours:.2f}',
                  f'{ours / stock:.2f}' if stock else '')


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='tools/bench.sh builds', description=__doc__)
    parser.add_argument('--servers', type=int, nargs='+', default=[1, 20],
                        help='in a request (default: 1 and 20)')
    parser.add_argument('--rounds', type=int, default=10,
                        help='of each mode (default %(default)s)')
    parser.add_argument('--concurrency', type=int, default=8,
                        help='[ssm] concurrency (default %(default)s)')
    parser.add_argument('--profile', action='store_true',
                        help='say where the processor is, with a '
                        'concurrency of 1')
    parser.add_argument('--calls', action='store_true',
                        help='count the calls of functions, which what else '
                        'the machine does cannot change, with a concurrency '
                        'of 1; that makes all times longer')
    parser.add_argument('-f', '--format', choices=('table', 'json'),
                        default='table')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Measure, and tell."""
    options = _options(argv)
    results = pathlib.Path(os.environ.get('NOVA_SSM_STATE', '.state'),
                           'results', 'bench')
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
            prefix='bench-builds-', dir=_MEMORY if os.path.isdir(_MEMORY)
            else None) as directory:
        bench = Bench(options, directory)
        bench.play()
    found = data(options, bench.found)
    (results / 'builds.json').write_text(json.dumps(found, indent=1) + '\n')
    out = console.Console(width=None if sys.stdout.isatty() else 150)
    if options.format == 'json':
        print(json.dumps(found, indent=1))
        return 0
    for one in tables(found):
        out.print(one)
    if options.profile:
        where = results / 'builds'
        where.mkdir(exist_ok=True)
        for mode, sampler in bench.samplers.items():
            sampler.write(where / f'{mode}-0.txt')
        for one in conductor_profile.tables(where):
            out.print(one)
    return 0


if __name__ == '__main__':
    sys.exit(main())
