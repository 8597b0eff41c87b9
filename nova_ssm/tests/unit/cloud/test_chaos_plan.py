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
"""The plan of a chaos test: the same seed, the same plan."""

import collections
import itertools

import hypothesis
from hypothesis import strategies
import pytest

from nova_ssm.tests.cloud import chaos_plan

FAULTS = {'a': (1.0, 2.0), 'b': (5.0, 5.0), 'c': (0.0, 30.0)}

plans = strategies.builds(
    chaos_plan.make, strategies.integers(0, 10 ** 6),
    strategies.floats(0.1, 10), strategies.floats(2, 20),
    strategies.just(FAULTS))


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(strategies.integers(), strategies.floats(0.1, 20))
def test_the_same_seed_makes_the_same_plan(seed, minutes):
    first, second = (chaos_plan.make(seed, minutes, 3, FAULTS)
                     for _ in range(2))
    assert first == second


def test_another_seed_makes_another_plan():
    first, second = (chaos_plan.make(seed, 10, 3, FAULTS) for seed in (1, 2))
    assert first.slots != second.slots
    assert first.asks != second.asks


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(plans)
def test_the_slots_follow_each_other_and_the_first_has_no_fault(plan):
    first, *others = plan.slots
    assert (first.begin, first.fault) == (0.0, chaos_plan.NO_FAULT)
    assert others
    assert all(one.end == next_one.begin
               for one, next_one in itertools.pairwise(plan.slots))


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(plans)
def test_a_fault_lasts_as_long_as_it_may_and_its_slot_is_longer(plan):
    for slot in plan.slots[1:]:
        least, most = FAULTS[slot.fault]
        assert least <= slot.seconds <= most
        assert slot.begin < slot.strikes <= slot.strikes + slot.seconds
        assert slot.strikes + slot.seconds < slot.end


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(plans)
def test_no_fault_strikes_again_before_all_others_have(plan):
    struck = collections.Counter(slot.fault for slot in plan.slots[1:])
    numbers = [struck[name] for name in FAULTS]
    assert max(numbers) - min(numbers) <= 1


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(plans)
def test_the_load_ends_before_the_last_rest(plan):
    for ask in plan.asks:
        assert 0 <= ask.at <= plan.end - chaos_plan.REST
        assert ask.operation in chaos_plan.WEIGHTS
        assert 0 <= ask.share < 1


def test_a_run_is_as_long_as_asked_for_and_ends_with_a_whole_slot():
    plan = chaos_plan.make(3, 10, 3, FAULTS)
    assert plan.slots[-1].begin < 600 <= plan.end


@pytest.mark.parametrize('operation', chaos_plan.WEIGHTS)
def test_each_operation_is_asked_for_in_three_minutes(operation):
    plan = chaos_plan.make(1, 3, 3, FAULTS)
    assert any(ask.operation == operation for ask in plan.asks)
