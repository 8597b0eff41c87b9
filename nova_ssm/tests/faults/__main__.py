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

"""Every fault at every place: see ``tools/faults.sh --help``."""

import argparse
import fnmatch
import os
import sys
import time
from typing import Any

from nova_ssm.tests.faults import agenda
from nova_ssm.tests.faults import bench
from nova_ssm.tests.faults import pool
from nova_ssm.tests.faults import report
from nova_ssm.tests.faults import variants
from nova_ssm.tests.faults import world


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog='faults.sh', description=__doc__)
    parser.add_argument('--variant', action='append', default=[],
                        help='only variants of this name; * is allowed')
    parser.add_argument('--flow', help='only faults in this flow')
    parser.add_argument('--case', action='append', default=[],
                        help='run this case, and nothing else')
    parser.add_argument('--continue', dest='resume', action='store_true',
                        help='go on with the last run, with its options')
    parser.add_argument('-n', '--workers', type=int, default=1)
    parser.add_argument('--quick', action='store_true',
                        help='a sample of all cases')
    parser.add_argument('--size', type=int, default=70,
                        help='of the sample')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--once', action='store_true',
                        help='leave out the cases with two faults')
    parser.add_argument('--limit', type=float,
                        help='begin no case after so many seconds')
    parser.add_argument('--stock', action='store_true',
                        help='stock Nova, for comparison')
    parser.add_argument('--list', action='store_true',
                        help='the variants')
    parser.add_argument('--results', required=True)
    return parser.parse_args(argv)


def chosen(patterns: list[str]) -> list[str]:
    """The variants that were named; all if none was."""
    return [name for name in variants.VARIANTS if not patterns or
            any(fnmatch.fnmatch(name, one) for one in patterns)]


def main(argv: list[str]) -> int:
    """Run what was asked for.

    :returns: 0 if all cases have held, 1 if not, 2 if there was none
    """
    options = parse(argv)
    if options.list:
        for name, variant in variants.VARIANTS.items():
            print('%-26s %s' % (name, variant.__doc__))
        return 0
    try:
        before = report.last(options.results) if options.resume else None
    except report.NoResults as error:
        print('faults: %s' % error, file=sys.stderr)
        return 2
    if before:
        # What it was to try; who goes on with it may be in less of a hurry.
        vars(options).update({name: before['options'][name]
                              for name in _WHAT})
    todo = _agenda(options, before)
    told = report.Report(options.results, vars(options), before)
    began = time.monotonic()

    def next_case() -> str | None:
        if options.limit and time.monotonic() > began + options.limit:
            return None
        return todo.next()

    def done(result: bench.Result) -> None:
        todo.learn(result)
        told.add(result, time.monotonic() - began, todo.todo)

    pool.Pool(options.workers, () if options.stock else world.WORKFLOWS,
              next_case, done).run()
    told.finish(time.monotonic() - began, todo.todo)
    return told.status


#: The options that tell what a run tries.
_WHAT = ('variant', 'flow', 'quick', 'size', 'seed', 'once', 'stock')


def _agenda(options: argparse.Namespace,
            before: dict[str, Any] | None) -> agenda.Agenda:
    todo = agenda.Agenda(
        chosen(options.variant), flow=options.flow, seed=options.seed,
        size=options.size if options.quick else None,
        twofold=not options.once)
    cases = options.case
    if before:
        later = [*(one['case'] for one in before['cases']
                   if not one['held']), *before['todo']]
        todo.resume([one['case'] for one in before['cases'] if one['held']],
                    later)
        if options.quick:
            cases = cases or later
    if cases:
        todo.only(cases)
    return todo


if __name__ == '__main__':
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
