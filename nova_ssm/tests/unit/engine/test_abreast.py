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

"""Things that are done side by side, by a caller and its helpers."""

import os
import threading

from hypothesis import given
from hypothesis import strategies as st
from oslo_context import context as oslo_context
import pytest

from nova_ssm.engine import abreast


@pytest.fixture
def helpers():
    made = abreast.Helpers(4)
    yield made
    made.close()


def test_the_results_come_in_the_order_of_the_items(helpers):
    last = threading.Event()

    def work(number):
        if number == 0:
            assert last.wait(60), 'the others are done meanwhile'
        if number == 9:
            last.set()
        return number * number

    assert helpers.run(work, range(10)) == [n * n for n in range(10)]


def test_they_begin_in_their_order(helpers):
    begun, lock = [], threading.Lock()

    def work(number):
        with lock:
            begun.append(number)

    helpers.run(work, range(50))
    # Of those side by side nobody can say which of them is first.
    for place, number in enumerate(begun):
        assert abs(place - number) < 4


def test_no_more_are_under_way_than_is_said(helpers):
    lock, now, most = threading.Lock(), [0], [0]
    together = threading.Barrier(4, timeout=60)

    def work(number):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        together.wait()
        with lock:
            now[0] -= 1

    helpers.run(work, range(8))
    assert most == [4]


def test_the_caller_does_its_share(helpers):
    together = threading.Barrier(4, timeout=60)
    seen = set()

    def work(number):
        seen.add(threading.get_ident())
        together.wait()

    helpers.run(work, range(4))
    assert threading.get_ident() in seen
    assert len(seen) == 4


@pytest.mark.parametrize('width, items', [(1, 5), (4, 1), (4, 0)])
def test_nobody_helps_where_there_is_nothing_to_be_won(width, items):
    alone = abreast.Helpers(width)
    seen = alone.run(lambda number: threading.get_ident(), range(items))
    assert set(seen) <= {threading.get_ident()}
    assert len(seen) == items


def test_a_caller_does_everything_if_no_helper_is_free(helpers):
    free = threading.Event()
    busy = threading.Barrier(7, timeout=60)

    def hog(number):
        busy.wait()
        assert free.wait(60)

    hogs = [threading.Thread(target=helpers.run, args=(hog, range(count)))
            for count in (4, 2)]
    for one in hogs:
        one.start()
    busy.wait()         # all four, and those who asked for them
    try:
        assert helpers.run(lambda number: number, range(6)) == list(range(6))
    finally:
        free.set()
        for one in hogs:
            one.join()


def test_what_is_done_may_itself_be_done_side_by_side(helpers):
    def row(number):
        return helpers.run(lambda column: (number, column), range(6))

    assert helpers.run(row, range(6)) == [
        [(number, column) for column in range(6)] for number in range(6)]


def test_after_a_failure_nothing_begins_and_what_is_under_way_ends(helpers):
    together = threading.Barrier(4, timeout=60)
    ended = []

    def work(number):
        together.wait()     # four are under way, whoever they are
        if number == 1:
            raise KeyError(number)
        ended.append(number)

    with pytest.raises(KeyError):
        helpers.run(work, range(4))
    assert sorted(ended) == [0, 2, 3]
    with pytest.raises(KeyError):
        abreast.Helpers(1).run(lambda number: {}[number], range(3))


@given(st.integers(1, 6), st.lists(st.booleans(), max_size=20))
def test_the_first_failure_of_those_that_ran_is_raised(width, fails):
    some = abreast.Helpers(width)
    ran = []

    def work(number):
        ran.append(number)
        if fails[number]:
            raise LookupError(number)
        return number

    try:
        if any(fails):
            with pytest.raises(LookupError) as caught:
                some.run(work, range(len(fails)))
            assert caught.value.args[0] == min(
                number for number in ran if fails[number])
        else:
            assert some.run(work, range(len(fails))) == list(
                range(len(fails)))
        assert sorted(ran) == list(range(len(ran))), 'in their order'
    finally:
        some.close()


@pytest.mark.parametrize('end', [SystemExit, KeyboardInterrupt])
def test_the_end_of_a_process_is_not_kept_from_it(helpers, end):
    def work(number):
        raise end()

    with pytest.raises(end):
        helpers.run(work, range(3))


def test_a_helper_logs_the_context_of_what_it_does(helpers):
    contexts = [oslo_context.RequestContext(request_id='req-%d' % number,
                                            overwrite=False)
                for number in range(4)]
    mine = oslo_context.RequestContext(request_id='req-mine', overwrite=True)
    together = threading.Barrier(4, timeout=60)
    caller = threading.get_ident()

    def work(number):
        together.wait()
        if threading.get_ident() == caller:
            return None
        return oslo_context.get_current().request_id == 'req-%d' % number

    told = helpers.run(work, range(4), contexts.__getitem__)
    assert sorted(told, key=str) == [None, True, True, True]
    assert oslo_context.get_current() is mine


def test_a_context_that_is_nothing_is_no_matter(helpers):
    assert helpers.run(str, range(3), lambda number: {'a': 1}) == [
        '0', '1', '2']


def test_its_threads_are_made_again_after_it_was_closed(helpers):
    for _time in range(2):
        assert helpers.run(str, range(3)) == ['0', '1', '2']
        helpers.close()


def test_a_child_process_has_threads_of_its_own(helpers):
    helpers.run(str, range(3))
    ours = helpers._executor
    pid, helpers._pid = os.getpid(), -1     # as after a fork
    assert helpers.run(str, range(3)) == ['0', '1', '2']
    assert helpers._executor is not ours
    assert helpers._pid == pid
    ours.shutdown()
