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

"""Which cases are run, and in what order."""

import collections
from collections.abc import Iterable
import heapq
import itertools
import random

from nova_ssm.tests.faults import bench
from nova_ssm.tests.faults import cases
from nova_ssm.tests.faults import plan

#: Of so many cases of a sample one is undisturbed.
_SHARE = 4


class Agenda:
    """All cases of some variants, or a sample of them.

    Cases of all variants come mixed, in an order that the seed and their
    names tell: what a run has tried until it was ended is a fair sample.

    :param flow: only faults in this flow; None: in all
    :param size: of the sample, with all that it takes; None: all
    :param twofold: whether there are cases with two faults
    :param seed: the same one chooses the same sample
    """

    def __init__(self, variants: list[str], flow: str | None = None,
                 size: int | None = None, twofold: bool = True,
                 seed: int = 1) -> None:
        self._flow = flow
        self._size = size
        self._twofold = twofold
        self._seed = seed
        if size is not None:
            variants = self._some(variants, max(1, size // _SHARE))
        self._deck: list[tuple[float, str]] = []
        self._known: set[str] = set()
        self._seconds: set[tuple[plan.Fault | str, ...]] = set()
        self._aside: list[str] = []
        self._running: list[str] = []
        self._found: list[plan.Case] = []
        self._undisturbed = set(variants)
        self._begun = 0
        self._learns = True
        self._add(plan.Case(variant) for variant in variants)

    def only(self, names: Iterable[str]) -> None:
        """Run these, whatever they bring up."""
        names = set(names)
        self._aside = [name for name in self.todo if name not in names]
        self._deck = []
        self._known = set()
        self._add(map(plan.Case.parse, names))
        self._learns = False

    def resume(self, held: Iterable[str], todo: Iterable[str]) -> None:
        """Go on with an earlier run of the same variants.

        Undisturbed cases are run again: they may bring up what is new.

        :param held: cases that need not be run again
        :param todo: cases that it had not begun, or that have not held
        """
        done = [case for case in map(plan.Case.parse, held) if case.faults]
        self._known.update(map(str, done))
        later = [plan.Case.parse(name) for name in todo]
        for case in (*done, *later):
            self._seconds.update(_behind(case))
        self._add(later)

    @property
    def todo(self) -> list[str]:
        """The names of the cases that have not been run to their end."""
        return [*self._running, *(name for _rank, name in sorted(self._deck)),
                *self._aside]

    def next(self) -> str | None:
        """The name of the next case."""
        if not self._deck:
            return None
        self._begun += 1
        name = heapq.heappop(self._deck)[1]
        if self._begun == self._size:
            # What is not in the sample is not left out.
            self._deck = []
        self._running.append(name)
        return name

    def learn(self, result: bench.Result) -> None:
        """See what a case brings up."""
        self._running.remove(result.case)
        if not self._learns or self._begun == self._size:
            return
        case = plan.Case.parse(result.case)
        if not case.faults:
            self._found += self._of_flow(cases.first(
                case.variant, result.seen))
            self._undisturbed.discard(case.variant)
            if not self._undisturbed:
                self._choose()
        elif len(case.faults) == 1 and self._twofold:
            self._add(self._new(cases.second(case, result.seen)))

    def _new(self, found: Iterable[plan.Case]) -> list[plan.Case]:
        """Of cases with two faults those whose second one is untried.

        There are some hundred thousand others, in which the same is undone
        because of something else.
        """
        new = []
        for case in sorted(found, key=self._rank):
            behind = set(_behind(case))
            if not behind <= self._seconds:
                self._seconds |= behind
                new.append(case)
        return new if self._size is None else new[:1]

    def _add(self, found: Iterable[plan.Case]) -> None:
        for case in found:
            if str(case) not in self._known:
                self._known.add(str(case))
                heapq.heappush(self._deck, (self._rank(case), str(case)))

    def _rank(self, case: plan.Case) -> float:
        if not case.faults:
            return -1
        return random.Random('%d %s' % (self._seed, case)).random()

    def _some(self, things: list, number: int) -> list:
        return random.Random(self._seed).sample(
            things, min(number, len(things)))

    def _of_flow(self, found: Iterable[plan.Case]) -> list[plan.Case]:
        return [case for case in found if self._flow is None or
                case.faults[0].spot.flow == self._flow]

    def _choose(self) -> None:
        found = self._found
        if self._size is not None and found:
            # As many of each flow, however large it is.
            by_flow = collections.defaultdict(list)
            for case in sorted(found, key=str):
                by_flow[case.faults[0].spot.flow].append(case)
            share = -(-(self._size - self._begun) // len(by_flow))
            found = [case for flow in sorted(by_flow)
                     for case in self._some(by_flow[flow], share)]
        self._add(found)
        self._found = []


def _behind(case: plan.Case) -> Iterable[tuple[plan.Fault | str, ...]]:
    """What tells a case with two faults from others that try the same.

    What is undone of a task depends on how far that came, not on what
    failed behind it.
    """
    for first, second in itertools.pairwise(case.faults):
        same = (first.spot.flow, first.spot.atom) == (
            second.spot.flow, second.spot.atom)
        yield (case.variant, second, *([first] if same else []))
