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

"""Many flows in the tables: what is asked of them, how long it takes, why.

Run by ``tools/bench.sh scale``. Each size is reached by filling the tables
further, in one run: what matters is the ratio between the first and the last
time of a line, and how many rows were read for it.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import time
from typing import Any

from rich import console
from rich import table

from nova_ssm.engine import database
from nova_ssm.tests.bench import filling
from nova_ssm.tests.bench import plans
from nova_ssm.tests.bench import questions
from nova_ssm.tests.bench import rush
from nova_ssm.tests.servers import mariadb
from nova_ssm.tests.servers import postgresql

_WORKERS = 8
_REPEAT = 15
#: More than is ever to be read for an answer: all that is not finished, and
#: something for what is shown of it.
_ALLOWED = 1.3


@dataclasses.dataclass
class Answer:
    """How one question was answered.

    :param ms: the median of some times
    :param rows: rows of the large tables that were read, 0 if not known
    :param plan: the indices that were used
    :param troubles: why it takes longer with more flows
    """

    ms: float
    rows: float
    plan: str
    troubles: list[str]


def ask(tables: questions.Tables, unfinished: int,
        repeat: int = _REPEAT) -> dict[str, Answer]:
    """Ask all questions some times, and see how they are answered.

    :param unfinished: how many flows are not over
    """
    answers = {}
    for name, (question, dead) in questions.OPERATIONS.items():
        with tables.nobody_lives() if dead else contextlib.nullcontext():
            with plans.recording(tables.db) as said:
                question(tables)
            times = []
            for _number in range(repeat):
                began = time.perf_counter()
                question(tables)
                times.append(1000 * (time.perf_counter() - began))
            found = [plans.explain(tables.db, *one) for one in said]
        answers[name] = Answer(
            statistics.median(times), sum(plan.rows for plan in found),
            '; '.join(dict.fromkeys(filter(None, map(str, found)))),
            [text for plan in found
             for text in plan.troubles(_ALLOWED * unfinished)])
    return answers


def measure(url: str, sizes: list[int], unfinished: int,
            say: Any) -> dict[int, dict[str, Answer]]:
    """Fill the tables step by step, and ask after each."""
    database.upgrade(url)
    db = database.Database(url)
    filler = filling.Filler(db)
    filler.unfinished(unfinished, list(filler.workers(_WORKERS)))
    found, there = {}, 0
    for size in sizes:
        began = time.monotonic()
        filler.finished(size - there)
        there = size
        filling.analyze(db)
        say('%s: %d finished flows, filled in %d s' % (
            db.engine.dialect.name, size, time.monotonic() - began))
        found[size] = ask(questions.Tables(db), unfinished)
    db.close()
    return found


@contextlib.contextmanager
def server(kind: str, where: pathlib.Path) -> Any:
    """A database server of its own, or a file; gives the URL maker."""
    if kind == 'sqlite':
        paths = (where / ('scale-%d.db' % number) for number in range(9))
        used: list[pathlib.Path] = []

        def fresh() -> str:
            used.append(next(paths))
            used[-1].unlink(missing_ok=True)
            return 'sqlite:///%s' % used[-1]
        yield fresh
        for path in used:
            path.unlink()
        return
    # As an operator sets it for tables of some gigabytes.
    made: Any = (mariadb.MariaDB(options=['--innodb-buffer-pool-size=1G'])
                 if kind == 'mariadb' else
                 postgresql.PostgreSQL(options=['shared_buffers=512MB',
                                           'random_page_cost=1.1']))
    with made:
        yield made.fresh


def times_table(kind: str, found: dict[int, dict[str, Answer]]) -> Any:
    """The times of all questions, and how much was read for them."""
    sizes = list(found)
    shown = table.Table(title='%s: 10,000 unfinished flows and so many '
                        'finished ones' % kind, title_justify='left')
    shown.add_column('')
    for size in sizes:
        shown.add_column('%s\nms' % format(size, ',d'), justify='right')
    shown.add_column('last /\nfirst', justify='right')
    shown.add_column('rows read\nfirst, last', justify='right')
    shown.add_column('how')
    for name in found[sizes[0]]:
        answers = [found[size][name] for size in sizes]
        last = answers[-1]
        shown.add_row(
            name, *('%.1f' % answer.ms for answer in answers),
            '%.1f' % (last.ms / answers[0].ms),
            '%d, %d' % (answers[0].rows, last.rows) if last.rows else '',
            '\n'.join([last.plan, *('! ' + one for one in last.troubles)]))
    return shown


def rush_table(results: dict[str, dict[str, rush.Result]]) -> Any:
    """How many claims were lost when all workers want the same flows."""
    shown = table.Table(
        title='%d workers of %d hands each take %d orphans' % (
            rush.WORKERS, rush.HANDS, rush.FLOWS), title_justify='left')
    for name in ('', 'order', 'claims won', 'claims lost', 'seconds'):
        shown.add_column(name, justify='right' if ' ' in name else 'left')
    for kind, orders in results.items():
        for order, result in orders.items():
            shown.add_row(kind, order, str(result.won), str(result.lost),
                          '%.1f' % result.seconds)
    return shown


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='bench.sh scale', description='Fill the tables with finished '
        'flows, and measure what is asked of them. A million takes some '
        'minutes and 2 GB of disk for each database.')
    parser.add_argument('--databases', default='mariadb,postgresql,sqlite',
                        help='which (default: %(default)s)')
    parser.add_argument('--sizes', default='1000,100000,1000000',
                        help='finished flows (default: %(default)s)')
    parser.add_argument('--unfinished', type=int, default=10000,
                        help='flows that are not over (default: %(default)s)')
    parser.add_argument('--no-rush', action='store_true',
                        help='leave out the workers that want the same flows')
    return parser


def main() -> int:
    """Run the command. Returns the status: 1 if something is not flat."""
    args = _parser().parse_args()
    where = pathlib.Path(os.environ.get('NOVA_SSM_STATE', '.state')
                         ) / 'results/bench'
    where.mkdir(parents=True, exist_ok=True)
    out = console.Console(width=None if sys.stdout.isatty() else 150)
    all_found, rushes = {}, {}
    for kind in args.databases.split(','):
        with server(kind, where) as fresh:
            found = all_found[kind] = measure(
                fresh(), [int(size) for size in args.sizes.split(',')],
                args.unfinished, lambda text: print(text, file=sys.stderr))
            out.print(times_table(kind, found))
            if not args.no_rush and kind != 'sqlite':
                rushes[kind] = {order: rush.run(fresh(), order)
                                for order in rush.ORDERS}
    if rushes:
        out.print(rush_table(rushes))
    _write(where / 'scale.json', all_found, rushes)
    out.print('written to %s' % (where / 'scale.json'), soft_wrap=True)
    return int(any(answer.troubles for found in all_found.values()
                   for answers in found.values()
                   for answer in answers.values()))


def _write(path: pathlib.Path, found: Any, rushes: Any) -> None:
    path.write_text(json.dumps({
        'times': {kind: {size: {name: dataclasses.asdict(answer)
                                for name, answer in answers.items()}
                         for size, answers in sizes.items()}
                  for kind, sizes in found.items()},
        'rush': {kind: {order: dataclasses.asdict(result)
                        for order, result in orders.items()}
                 for kind, orders in rushes.items()}}, indent=1))


if __name__ == '__main__':
    sys.exit(main())
