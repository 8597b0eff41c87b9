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
"""The requests of a busy cloud, as TROPIC was measured with.

Liu et al., "TROPIC: Transactional Resource Orchestration Platform in the
Cloud" (USENIX ATC 2012), took the instances that were launched in an hour in
a region of Amazon EC2: 8,417 of them, 2.34 a second in the mean and 14 in
the busiest second, 0.8 hours from the start; then the same, twice to five
times as many. The trace itself was not published: this one is made to have
these figures. The rate wanders (the logarithm of it is an autoregressive
process, with a memory of about a minute), the busiest second is where it is
highest, and each second gets a Poisson number of requests.
"""

from collections.abc import Sequence
import math
import random

HOUR = 3600
TOTAL = 8417
PEAK = 14
PEAK_AT = int(0.8 * HOUR)
#: How much of the rate's logarithm stays from a second to the next, and how
#: far it strays.
_MEMORY, _SPREAD = 0.985, 0.45


def make(seed: int = 1) -> list[int]:
    """The number of requests in each second of the hour."""
    chance = random.Random(seed)
    level, rates = 0.0, []
    for _second in range(HOUR):
        level = _MEMORY * level + chance.gauss(
            0, _SPREAD * math.sqrt(1 - _MEMORY ** 2))
        rates.append(math.exp(level))
    top = rates.index(max(rates)) - PEAK_AT
    rates = rates[top:] + rates[:top]
    scale = TOTAL / sum(rates)
    counts = [min(_poisson(chance, scale * rate), PEAK - 1)
              for rate in rates]
    counts[PEAK_AT] = PEAK
    _correct(chance, counts)
    return counts


def _poisson(chance: random.Random, mean: float) -> int:
    # Knuth's way; the means are small.
    limit, product, number = math.exp(-mean), chance.random(), 0
    while product > limit:
        product *= chance.random()
        number += 1
    return number


def _correct(chance: random.Random, counts: list[int]) -> None:
    """Let the requests be as many as there were."""
    while (missing := TOTAL - sum(counts)) != 0:
        second = chance.randrange(HOUR)
        if second != PEAK_AT and 0 <= counts[second] + (
                1 if missing > 0 else -1) < PEAK:
            counts[second] += 1 if missing > 0 else -1


def busiest(counts: Sequence[int], seconds: int) -> list[int]:
    """The part of the trace, of that length, that has most requests.

    It has the busiest second in it.
    """
    starts = range(max(0, PEAK_AT - seconds + 1),
                   min(PEAK_AT, len(counts) - seconds) + 1)
    start = max(starts, key=lambda s: sum(counts[s:s + seconds]))
    return list(counts[start:start + seconds])


def arrivals(counts: Sequence[int], times: int,
             seed: int = 1) -> list[float]:
    """When requests come, in seconds from the start.

    :param times: how often as many there are as in the trace
    """
    chance = random.Random(seed)
    return sorted(second + chance.random()
                  for second, count in enumerate(counts)
                  for _request in range(count * times))
