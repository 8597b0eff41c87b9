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

"""``bakery``: takes an order, or goes on with what others have begun.

::

    bakery DIRECTORY order NAME [--seconds N] [--burnt]
    bakery DIRECTORY recover

Several may run at once. What is begun by one that is killed is finished, or
reverted, by any other.
"""

import argparse
import pathlib
import sys
import time

from taskflow import flow as taskflow_flow
from taskflow.patterns import linear_flow

from bakery import objects
from bakery import tasks
from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import queries
from nova_ssm.engine import recovery
from nova_ssm.engine import registry
from nova_ssm.engine import runner


def bake(home: pathlib.Path) -> taskflow_flow.Flow:
    """What is done for a loaf."""
    return linear_flow.Flow('bake').add(
        tasks.TakeOven(home), tasks.Bake(home), tasks.FreeOven(home),
        tasks.PutOnShelf(home))


def make_runner(home: pathlib.Path) -> runner.Runner:
    """The engine of one process, on a journal in the directory."""
    url = 'sqlite:///%s' % (home / 'journal.db')
    database.upgrade(url)
    flows = registry.Registry()
    flows.add(registry.FlowType('bake', '1.0', lambda: bake(home)))
    return runner.Runner(database.Database(url), objects.serializer(), flows,
                         host='bakery', lease=2)


def order(engine: runner.Runner, name: str, seconds: float,
          burnt: bool) -> int:
    """Bake a loaf. Returns the status of the process."""
    outcome = engine.run(journal.FlowRequest(
        name='bake', subject=name, store={
            'loaf': objects.Loaf(name=name, oven=None), 'seconds': seconds,
            'burnt': burnt}))
    print('%s: %s %s' % (name, outcome.state, outcome.failure or ''))
    return 0 if outcome.state == 'SUCCESS' else 1


def recover(engine: runner.Runner) -> int:
    """Go on with what dead ones have left, until nothing is left."""
    looking = recovery.Recovery(engine, 'bakery', interval=0.2)
    looking.start()
    while left := queries.flows(engine.db, unfinished=True):
        print('%d to go' % len(left), flush=True)
        time.sleep(0.5)
    looking.stop()
    return 0


def main() -> int:
    """Run the command. Returns the status of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('home', type=pathlib.Path)
    verbs = parser.add_subparsers(dest='verb', required=True)
    ordering = verbs.add_parser('order')
    ordering.add_argument('name')
    ordering.add_argument('--seconds', type=float, default=0.1)
    ordering.add_argument('--burnt', action='store_true')
    verbs.add_parser('recover')
    args = parser.parse_args()
    args.home.mkdir(parents=True, exist_ok=True)
    engine = make_runner(args.home)
    try:
        if args.verb == 'order':
            return order(engine, args.name, args.seconds, args.burnt)
        return recover(engine)
    finally:
        engine.close()


if __name__ == '__main__':
    sys.exit(main())
