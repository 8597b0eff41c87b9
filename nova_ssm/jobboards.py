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

"""Makes the job board that nova.conf names."""

from oslo_config import cfg

from nova_ssm.engine import boards
from nova_ssm.engine.coordination import base
from nova_ssm.engine.coordination import board
from nova_ssm.engine import database
from nova_ssm.engine import runner
from nova_ssm.engine import serialization
from nova_ssm import exception


def factory(conf: cfg.ConfigOpts) -> boards.Factory:
    """What makes the board of a runner.

    :raises ConfigurationError: if an option does not go with another
    :raises BoardUnusable: if the hosts cannot be used
    """
    if conf.ssm.jobboard == 'sql':
        return runner.sql_board
    server = _server(conf)

    def make(db: database.Database,
             serializer: serialization.Serializer) -> boards.Board:
        return board.TaskflowBoard(db, serializer, server, conf.ssm.lease)

    return make


def _server(conf: cfg.ConfigOpts) -> base.Server:
    ssm = conf.ssm
    kind = ssm.jobboard
    if ssm.jobboard_sentinel and kind != 'redis':
        raise exception.ConfigurationError(
            '[ssm] jobboard_sentinel goes with jobboard = redis only')
    if ssm.jobboard_user and not ssm.jobboard_password:
        raise exception.ConfigurationError(
            '[ssm] jobboard_user needs jobboard_password')
    if ssm.jobboard_password and not ssm.jobboard_user and kind != 'redis':
        raise exception.ConfigurationError(
            '[ssm] jobboard_password needs jobboard_user for %s' % kind)
    server = base.Server(
        kind, tuple(ssm.jobboard_hosts), path=ssm.jobboard_path,
        user=ssm.jobboard_user, password=ssm.jobboard_password,
        tls=ssm.jobboard_tls, cafile=ssm.jobboard_ca_file,
        certfile=ssm.jobboard_cert_file, keyfile=ssm.jobboard_key_file,
        sentinel=ssm.jobboard_sentinel,
        # No answer is waited for until a claim has ended.
        patience=min(3.0, ssm.lease / 2))
    str(server)     # says what is wrong with the hosts
    return server
