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

Servers are moved in the same way, each by a request of its own: see
:mod:`nova_ssm.tests.cloud.moves_rounds`.
"""

import argparse
import dataclasses
import json
import random
import sys
import time
from typing import Any
from typing import Protocol

from rich import console

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import moves
from nova_ssm.tests.cloud import moves_rounds
from nova_ssm.tests.cloud import report
from nova_ssm.tests.cloud import rounds
from nova_ssm.tests.cloud import settings
from nova_ssm.tests import provenance


BUILD = 'build'
#: All operations of moves, one after the other.
MOVES = 'moves'
#: What is built, or moved, at once.
_SERVERS = {BUILD: 20, MOVES: 6}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='crash.sh', description='Build or move servers, kill the '
        'conductor that works on them at a random moment, count what became '
        'of them.')
    parser.add_argument(
        '--operation', choices=(BUILD, *moves.OPERATIONS, MOVES),
        default=BUILD,
        help=f'what is done with the servers (default {BUILD}); {MOVES}: '
        'each way to move them')
    parser.add_argument('--rounds', type=int, default=10,
                        help='of each operation and mode (default 10)')
    parser.add_argument('--servers', type=int, default=None,
                        help='at once (default {build} to build, {moves} to '
                        'move)'.format(**_SERVERS))
    parser.add_argument('--mode', choices=(*cloud.MODES, 'both'),
                        default='both')
    parser.add_argument('--networks', choices=('auto', 'none'),
                        default='auto', help='one port a server, or none '
                        '(what is moved has one)')
    parser.add_argument('--seed', type=int, default=None,
                        help='of the moments; default: another each time')
    return parser


class Player(Protocol):
    """Plays the rounds of one operation."""

    def undisturbed(self) -> float:
        """Do it without a kill; return how long a conductor worked, in s."""

    def play(self, moment: float) -> Any:
        """Play one round; kill after that many seconds."""

    def close(self) -> dict[str, list[str]]:
        """Clean up; return what is left in the databases after that."""


class Trial:
    """All rounds of one operation, and the file that they go to."""

    def __init__(self, it: cloud.Cloud, operation: str,
                 args: argparse.Namespace, seed: int,
                 out: console.Console) -> None:
        self._cloud = it
        self._operation = operation
        self._args = args
        self._out = out
        self._seed = seed
        self._count = args.servers or _SERVERS[
            BUILD if operation == BUILD else MOVES]
        name = '' if operation == BUILD else f'{operation}-'
        self._path = it.settings.results / time.strftime(
            f'crash-{name}%Y%m%d-%H%M%S.json')
        self._played: dict[str, list[Any]] = {}
        self._missed: dict[str, list[Any]] = {}
        self._took: dict[str, float] = {}
        self._stamp = provenance.stamp()

    def play(self, mode: str) -> None:
        """Play the rounds of one mode."""
        source = random.Random(self._seed)
        # As fractions of the time that a conductor works.
        moments = [source.random() for _ in range(self._args.rounds)]
        self._cloud.up(mode)
        player = self._player()
        # The first one warms everything up.
        player.undisturbed()
        took = self._took[mode] = player.undisturbed()
        self._out.print(
            f'{self._operation}, {mode}: a conductor works {took:.1f} s on '
            f'{self._count} servers, undisturbed')
        played = self._played[mode] = []
        missed = self._missed[mode] = []
        # Each moment has a second and a third chance.
        while len(played) < len(moments) and len(missed) <= 2 * len(moments):
            result = player.play(moments[len(played)] * took)
            (missed if result.missed else played).append(result)
            report.show_round(self._out, len(played), self._operation,
                              result)
            self._write()
        left = player.close()
        if left and played:
            played[-1].left.update(left)
            self._out.print(f'left after the deletion of all: {left}')
            self._write()

    @property
    def begun(self) -> bool:
        """Whether at least one round was played."""
        return any(self._played.values())

    def _player(self) -> Player:
        if self._operation == BUILD:
            return rounds.Player(self._cloud, self._count,
                                 self._args.networks)
        return moves_rounds.Player(
            self._cloud, moves.OPERATIONS[self._operation], self._count)

    def _write(self) -> None:
        self._path.write_text(json.dumps({
            **self._stamp, 'operation': self._operation, 'seed': self._seed,
            'servers': self._count, 'networks': self._args.networks,
            'undisturbed': self._took, 'rounds': _plain(self._played),
            'missed': _plain(self._missed)}, indent=1))

    def report(self) -> bool:
        """Print the modes beside each other; return whether all is well."""
        report.show_all(self._out, self._operation, self._played, self._took)
        self._out.print(f'seed {self._seed}; written to {self._path}',
                        soft_wrap=True)
        short = any(len(results) < self._args.rounds
                    for results in self._played.values())
        if short:
            self._out.print('too many rounds missed the conductor at work')
        return not (short or any(one.failed for one in
                                 self._played.get('ssm', ())))


def _plain(results: dict[str, list[Any]]) -> dict[str, list[dict]]:
    return {mode: [dataclasses.asdict(one) for one in some]
            for mode, some in results.items()}


def _run(it: cloud.Cloud, args: argparse.Namespace,
         out: console.Console) -> int:
    """Play all operations in all modes."""
    seed = (random.SystemRandom().randrange(10 ** 6)
            if args.seed is None else args.seed)
    operations = (tuple(moves.OPERATIONS) if args.operation == MOVES
                  else (args.operation,))
    trials = [Trial(it, operation, args, seed, out)
              for operation in operations]
    modes = ('stock', 'ssm') if args.mode == 'both' else (args.mode,)
    try:
        # The conductors are exchanged once, not once an operation.
        for mode in modes:
            for trial in trials:
                trial.play(mode)
    finally:
        # Also of what was played until something went wrong.
        well = [trial.report() for trial in trials if trial.begun]
    return 0 if all(well) else 1


def main() -> int:
    """Run the command. Returns the status of the process."""
    args = _parser().parse_args()
    if args.rounds < 1 or args.servers is not None and args.servers < 1:
        print('crash: --rounds and --servers begin at 1', file=sys.stderr)
        return 2
    # Piped into a file, the tables keep their width.
    out = console.Console(width=None if sys.stdout.isatty() else 160)
    try:
        it = cloud.Cloud(say=lambda text: print(text, file=sys.stderr))
        with it.reserved('crash test'):
            return _run(it, args, out)
    except settings.CloudError as error:
        print(f'crash: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
