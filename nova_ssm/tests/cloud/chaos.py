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
"""Breaks the cloud in all ways while it builds, moves and deletes servers.

A plan made from a seed says which faults strike when, and what is asked for
meanwhile. When the load is over the cloud is left alone for a while; then
everything is looked at, all servers are deleted, and everything is looked at
again.
"""

import argparse
import collections
import dataclasses
import json
import random
import sys
import threading
import time
from typing import Any

import pymysql
from rich import console

from nova_ssm.tests.cloud import chaos_checks
from nova_ssm.tests.cloud import chaos_faults
from nova_ssm.tests.cloud import chaos_load
from nova_ssm.tests.cloud import chaos_plan
from nova_ssm.tests.cloud import chaos_report
from nova_ssm.tests.cloud import chaos_tries as tries_module
from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import settings
from nova_ssm.tests import provenance

#: Seconds without any change after which nothing more is expected. More than
#: twice what a service waits for an answer by RPC, and than a turn of an audit
#: takes: so long a compute has that may be waiting for a dead conductor.
_QUIET = 180.0
#: Seconds to delete all servers in.
_DELETION = 180.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='chaos.sh', description='Break the cloud in all ways while it '
        'builds, moves and deletes servers; count what became of them.')
    parser.add_argument('--minutes', type=float, default=30,
                        help='of load in each mode (default 30)')
    parser.add_argument('--mode', choices=(*cloud.MODES, 'both'),
                        default='both')
    parser.add_argument('--seed', type=int, default=None,
                        help='of the plan; default: another each time')
    parser.add_argument('--fault', action='append', metavar='NAME',
                        choices=tuple(chaos_faults.FAULTS), default=[],
                        help='only this one; may be repeated')
    parser.add_argument('--every', type=float, default=3,
                        help='seconds between two requests (default 3)')
    parser.add_argument('--settle', type=float, default=300,
                        help='seconds that what has not come to an end has '
                        'after the load, at most (default 300)')
    parser.add_argument('--list', action='store_true',
                        help='show all faults')
    parser.add_argument('--plan', action='store_true',
                        help='show the plan, and do nothing')
    return parser


class Trial:
    """One plan, in one mode after the other, and the file of the results."""

    def __init__(self, it: cloud.Cloud, plan: chaos_plan.Plan,
                 settle: float, out: console.Console) -> None:
        self._cloud = it
        self._plan = plan
        self._settle = settle
        self._out = out
        self._path = it.settings.results / time.strftime(
            'chaos-%Y%m%d-%H%M%S.json')
        self._stamp = provenance.stamp()
        self.results: dict[str, dict[str, Any]] = {}

    def play(self, mode: str) -> None:
        """Play the plan in one mode."""
        it = self._cloud
        it.up(mode)
        if chaos_checks.deleted(it):
            # What was left before would be taken for ours.
            it.down(wipe=True)
            it.up(mode)
        load = chaos_load.Load(it, self._plan)
        load.prepare()
        struck, dead = self._run(load)
        settled, found = self._wait(load, dead)
        load.delete_all(_DELETION)
        found += self._deleted()
        self._attribute(load.tries, found)
        troubled = [one for one in load.tries if not one.well]
        logs = self._path.with_suffix('') / mode
        chaos_report.keep_logs(it, troubled, logs)
        by_kind = collections.defaultdict(list)
        for one in found:
            by_kind[f'{one.kind}, {one.when}'].append(
                dataclasses.asdict(one))
        self.results[mode] = {
            'tries': [one.plain() for one in load.tries],
            'findings': by_kind, 'struck': struck, 'dead': dead,
            'skipped': load.skipped, 'settled': settled}
        self._write()
        chaos_report.show(self._out, mode, self.results[mode])

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps({
            **self._stamp, 'plan': self._plan.plain(),
            'modes': self.results}, indent=1))

    # -- the load

    def _run(self, load: chaos_load.Load) -> tuple[list[str], list[str]]:
        """Send the load while the faults strike; return what they did."""
        sending = threading.Thread(target=load.run)
        began = time.monotonic()
        sending.start()
        struck, dead = [], []
        for slot in self._plan.slots:
            time.sleep(max(0.0, began + slot.begin - time.monotonic()))
            # A fault may take longer than planned to be healed.
            load.fault = slot.fault
            time.sleep(max(chaos_plan.LEAD,
                           began + slot.strikes - time.monotonic()))
            struck.append(self._strike(slot))
            self._out.print(f'{time.monotonic() - began:5.0f} s '
                            f'{slot.fault}: {struck[-1]}', markup=False)
            for name in chaos_faults.heal(self._cloud):
                dead.append(f'{name} ended during {slot.fault}')
        sending.join()
        return struck, dead

    def _strike(self, slot: chaos_plan.Slot) -> str:
        if slot.fault == chaos_plan.NO_FAULT:
            return 'nothing'
        fault = chaos_faults.FAULTS[slot.fault]
        try:
            return fault.strike(chaos_faults.Arena(self._cloud, slot))
        except (settings.CloudError, pymysql.MySQLError, OSError) as error:
            return f'failed to strike: {error}'

    # -- afterwards

    def _wait(self, load: chaos_load.Load, dead: list[str]
              ) -> tuple[float | None, list[chaos_checks.Finding]]:
        """Wait until all has come to an end, or nothing changes any more.

        Whoever ends meanwhile is started again, as a supervisor does: a
        compute does not come up while its database is away.

        :param dead: gets a line for each of them
        :returns: after how many seconds all was well, None for never; what
            is found at the end
        """
        requests = [one.request_id for one in load.tries if one.accepted]
        began = changed = time.monotonic()
        before = None
        while True:
            for name in chaos_faults.heal(self._cloud):
                dead.append(f'{name} ended after the load')
                changed = time.monotonic()
            left = load.look_again()
            found = chaos_checks.at_rest(self._cloud, requests)
            now = time.monotonic()
            if not left and not found:
                return round(now - began, 1), []
            seen = [(one.ask, one.server, one.text) for one in left], found
            if seen != before:
                before, changed = seen, now
            if now > began + self._settle or now > changed + _QUIET:
                return None, found
            time.sleep(2)

    def _deleted(self) -> list[chaos_checks.Finding]:
        limit = time.monotonic() + 90
        while True:
            found = chaos_checks.deleted(self._cloud)
            if not found or time.monotonic() > limit:
                return found
            time.sleep(2)

    @staticmethod
    def _attribute(tries: list[tries_module.Try],
                   found: list[chaos_checks.Finding]) -> None:
        """Lay each finding at the last thing done with its server."""
        last = {one.server: one for one in tries if one.server}
        for finding in found:
            one = last.get(finding.server)
            if one is not None:
                one.left.append(f'{finding.kind}, {finding.when}')

    @property
    def well(self) -> bool:
        """Whether nova_ssm has left nothing."""
        self._out.print(f'seed {self._plan.seed}; written to {self._path}',
                        soft_wrap=True)
        return not any(chaos_report.bad(result) for mode, result
                       in self.results.items() if mode == 'ssm')


def _show_plan(plan: chaos_plan.Plan, out: console.Console) -> None:
    for slot in plan.slots:
        asked = collections.Counter(
            ask.operation for ask in plan.asks
            if slot.begin <= ask.at < slot.end)
        out.print(f'{slot.strikes:6.0f} s {slot.fault} for '
                  f'{slot.seconds:.0f} s; ' + ', '.join(
                      f'{number} {name}' for name, number
                      in sorted(asked.items())), markup=False)


def _run(args: argparse.Namespace, out: console.Console) -> int:
    seed = (random.SystemRandom().randrange(10 ** 6)
            if args.seed is None else args.seed)
    chosen = args.fault or chaos_faults.FAULTS
    plan = chaos_plan.make(
        seed, args.minutes, args.every,
        {name: chaos_faults.FAULTS[name].lasts for name in chosen})
    out.print(f'seed {seed}')
    _show_plan(plan, out)
    if args.plan:
        return 0
    it = cloud.Cloud(say=lambda text: print(text, file=sys.stderr))
    modes = ('stock', 'ssm') if args.mode == 'both' else (args.mode,)
    with it.reserved('chaos test'):
        trial = Trial(it, plan, args.settle, out)
        for mode in modes:
            trial.play(mode)
        return 0 if trial.well else 1


def main() -> int:
    """Run the command. Returns the status of the process."""
    args = _parser().parse_args()
    out = console.Console(width=None if sys.stdout.isatty() else 160)
    if args.list:
        for fault in chaos_faults.FAULTS.values():
            out.print(f'{fault.name}: {fault.about}', markup=False)
        return 0
    if args.minutes <= 0 or args.every <= 0:
        print('chaos: --minutes and --every are more than 0', file=sys.stderr)
        return 2
    try:
        return _run(args, out)
    except settings.CloudError as error:
        print(f'chaos: {error}', file=sys.stderr)
        return 1


if __name__ == '__main__':
    sys.exit(main())
