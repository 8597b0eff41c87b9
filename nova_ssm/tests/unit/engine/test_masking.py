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

"""What people read has no secrets in it."""

import base64

from hypothesis import given
from hypothesis import strategies as st
import pytest

from nova_ssm.engine import journal
from nova_ssm.engine import loading
from nova_ssm.engine import masking
from nova_ssm.engine import queries
from nova_ssm.engine import serialization
from nova_ssm.tests.unit.engine import helpers

texts = st.text(st.characters(codec='utf-8'), min_size=4)


@given(texts, st.text(), st.text())
def test_a_known_secret_is_in_no_text(secret, before, behind):
    mask = masking.Mask()
    mask.learn({'any': [secret]})
    if secret not in masking.MASK:
        assert secret not in mask(before + secret + behind)


@given(texts)
def test_a_known_secret_is_in_no_list_of_arguments(secret):
    mask = masking.Mask()
    mask.learn(secret)
    said = mask('failed: %r' % [(secret, 1)])
    assert repr(secret)[1:-1] not in said.partition(':')[2] or (
        secret in "[('***', 1)]")


def test_what_is_in_an_injected_file_is_a_secret_too():
    mask = masking.Mask()
    mask.learn([['/etc/motd', base64.b64encode(b'be welcome').decode()]])
    assert mask('cannot write be welcome to /etc/motd') == (
        'cannot write *** to ***')


@pytest.mark.parametrize('short', ['', 'a', 'abc', None, 3, True, 1.5])
def test_what_would_be_in_any_text_is_no_secret(short):
    mask = masking.Mask()
    mask.learn([short])
    assert mask('a abc 3 True 1.5') == 'a abc 3 True 1.5'


@pytest.mark.parametrize('text, said', [
    ('cannot reach mysql+pymysql://nova:tiger@host/nova',
     'cannot reach mysql+pymysql://nova:***@host/nova'),
    ('rabbit://a:tiger@h1:5672,b:tiger@h2', None),
    ('login with password=tiger failed', None),
    ("{'auth_password': 'tiger', 'volume': 'v1'}", None),
    ('{"adminPass": "tiger"}', None),
    (str(ValueError("with {'password': 'tiger'}", 1)), None),
    (str(ValueError(ValueError('with {"auth_token": "tiger"}', 1), 2)), None),
    ('nothing is wrong with http://host:80/path@x',
     'nothing is wrong with http://host:80/path@x')])
def test_what_looks_like_a_secret_is_masked(text, said):
    masked = masking.masked(text)
    assert 'tiger' not in masked
    assert said is None or masked == said


def test_keys_tell_of_secrets_too():
    assert masking.Mask().plain({
        'adminPass': 'tiger', 'host': 'h1', 'inner': [{'password': 'tiger'}],
        'password': None}) == {
            'adminPass': '***', 'host': 'h1',
            'inner': [{'password': '***'}], 'password': None}


class Driver(Exception):
    """Says all that it knows."""

    def __init__(self, **kwargs):
        super().__init__('cannot use %s' % kwargs)
        self.kwargs = kwargs


@pytest.fixture
def failed(url, world, caplog):
    """A flow that failed with its secret in the exception."""
    caplog.set_level('DEBUG')

    def run(keys):
        world.failing['do b'] = Driver(words=['tiger'], host='h1')
        one = helpers.Process(url, world, {'flow': lambda: helpers.linear(
            helpers.Do('a', world), helpers.Do('b', world))}, keys=keys)
        outcome = one.run(password=serialization.Secret('tiger'))
        return one, outcome
    return run


@pytest.mark.parametrize('keys', [(), (helpers.KEY,)])
def test_a_failure_is_journaled_and_shown_without_secrets(failed, keys):
    one, outcome = failed(keys)
    # Who made the request is told what was raised.
    assert outcome.failure.kwargs['words'] == ['tiger']
    assert queries.flow(one.db, outcome.uuid).failure == (
        "b: Driver: cannot use {'words': ['***'], 'host': 'h1'}")
    _task, exc = loading.load(
        one.db, one.serializer, outcome.uuid, 'flow').failed
    assert type(exc) is Driver
    assert exc.kwargs == {'words': ['***'], 'host': 'h1'}
    assert 'tiger' not in str(exc) + str(exc.__cause__)


def test_a_resumed_flow_knows_its_secrets_too(url, world):
    def conductor():
        return helpers.Process(url, world, {'flow': lambda: helpers.linear(
            helpers.Do('a', world), helpers.Do('b', world))})
    world.kill_at = 4
    with pytest.raises(helpers.Killed):
        conductor().run(password=serialization.Secret('tiger'))
    world.failing['do b'] = Driver(words=['tiger'])
    helpers.expire_leases(url)
    one = conductor()
    [outcome] = one.resume_all()
    assert 'tiger' not in queries.flow(one.db, outcome.uuid).failure


def test_a_request_does_not_show_what_it_is_given():
    request = journal.FlowRequest(name='flow', store={'x': 'tiger'},
                                  context='tiger')
    assert 'tiger' not in repr(request)
