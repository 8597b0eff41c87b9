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

"""Whether a conductor has a request in its hands: certain, or not."""

import datetime
import threading
import types
from unittest import mock

from nova import objects
from oslo_config import cfg
import oslo_messaging as messaging
from oslo_utils import timeutils
import pytest

from nova_ssm.audit import auditor
from nova_ssm.audit import certainty
from nova_ssm import compat
from nova_ssm import conf
from nova_ssm.engine import queries
from nova_ssm import exception
from nova_ssm.tasks import audit_steps

CONF = cfg.CONF


class Conductors:
    """Workers that take messages from one queue in turn.

    :ivar alive: hosts by worker, as their leases say
    :ivar silent: those that are alive, and do not answer
    :ivar silent_for: of hosts the seconds since they reported last
    """

    def __init__(self, **alive):
        self.alive = alive
        self.up = set(alive.values())
        self.silent = set()
        self.silent_for = {}
        self.asked = []
        self.stock = False
        self.now = 0.0

    def answer(self, context, timeout):
        if self.stock:
            return None
        listening = [worker for worker in sorted(self.alive)
                     if worker not in self.silent]
        if not listening:
            raise messaging.MessagingTimeout()
        worker = listening[len(self.asked) % len(listening)]
        self.asked.append(worker)
        return worker

    def services(self, context, binary, include_disabled):
        assert (binary, include_disabled) == ('nova-conductor', True)
        return [types.SimpleNamespace(
            host=host, last_seen_up=timeutils.utcnow() - datetime.timedelta(
                seconds=self.silent_for.get(host, 0)))
            for host in sorted(self.up)]

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def conductors(monkeypatch):
    known = Conductors(a='host1', b='host1', c='host2')
    monkeypatch.setattr(compat, 'ask_conductor', known.answer)
    monkeypatch.setattr(queries, 'living', lambda db: dict(known.alive))
    monkeypatch.setattr(objects.ServiceList, 'get_by_binary', known.services)
    monkeypatch.setattr(certainty.builds, 'is_up', lambda service: True)
    monkeypatch.setattr(certainty, 'time', known)
    return known


def ask(patience=5):
    inquiry = certainty.Inquiry(mock.Mock())
    inquiry.make_sure('context', patience)
    return inquiry


def test_it_is_certain_when_all_have_answered(conductors):
    ask()
    assert set(conductors.asked) == {'a', 'b', 'c'}


def test_one_that_is_silent_leaves_it_uncertain(conductors):
    conductors.silent = {'b'}
    with pytest.raises(exception.Uncertain, match='worker b has not'):
        ask()


def test_a_dead_one_is_waited_for_until_its_lease_has_run_out(conductors):
    conductors.silent = {'b'}
    sleep = conductors.sleep

    def expire(seconds):
        sleep(seconds)
        if conductors.now >= 3:
            conductors.alive.pop('b', None)

    conductors.sleep = expire
    ask()
    assert conductors.now >= 3


def test_one_that_goes_away_meanwhile_has_all_asked_again(
        conductors, monkeypatch):
    """What it had not begun is in the queue once more."""
    answer = conductors.answer
    deaths = []

    def die(context, timeout):
        if not deaths and conductors.asked == ['a', 'b', 'c'][:2]:
            deaths.append(conductors.alive.pop('a'))
        return answer(context, timeout)

    monkeypatch.setattr(compat, 'ask_conductor', die)
    ask()
    # Those that are left were asked behind its death.
    assert len(conductors.asked) >= 2 + len(conductors.alive)


def test_one_that_keeps_no_journal_leaves_it_uncertain(conductors):
    conductors.up.add('host3')
    with pytest.raises(exception.Uncertain, match='host3 keeps no journal'):
        ask()


def dies(conductors, silent_for):
    """A whole host is gone, with its lease; Nova takes it for alive."""
    inquiry = certainty.Inquiry(mock.Mock())
    inquiry.note()
    del conductors.alive['c']
    conductors.silent_for['host2'] = silent_for
    inquiry.make_sure('context', 5)


def test_one_that_is_dead_is_not_waited_for_as_long_as_nova_does(conductors):
    dies(conductors, silent_for=30)
    assert set(conductors.asked) == {'a', 'b'}


def test_one_that_reports_was_started_again_without_a_journal(conductors):
    with pytest.raises(exception.Uncertain, match='host2 keeps no journal'):
        dies(conductors, silent_for=12)


def test_one_that_never_kept_a_journal_may_have_the_request(conductors):
    conductors.up.add('host3')
    conductors.silent_for['host3'] = 50
    with pytest.raises(exception.Uncertain, match='host3 keeps no journal'):
        ask()


def test_a_server_is_in_build_for_a_minute_at_the_most():
    """The sum of what has to go by until it is in ERROR, with the defaults.

    From the death of the conductor that had the request: nobody takes a
    finding for one before its age, the next turn may just have begun. By then
    the lease of the dead one has run out, so the turn is not its own; and
    what Nova still says of it is known to be old.
    """
    defaults = {opt.name: opt.default for opt in conf.ssm_opts}
    found = auditor.AGE + defaults['audit_interval'] + auditor.SETTLE
    assert defaults['lease'] < auditor.AGE
    report = 2 * CONF.report_interval + certainty._LATE
    assert report < found + audit_steps.PATIENCE
    sure = max(found + defaults['recovery_interval'], report) + (
        certainty.TIMEOUT + 1)
    ended = sure + defaults['recovery_interval']
    # The rest is left to the work itself, which takes a second or two.
    assert ended <= 60 - 10


def test_a_stock_answer_leaves_it_uncertain(conductors):
    conductors.stock = True
    with pytest.raises(exception.Uncertain, match='does not keep a journal'):
        ask()


def test_a_queue_that_is_away_leaves_it_uncertain(conductors):
    conductors.silent = {'a', 'b', 'c'}
    with pytest.raises(exception.Uncertain, match='did not answer'):
        ask()


def test_conductors_of_other_queues_are_not_asked(conductors):
    """Those of cells may keep their journal in the same database."""
    conductors.alive['d'] = 'a cell'
    conductors.silent = {'d'}
    ask()


def test_who_waits_for_another_one_shares_its_answer(conductors):
    """As long as it was asked for before that one asked."""
    inquiry = certainty.Inquiry(mock.Mock())
    conductors.now = 1
    inquiry.make_sure('context', 5)
    asked = len(conductors.asked)
    inquiry._begun = 10
    inquiry.make_sure('context', 5)
    assert len(conductors.asked) == asked
    conductors.now = 20
    inquiry.make_sure('context', 5)
    assert len(conductors.asked) > asked


# -- what a worker answers ------------------------------------------------

def test_a_worker_answers_when_what_it_was_given_has_begun():
    from nova_ssm.engine import starts
    under_way = starts.Starts()
    begun, over = threading.Event(), threading.Event()

    def begin():
        with under_way.one():
            begun.set()
            over.wait(10)

    thread = threading.Thread(target=begin)
    thread.start()
    begun.wait(10)
    assert not under_way.wait(0.05)
    over.set()
    assert under_way.wait(10)
    thread.join()


def test_a_worker_does_not_wait_for_what_comes_later():
    from nova_ssm.engine import starts
    under_way = starts.Starts()
    assert under_way.wait(0)


def test_a_start_that_fails_is_over():
    from nova_ssm.engine import starts
    under_way = starts.Starts()
    with pytest.raises(KeyError):
        with under_way.one():
            raise KeyError()
    assert under_way.wait(0)
