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
"""The engine under the build requests of a busy cloud; see tools/bench.sh.

Each request is run as a build is, by a flow and a child flow, of thirteen
tasks together; a task waits as long as the calls of a build's task do, and
does nothing else: what is measured is what the engine adds. Requests come
when they come, whether the ones before are done or not, and their time
counts from then.
"""

import argparse
import concurrent.futures
import json
import math
import multiprocessing
import os
import pathlib
import sys
import time
from typing import Any

from rich import console
from rich import table
from taskflow.patterns import linear_flow

from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm.engine import runner as runner_module
from nova_ssm.engine import serialization
from nova_ssm.engine import task as ssm_task
from nova_ssm.tests.bench import peers
from nova_ssm.tests.bench import trace
from nova_ssm.tests.servers import mariadb

#: What the tasks of a build wait for, in seconds: the times between the rows
#: of the journal of one build on a quiet machine of 2 cores, with Nova,
#: placement and their databases in one process. Those without an effect
#: leave no row: their share is taken from the next one's.
PARENT = (('ScheduleInstances', 0.219), ('CreateInstances', 0.068),
          ('RecheckQuota', 0.020), ('SpawnBuilds', 0.027))
CHILD = (('ServerToErrorOnRevert', 0.0), ('PrepareBuild', 0.020),
         ('StartBuildAction', 0.019), ('CreateBlockDeviceMappings', 0.007),
         ('CreateTags', 0.002), ('MapInstance', 0.007),
         ('DeleteBuildRequest', 0.003), ('CreateArqs', 0.002),
         ('CastBuild', 0.014))
_READS = {'RecheckQuota', 'ServerToErrorOnRevert', 'PrepareBuild',
          'CreateTags', 'CreateArqs'}
WAITED = sum(seconds for _name, seconds in PARENT + CHILD)
#: As many requests as a conductor works on side by side.
THREADS = 64
#: A rate is held if the last request is done this many builds after it came.
_PATIENCE = 4


class Wait(ssm_task.Task):
    """Wait as long as a task of a build does, and give what it gives."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(name=name)
        self.seconds = seconds

    def execute(self) -> dict[str, Any]:
        time.sleep(self.seconds)
        return peers.result_of(0)

    def revert(self, *args: Any, **kwargs: Any) -> None:
        """It could be undone."""


class Read(Wait):
    """A task that leaves no row."""

    effect = False


class Cast(Wait):
    """A task that may not begin twice unseen."""

    once = True


class Spawn(journal.Spawn):
    """Post the child."""

    def execute(self) -> list[journal.FlowRequest]:
        time.sleep(dict(PARENT)['SpawnBuilds'])
        return [journal.FlowRequest(name='child', store=peers.result_of(1))]


def _flow(tasks: tuple[tuple[str, float], ...]) -> linear_flow.Flow:
    flow = linear_flow.Flow('flow')
    for name, seconds in tasks:
        if name == 'SpawnBuilds':
            flow.add(Spawn(name=name))
        else:
            cls = (Read if name in _READS else
                   Cast if name == 'CastBuild' else Wait)
            flow.add(cls(name, seconds))
    return flow


def _work(url: str, due: list[float], number: int, pipe: Any) -> None:
    """A worker process: run its requests, and tell how long each took."""
    flows = registry.Registry()
    flows.add(registry.FlowType('parent', '1.0', lambda: _flow(PARENT)))
    flows.add(registry.FlowType('child', '1.0', lambda: _flow(CHILD)))
    db = database.Database(url, max_pool_size=THREADS)
    runner = runner_module.Runner(
        db, serialization.Serializer(), flows, 'worker-%d' % number)

    def build(at: float) -> tuple[float, float]:
        outcome = runner.run(journal.FlowRequest(
            name='parent', store=peers.result_of(0)))
        ended = time.time()
        assert [child.state for child in outcome.children] == ['SUCCESS']
        return ended - at, ended

    build(time.time())      # the first one fills the caches
    pipe.send('ready')
    start = pipe.recv()
    cpu = time.process_time()
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        futures = []
        for moment in due:
            time.sleep(max(0.0, start + moment - time.time()))
            futures.append(pool.submit(build, start + moment))
        found = [future.result() for future in futures]
    cpu = time.process_time() - cpu
    runner.close()
    pipe.send((found, cpu))


def replay(url: str, due: list[float], workers: int) -> dict[str, Any]:
    """Send requests to workers, and wait until all are done.

    :param due: when each request comes, in seconds from the start
    :returns: the figures
    """
    context = multiprocessing.get_context('spawn')
    running = []
    for number in range(workers):
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, daemon=True, args=(
            url, due[number::workers], number, theirs))
        process.start()
        theirs.close()
        running.append((process, ours))
    assert all(pipe.recv() == 'ready' for _process, pipe in running)
    start = time.time() + 0.5
    for _process, pipe in running:
        pipe.send(start)
    found, cpu = [], 0.0
    for process, pipe in running:
        some, used = pipe.recv()
        found += some
        cpu += used
        process.join()
    took = sorted(latency for latency, _ended in found)
    last = max(ended for _latency, ended in found) - start - due[-1]
    return {'workers': workers, 'requests': len(due),
            'rate': len(due) / math.ceil(due[-1]),
            'p50': _percentile(took, 50), 'p99': _percentile(took, 99),
            'last': last, 'held': last <= _PATIENCE * WAITED,
            'cpu_ms': 1000 * cpu / len(due)}


def _percentile(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1,
                       math.ceil(len(ordered) * percent / 100) - 1)]


def show(found: dict[str, Any], out: console.Console) -> None:
    """Print the figures."""
    shown = table.Table(title='builds of a busy cloud, the busiest %d s; a '
                        'build waits %.2f s' % (found['seconds'], WAITED))
    for title in ('workers', 'times', 'requests', 'a second', 'busiest second',
                  'p50 s', 'p99 s', 'ms of processor', 'held'):
        shown.add_column(title, justify='right')
    for one in found['figures']:
        shown.add_row(
            str(one['workers']), '%dx' % one['times'], str(one['requests']),
            '%.1f' % one['rate'], str(one['peak']), '%.2f' % one['p50'],
            '%.2f' % one['p99'], '%.1f' % one['cpu_ms'],
            'yes' if one['held'] else
            'no: the last was done after %.1f s' % one['last'])
    out.print(shown)
    for workers, rate in found['highest'].items():
        out.print('the highest rate held by %s: %s' % (
            '%s worker' % workers + ('s' if int(workers) > 1 else ''),
            'none' if rate is None else '%.1f a second' % rate))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Replay the trace for each number of workers and each multiple."""
    counts = trace.busiest(trace.make(options.seed), options.seconds)
    figures = []
    with mariadb.MariaDB(durable=True) as server:
        for workers in options.workers:
            for times in options.times:
                url = server.fresh()
                database.upgrade(url)
                figure = replay(url, trace.arrivals(counts, times), workers)
                figure.update(times=times, peak=max(counts) * times)
                figures.append(figure)
                print('.', end='', file=sys.stderr, flush=True)
    print(file=sys.stderr)
    highest = {str(workers): max(
        (one['rate'] for one in figures
         if one['held'] and one['workers'] == workers), default=None)
        for workers in options.workers}
    return {'seconds': options.seconds, 'seed': options.seed,
            'waited': WAITED, 'load': os.getloadavg()[0],
            'cores': os.cpu_count(), 'figures': figures, 'highest': highest}


def main(argv: list[str] | None = None) -> int:
    """Measure, and tell."""
    parser = argparse.ArgumentParser(
        prog='tools/bench.sh load', description=__doc__)
    parser.add_argument('--seconds', type=int, default=60,
                        help='how much of the hour, around its busiest '
                        'second; 3600 is all of it')
    parser.add_argument('--times', nargs='+', type=int,
                        default=[1, 2, 3, 4, 5])
    parser.add_argument('--workers', nargs='+', type=int, default=[1, 2])
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('-f', '--format', choices=('table', 'json'),
                        default='table')
    options = parser.parse_args(argv)
    found = measure(options)
    results = pathlib.Path(os.environ.get('NOVA_SSM_STATE', '.state'),
                           'results', 'bench')
    results.mkdir(parents=True, exist_ok=True)
    (results / 'load.json').write_text(json.dumps(found, indent=1) + '\n')
    if options.format == 'json':
        print(json.dumps(found, indent=1))
    else:
        show(found, console.Console(width=120))
    from nova_ssm.tests.bench import load_plot
    for path in load_plot.draw(found, results):
        print('drawn: %s' % path, file=sys.stderr)
    return 0


if __name__ == '__main__':
    sys.exit(main())
