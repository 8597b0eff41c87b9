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

"""How long flows stand still when their conductor dies, on each board.

Prints a table for the documentation: ``python -m nova_ssm.tests.boards``.
"""

import argparse
import itertools
import pathlib
import statistics
import tempfile
import time

from nova_ssm.engine.coordination import base
from nova_ssm.engine import database
from nova_ssm.tests.boards import conftest
from nova_ssm.tests.boards import places
from nova_ssm.tests.boards import processes

FLOWS = tuple('f%d' % number for number in range(8))


def hand_over(place: places.Place, lease: float, host: str) -> float:
    """Seconds from the SIGKILL of a conductor until its flows went on.

    :param host: of the conductor that goes on with them; the dead one was
        ``one``, so another process of that host knows at once
    """
    with tempfile.TemporaryDirectory() as home:
        scene = processes.Scene(place, pathlib.Path(home), lease)
        try:
            one = scene.node('one', recover=False)
            scene.hold()
            one.run(*FLOWS)
            scene.wait_held(*FLOWS)
            scene.node(host)
            one.kill()
            began = time.monotonic()
            processes.until(lambda: len(
                scene.world.notes('looks')) == 2 * len(FLOWS))
            taken = time.monotonic() - began
            scene.go_on()
            scene.wait_over()
            scene.assert_each_done_once(*FLOWS)
        finally:
            scene.close()
    return taken


def main() -> None:
    """Measure each board in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--lease', type=float, default=10.0)
    parser.add_argument('--rounds', type=int, default=3)
    options = parser.parse_args()
    started, paths = {}, itertools.count()
    try:
        for kind in {*conftest.SERVERS}:
            started[kind] = conftest.SERVERS[kind]()
            started[kind].start()
        print('%-16s %28s %28s' % ('board', 'other host, seconds (median)',
                                   'same host, seconds (median)'))
        for name, (engine, kind) in conftest.BOARDS.items():
            times: dict[str, list[float]] = {'other': [], 'one': []}
            for _round in range(options.rounds):
                for host, taken in times.items():
                    url = started[engine].fresh()
                    database.upgrade(url)
                    server = None if kind is None else base.Server(
                        kind, (started[kind].hosts,),
                        path='/measure/%d' % next(paths))
                    taken.append(hand_over(places.Place(url, server),
                                           options.lease, host))
            print('%-16s %28.1f %28.1f' % (
                name, statistics.median(times['other']),
                statistics.median(times['one'])), flush=True)
    finally:
        for one in started.values():
            one.remove()


if __name__ == '__main__':
    main()
