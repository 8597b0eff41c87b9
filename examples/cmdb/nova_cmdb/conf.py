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

"""The options of section [cmdb] in nova.conf."""

from typing import Any

from oslo_config import cfg

cmdb_opts = [
    cfg.StrOpt('url', default='http://localhost:8070',
               help='Where the CMDB is.'),
    cfg.FloatOpt('timeout', default=10,
                 help='Seconds to wait for its answer.'),
]


def list_opts() -> list[Any]:
    """For oslo-config-generator, which needs no Nova."""
    return [('cmdb', cmdb_opts)]
