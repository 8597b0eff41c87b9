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

"""Finds Nova's tests that run flows, by running them; and judges them.

Which of its functional tests come to the conductor's operations nobody has
written down, so each is run with the plugins on, and with every flow loaded
again from the journal after each task: what leaves flows in the journal is
one of them. What fails is run on stock Nova, too.

It takes hours, so each answer is kept as it comes. The next call goes on where
this one was ended, with what failed first.
"""

import argparse
from collections.abc import Iterable
import importlib.metadata
import json
import os
import random
import subprocess
import sys
import time

from rich import console as rich_console

from nova_ssm.tests.functional import oracle
from nova_ssm.tests.functional import oracle_pool
from nova_ssm.tests.functional import oracle_report

MODE = oracle_pool.Mode('restart', 'build_instances,resize,live_migrate', True)
ROUND = 200  # tests that are run with the same processes
_HEADER = """\
# Nova's functional tests that run flows of ours, as "oracle.sh --find" has
# found; its last run had come to %d of %d tests.
"""

Answers = oracle_report.Answers


class TimeUp(Exception):
    """It was to take no longer than this."""


class Journal:
    """The answers of all runs so far, a JSON line each.

    :param path: the file; it need not be there
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def load(self) -> Answers:
        """Return the last answer of each test."""
        answers: Answers = {}
        if not os.path.exists(self.path):
            return answers
        with open(self.path, encoding='utf-8') as lines:
            for line in lines:
                # Who was killed while it wrote has left half a line.
                if line.endswith('\n'):
                    answer = oracle_pool.Answer(**json.loads(line))
                    answers[answer.id] = answer
        return answers

    def clear(self) -> None:
        """Forget them all."""
        if os.path.exists(self.path):
            os.unlink(self.path)

    def mend(self) -> None:
        """Cut off half a line at the end, for the next one to be whole."""
        if not os.path.exists(self.path):
            return
        with open(self.path, 'rb+') as lines:
            lines.truncate(lines.read().rfind(b'\n') + 1)


class Progress(oracle.Progress):
    """Says how far it is, and ends it when its time is over.

    :param deadline: on the monotonic clock, or None
    """

    deadline: float | None = None

    def __call__(self, answer: oracle_pool.Answer) -> None:
        super().__call__(answer)
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeUp()


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog='tools/oracle.sh --find', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('list', nargs='?', metavar='LIST',
                        help='file of test ids; "all" is %s (default: each '
                             'functional test of Nova)'
                             % os.path.relpath(oracle.ALL_LIST))
    parser.add_argument('--seconds', type=float, metavar='N',
                        help='end after so many seconds')
    parser.add_argument('--afresh', action='store_true',
                        help='begin from the beginning')
    parser.add_argument('--write', metavar='FILE',
                        help='where the list goes (%s; with a LIST nowhere)'
                             % os.path.relpath(oracle.ALL_LIST))
    parser.add_argument('--workers', type=int, default=2, metavar='N')
    parser.add_argument('--exceptions', default=oracle.EXCEPTIONS,
                        metavar='FILE',
                        help='tests that are not counted, with reasons')
    parser.add_argument('--results', required=True, metavar='DIR',
                        help='where the answers are kept')
    options = parser.parse_args(argv)
    if options.workers < 1:
        parser.error('--workers takes a number above 0')
    if options.list == 'all':
        options.list = oracle.ALL_LIST
    if options.list is None and options.write is None:
        options.write = oracle.ALL_LIST
    return options


def candidates() -> list[str]:
    """Name Nova's functional tests, those first that can create servers.

    Beyond that in an order that is always the same, and says nothing: so
    that those of a run that was ended early stand for all.
    """
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m',
         'nova_ssm.tests.functional.oracle_ids'],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found: list[tuple[str, bool]] = json.loads(done.stdout)
    random.Random(0).shuffle(found)
    return [test_id for test_id, _creates in
            sorted(found, key=lambda one: not one[1])]


def left(test_ids: Iterable[str], kept: Answers) -> list[str]:
    """Return what is to be run: what failed before, and what has not run."""
    test_ids = list(test_ids)
    failed = [one for one in test_ids
              if one in kept and kept[one].status == 'fail']
    return failed + [one for one in test_ids if one not in kept]


def run(options: argparse.Namespace, test_ids: list[str],
        journal: Journal) -> None:
    """Run the tests that are left, keep each answer as it comes."""
    directory = os.path.dirname(journal.path)
    timeout = int(os.environ['OS_TEST_TIMEOUT']) + oracle.GRACE
    journal.mend()
    todo = left(test_ids, journal.load())
    if not todo:
        return
    with open(journal.path, 'a', buffering=1, encoding='utf-8') as lines:
        progress = Progress(MODE.name, len(todo), lines)
        if options.seconds is not None:
            progress.deadline = progress.start + options.seconds
        try:
            # Nova's tests leave something behind in a process, each of them.
            for start in range(0, len(todo), ROUND):
                oracle_pool.Pool(
                    MODE, options.workers, directory, timeout).run(
                        todo[start:start + ROUND], progress)
        except (TimeUp, KeyboardInterrupt):
            print('\n%s: ended after %d of %d; the next call goes on there'
                  % (MODE.name, progress.done, len(todo)), file=sys.stderr)


def on_stock(options: argparse.Namespace, answers: Answers) -> Answers:
    """Return what stock Nova says to the tests that fail with ours."""
    kept = oracle.Kept(options.results)
    failed = [one for one, answer in answers.items()
              if answer.status in ('fail', 'skip') and
              one not in kept.load()]
    if failed:
        new, _seconds = oracle.run_mode(
            oracle_pool.Mode('stock'), argparse.Namespace(
                workers=options.workers, retries=1), failed,
            options.results)
        kept.add(new)
    return kept.load()


def write_list(path: str, answers: Answers, total: int) -> int:
    """Write the ids of those that ran flows; return their number.

    What is in the list already, and has not been run since, stays there: it
    may have been found elsewhere.
    """
    known = oracle.read_list(path, None) if os.path.exists(path) else []
    found = sorted({one for one in known if one not in answers} |
                   {one for one, answer in answers.items() if answer.flows})
    with open(path + '.new', 'w', encoding='utf-8') as new:
        new.write(_HEADER % (len(answers), total))
        new.writelines(one + '\n' for one in found)
    os.replace(path + '.new', path)
    return len(found)


def summarize(options: argparse.Namespace, answers: Answers, total: int,
              found: list[oracle_report.Difference]) -> int:
    """Print what has come of it; return the exit status."""
    console = rich_console.Console()
    if not console.is_terminal:
        console.width = 140
    oracle_report.print_differences(console, found)
    newly = [one for one in found if not one.reason]
    counts = oracle_report.counts(answers, sum(
        answer.seconds for answer in answers.values()))
    console.print('tests: %d, run: %d, of which ran flows: %d (%d flows, '
                  'loaded again %d times)' % (
                      total, len(answers), counts['with_flows'],
                      counts['flows'], counts['restarts']))
    console.print('passed: %d, skipped: %d, failed: %d, of which newly '
                  'failing: %d, excepted: %d' % (
                      counts['ok'] + counts['xfail'], counts['skip'],
                      counts['fail'], len(newly), len(found) - len(newly)))
    problem = oracle_report.unused(answers, True)
    if problem:
        console.print('ERROR: ' + problem, style='bold')
    if options.write:
        write_list(options.write, answers, total)
        console.print('list: ' + options.write, soft_wrap=True)
    return 1 if newly or problem else 0


def main(argv: list[str] | None = None) -> int:
    """Find and judge; return the exit status, as the oracle has it."""
    options = parse(argv)
    oracle.environment()
    os.makedirs(options.results, exist_ok=True)
    journal = Journal(os.path.join(
        options.results, 'restart-nova-%s.jsonl'
        % importlib.metadata.version('nova')))
    if options.afresh:
        journal.clear()
    try:
        test_ids = (oracle.read_list(options.list, None) if options.list
                    else candidates())
        run(options, test_ids, journal)
        wanted = set(test_ids)
        answers = {one: answer for one, answer in journal.load().items()
                   if one in wanted}
        found = oracle_report.compare(
            on_stock(options, answers), answers, MODE.name,
            oracle_report.read_exceptions(options.exceptions))
    except (OSError, ValueError, RuntimeError) as exc:
        print('oracle: %s' % exc, file=sys.stderr)
        return 2
    return summarize(options, answers, len(test_ids), found)


if __name__ == '__main__':
    sys.exit(main())
