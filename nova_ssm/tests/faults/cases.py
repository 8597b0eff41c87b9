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

"""Which cases there are: told by what was seen to happen.

Nobody writes a case down. A variant is run undisturbed, and each task, and
each change that is made outside of the process, is an occasion for faults;
what a failed flow was seen to undo is an occasion for further ones.
"""

from collections.abc import Iterator, Sequence

from nova_ssm.tests.faults import plan

Seens = Sequence[plan.Seen]

_TASK = (('raise', 'before'), ('raise', 'after'), ('die', 'before'),
         ('die', 'after'), ('twice', 'after'))
_CALL = (('raise', 'before'), ('raise', 'after'), ('die', 'before'),
         ('die', 'after'))
_UNDONE_TASK = (('die', 'before'), ('die', 'after'), ('twice', 'after'))
_UNDONE_CALL = (('die', 'before'), ('die', 'after'))


def first(variant: str, seen: Seens) -> Iterator[plan.Case]:
    """The cases of a variant, told by its undisturbed run."""
    for one in seen:
        for what, when in _whats(one):
            yield plan.Case(variant, (plan.Fault(
                one.spot, what, when, one.call),))


def _whats(one: plan.Seen) -> Sequence[tuple[str, str]]:
    if one.call:
        return _CALL
    if not one.spot.is_task:
        return ()
    return [way for way in _TASK if way[0] != 'raise' or not one.idle]


def second(case: plan.Case, seen: Seens) -> Iterator[plan.Case]:
    """What else can go wrong behind the fault of a case.

    Of a flow that failed: while it is undone. Of a conductor that died:
    while the next one finds out what it has to go on with, and does again
    what the first one had begun.
    """
    fault = case.faults[0]
    for one in seen:
        if one.stage == 1 and _follows(fault, one):
            for what, when in _UNDONE_CALL if one.call else (
                    _UNDONE_TASK if one.spot.is_task else ()):
                yield plan.Case(case.variant, (fault, plan.Fault(
                    one.spot, what, when, one.call)))


def _follows(fault: plan.Fault, one: plan.Seen) -> bool:
    if fault.what == 'raise':
        return one.spot.phase == 'revert'
    if fault.what != 'die':
        return False
    again = (one.spot.flow, one.spot.atom, one.spot.phase) == (
        fault.spot.flow, fault.spot.atom, fault.spot.phase)
    return again or one.spot.phase in ('recovery', 'resume')
