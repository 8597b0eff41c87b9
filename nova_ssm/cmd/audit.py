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

"""``nova-ssm audit``: what nobody looks after, and its repair."""

import argparse
import datetime
import importlib
import sys
import time
from typing import Any

from cliff import lister

from nova_ssm.cmd import db
from nova_ssm.cmd import main
from nova_ssm.engine import database as database_module
from nova_ssm.engine import exception as engine_exc
from nova_ssm.engine import queries
from nova_ssm import exception

#: Exit codes: as ``nova-manage placement audit`` has them, and one more.
CLEAN, FOUND, REPAIRED, LEFT = 0, 3, 4, 5

_COLUMNS = ('kind', 'server', 'since', 'what', 'why', 'repair')
_ALL = ('kind', 'subject', 'server', 'project', 'since', 'what', 'why',
        'repair', 'safe', 'flow', 'result')


class Audit(lister.Lister):
    """Find what nobody looks after any more, and have it repaired.

    Exit code: 0 if nothing is found, 3 if something is, 4 if all of it was
    repaired, 5 if something could not be repaired, or not without --yes; 1
    if it could not look.
    """

    app: main.NovaSSMApp
    _code = CLEAN

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--kind', action='append', default=[], metavar='KIND',
            help='only this kind of finding; may be repeated; '
                 '"--kind help" lists them')
        parser.add_argument(
            '--server', action='append', default=[], metavar='UUID',
            help='only what has to do with this server; may be repeated')
        parser.add_argument(
            '--project', action='append', default=[], metavar='ID',
            help='only what belongs to this project; may be repeated')
        parser.add_argument(
            '--older', type=float, default=60, metavar='SECONDS',
            help='only what nobody has touched for so long (default: 60)')
        parser.add_argument(
            '--settle', type=float, default=5, metavar='SECONDS',
            help='the time between two looks; only what has not changed '
                 'meanwhile is shown (default: 5)')
        parser.add_argument(
            '--repair', action='store_true',
            help='have repaired what is safe to be repaired, ask for the '
                 'rest; the conductors do it, as flows')
        parser.add_argument(
            '--yes', action='store_true',
            help='with --repair: do not ask, repair all that is shown')
        parser.add_argument(
            '--wait', type=float, default=180, metavar='SECONDS',
            help='with --repair: how long to wait for the flows (default: '
                 '180)')
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Show the findings; the exit code tells what has become of them."""
        return super().run(parsed_args) or self._code

    def take_action(self, parsed_args: argparse.Namespace) -> tuple:
        if 'help' in parsed_args.kind:
            kinds = importlib.import_module('nova_ssm.audit.kinds').KINDS
            return ('kind', 'about'), [(kind.name, kind.about)
                                       for kind in kinds.values()]
        journal = db.journal_database(self.app.conf)
        journal.check()
        bench = _Bench(self.app, journal, parsed_args)
        found = bench.find()
        results: dict[tuple[str, str], tuple[str, str]] = {}
        if parsed_args.repair:
            results = bench.repair(found)
        self._code = _code_of(parsed_args.repair, found, results)
        people = parsed_args.formatter in ('table', 'value', 'csv')
        columns: tuple[str, ...] = _ALL
        if people:
            columns = _COLUMNS + (('result',) if parsed_args.repair else ())
        return columns, [[_cell(one, name, results, people)
                          for name in columns] for one in found]


def _code_of(repair: bool, found: list[Any],
             results: dict[tuple[str, str], tuple[str, str]]) -> int:
    if not found:
        return CLEAN
    if not repair:
        return FOUND
    done = all(results.get(one.key, ('', ''))[1] == 'repaired'
               for one in found)
    return REPAIRED if done else LEFT


def _cell(one: Any, name: str,
          results: dict[tuple[str, str], tuple[str, str]],
          people: bool) -> Any:
    if name == 'repair':
        return one.remedy if one.safe or not people else (
            'if you say so: ' + one.remedy)
    if name in ('flow', 'result'):
        return results.get(one.key, ('', ''))[name == 'result']
    value = getattr(one, name)
    if not people:
        return value
    if name == 'since' and value is not None:
        return datetime.datetime.fromtimestamp(
            value, datetime.UTC).strftime('%Y-%m-%d %H:%M:%S')
    return '' if value is None else value


class _Bench:
    """What the command works with: Nova, when it is needed."""

    def __init__(self, app: main.NovaSSMApp,
                 journal: database_module.Database,
                 args: argparse.Namespace) -> None:
        self._app = app
        self._journal = journal
        self._args = args
        setup = importlib.import_module('nova_ssm.audit.setup')
        setup.configure(app.conf)
        self._report = setup.report_client
        for name in ('findings', 'kinds', 'looks', 'repairs', 'survey'):
            setattr(self, name, importlib.import_module(
                'nova_ssm.audit.' + name))
        self._kinds = self._chosen()

    def _chosen(self) -> list[Any]:
        known = self.kinds.KINDS        # type: ignore[attr-defined]
        for name in self._args.kind:
            if name not in known:
                raise engine_exc.EngineError(
                    'there is no kind %s, only %s'
                    % (name, ', '.join(known)))
        return [known[name] for name in self._args.kind or known]

    def _begin(self, age: float | None = None) -> Any:
        return self.survey.Survey(      # type: ignore[attr-defined]
            self._journal, self._args.older if age is None else age,
            self._report, self._say, thorough=True)

    def _say(self, text: str) -> None:
        """Progress, for who waits; the answer is on the other channel."""
        if sys.stderr.isatty() or ' cannot be ' in text:
            self._app.stderr.write(text + '\n')

    def find(self) -> list[Any]:
        """What is found, and was asked for."""
        wanted = self.findings.Filter(  # type: ignore[attr-defined]
            projects=frozenset(self._args.project),
            servers=frozenset(self._args.server), older=self._args.older)
        now = self.survey.now()         # type: ignore[attr-defined]
        return [one for one in self.looks.find(     # type: ignore
            self._begin, self._kinds, self._args.settle)
            if wanted.wants(one, now)]

    def repair(self, found: list[Any]
               ) -> dict[tuple[str, str], tuple[str, str]]:
        """Have findings repaired: of each the flow, and what came of it."""
        chosen = [one for one in found if one.safe or self._is_allowed(one)]
        runtime = importlib.import_module('nova_ssm.runtime').Runtime(
            self._app.conf, 'nova-ssm')
        board = runtime.runner.board
        posted = self.repairs.post(     # type: ignore[attr-defined]
            board, chosen, self._journal)
        groups = {one.details['group'] for one in chosen}
        self._wait(set(posted.values()), groups)
        results = {}
        for one in chosen:
            uuid = posted[one.group]
            results[one.key] = (uuid, self._result(one, uuid))
        return results

    def _is_allowed(self, one: Any) -> bool:
        if self._args.yes:
            return True
        if not sys.stdin.isatty():
            return False
        self._app.stderr.write('%s: %s.\nTo %s? [y/N] ' % (
            one.what, one.why, one.remedy))
        self._app.stderr.flush()
        return sys.stdin.readline().strip().lower() in ('y', 'yes')

    def _wait(self, uuids: set[str], groups: set[str]) -> None:
        """Wait for the flows, and for those that they have begun."""
        if not uuids:
            return
        if not queries.living(self._journal):
            self._app.stderr.write(
                'No conductor is alive that could do it: the repairs are '
                'posted, the next one that starts does them.\n')
            return
        deadline = time.monotonic() + self._args.wait
        while time.monotonic() < deadline:
            left = [uuid for uuid in uuids if queries.flow(
                self._journal, uuid).finished_at is None]
            if not left and not self._begin().owned(groups):
                return
            time.sleep(0.5)

    def _result(self, one: Any, uuid: str) -> str:
        flow = queries.flow(self._journal, uuid)
        if flow.failure:
            return flow.failure
        if flow.finished_at is None:
            return 'under way'
        # With no age: what was just touched by the repair is looked at too.
        try:
            still = self.looks.again(   # type: ignore[attr-defined]
                self._begin(0), one.kind, one.subject)
        except exception.Uncertain as exc:
            return str(exc)
        return 'repaired' if still is None else 'still there'
