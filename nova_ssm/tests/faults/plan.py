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

"""What goes wrong in a case, and where: said in a line, and done.

A fault is written ``FLOW.ATOM.PHASE:WHAT-WHEN``, as in
``build_instance.MapInstance.execute:die-before``. ``@2`` behind it means: at
the second change that the task makes outside of the process, and ``#2``: when
the task is run for the second time. What happens between the tasks of a flow
has the atom ``-``; what happens outside of any flow the flow ``-``.

A case is written ``VARIANT/FAULT`` or ``VARIANT/FAULT+FAULT``: the second
fault waits for the first one.
"""

import collections
import dataclasses
import re

_FAULT = re.compile(
    r'(?P<flow>[\w-]+)\.(?P<atom>[\w-]+)\.(?P<phase>[\w-]+)'
    r':(?P<what>raise|die|twice)-(?P<when>before|after)'
    r'(?:@(?P<call>\d+))?(?:#(?P<turn>\d+))?')


class BadCase(Exception):
    """A text is not the name of a case."""


@dataclasses.dataclass(frozen=True)
class Spot:
    """One run of one task, or what happens between two of them.

    :param flow: name of the flow, ``-`` outside of any
    :param atom: name of the task, ``-`` between two
    :param phase: ``execute``, ``revert``, or what else the process does
    :param turn: how often it has been there, counted from 1
    """

    flow: str
    atom: str
    phase: str
    turn: int = 1

    def __str__(self) -> str:
        return '%s.%s.%s' % (self.flow, self.atom, self.phase)

    @property
    def is_task(self) -> bool:
        """Whether this is a run of a task."""
        return self.atom != '-'


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    :param what: ``raise``, ``die`` or ``twice``
    :param when: ``before`` or ``after``
    :param call: at which change outside of the process; 0: at none of them,
        before or after the task itself
    """

    spot: Spot
    what: str
    when: str
    call: int = 0

    def __str__(self) -> str:
        return '%s:%s-%s%s%s' % (
            self.spot, self.what, self.when,
            '@%d' % self.call if self.call else '',
            '#%d' % self.spot.turn if self.spot.turn > 1 else '')

    @classmethod
    def parse(cls, text: str) -> 'Fault':
        """Read what str() has made.

        :raises BadCase: if it is not the name of a fault
        """
        found = _FAULT.fullmatch(text)
        if found is None:
            raise BadCase('%r is not a fault, which is written FLOW.TASK.'
                          'PHASE:WHAT-WHEN[@CALL][#TURN]' % text)
        return cls(Spot(found['flow'], found['atom'], found['phase'],
                        int(found['turn'] or 1)),
                   found['what'], found['when'], int(found['call'] or 0))


@dataclasses.dataclass(frozen=True)
class Case:
    """One thing that is done, with what goes wrong meanwhile."""

    variant: str
    faults: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        return '%s/%s' % (self.variant, '+'.join(map(str, self.faults)))

    @classmethod
    def parse(cls, text: str) -> 'Case':
        """Read what str() has made.

        :raises BadCase: if it is not the name of a case
        """
        variant, _slash, faults = text.partition('/')
        return cls(variant, tuple(Fault.parse(one)
                                  for one in faults.split('+') if one))

    @property
    def lost(self) -> bool:
        """Whether something goes wrong before the request is begun, perhaps.

        The message is gone, and no journal knows of it: an audit does.
        """
        return any(fault.spot.flow == '-' for fault in self.faults)

    @property
    def dies(self) -> bool:
        """Whether a conductor dies, and with it who waits for its answer."""
        return any(fault.what == 'die' for fault in self.faults)

    @property
    def raises(self) -> bool:
        """Whether something fails, so that the operation may fail too."""
        return any(fault.what == 'raise' for fault in self.faults)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen to happen.

    :param call: which change outside of the process; 0: the spot itself
    :param kind: of service that was called, e.g. ``placement``
    :param detail: what was asked of it
    :param stage: how many faults had struck before
    :param idle: whether the task has nothing to do here, and cannot fail
    """

    spot: Spot
    call: int = 0
    kind: str = ''
    detail: str = ''
    stage: int = 0
    idle: bool = False


class Plan:
    """Lets the faults of a case strike, and writes down what happens.

    :ivar seen: all that has happened, in its order
    :ivar struck: the faults that have struck
    """

    def __init__(self, faults: tuple[Fault, ...] = ()) -> None:
        self._todo = list(faults)
        self._turns: collections.Counter[Spot] = collections.Counter()
        self.seen: list[Seen] = []
        self.struck: list[Fault] = []

    def enter(self, flow: str, atom: str, phase: str,
              idle: bool = False) -> Spot:
        """Come to a spot."""
        plain = Spot(flow, atom, phase)
        self._turns[plain] += 1
        spot = dataclasses.replace(plain, turn=self._turns[plain])
        self.seen.append(Seen(spot, stage=len(self.struck), idle=idle))
        return spot

    def note(self, spot: Spot, call: int, kind: str, detail: str) -> None:
        """Write down a change outside of the process."""
        self.seen.append(Seen(spot, call, kind, detail, len(self.struck)))

    def strikes(self, spot: Spot, call: int, when: str,
                *whats: str) -> str | None:
        """What goes wrong here, if anything does; each fault once."""
        if not self._todo:
            return None
        next_ = self._todo[0]
        if ((next_.spot, next_.call, next_.when) != (spot, call, when) or
                next_.what not in whats):
            return None
        self.struck.append(self._todo.pop(0))
        return next_.what

    @property
    def missed(self) -> list[Fault]:
        """The faults that had no occasion."""
        return list(self._todo)
