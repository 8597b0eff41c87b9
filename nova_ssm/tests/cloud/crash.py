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

A round asks for servers in one request and, at a random moment of the time
that a conductor works on them when nobody disturbs it (from the API's answer
to the last cast, measured in the same mode), kills the process group of the
conductor that works on them. The other conductor lives all the
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


class Trial:
    """All rounds of one call, and the file that they are written to."""

    def __init__(self, it: cloud.Cloud, args: argparse.Namespace,
                 out: console.Console) -> None:
        self._cloud = it
        self._args = args
        self._out = out
        self._seed = (random.SystemRandom().randrange(10 ** 6)
                      if args.seed is None else args.seed)
        self._path = it.settings.results / time.strftime(
            'crash-%Y%m%d-%H%M%S.json')
        self._played: dict[str, list[rounds.Round]] = {}
        self._missed: dict[str, list[rounds.Round]] = {}
        self._builds: dict[str, float] = {}

    def run(self) -> int:
        """Play all modes. Returns the status of the process."""
        args = self._args
        source = random.Random(self._seed)
        moments = [source.random() for _ in range(args.rounds)]
        for mode in (('stock', 'ssm') if args.mode == 'both'
                     else (args.mode,)):
            self._play(mode, moments)
        report.show_all(self._out, self._played, self._builds)
        self._out.print(f'seed {self._seed}; written to {self._path}',
                        soft_wrap=True)
        short = any(len(results) < args.rounds
                    for results in self._played.values())
        if short:
            self._out.print('too many rounds missed the conductor at work')
        failed = any(one.failed for one in self._played.get('ssm', ()))
        return 1 if short or failed else 0

    def _play(self, mode: str, moments: list[float]) -> None:
        """Play the rounds of one mode.

        :param moments: as fractions of a conductor's time
        """
        self._cloud.up(mode)
        player = rounds.Player(self._cloud, self._args.servers,
                               self._args.networks)
        # The first one warms everything up.
        player.undisturbed()
        took = self._builds[mode] = player.undisturbed()
        self._out.print(f'{mode}: a conductor works {took:.1f} s on '
                        f'{self._args.servers} servers, undisturbed')
        played = self._played[mode] = []
        missed = self._missed[mode] = []
        # Each moment has a second and a third chance.
        while len(played) < len(moments) and len(missed) <= 2 * len(moments):
            result = player.play(moments[len(played)] * took)
            (missed if result.missed else played).append(result)
            report.show_round(self._out, len(played), result)
            self._write()

    def _write(self) -> None:
        self._path.write_text(json.dumps({
            'seed': self._seed, 'servers': self._args.servers,
            'networks': self._args.networks, 'undisturbed': self._builds,
            'rounds': _plain(self._played), 'missed': _plain(self._missed),
        }, indent=1))


def _plain(results: dict[str, list[rounds.Round]]) -> dict[str, list[dict]]:
    return {mode: [dataclasses.asdict(one) for one in some]
            for mode, some in results.items()}


def main() -> int:
    """Run the command. Returns the status of the process."""
    args = _parser().parse_args()
    if args.rounds < 1 or args.servers < 1:
        print('crash: --rounds and --servers begin at 1', file=sys.stderr)
        return 2
    # Piped into a file, the tables keep their width.
    out = console.Console(width=None if sys.stdout.isatty() else 160)
    try:
        it = cloud.Cloud(say=lambda text: print(text, file=sys.stderr))
        with it.reserved('crash test'):
            return Trial(it, args, out).run()
    except settings.CloudError as error:
        print(f'crash: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
