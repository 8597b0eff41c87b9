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

"""nova-conductor with nova_ssm beside stock; see tools/bench.sh.

The conductors of the cloud of processes run stock Nova and nova_ssm in turn.
In each turn servers are built, one by one and many in a request, and moved;
what the conductors use meanwhile is read from outside, less what they use
when nothing is asked of them. The turns of a pair follow each other at once,
and the mode that begins changes from pair to pair: what the machine does
beside that meets both.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

import psutil
from rich import console

from nova_ssm.tests.bench import conductor_meter as meter_module
from nova_ssm.tests.bench import conductor_profile
from nova_ssm.tests.bench import conductor_report
from nova_ssm.tests.bench import conductor_work
from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import settings

#: Seconds after the last server in which the computes' calls trickle in.
_SETTLE = 1.5
#: Seconds after a warm-up until the conductors count as idle.
_REST = 5
_MODES = ('stock', 'ssm')
_LOADS = ('single', 'together', 'live-migrate', 'resize')


@dataclasses.dataclass
class Turn:
    """What one mode has used for one load.

    :param raw: what the conductors have used meanwhile
    :param used: that, less their idle share
    :param took: seconds that each server took
    """

    round: int
    mode: str
    load: str
    raw: meter_module.Reading
    used: meter_module.Reading
    took: list[float]


@dataclasses.dataclass
class Result:
    """All that was measured.

    :param idle: of each mode what its conductors use when nothing is asked
    :param machine: its load average over one minute, at the begin and the
        end, and its number of processors
    """

    sizes: conductor_work.Sizes
    turns: list[Turn] = dataclasses.field(default_factory=list)
    idle: dict[str, meter_module.Reading] = dataclasses.field(
        default_factory=dict)
    machine: dict[str, Any] = dataclasses.field(default_factory=dict)
    #: Names of loads, as the tables call them.
    titles: dict[str, str] = dataclasses.field(default_factory=dict)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='bench.sh conductor', description='Build and move servers '
        'through the public API, with stock conductors and with nova_ssm in '
        'turn, and compare what the conductors use for each server.')
    sizes = conductor_work.Sizes()
    parser.add_argument('--rounds', type=int, default=3,
                        help='of each mode (default 3)')
    parser.add_argument('--loads', default=','.join(_LOADS),
                        help='which of them (default all): %(default)s')
    parser.add_argument('--singles', type=int, default=sizes.singles,
                        help='servers built one by one in a round '
                        '(default %(default)s)')
    parser.add_argument('--requests', type=int, default=sizes.requests,
                        help='requests for many servers in a round '
                        '(default %(default)s)')
    parser.add_argument('--together', type=int, default=sizes.together,
                        help='servers in such a request (default '
                        '%(default)s)')
    parser.add_argument('--moves', type=int, default=sizes.moves,
                        help='servers moved in a round (default '
                        '%(default)s)')
    parser.add_argument('--networks', choices=('auto', 'none'),
                        default=sizes.networks,
                        help='one port a server, or none')
    parser.add_argument('--idle', type=float, default=20,
                        help='seconds in each turn to see what idle '
                        'conductors use (default %(default)s)')
    parser.add_argument('--modes', default=','.join(_MODES),
                        help='default: %(default)s')
    parser.add_argument('--debug', action='store_true',
                        help='let the conductors log what they debug')
    parser.add_argument('--profile', action='store_true',
                        help='sample the conductors, and say where the time '
                        'goes; that slows them down')
    parser.add_argument('-f', '--format', choices=('table', 'json'),
                        default='table')
    return parser


class Bench:
    """Plays all turns in one cloud."""

    def __init__(self, it: cloud.Cloud, args: argparse.Namespace,
                 where: pathlib.Path) -> None:
        self._cloud = it
        self._args = args
        self._where = where
        self._meter = meter_module.Meter(it)
        self._modes = args.modes.split(',')
        self.result = Result(conductor_work.Sizes(
            args.singles, args.requests, args.together, args.moves,
            args.networks))
        self._loads = conductor_work.loads(it, self.result.sizes)

    def play(self) -> None:
        """Play all rounds; each has a turn of each mode."""
        self.result.machine = {'processors': os.cpu_count(),
                               'load at the begin': psutil.getloadavg()[0]}
        for number in range(self._args.rounds):
            modes = self._modes[::-1] if number % 2 else self._modes
            for mode in modes:
                self._turn(number, mode)
        self.result.machine['load at the end'] = psutil.getloadavg()[0]

    def _turn(self, number: int, mode: str) -> None:
        self._cloud.up(mode)
        # A mode that did not change restarts nobody.
        self._warm_up()
        # The computes still tell of what was deleted.
        time.sleep(_REST)
        idle = self._meter.idle(self._args.idle)
        self.result.idle[mode] = (self.result.idle.get(
            mode, meter_module.NOTHING) + idle)
        for name in self._args.loads.split(','):
            turn = self._measure(number, mode, name, idle)
            self.result.turns.append(turn)
            print('round %d, %s, %s: %.0f ms of processor and %.1f commits '
                  'a server' % (
                      number + 1, mode, name,
                      1000 * turn.used.cpu / len(turn.took),
                      turn.used.sql['commit'] / len(turn.took)),
                  file=sys.stderr, flush=True)

    def _warm_up(self) -> None:
        """Let caches and pools fill, in both conductors."""
        few = dataclasses.replace(
            self.result.sizes, singles=4, requests=1, moves=2,
            together=min(8, self.result.sizes.together))
        for name, make in conductor_work.loads(self._cloud, few).items():
            if name in self._args.loads.split(','):
                self._play_load(make())

    def _measure(self, number: int, mode: str, name: str,
                 idle: meter_module.Reading) -> Turn:
        load = self._loads[name]()
        self.result.titles[name] = load.name
        sampled = (conductor_profile.sampled(
            self._cloud, self._where / f'{mode}-{name}-{number}.txt')
            if self._args.profile else contextlib.nullcontext())
        used, took = self._play_load(load, sampled)
        return Turn(number, mode, name, used, used.without(idle), took)

    def _play_load(self, load: conductor_work.Load,
                   sampled: contextlib.AbstractContextManager | None = None
                   ) -> tuple[meter_module.Reading, list[float]]:
        load.prepare()
        time.sleep(_SETTLE)
        with sampled or contextlib.nullcontext():
            before = self._meter.read()
            took = load.run()
            time.sleep(_SETTLE)
            used = self._meter.read() - before
        load.clean()
        return used, took


def _draw(path: pathlib.Path) -> None:
    """Draw the plot with the interpreter that has matplotlib."""
    python = os.environ.get('NOVA_SSM_BENCH_PYTHON')
    if python:
        subprocess.run([python, '-m', 'nova_ssm.tests.bench.conductor_plot',
                        str(path)], check=True)


def _report(bench: Bench, args: argparse.Namespace,
            where: pathlib.Path) -> None:
    data = conductor_report.data(bench.result)
    path = where / 'conductor.json'
    path.write_text(json.dumps(data, indent=1))
    out = console.Console(width=None if sys.stdout.isatty() else 150)
    if args.format == 'json':
        print(path.read_text())
    else:
        for table in conductor_report.tables(data):
            out.print(table)
        if args.profile:
            for table in conductor_profile.tables(where):
                out.print(table)
        out.print(f'written to {where}', soft_wrap=True)
    if len(data['modes']) == len(_MODES):
        _draw(path)


def main() -> int:
    """Run the command. Returns the status of the process."""
    args = _parser().parse_args()
    try:
        where = dataclasses.replace(settings.load(), debug=args.debug)
        results = (where.state / 'results/bench' /
                   time.strftime('conductor-%Y%m%d-%H%M%S'))
        results.mkdir(parents=True)
        it = cloud.Cloud(where, say=lambda text: print(text,
                                                       file=sys.stderr))
        with it.reserved('benchmark'):
            bench = Bench(it, args, results)
            try:
                bench.play()
            finally:
                if bench.result.turns:
                    _report(bench, args, results)
    except settings.CloudError as error:
        print(f'bench: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
