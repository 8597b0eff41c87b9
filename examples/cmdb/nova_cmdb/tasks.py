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

"""Puts servers down in a CMDB that is spoken to over HTTP.

::

    PUT    URL/servers/UUID    {"host": ..., "project": ..., "state": ...}
    DELETE URL/servers/UUID
"""

from typing import Any

from nova.objects import instance as instance_obj
from nova.objects import selection as selection_obj
from oslo_config import cfg
import requests

from nova_cmdb import conf
from nova_ssm.tasks import base

CONF = cfg.CONF

CONF.register_opts(conf.cmdb_opts, group='cmdb')


class RecordInCmdb(base.NovaTask):
    """Put a server down in the CMDB; no server is built that it lacks.

    Reversion strategy: remove the record. It may not be there.
    Recovery: put it down again; a PUT may be repeated.
    """

    reversion = 'remove it from the CMDB'
    default_provides = 'cmdb_url'

    def execute(self, instance: instance_obj.Instance,
                host: selection_obj.Selection) -> str:
        url = _url(instance)
        _ask('PUT', url, {'host': host.service_host,
                          'project': instance.project_id,
                          'state': 'building'})
        return url

    def revert(self, instance: instance_obj.Instance, **_kwargs: Any) -> None:
        _ask('DELETE', _url(instance))


class TellCmdb(base.NovaHook):
    """Tell the CMDB that a compute builds the server.

    A hook: when the CMDB is away now, the server is built all the same.
    """

    def execute(self, cmdb_url: str, host: selection_obj.Selection) -> None:
        _ask('PUT', cmdb_url, {'host': host.service_host,
                               'state': 'handed over'})


def _url(instance: instance_obj.Instance) -> str:
    return '%s/servers/%s' % (CONF.cmdb.url, instance.uuid)


def _ask(method: str, url: str, record: dict[str, Any] | None = None) -> None:
    answer = requests.request(method, url, json=record,
                              timeout=CONF.cmdb.timeout)
    if method != 'DELETE' or answer.status_code != 404:
        answer.raise_for_status()
