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

"""Restarts the conductors one after the other while servers are built.

The same requests are sent twice in each mode, one after the other at a
steady pace: first with nobody disturbing them, then while both conductors
are restarted again and again. What is compared is what users see: what
became of their servers, and how long they waited.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import statistics
import sys
import threading
import time
from typing import Any

from rich import console
from rich import table

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import leftovers
from nova_ssm.tests.cloud import servers
from nova_ssm.tests.cloud import settings

#: Seconds from the last request until a server counts as stuck.
PATIENCE = 120.0
_PREFIX = 'roll'


@dataclasses.dataclass
class Load:
    """What became of the servers of one load. Written as it is."""

    mode: str
    restarts: int
    servers: int = 0
    active: int = 0
    error: int = 0
    #: Refused by the API.
    refused: int = 0
    #: Seconds from the API's answer until each server was ACTIVE.
    took: list[float] = dataclasses.field(default_factory=list)
    #: Seconds from each signal until the processes that got it were gone.
    stopped: list[float] = dataclasses.field(default_factory=list)
    #: Seconds from the signal until another worker claimed a flow.
    claimed: list[float] = dataclasses.field(default_factory=list)
    #: Servers with two guests.
    doubled: int = 0
    left: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    @property
    def stuck(self) -> int:
        """In BUILD, or gone."""
        return self.servers - self.active - self.error

    @property
    def failed(self) -> bool:
        """Whether anybody was harmed."""
        return bool(self.error or self.stuck or self.refused or self.doubled
                    or self.left)


class Watch:
    """Sees when each server becomes ACTIVE, or fails."""

    def __init__(self, it: cloud.Cloud) -> None:
        self._cloud = it
        #: Of each server its name, its state, and when that was seen.
        self.ended: dict[str, tuple[str, str, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> 'Watch':
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.1):
            for cell in ('nova_cell1', 'nova_cell0'):
                self._look(cell)

    def _look(self, cell: str) -> None:
        rows = self._cloud.db(
            f'SELECT uuid, display_name, vm_state FROM {cell}.instances '
            'WHERE deleted = 0 AND display_name LIKE %s '
            'AND vm_state IN (%s, %s)',
            _PREFIX + '-%', 'active', 'error')
        for row in rows:
            self.ended.setdefault(row['uuid'], (
                row['display_name'], row['vm_state'], time.monotonic()))

    def of(self, request: servers.Request) -> dict[str, tuple[str, float]]:
        """Of each server of a request that has ended: its state, and when."""
        return {number: (state, when)
                for number, (name, state, when) in list(self.ended.items())
                if name.startswith(request.name)}


class Trial:
    """The loads of one mode."""

    def __init__(self, it: cloud.Cloud, args: argparse.Namespace,
                 out: console.Console) -> None:
        self._cloud = it
        self._args = args
        self._out = out
        self._servers = servers.Servers(it)
        self._path = it.settings.results / time.strftime(
            'handover-%Y%m%d-%H%M%S.json')
        self.loads: list[Load] = []

    def play(self, mode: str) -> None:
        """Play both loads of one mode.

        :raises CloudError: if a conductor does not come back
        """
        self._cloud.up(mode)
        # The first one warms everything up.
        self._servers.delete(self._settled(self._boot()))
        for restarts in (0, self._args.restarts):
            load = Load(mode, restarts)
            self._play(load)
            self.loads.append(load)
            self._path.write_text(json.dumps(
                [dataclasses.asdict(one) for one in self.loads], indent=1))

    def _boot(self) -> servers.Request:
        return self._servers.boot(self._args.servers, _PREFIX,
                                  self._args.networks)

    def _settled(self, request: servers.Request) -> servers.Request:
        self._servers.wait(request, PATIENCE)
        return request

    def _play(self, load: Load) -> None:
        it = self._cloud
        it.wait_for(*settings.CONDUCTORS)
        it.wait_for_computes()
        since = time.time()
        signals: list[float] = []
        stop = threading.Event()
        requests: list[servers.Request] = []
        with Watch(it) as watch:
            sending = threading.Thread(
                target=self._send, args=(load, stop, requests))
            sending.start()
            try:
                self._disturb(load, signals)
            finally:
                stop.set()
                sending.join()
            self._wait(watch, requests)
        self._count(load, watch, requests)
        if load.mode == 'ssm':
            load.claimed = self._claims(since, signals)
        for request in requests:
            self._servers.delete(request)
        load.left = leftovers.wait(it, leftovers.EMPTY, *requests)

    def _send(self, load: Load, stop: threading.Event,
              requests: list[servers.Request]) -> None:
        while not stop.is_set():
            began = time.monotonic()
            try:
                requests.append(self._boot())
            except settings.CloudError as error:
                load.refused += 1
                self._out.print(str(error), markup=False)
            stop.wait(max(0.0, began + self._args.every - time.monotonic()))

    def _disturb(self, load: Load, signals: list[float]) -> None:
        """Restart the conductors in turn, or wait for as long."""
        if not load.restarts:
            time.sleep(self._args.calm)
            return
        for number in range(load.restarts):
            time.sleep(self._args.pause)
            name = settings.CONDUCTORS[number % len(settings.CONDUCTORS)]
            began = time.monotonic()
            signals.append(time.time())
            if self._args.signal == 'hup':
                self._reload(name)
            else:
                self._cloud.stop(name)
            load.stopped.append(time.monotonic() - began)
            self._cloud.start(name)
        time.sleep(self._args.pause)

    def _reload(self, name: str) -> None:
        """Let the master make new workers, as ``systemctl reload`` does."""
        master = self._cloud.conductors()[1][name]
        assert master is not None
        before = set(self._cloud.members(name)) - {master}
        os.kill(master, signal.SIGHUP)
        limit = time.monotonic() + 60
        while before & set(self._cloud.members(name)):
            if time.monotonic() > limit:
                raise settings.CloudError(f'{name} keeps its old workers')
            time.sleep(0.05)

    @staticmethod
    def _wait(watch: Watch, requests: list[servers.Request]) -> None:
        limit = time.monotonic() + PATIENCE
        while (any(len(watch.of(one)) < one.count for one in requests) and
               time.monotonic() < limit):
            time.sleep(0.2)

    def _count(self, load: Load, watch: Watch,
               requests: list[servers.Request]) -> None:
        guests = self._servers.guests()
        for request in requests:
            load.servers += request.count
            for number, (state, when) in watch.of(request).items():
                load.active += state == 'active'
                load.error += state == 'error'
                if state == 'active':
                    load.took.append(when - request.answered)
                load.doubled += (number in guests and
                                 guests[number].living > 1)

    def _claims(self, since: float, signals: list[float]) -> list[float]:
        """How long each flow that was taken over had waited for that."""
        rows = self._cloud.db(
            'SELECT created_at FROM nova_cell1.ssm_journal '
            "WHERE kind = 'claim' AND created_at > %s", since)
        found = []
        for row in rows:
            before = [when for when in signals if when <= row['created_at']]
            if before:
                found.append(row['created_at'] - before[-1])
        return found

    def report(self) -> bool:
        """Print the loads beside each other; return whether all is well."""
        shown = table.Table(title='builds while the conductors are restarted '
                            f'(SIG{self._args.signal.upper()})')
        shown.add_column('')
        for load in self.loads:
            shown.add_column(load.mode + (
                f', {load.restarts} restarts' if load.restarts
                else ', undisturbed'), justify='right')
        for name, values in _LINES.items():
            shown.add_row(name, *(values(load) for load in self.loads))
        self._out.print(shown)
        self._out.print(f'written to {self._path}', soft_wrap=True)
        return not any(load.failed for load in self.loads
                       if load.mode == 'ssm')


def _figures(values: list[float]) -> str:
    """Median, 95th percentile and the longest, in seconds."""
    if not values:
        return '-'
    ordered = sorted(values)
    return '%.2f / %.2f / %.2f' % (
        statistics.median(ordered),
        ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        ordered[-1])


_LINES: dict[str, Any] = {
    'servers': lambda load: str(load.servers),
    'ACTIVE': lambda load: str(load.active),
    'ERROR': lambda load: str(load.error),
    'in BUILD, or lost': lambda load: str(load.stuck),
    'built twice': lambda load: str(load.doubled),
    'requests refused': lambda load: str(load.refused),
    'left over': lambda load: str(sum(map(len, load.left.values()))),
    'until ACTIVE, s (p50 / p95 / max)': lambda load: _figures(load.took),
    'from signal to exit, s': lambda load: _figures(load.stopped),
    'flows handed over': lambda load: str(len(load.claimed)),
    'from signal to claim, s': lambda load: _figures(load.claimed),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='handover.sh', description='Restart both conductors in turn '
        'while servers are built, and show what that did to the builds.')
    parser.add_argument('--mode', choices=(*cloud.MODES, 'both'),
                        default='both')
    parser.add_argument('--signal', choices=('term', 'hup'), default='term',
                        help='term: stop and start (default); hup: let the '
                        'masters make new workers')
    parser.add_argument('--restarts', type=int, default=6, metavar='N',
                        help='of the conductors, in turn (default 6)')
    parser.add_argument('--servers', type=int, default=4, metavar='N',
                        help='in a request (default 4)')
    parser.add_argument('--every', type=float, default=2.0, metavar='S',
                        help='seconds between two requests (default 2)')
    parser.add_argument('--pause', type=float, default=5.0, metavar='S',
                        help='seconds before each restart (default 5)')
    parser.add_argument('--calm', type=float, default=40.0, metavar='S',
                        help='seconds of the load with no restart (40)')
    parser.add_argument('--networks', choices=('auto', 'none'),
                        default='none', help='one port a server, or none')
    return parser


def main() -> int:
    """Run the command. Returns the status of the process."""
    args = _parser().parse_args()
    # Piped into a file, the tables keep their width.
    out = console.Console(width=None if sys.stdout.isatty() else 160)
    modes = ('stock', 'ssm') if args.mode == 'both' else (args.mode,)
    try:
        it = cloud.Cloud(say=lambda text: print(text, file=sys.stderr))
        with it.reserved('hand-over test'), contextlib.ExitStack() as stack:
            trial = Trial(it, args, out)
            stack.callback(trial.report)
            for mode in modes:
                trial.play(mode)
            stack.pop_all()
            return 0 if trial.report() else 1
    except settings.CloudError as error:
        print(f'handover: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
