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

"""Who waits for mail is woken, and what goes on is waited for."""

import itertools
import threading
import types

import pytest

from nova_ssm.tests.faults import traffic


def test_who_missed_a_ring_while_it_looked_looks_again():
    mail = traffic._Mail()
    mail.sleep(0.01)        # hears that there were none
    mail.ring()             # while it looks into its queues
    mail._rang = _Unwaiting()
    mail.sleep(30)
    assert mail._heard.times == 1


class _Unwaiting:
    """A condition that nobody has to wait for."""

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass


def test_who_sleeps_is_woken():
    mail, woken = traffic._Mail(), []
    mail._LONGEST = 600

    def listen():
        for _again in range(2):
            mail.sleep(30)
        woken.append(True)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    while listener.is_alive():
        mail.ring()
        listener.join(0.01)
    assert woken


@pytest.fixture
def clock(monkeypatch):
    """Each look at a clock takes it on: 40 seconds, ``worked`` of CPU."""
    def start(worked):
        monkeypatch.setattr(traffic, 'time', types.SimpleNamespace(
            monotonic=itertools.count(0, 40).__next__,
            process_time=itertools.count(0, worked).__next__))
    return start


@pytest.mark.parametrize('worked, looks', [(20, 2), (0, 16)])
def test_what_stands_still_is_told(clock, worked, looks):
    """Sooner if this process had time to work than on a busy machine."""
    clock(worked)
    it, waited = traffic.Traffic(), []
    it._add(1)
    it._changed.wait = waited.append
    with pytest.raises(traffic.Busy):
        it.wait()
    assert len(waited) == looks


def test_what_goes_on_is_waited_for(clock):
    clock(20)
    it, changes = traffic.Traffic(), iter([1, -1] * 50 + [-1])
    it._add(1)
    it._changed.wait = lambda seconds: it._add(next(changes))
    it.wait()
    assert next(changes, None) is None


def test_a_clock_goes_on_when_all_others_wait():
    """Not while one is at work, however long that takes it."""
    it, told = traffic.Traffic(), []
    clock = traffic.Clock(it)
    asked, ready, answer = (threading.Event() for _number in range(3))

    def call():
        with it.rest():
            asked.set()
            answer.wait(60)
        it._add(-1)

    def work():
        ready.wait(60)
        told.append(clock._ahead)
        it._add(-1)

    it._add(2)
    threads = [threading.Thread(target=it._work(one)) for one in (call, work)]
    for thread in threads:
        thread.start()
    asked.wait(60)
    threading.Timer(0.3, ready.set).start()
    clock.sleep(60)
    assert told == [0.0] and clock._ahead == 60
    answer.set()
    for thread in threads:
        thread.join()
    assert it._count == it._resting == 0
