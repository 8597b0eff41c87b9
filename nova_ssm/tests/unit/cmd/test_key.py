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

"""``nova-ssm key``: the keys of the journal's secrets."""

from cryptography import fernet
import pytest

from nova_ssm.engine import database
from nova_ssm.engine import journal
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import serialization
from nova_ssm.tests.unit import cmd

OLD, NEW = (fernet.Fernet.generate_key().decode() for _ in range(2))


def test_new_makes_a_key(nova_ssm):
    code, out, err = nova_ssm('key', 'new')
    assert (code, err) == (0, '')
    vault = serialization.Vault([out.strip()])
    assert vault.open(vault.seal(b'secret')) == b'secret'


def test_new_is_new_each_time(nova_ssm):
    assert nova_ssm('key', 'new')[1] != nova_ssm('key', 'new')[1]


# -- rotate ------------------------------------------------------------------

@pytest.fixture
def unfinished(url):
    """A flow with a secret, and the conductor that posted it."""
    database.upgrade(url)
    db = database.Database(url)
    made = runner.Runner(db, serialization.Serializer(
        vault=serialization.Vault([OLD])), registry.Registry(), 'host1',
        renew=False)
    uuid = made.board.post('flow', details={'request': journal.FlowRequest(
        name='flow', store={'password': serialization.Secret('tiger')})}).uuid
    yield uuid
    made.close()


@pytest.fixture
def rotate(nova_ssm, tmp_path, url):
    def run(*keys, args=()):
        path = tmp_path / 'keys.conf'
        path.write_text('[ssm]\nconnection = %s\nencryption_keys = %s\n'
                        % (url, ','.join(keys)))
        return nova_ssm('key', 'rotate', *args, conf=path)
    return run


def test_rotate_says_how_much_it_has_done(rotate, unfinished):
    assert rotate(NEW, OLD) == (
        0, '1 rows of 1 were encrypted anew with the first key.\n', '')
    assert rotate(NEW, args=('--all',)) == (
        0, '0 rows of 1 were encrypted anew with the first key.\n', '')


def test_rotate_names_the_flows_that_no_key_opens(rotate, unfinished):
    code, _out, err = rotate(NEW)
    assert code == 1
    assert unfinished in err and 'put the key' in err
    assert NEW not in err


def test_rotate_wants_a_key(rotate, unfinished):
    cmd.assert_one_line(rotate(), 'encryption_keys is empty', 'key new')
    cmd.assert_one_line(rotate('none'), 'not a Fernet key')


def test_rotate_wants_tables(rotate):
    cmd.assert_one_line(rotate(NEW), 'db sync')
