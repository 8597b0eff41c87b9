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
"""What shall happen in a chaos test, and when: all of it from one seed.

Time is divided into slots, one a fault; the first slot has none, so that it
is seen that the cloud works. A slot begins with some seconds of load, then the
fault strikes, then there is time to recover. Requests are spread evenly over
all slots. What a request does is in the plan; which server it meets is a
share of those that are free then, so two runs of a plan need not meet the
same ones.
"""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import random
from typing import Any

BUILD = 'build'
RESIZE = 'resize'
LIVE = 'live-migrate'
DELETE = 'delete'
CONFIRM = 'confirm'
#: What is asked for, and how often. A build asks for two servers on average,
#: and a third of the servers is deleted again: their number grows slowly.
WEIGHTS = {BUILD: 4, RESIZE: 3, LIVE: 3, DELETE: 3}
#: All operations; a resize that went well is confirmed.
OPERATIONS = (*WEIGHTS, CONFIRM)
#: What is not done by a conductor: the API hands it to the compute.
APART = (DELETE, CONFIRM)

NO_FAULT = 'none'
#: Seconds of a slot before the fault, and after it.
LEAD = 4.0
REST = 14.0


@dataclasses.dataclass(frozen=True)
class Slot:
    """One fault, and the time that belongs to it (seconds from the begin)."""

    number: int
    fault: str
    begin: float
    end: float
    #: How long the fault lasts, in seconds.
    seconds: float
    #: Chooses who is struck, from 0 to 1.
    share: float

    @property
    def strikes(self) -> float:
        """When the fault strikes."""
        return self.begin + LEAD


@dataclasses.dataclass(frozen=True)
class Ask:
    """One request."""

    number: int
    #: Seconds from the begin.
    at: float
    operation: str
    #: Chooses the server, from 0 to 1.
    share: float
    #: How many servers are built.
    count: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """All faults and all requests."""

    seed: int
    minutes: float
    slots: tuple[Slot, ...]
    asks: tuple[Ask, ...]

    @property
    def end(self) -> float:
        """When the last slot ends, in seconds from the begin."""
        return self.slots[-1].end

    def plain(self) -> dict[str, Any]:
        """Return all of it for the results."""
        return dataclasses.asdict(self)


def make(seed: int, minutes: float, every: float,
         faults: Mapping[str, tuple[float, float]]) -> Plan:
    """Plan a run.

    :param minutes: of load; a fault that has begun is brought to its end
    :param every: seconds from one request to the next
    :param faults: name -> the least and the most seconds that it lasts
    """
    slots = tuple(_slots(random.Random(f'{seed} faults'), minutes * 60,
                         faults))
    return Plan(seed, minutes, slots, tuple(_asks(
        random.Random(f'{seed} requests'), slots[-1].end - REST, every)))


def _slots(source: random.Random, seconds: float,
           faults: Mapping[str, tuple[float, float]]) -> Iterator[Slot]:
    calm = Slot(0, NO_FAULT, 0.0, LEAD + REST, 0.0, 0.0)
    yield calm
    begin = calm.end
    for number, name in enumerate(_turns(source, sorted(faults)), 1):
        lasts = round(source.uniform(*faults[name]), 1)
        end = begin + LEAD + lasts + REST
        yield Slot(number, name, begin, end, lasts, source.random())
        begin = end
        if begin >= seconds:
            return


def _turns(source: random.Random, names: Sequence[str]) -> Iterator[str]:
    """Give all names in some order, then all in another, for ever."""
    while True:
        yield from source.sample(names, len(names))


def _asks(source: random.Random, end: float, every: float) -> Iterator[Ask]:
    for number in range(int(end / every)):
        operation = source.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        yield Ask(number, number * every, operation, source.random(),
                  source.choice((1, 2, 3)))
