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
"""An API that misbehaves by the word of a file."""

import time

import pytest

from nova_ssm.tests.cloud import unruly


class Api:
    """An application that counts what it is asked."""

    def __init__(self):
        self.asked = 0
        self.closed = 0

    def __call__(self, environ, start):
        self.asked += 1
        start('200 OK', [])
        return self

    def __iter__(self):
        return iter([b'done'])

    def close(self):
        self.closed += 1


@pytest.fixture
def api():
    return Api()


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'api.unruly'


@pytest.fixture
def ask(api, path):
    """Sends a request: what comes back as the status and the body."""
    layer = unruly.Layer(api, path)

    def send():
        statuses = []
        body = b''.join(layer({}, lambda status, _: statuses.append(status)))
        return statuses, body
    return send


def test_without_a_word_all_is_as_it_was(ask, api):
    assert ask() == (['200 OK'], b'done')
    assert api.asked == 1


@pytest.mark.parametrize('manner', ['500', '503'])
def test_an_error_is_answered_and_nothing_is_done(ask, api, path, manner):
    unruly.give(path, manner, 60)
    (status,), _ = ask()
    assert status.startswith(manner)
    assert api.asked == 0


def test_a_slow_api_does_what_it_is_asked(ask, api, path, monkeypatch):
    slept = []
    monkeypatch.setattr(unruly.time, 'sleep', slept.append)
    unruly.give(path, unruly.SLOW, 60)
    assert ask() == (['200 OK'], b'done')
    assert slept == [unruly.DELAY]


def test_a_silent_api_does_half_of_what_it_is_asked(ask, api, path,
                                                    monkeypatch):
    monkeypatch.setattr(unruly.time, 'sleep', lambda seconds: None)
    unruly.give(path, unruly.SILENT, 60)
    # No status: the server in front of it closes the connection.
    assert [ask() for _ in range(4)] == [([], b'')] * 4
    assert (api.asked, api.closed) == (2, 2)


def test_a_silent_api_lets_wait_until_its_time_is_over(ask, path,
                                                       monkeypatch):
    slept = []
    monkeypatch.setattr(unruly.time, 'sleep', slept.append)
    unruly.give(path, unruly.SILENT, 60)
    ask()
    assert 0 < slept[0] <= 60


@pytest.mark.parametrize('manner', unruly.MANNERS)
def test_it_ends_by_itself(ask, path, manner):
    unruly.give(path, manner, -1)
    assert ask() == (['200 OK'], b'done')


@pytest.mark.parametrize('manner', unruly.MANNERS)
def test_it_can_be_taken_back(ask, path, manner):
    unruly.give(path, manner, 60)
    unruly.take_back(path)
    unruly.take_back(path)
    assert ask() == (['200 OK'], b'done')


def test_the_last_word_counts(ask, path):
    unruly.give(path, '500', 60)
    unruly.give(path, '503', 60)
    assert ask()[0][0].startswith('503')
    assert time.time() < unruly.Layer(None, path)._order().until
