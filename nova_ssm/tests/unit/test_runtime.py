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

"""The options, the vault and the engine that they make."""

from cryptography import fernet
from oslo_config import cfg
import pytest

from nova_ssm import conf as ssm_conf
from nova_ssm.engine import database
from nova_ssm.engine import exception as engine_exc
from nova_ssm import exception
from nova_ssm import runtime


@pytest.fixture
def conf(tmp_path):
    """A nova.conf of its own, with a journal."""
    conf = cfg.ConfigOpts()
    conf([])
    ssm_conf.register_opts(conf)
    url = 'sqlite:///%s' % (tmp_path / 'journal.db')
    database.upgrade(url)
    conf.set_override('connection', url, 'ssm')
    yield conf
    # The options of a group are shared between configurations.
    for option in ssm_conf.ssm_opts:
        conf.clear_override(option.name, 'ssm')


def workers(made):
    """How many workers the journal knows of."""
    db = made.runner.db
    with db.transaction() as connection:
        return connection.exec_driver_sql(
            'SELECT count(*) FROM ssm_workers').scalar()


def test_opens_nothing_before_the_fork(conf):
    made = runtime.Runtime(conf, 'conductor')
    assert made.runner.db._engine is None
    assert made.runner._worker is None


def test_starts_once_and_stops(conf):
    made = runtime.Runtime(conf, 'conductor')
    made.start()
    first = made._recovery
    made.start()
    assert made._recovery is first
    made.stop()
    assert made._recovery is None
    assert workers(made) == 0
    made.stop()


def test_says_that_it_is_gone_when_it_is_stopped(conf):
    """Computes may be calling it: somebody has to look after them."""
    made, gone = runtime.Runtime(conf, 'conductor'), []
    made.start(on_death=gone.append)
    me = made.runner.worker.id
    made.stop()
    assert gone == [me]
    assert workers(made) == 0
    made.stop()
    assert gone == [me]


def test_stops_also_if_nobody_can_be_told(conf, caplog):
    def away(worker_id):
        raise OSError('the database is away')

    made = runtime.Runtime(conf, 'conductor')
    made.start(on_death=away)
    made.stop()
    assert workers(made) == 0
    assert 'nova-ssm audit' in caplog.text


def test_old_flows_are_removed_as_long_as_it_runs(conf):
    conf.set_override('keep_failed', 0, 'ssm')
    made = runtime.Runtime(conf, 'conductor')
    made.start()
    purger = made._purger
    assert (purger._ages.finished, purger._ages.failed) == (7 * 86400, None)
    assert purger._worker_id() == made.runner.worker.id
    assert purger._thread.is_alive()
    made.stop()
    assert not purger._thread.is_alive()


def test_does_not_start_if_flows_would_be_missed(conf):
    conf.set_override('keep_finished', 100, 'ssm')
    with pytest.raises(exception.ConfigurationError, match='keep_finished'):
        runtime.Runtime(conf, 'conductor')


def test_hands_on_the_options(conf):
    conf.set_override('lease', 42, 'ssm')
    conf.set_override('recovery_interval', 7, 'ssm')
    conf.set_override('recovery_concurrency', 3, 'ssm')
    made = runtime.Runtime(conf, 'conductor')
    made.start()
    try:
        assert made.runner.worker.lease == 42
        assert made.runner.worker.host == 'conductor'
        assert made._recovery._interval == 7
    finally:
        made.stop()


def test_tables_must_be_there(conf, tmp_path):
    conf.set_override('connection', 'sqlite:///%s' % (tmp_path / 'new.db'),
                      'ssm')
    with pytest.raises(engine_exc.SchemaMissing):
        runtime.Runtime(conf, 'conductor')


def test_vault_has_the_keys(conf):
    keys = [fernet.Fernet.generate_key().decode() for _time in range(2)]
    conf.set_override('encryption_keys', keys[1:], 'ssm')
    sealed = runtime.open_vault(conf).seal(b'secret')
    conf.set_override('encryption_keys', keys, 'ssm')
    assert runtime.open_vault(conf).open(sealed) == b'secret'


def test_vault_without_keys(conf):
    assert runtime.open_vault(conf).seal(b'secret') is None


def test_vault_with_a_wrong_key(conf):
    conf.set_override('encryption_keys', ['x'], 'ssm')
    with pytest.raises(exception.ConfigurationError) as caught:
        runtime.open_vault(conf)
    assert '[ssm] encryption_keys' in str(caught.value)
