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
import random

from nova_ssm.tests.faults import bench
from nova_ssm.tests.faults import cases
from nova_ssm.tests.faults import plan


class Agenda:
    """All cases of some variants, or a sample of them.

    :param flow: only faults in this flow; None: in all
    :param size: of the sample; None: all
    :param twofold: whether there are cases with two faults
    :param seed: the same one chooses the same sample
    """

    def __init__(self, variants: list[str], flow: str | None = None,
                 size: int | None = None, twofold: bool = True,
                 seed: int = 1) -> None:
        self._flow = flow
        self._size = size
        self._twofold = twofold
        self._random = random.Random(seed)
        self._todo: collections.deque[plan.Case] = collections.deque(
            plan.Case(variant) for variant in variants)
        self._found: list[plan.Case] = []
        self._undisturbed = len(variants)
        self._learns = True

    def only(self, cases_: list[plan.Case]) -> None:
        """Run these, whatever they bring up."""
        self._todo = collections.deque(cases_)
        self._learns = False

    @property
    def left(self) -> int:
        """How many cases have not been begun."""
        return len(self._todo) + len(self._found)

    def next(self) -> str | None:
        """The name of the next case."""
        return str(self._todo.popleft()) if self._todo else None

    def learn(self, result: bench.Result) -> None:
        """See what a case brings up."""
        if not self._learns:
            return
        case = plan.Case.parse(result.case)
        if not case.faults:
            self._found += self._of_flow(cases.first(
                case.variant, result.seen))
            self._undisturbed -= 1
            if not self._undisturbed:
                self._choose()
        elif len(case.faults) == 1 and self._twofold:
            more = list(cases.second(case, result.seen))
            if self._size is not None:
                more = self._random.sample(more, min(len(more), 1))
            self._todo.extend(more)

    def _of_flow(self, found) -> list[plan.Case]:
        return [case for case in found if self._flow is None or
                case.faults[0].spot.flow == self._flow]

    def _choose(self) -> None:
        if self._size is not None:
            # As many of each flow, however large it is.
            by_flow = collections.defaultdict(list)
            for case in sorted(self._found, key=str):
                by_flow[case.faults[0].spot.flow].append(case)
            share = -(-self._size // len(by_flow))
            self._found = [
                case for flow in sorted(by_flow) for case in
                self._random.sample(by_flow[flow],
                                    min(share, len(by_flow[flow])))]
        self._todo.extend(self._found)
        self._found = []
