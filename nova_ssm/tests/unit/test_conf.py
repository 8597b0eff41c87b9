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

"""Section [ssm] of nova.conf."""

from nova.conf import database as nova_database
from oslo_config import cfg
import pytest

from nova_ssm import conf as ssm_conf


def test_off_by_default(conf):
    ssm = conf().ssm
    assert (ssm.workflows, ssm.encryption_keys, ssm.connection) == (
        [], [], None)
    assert ssm.lease == 10


def test_registered_twice_is_once(conf):
    ssm_conf.register_opts(conf())


@pytest.mark.parametrize('name, value', (
    ('lease', '0'), ('recovery_interval', '0'),
    ('recovery_concurrency', '0')))
def test_numbers_have_limits(conf, name, value):
    made = conf('[ssm]\n%s = %s\n' % (name, value))
    with pytest.raises(cfg.ConfigFileValueError):
        getattr(made.ssm, name)


def test_secrets_are_not_logged(conf):
    made = conf('[ssm]\nconnection = mysql://nova:pass@db/x\n'
                'encryption_keys = the-key\n')
    lines = []

    class Log:
        """Takes what a service writes when it starts."""

        def log(self, level, text, *args):
            lines.append(text % args)
    made.log_opt_values(Log(), 0)
    assert 'ssm.connection' in '\n'.join(lines)
    assert 'pass@' not in '\n'.join(lines)
    assert 'the-key' not in '\n'.join(lines)


def test_every_option_has_a_help():
    (group, options), = ssm_conf.list_opts()
    assert group.name == 'ssm'
    assert all(option.help for option in options)


@pytest.mark.parametrize('nova_first', (True, False))
@pytest.mark.parametrize('text, url', (
    ('', None),
    ('[database]\nconnection = sqlite:///nova.db\n', 'sqlite:///nova.db'),
    ('[database]\nconnection = sqlite:///nova.db\n'
     '[ssm]\nconnection = sqlite:///own.db\n', 'sqlite:///own.db'),
))
def test_journal_url(conf, text, url, nova_first):
    made = conf(text)
    if nova_first:
        nova_database.register_opts(made)
    assert ssm_conf.journal_url(made) == url
    if not nova_first:
        nova_database.register_opts(made)
    assert ssm_conf.journal_url(made) == url
