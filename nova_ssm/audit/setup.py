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

"""Makes Nova's databases and placement usable outside of a service."""

from typing import Any

from nova.conductor import rpcapi
import nova.conf
from nova import config
from nova import context as nova_context
from nova import objects
from nova import rpc
from oslo_config import cfg
from oslo_db import exception as db_exc
import oslo_messaging as messaging
import sqlalchemy as sa

from nova_ssm.engine import database
from nova_ssm import exception

_done: set[int] = set()


def configure(conf: cfg.ConfigOpts) -> None:
    """Let Nova's objects use the databases that nova.conf names.

    :param conf: oslo.config's global object, which Nova uses too
    :raises ConfigurationError: if it names none, or one that cannot be read
    """
    assert conf is nova.conf.CONF
    if not conf.api_database.connection:
        raise exception.ConfigurationError(
            "nova.conf has no [api_database] connection: Nova's records are "
            'looked at from there. Run it where the conductors run, with '
            'their nova.conf (--config-file)')
    if id(conf) not in _done:
        objects.register_all()
        config.set_lib_defaults()
        from nova.db.api import api as api_db
        from nova.db.main import api as main_db
        # Of a cell is known where its message queue is, too; none is asked.
        rpc.init(conf)
        # It makes rpc_response_timeout known.
        rpc.get_client(messaging.Target(topic=rpcapi.RPC_TOPIC))
        main_db.configure(conf)
        api_db.configure(conf)
        _done.add(id(conf))
    try:
        objects.CellMappingList.get_all(nova_context.get_admin_context())
    except (db_exc.DBError, sa.exc.SQLAlchemyError) as exc:
        raise exception.ConfigurationError(
            "Nova's API database, [api_database] connection, cannot be read: "
            '%s' % database.first_line(exc)) from exc


def report_client() -> Any:
    """Nova's client of placement, made once."""
    from nova.scheduler.client import report
    return report.report_client_singleton()
