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
"""Kills the conductor at work, again and again; see tools/crash.sh.

A round asks for servers in one request and, at a random moment between the
API's answer and the time that an undisturbed build takes, kills the process
group of the conductor that works on them. The other conductor lives all the
time; the killed one is started again after some seconds.

The victim is the owner in the tables of nova_ssm, else the conductor whose
log shows the request, else the one that has used the processor since. The
last is a guess for the few tenths of a second before stock Nova logs
anything. When it turns out that the other one had the request, the round has
tested nothing: it is shown as missed, left out of the sum, and played again.
"""

import argparse
import dataclasses
import json
import random
import sys
import time

from rich import console

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import report
from nova_ssm.tests.cloud import rounds
from nova_ssm.tests.cloud import settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='crash.sh', description='Build servers, kill the conductor that '
        'works on them at a random moment, count what became of them.')
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--servers', type=int, default=20,
                        help='in one request (default 20)')
    parser.add_argument('--mode', choices=(*cloud.MODES, 'both'),
                        default='both')
    parser.add_argument('--networks', choices=('auto', 'none'),
                        default='auto', help='one port a server, or none')
    parser.add_argument('--seed', type=int, default=None,
                        help='of the moments; default: another each time')
    return parser


def _play(player: rounds.Player, mode: str, moments: list[float],
          out: console.Console) -> tuple[list[rounds.Round],
                                         list[rounds.Round]]:
    """Return the rounds that count, and those that missed."""
    counted: list[rounds.Round] = []
    missed: list[rounds.Round] = []
    waiting = list(moments)
    # Each moment has a second and a third chance.
    while waiting and len(missed) <= 2 * len(moments):
        result = player.play(waiting[0])
        report.show_round(out, len(counted) + 1, result)
        if result.missed:
            missed.append(result)
            continue
        counted.append(result)
        waiting.pop(0)
    return counted, missed


def _run(args: argparse.Namespace, out: console.Console) -> int:
    it = cloud.Cloud(say=lambda text: print(text, file=sys.stderr))
    seed = random.SystemRandom().randrange(10 ** 6) if (
        args.seed is None) else args.seed
    source = random.Random(seed)
    fractions = [source.random() for _ in range(args.rounds)]
    modes = ('stock', 'ssm') if args.mode == 'both' else (args.mode,)
    played, missed, builds = {}, {}, {}
    for mode in modes:
        it.up(mode)
        player = rounds.Player(it, args.servers, args.networks)
        # The first one warms everything up.
        player.undisturbed()
        builds[mode] = player.undisturbed()
        out.print(f'{mode}: an undisturbed build of {args.servers} takes '
                  f'{builds[mode]:.1f} s')
        played[mode], missed[mode] = _play(
            player, mode, [f * builds[mode] for f in fractions], out)
    report.show_all(out, played, builds)
    path = it.settings.results / time.strftime('crash-%Y%m%d-%H%M%S.json')
    path.write_text(json.dumps({
        'seed': seed, 'servers': args.servers, 'networks': args.networks,
        'undisturbed': builds,
        'rounds': {mode: [dataclasses.asdict(one) for one in results]
                   for mode, results in played.items()},
        'missed': {mode: [dataclasses.asdict(one) for one in results]
                   for mode, results in missed.items()}}, indent=1))
    out.print(f'seed {seed}; written to {path}', soft_wrap=True)
    short = any(len(results) < args.rounds for results in played.values())
    failed = any(one.failed for one in played.get('ssm', ()))
    if short:
        out.print('too many rounds missed the conductor at work')
    return 1 if short or failed else 0


def main() -> int:
    """Run the command. Returns the status of the process."""
    args = _parser().parse_args()
    if args.rounds < 1 or args.servers < 1:
        print('crash: --rounds and --servers begin at 1', file=sys.stderr)
        return 2
    # Piped into a file, the tables keep their width.
    out = console.Console(width=None if sys.stdout.isatty() else 160)
    try:
        return _run(args, out)
    except settings.CloudError as error:
        print(f'crash: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
