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

from nova_ssm.engine import serialization


def test_new_makes_a_key(nova_ssm):
    code, out, err = nova_ssm('key', 'new')
    assert (code, err) == (0, '')
    vault = serialization.Vault([out.strip()])
    assert vault.open(vault.seal(b'secret')) == b'secret'


def test_new_is_new_each_time(nova_ssm):
    assert nova_ssm('key', 'new')[1] != nova_ssm('key', 'new')[1]
