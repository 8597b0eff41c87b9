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
"""Kills a conductor at each point of the task graphs; see boundaries.sh.

For each operation:

1. It is done once with nobody disturbing it. The conductors write down each
   point of a graph that they come by: that is the plan. What the graphs have
   beside that does not run in this operation, and is shown so.
2. For each point of the plan it is done again, and the conductor that comes
   by there kills itself, with its whole process group. It is started again
   at once; the other one lives all the time.
3. For each graph that can be undone, a task is then made to fail where the
   most has to be undone, and the points that are new are tried the same way.
"""

import argparse
from collections.abc import Iterator
import contextlib
import dataclasses
import json
import pathlib
import random
import sys
import time

from rich import console

from nova_ssm.tests.cloud import boundaries_moves
from nova_ssm.tests.cloud import boundaries_operations as operations
from nova_ssm.tests.cloud import boundaries_plan as plan
from nova_ssm.tests.cloud import boundaries_report as report
from nova_ssm.tests.cloud import boundaries_rounds as rounds
from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import configs
from nova_ssm.tests.cloud import injection_orders as orders
from nova_ssm.tests.cloud import services
from nova_ssm.tests.cloud import settings
from nova_ssm.tests import provenance

#: Shorter than an operator's: a run has more than a hundred kills.
_OPTIONS = '''[DEFAULT]
rpc_response_timeout = {timeout}
[ssm]
workflows = {workflows}
lease = {lease}
'''


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='boundaries.sh', description='Kill the conductor at each '
        'boundary of each task, in its middle, and at its end.')
    parser.add_argument('--operation', action='append', metavar='NAME',
                        help='may be repeated; default: all')
    parser.add_argument('--point', action='append', choices=plan.KINDS,
                        help='may be repeated; default: all')
    parser.add_argument('--flow', help='only of this flow')
    parser.add_argument('--task', help='only in this task')
    parser.add_argument('--every-change', action='store_true',
                        help='not only after the first change of a task')
    parser.add_argument('--no-failures', action='store_true',
                        help='let no task fail')
    parser.add_argument('--without', action='append', default=[],
                        type=pathlib.Path, metavar='FILE',
                        help='leave out what has passed in these results; '
                        'may be repeated')
    parser.add_argument('--list', action='store_true',
                        help='show what the graphs have, do nothing')
    parser.add_argument('--seed', type=int, metavar='N',
                        help='try the points in an order made from it; '
                        'default: in the order of time')
    parser.add_argument('--lease', type=int, default=3, metavar='SECONDS',
                        help='of a conductor (default 3)')
    parser.add_argument('--rpc-timeout', type=int, default=20,
                        metavar='SECONDS', help='for how long a compute '
                        'waits for a dead conductor (default 20)')
    return parser


class Trial:
    """All operations of one call, and the file that they are written to."""

    def __init__(self, it: cloud.Cloud, args: argparse.Namespace,
                 out: console.Console) -> None:
        assert it.settings.orders is not None
        self._cloud = it
        self._args = args
        self._out = out
        self._types = plan.flow_types()
        self._orders = orders.Orders(it.settings.orders)
        self._player = rounds.Player(it, self._orders)
        self._path = it.settings.results / time.strftime(
            'boundaries-%Y%m%d-%H%M%S.json')
        self._tables: list[report.Table] = []
        self._stamp = provenance.stamp()
        self._passed = report.passed(args.without)

    def run(self, chosen: list[operations.Operation]) -> int:
        """Do all operations. Returns the status of the process."""
        for operation in chosen:
            with operation.stage():
                self._operation(operation)
        report.show_all(self._out, self._tables)
        report.show_unseen(self._out, self._types, self._tables)
        self._out.print(f'written to {self._path}', soft_wrap=True)
        return 1 if any(one.failed for one in self._tables) else 0

    def _operation(self, operation: operations.Operation) -> None:
        tried = report.Table(operation.name, None)
        self._tables.append(tried)
        undisturbed = self._undisturbed(tried, operation, None)
        if operation.promise == operations.FAULT:
            # Another operation has what comes before.
            self._play(tried, operation, plan.from_failure_on(undisturbed),
                       [])
            return
        self._play(tried, operation, undisturbed, [])
        if self._args.no_failures:
            return
        for flow in dict.fromkeys(one.point.flow for one in undisturbed):
            task = plan.failing(self._types[flow], undisturbed)
            if task is None:
                continue
            failing = report.Table(operation.name, (flow, task))
            self._tables.append(failing)
            seen = self._undisturbed(failing, operation, (flow, task))
            self._play(failing, operation, seen, undisturbed)

    def _undisturbed(self, tried: report.Table,
                     operation: operations.Operation,
                     fails: tuple[str, str] | None) -> list[plan.Step]:
        """Do it once; return what to try."""
        self._out.rule(tried.title)
        promise = operations.FAULT if fails else operation.promise
        verdict, trace = self._player.undisturbed(operation, promise, fails)
        ends = {promise} | ({operations.FAULT} if operation.kills else set())
        if not verdict.good or verdict.outcome not in ends:
            raise settings.CloudError(
                f'{tried.title}: it ends otherwise when nobody disturbs it: '
                f'{verdict}')
        found = plan.steps(trace, self._args.every_change)
        if operation.flows is not None:
            found = [one for one in found
                     if one.point.flow in operation.flows]
        tried.planned = found
        seen = {plan.plain(one.point) for one in found}
        for flow in dict.fromkeys(point.flow for point in seen):
            tried.absent += plan.missing(self._types[flow], seen)
        return found

    def _play(self, tried: report.Table, operation: operations.Operation,
              steps: list[plan.Step], known: list[plan.Step]) -> None:
        wanted = [one for one in steps
                  if one not in known and self._is_wanted(one.point)
                  and (tried.title, str(one.point)) not in self._passed]
        if self._args.seed is not None:
            random.Random(self._args.seed).shuffle(wanted)
        promise = (operations.FAULT if tried.fails else operation.promise)
        for number, step in enumerate(wanted, 1):
            result = self._player.play(operation, step, promise, tried.fails)
            tried.results.append(result)
            report.show_result(self._out, number, len(wanted), result)
            self._write()

    def _is_wanted(self, point: orders.Point) -> bool:
        args = self._args
        return ((args.point is None or plan.kind(point.at) in args.point)
                and args.flow in (None, point.flow)
                and args.task in (None, point.task))

    def _write(self) -> None:
        self._path.write_text(json.dumps({
            **self._stamp, 'seed': self._args.seed, 'lease': self._args.lease,
            'rpc_timeout': self._args.rpc_timeout,
            'operations': [one.plain() for one in self._tables],
        }, indent=1))


@contextlib.contextmanager
def _listening(it: cloud.Cloud, args: argparse.Namespace) -> Iterator[None]:
    """Have the services of Nova take orders meanwhile.

    Its settings name the directory of the orders as long.
    """
    directory = it.settings.home / 'orders'
    directory.mkdir(parents=True, exist_ok=True)
    files = orders.Orders(directory)
    files.clear()
    configs.private_file(directory / 'nova.conf', _OPTIONS.format(
        timeout=args.rpc_timeout, lease=args.lease,
        workflows=','.join(plan.workflows())))
    it.stop(*services.NOVA)
    it.settings = dataclasses.replace(it.settings, orders=directory)
    try:
        it.up('ssm')
        yield
    finally:
        files.clear()
        it.stop(*services.NOVA)
        it.settings = dataclasses.replace(it.settings, orders=None)
        it.start(*services.NOVA)


def _choose(it: cloud.Cloud, names: list[str] | None
            ) -> list[operations.Operation]:
    """Return the operations of these names, all for None.

    :raises CloudError: if there is no such operation
    """
    known = operations.builds(it) | boundaries_moves.moves(it)
    for name, flow in (('build', 'fail_abandoned_builds'),
                       ('resize', 'end_abandoned_resizes'),
                       ('live-migrate', 'end_abandoned_live_migrations')):
        abandoned = operations.Abandoned(it, known[name], flow)
        known[abandoned.name] = abandoned
    unknown = set(names or ()) - set(known)
    if unknown:
        raise settings.CloudError(
            f'no operation {", ".join(sorted(unknown))}; there are: '
            + ', '.join(known))
    return [known[name] for name in names or known]


def main() -> int:
    """Run the command. Returns the status of the process."""
    args = _parser().parse_args()
    # Piped into a file, the tables keep their width.
    out = console.Console(width=None if sys.stdout.isatty() else 150)
    if args.list:
        report.show_graphs(out, plan.flow_types())
        return 0
    try:
        it = cloud.Cloud(say=lambda text: print(text, file=sys.stderr))
        chosen = _choose(it, args.operation)
        with it.reserved('kills at task boundaries'), _listening(it, args):
            return Trial(it, args, out).run(chosen)
    except settings.CloudError as error:
        print(f'boundaries: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
