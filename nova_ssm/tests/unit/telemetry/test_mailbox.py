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

"""What flows do not wait for."""

import threading

import pytest

from nova_ssm.telemetry import mailbox


@pytest.fixture
def batches():
    return []


def test_what_is_posted_is_handed_on_in_its_order(batches):
    made = mailbox.Mailbox('test', batches.append)
    for number in range(5):
        made.post(number)
    made.deliver()
    made.deliver()
    assert batches == [[0, 1, 2, 3, 4]]


def test_a_thread_does_it(batches):
    made = mailbox.Mailbox('test', batches.append, interval=0.01)
    made.start()
    threads = [threading.Thread(target=lambda start=start: [
        made.post(start + number) for number in range(100)])
        for start in (0, 100, 200)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    made.stop()
    assert sorted(sum(batches, [])) == list(range(300))
    assert not made._thread.is_alive()


def test_what_is_left_is_handed_on_at_the_end(batches):
    made = mailbox.Mailbox('test', batches.append, interval=60)
    made.start()
    made.post('last')
    made.stop()
    assert batches == [['last']]


def test_one_that_waits_for_nothing_stops_at_once(batches):
    made = mailbox.Mailbox('test', batches.append, interval=60)
    made.start()
    made.stop()
    assert batches == []
    assert not made._thread.is_alive()


def test_a_failure_loses_its_batch_only(batches, caplog):
    def handle(batch):
        if batch == ['bad']:
            raise ValueError('no')
        batches.append(batch)

    made = mailbox.Mailbox('test', handle)
    for one in ('bad', 'good'):
        made.post(one)
        made.deliver()
    assert batches == [['good']]
    assert 'test failed; 1 items are lost' in caplog.text


def test_it_does_not_grow_for_ever(batches, caplog):
    made = mailbox.Mailbox('test', batches.append, limit=3)
    for number in range(5):
        made.post(number)
    made.deliver()
    assert batches == [[0, 1, 2]]
    assert '2 items are lost' in caplog.text
