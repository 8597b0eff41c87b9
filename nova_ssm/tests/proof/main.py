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
"""Runs all that proves something, and writes the page with the table."""

import argparse
from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import os
import pathlib
import subprocess
import sys
import time

from rich import console
from rich import table

from nova_ssm.tests.proof import page
from nova_ssm.tests.proof import parts as parts_module

TOOLS = page.ROOT / 'tools'


@dataclasses.dataclass(frozen=True)
class Step:
    """One test bench: how it is run, and where its results are.

    :param quick: arguments of the run of a few minutes, None for no such run
    :param long: arguments of the run that takes what it takes
    :param results: pattern of its files, below the state
    """

    name: str
    tool: str
    quick: tuple[str, ...] | None
    long: tuple[str, ...]
    results: str


_JUNIT = 'results/prove/ownership.xml'
_CLOUD = 'cloud/results/'
STEPS = (
    Step('ownership', 'pytest', (), (), _JUNIT),
    Step('oracle', 'oracle.sh', ('--sample', '30', '--restart'),
         ('--restart',), 'oracle/*/summary.json'),
    Step('faults', 'faults.sh', ('--quick',), (), 'faults/faults.json'),
    Step('faults-stock', 'faults.sh', ('--quick', '--stock'), ('--stock',),
         'faults/faults.json'),
    Step('crash', 'crash.sh', ('--rounds', '1', '--mode', 'both'),
         ('--rounds', '10', '--mode', 'both'), _CLOUD + 'crash-*.json'),
    Step('crash-moves', 'crash.sh', None,
         ('--operation', 'moves', '--rounds', '5', '--mode', 'both'),
         _CLOUD + 'crash-*-*-*.json'),
    Step('boundaries', 'boundaries.sh', None, (),
         _CLOUD + 'boundaries-*.json'),
    Step('chaos', 'chaos.sh', ('--minutes', '2'), ('--minutes', '30'),
         _CLOUD + 'chaos-*.json'),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='prove.sh', description='Run all that proves something, and '
        'write the page with the table.')
    parser.add_argument('--long', action='store_true',
                        help='all of it, which takes hours')
    parser.add_argument('--only', action='append', default=[],
                        choices=[step.name for step in STEPS],
                        help='only this; may be repeated')
    parser.add_argument('--from', dest='given', nargs='+', default=[],
                        type=pathlib.Path, metavar='RESULTS',
                        help='run nothing: take these results, in place of '
                        'all of their kinds')
    parser.add_argument('--last', action='store_true',
                        help='run nothing: take the last results of each')
    parser.add_argument('--seed', type=int, default=None,
                        help='of what is made by chance')
    parser.add_argument('--page', type=pathlib.Path, default=None,
                        metavar='DIR', help='where the page goes (default: '
                        'doc/source with --long or --from, else below the '
                        'state)')
    return parser


class Runner:
    """Runs steps.

    :param state: the directory of all results
    """

    def __init__(self, state: pathlib.Path, out: console.Console) -> None:
        self._state = state
        self._out = out
        #: What could not be run, and why.
        self.failed: list[str] = []

    def run(self, step: Step, long: bool, seed: int | None
            ) -> Iterator[parts_module.Part]:
        """Run one test bench; return what it found."""
        arguments = step.long if long else step.quick
        if arguments is None:
            return
        argv = self._argv(step, arguments, seed)
        self._out.rule(step.name)
        self._out.print(' '.join(argv), soft_wrap=True, markup=False)
        began = time.time()
        status = subprocess.run(argv, cwd=page.ROOT, check=False).returncode
        new = [path for path in sorted(self._state.glob(step.results))
               if path.stat().st_mtime >= began]
        if not new:
            self.failed.append(f'{step.name} ended with {status} and left no '
                               'results')
        for path in new:
            yield parts_module.read(path)

    def last(self, steps: Iterable[Step]) -> Iterator[parts_module.Part]:
        """Return what was found when the test benches ran last."""
        newest = {max(paths, key=lambda path: path.stat().st_mtime)
                  for paths in (list(self._state.glob(step.results))
                                for step in steps) if paths}
        for path in sorted(newest):
            yield parts_module.read(path)

    def _argv(self, step: Step, arguments: tuple[str, ...],
              seed: int | None) -> list[str]:
        if step.tool == 'pytest':
            target = self._state / step.results
            target.parent.mkdir(parents=True, exist_ok=True)
            return [sys.executable, '-m', 'pytest', '-q',
                    f'--junitxml={target}', 'nova_ssm/tests/ownership']
        seeded = step.tool in ('crash.sh', 'boundaries.sh', 'chaos.sh')
        return [str(TOOLS / step.tool), *arguments,
                *(('--seed', str(seed)) if seeded and seed is not None
                  else ())]


def show(out: console.Console,
         parts: Iterable[parts_module.Part]) -> bool:
    """Print what was found; return whether all is well with nova_ssm."""
    shown = table.Table(title='reliability')
    for name in ('part', 'mode', 'tried', 'survived', 'left over',
                 'refused'):
        shown.add_column(name, justify='left' if name in (
            'part', 'mode') else 'right')
    well = True
    for part in parts:
        for mode in parts_module.MODES:
            rows = [row for row in part.rows if row.mode == mode]
            if not rows:
                continue
            numbers = [sum(getattr(row, name) for row in rows) for name in
                       ('tried', 'survived', 'left', 'apart')]
            bad = numbers[1] < numbers[0] or numbers[2]
            shown.add_row(part.command, mode, *map(str, numbers),
                          style='bold' if bad else None)
            well = well and not (bad and mode == parts_module.SSM)
    out.print(shown)
    return well


def _chosen(args: argparse.Namespace) -> list[Step]:
    return [step for step in STEPS
            if (not args.only or step.name in args.only)
            # What is not there in this checkout cannot be run.
            and (step.tool == 'pytest' or (TOOLS / step.tool).exists())]


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns the status of the process."""
    args = _parser().parse_args(argv)
    out = console.Console(width=None if sys.stdout.isatty() else 150)
    state = pathlib.Path(os.environ.get('NOVA_SSM_STATE')
                         or page.ROOT / '.state').absolute()
    source = args.page or (page.SOURCE if args.long or args.given
                           else state / 'results/prove')
    runner = Runner(state, out)
    try:
        found = [parts_module.read(path) for path in args.given]
        if args.last:
            found += runner.last(_chosen(args))
        elif not args.given:
            for step in _chosen(args):
                found += runner.run(step, args.long, args.seed)
    except (parts_module.UnknownResults, OSError) as error:
        print(f'prove: {error}', file=sys.stderr)
        return 2
    well = show(out, found)
    page.keep(found, source)
    out.print(f'written to {page.write(source)}', soft_wrap=True)
    for failure in runner.failed:
        print(f'prove: {failure}', file=sys.stderr)
    return 2 if runner.failed else 0 if well else 1


if __name__ == '__main__':
    sys.exit(main())
