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

"""What the conductors of a cloud use: processor time and statements.

Both are read from outside: from the kernel, and from the database server,
which counts for each account. The conductors have one of their own.
"""

import collections
import dataclasses
import time

import psutil

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import settings

#: What is counted, as the server calls it.
STATEMENTS = ('select', 'insert', 'update', 'delete', 'commit', 'rollback')


@dataclasses.dataclass(frozen=True)
class Reading:
    """What the conductors have used so far, or in some time.

    :param seconds: on the clock
    :param cpu: seconds of processor time, user and system
    :param sql: how many statements of each kind
    """

    seconds: float
    cpu: float
    sql: dict[str, float]

    def __sub__(self, other: 'Reading') -> 'Reading':
        return Reading(
            self.seconds - other.seconds, self.cpu - other.cpu,
            {kind: self.sql[kind] - other.sql[kind] for kind in self.sql})

    def __add__(self, other: 'Reading') -> 'Reading':
        return Reading(
            self.seconds + other.seconds, self.cpu + other.cpu,
            {kind: self.sql[kind] + other.sql[kind] for kind in self.sql})

    def without(self, idle: 'Reading') -> 'Reading':
        """This, less what the conductors use when nothing is asked of them.

        :param idle: measured while nothing was
        """
        share = self.seconds / idle.seconds
        return Reading(
            self.seconds, self.cpu - share * idle.cpu,
            {kind: self.sql[kind] - share * idle.sql[kind]
             for kind in self.sql})

    def per(self, count: int) -> dict[str, float]:
        """What each of some servers took: ms of processor, statements."""
        return {'cpu_ms': 1000 * self.cpu / count,
                **{kind: self.sql[kind] / count for kind in STATEMENTS}}


NOTHING = Reading(0.0, 0.0, dict.fromkeys(STATEMENTS, 0.0))


class Meter:
    """Reads what the conductors of a cloud have used."""

    def __init__(self, it: cloud.Cloud) -> None:
        self._cloud = it

    def read(self) -> Reading:
        """Return what they have used until now."""
        return Reading(time.monotonic(), self._cpu(), self._sql())

    def idle(self, seconds: float) -> Reading:
        """Return what they use while nothing is asked of them."""
        before = self.read()
        time.sleep(seconds)
        return self.read() - before

    def _cpu(self) -> float:
        total = 0.0
        for name in settings.CONDUCTORS:
            for pid in self._cloud.members(name):
                times = psutil.Process(pid).cpu_times()
                total += times.user + times.system
        return total

    def _sql(self) -> dict[str, float]:
        rows = self._cloud.db(
            'SELECT event_name, count_star FROM performance_schema.'
            'events_statements_summary_by_user_by_event_name '
            'WHERE user = %s', settings.CONDUCTOR_USER)
        counts: dict[str, float] = collections.defaultdict(float)
        for row in rows:
            kind = row['event_name'].rpartition('/')[2]
            # Such as delete_multi.
            counts[kind.partition('_')[0]] += row['count_star']
        if not any(counts.values()):
            raise settings.CloudError(
                'the database does not count the statements of the '
                'conductors: it was started by an older release; tools/'
                'cloud.sh down, then up')
        return {kind: counts[kind] for kind in STATEMENTS}
