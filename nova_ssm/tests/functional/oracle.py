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

"""Nova's own tests as the judge: stock Nova against Nova with the plugins on.

Runs a list of Nova's tests on stock Nova, with the plugins on and, if asked,
with the engine thrown away and every flow loaded again from the journal after
each task. A test that passes on stock and does not with ours is newly failing.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import re
import sys
import time
from typing import TextIO

from rich import console as rich_console

from nova_ssm.tests.functional import oracle_pool
from nova_ssm.tests.functional import oracle_report
from nova_ssm.tests import provenance

LISTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lists')
DEFAULT_LIST = os.path.join(LISTS, '2026.2.txt')
ALL_LIST = os.path.join(LISTS, '2026.2-all.txt')
EXCEPTIONS = os.path.join(LISTS, 'exceptions.txt')
TEST_TIMEOUT = 300  # seconds: Nova's own limit for a test, a soft one
GRACE = 60  # seconds after which the process of a hanging test is killed
TEST_ID = re.compile(r'\w+(\.\w+){4,}')
EVERY = 15  # seconds between two lines of progress without a terminal

Answers = oracle_report.Answers
Differences = list[oracle_report.Difference]


class Progress:
    """Says how far a mode is: one line, renewed on a terminal.

    :param mode: its name
    :param total: number of tests
    :param lines: takes the answers as they come, as JSON lines
    """

    def __init__(self, mode: str, total: int, lines: TextIO) -> None:
        self.lines = lines
        self.mode = mode
        self.total = total
        self.done = 0
        self.failed = 0
        self.start = time.monotonic()
        self._printed = self.start

    def __call__(self, answer: oracle_pool.Answer) -> None:
        """Count an answer."""
        self.lines.write(json.dumps(dataclasses.asdict(answer)) + '\n')
        self.done += 1
        tty = sys.stderr.isatty()
        if answer.status == 'fail':
            self.failed += 1
            print('%s%s: FAIL %s' % ('\r\x1b[K' if tty else '', self.mode,
                                     answer.id), file=sys.stderr)
        now = time.monotonic()
        last = self.done == self.total
        if tty or last or now - self._printed >= EVERY:
            self._printed = now
            print('%s%s: %d of %d, %d failed, %d s' % (
                '\r\x1b[K' if tty else '', self.mode, self.done, self.total,
                self.failed, now - self.start),
                end='\n' if last or not tty else '', file=sys.stderr,
                flush=True)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self.start


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog='tools/oracle.sh', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Exit status: 0 nothing newly fails, 1 something does or no '
               'test ran a flow,\n2 it could not be run. '
               'OS_NOVA_DISABLE_EVENTLET_PATCHING=True in the environment\n'
               'runs the tests with native threads, not eventlet.')
    parser.add_argument(
        'list', nargs='?', default=DEFAULT_LIST, metavar='LIST',
        help='file of test ids, one a line (default: %s); "all" is %s'
             % (os.path.relpath(DEFAULT_LIST), os.path.relpath(ALL_LIST)))
    parser.add_argument('--restart', action='store_true',
                        help='also reload every flow after each task')
    only = parser.add_mutually_exclusive_group()
    only.add_argument('--stock-only', action='store_true',
                      help='run stock Nova only')
    only.add_argument('--ssm-only', action='store_true',
                      help='do not run stock Nova: compare with its kept '
                           'results, count what has none as passing')
    parser.add_argument('--workers', type=int, default=2, metavar='N')
    parser.add_argument('--sample', type=int, metavar='N',
                        help='an evenly spaced sample of N tests')
    parser.add_argument('--retries', type=int, default=0, metavar='N',
                        help='run what fails with the plugins on again, up '
                             'to N times, alone; what passes then is named '
                             'as unstable (stock: at least once)')
    parser.add_argument('--workflows', metavar='LIST',
                        default='build_instances,resize,live_migrate',
                        help='value of [ssm] workflows (%(default)s)')
    parser.add_argument('--exceptions', default=EXCEPTIONS, metavar='FILE',
                        help='tests that are not counted, with reasons')
    parser.add_argument('--results', required=True, metavar='DIR',
                        help='where the results are kept')
    parser.add_argument('-f', '--format', choices=('table', 'json'),
                        default='table', help='form of the summary')
    options = parser.parse_args(argv)
    if options.workers < 1 or (options.sample or 1) < 1:
        parser.error('--workers and --sample take a number above 0')
    if options.list == 'all':
        options.list = ALL_LIST
    return options


def read_list(path: str, sample: int | None) -> list[str]:
    """Read test ids, all or an evenly spaced sample of them."""
    with open(path, encoding='utf-8') as lines:
        ids = [line.strip() for line in lines
               if line.strip() and not line.startswith('#')]
    ids = list(dict.fromkeys(ids))
    if not ids:
        raise ValueError('%s: no test ids in it' % path)
    for test_id in ids:
        if not TEST_ID.match(test_id):
            raise ValueError('%s: not the id of a test, '
                             'PACKAGE.MODULE.CLASS.METHOD: %r'
                             % (path, test_id))
    if sample and sample < len(ids):
        ids = [ids[number * len(ids) // sample] for number in range(sample)]
    return ids


def modes_of(options: argparse.Namespace) -> list[oracle_pool.Mode]:
    """Return the modes that the options ask for."""
    modes = []
    if not options.ssm_only:
        modes.append(oracle_pool.Mode('stock'))
    if not options.stock_only:
        modes.append(oracle_pool.Mode('ssm', options.workflows))
        if options.restart:
            modes.append(oracle_pool.Mode('restart', options.workflows, True))
    return modes


class Kept:
    """Results on stock Nova, kept from one run to the next.

    :param directory: the directory of all results
    """

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, 'stock-nova-%s.json'
                                 % importlib.metadata.version('nova'))

    def load(self) -> Answers:
        """Return the kept results, by test id."""
        if not os.path.exists(self.path):
            return {}
        with open(self.path, encoding='utf-8') as kept:
            return {test_id: oracle_pool.Answer(**answer)
                    for test_id, answer in json.load(kept).items()}

    def add(self, answers: Answers) -> None:
        """Keep more results."""
        write_json(self.path, as_plain({**self.load(), **answers}))


def as_plain(answers: Answers) -> dict[str, dict]:
    """Turn answers into what JSON can hold."""
    return {test_id: dataclasses.asdict(answers[test_id])
            for test_id in sorted(answers)}


def write_json(path: str, content: object) -> None:
    """Write a file at once, or not at all."""
    with open(path + '.new', 'w', encoding='utf-8') as new:
        json.dump(content, new, indent=1)
    os.replace(path + '.new', path)


def environment() -> None:
    """Set what Nova's tests expect, as Nova's own tox.ini does."""
    os.environ.update(LANGUAGE='en_US', LC_ALL='C.UTF-8',
                      OS_STDOUT_CAPTURE='1', OS_STDERR_CAPTURE='1',
                      NOVA_RAISE_ON_GREENLET_LEAK='True')
    os.environ.setdefault('OS_TEST_TIMEOUT', str(TEST_TIMEOUT))
    os.environ.setdefault('OS_NOVA_DISABLE_EVENTLET_PATCHING', 'False')
    # Without this every worker compiles all of Nova anew.
    os.environ.pop('PYTHONDONTWRITEBYTECODE', None)


def run_mode(mode: oracle_pool.Mode, options: argparse.Namespace,
             test_ids: list[str], directory: str) -> tuple[Answers, float]:
    """Run the tests in one mode; return the answers and the seconds.

    What fails on stock Nova is run once more, alone: a test that fails there
    excuses ours.
    """
    timeout = int(os.environ['OS_TEST_TIMEOUT']) + GRACE
    retries = options.retries if mode.workflows else max(1, options.retries)
    # What has run is kept also if the rest is interrupted.
    with open(os.path.join(directory, mode.name + '.jsonl'), 'w',
              buffering=1, encoding='utf-8') as lines:
        progress = Progress(mode.name, len(test_ids), lines)
        answers = oracle_pool.Pool(
            mode, options.workers, directory, timeout).run(test_ids, progress)
        for _ in range(retries):
            failed = [test_id for test_id, answer in answers.items()
                      if answer.status == 'fail']
            if not failed:
                break
            again = oracle_pool.Pool(mode, 1, directory, timeout).run(
                failed, Progress(mode.name + ' again', len(failed), lines))
            for test_id, answer in again.items():
                if answer.status != 'fail':
                    answers[test_id] = dataclasses.replace(
                        answer, unstable=True, error=answers[test_id].error)
    return answers, progress.seconds


def run(options: argparse.Namespace, test_ids: list[str], directory: str,
        ) -> tuple[dict, Differences, dict[str, Answers]]:
    """Run all modes; return the summary, the differences, the answers."""
    reasons = oracle_report.read_exceptions(options.exceptions)
    kept = Kept(options.results)
    stock = kept.load() if options.ssm_only else {}
    differences: Differences = []
    rows: dict[str, dict] = {}
    problems: list[str] = []
    all_answers: dict[str, Answers] = {}
    for mode in modes_of(options):
        answers, seconds = run_mode(mode, options, test_ids, directory)
        all_answers[mode.name] = answers
        found: Differences = []
        if mode.workflows:
            found = oracle_report.compare(stock, answers, mode.name, reasons)
            problem = oracle_report.unused(answers, mode.restart)
            if problem:
                problems.append('%s: %s' % (mode.name, problem))
        else:
            stock = answers
            kept.add(answers)
        differences += found
        rows[mode.name] = {
            **oracle_report.counts(answers, seconds),
            'newly_failing': [d.id for d in found if not d.reason],
            'excepted': {d.id: d.reason for d in found if d.reason},
        }
    summary = {**provenance.stamp(),
               'title': 'Nova %s, %s' % (importlib.metadata.version('nova'),
                                         os.path.basename(options.list)),
               'results': directory, 'modes': rows, 'problems': problems}
    write_json(os.path.join(directory, 'summary.json'), summary)
    return summary, differences, all_answers


def main(argv: list[str] | None = None) -> int:
    """Run the oracle, return the exit status."""
    options = parse(sys.argv[1:] if argv is None else argv)
    environment()
    directory = os.path.join(options.results,
                             time.strftime('%Y%m%d-%H%M%S'))
    try:
        test_ids = read_list(options.list, options.sample)
        os.makedirs(directory, exist_ok=True)
        summary, differences, answers = run(options, test_ids, directory)
    except (OSError, ValueError, RuntimeError) as exc:
        print('oracle: %s' % exc, file=sys.stderr)
        return 2
    as_json = options.format == 'json'
    console = rich_console.Console(stderr=as_json)
    if not console.is_terminal:
        console.width = 140
    for mode, of_mode in answers.items():
        oracle_report.print_remarks(console, mode, of_mode)
    oracle_report.print_differences(console, differences)
    if as_json:
        print(json.dumps(summary, indent=1))
    else:
        oracle_report.print_summary(console, summary)
    for problem in summary['problems']:
        console.print('ERROR: ' + problem, style='bold')
    console.print('results: ' + directory, soft_wrap=True)
    newly = any(row['newly_failing'] for row in summary['modes'].values())
    return 1 if newly or summary['problems'] else 0


if __name__ == '__main__':
    sys.exit(main())
