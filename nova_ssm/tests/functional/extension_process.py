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

"""A Nova with the lines of [ssm] extend: builds, or looks what was left.

Arguments: a directory, ``boot`` or ``look``, the URL of the CMDB, and the
lines. It ends when no flow is left that it can go on with, and prints what
became of the servers and flows.
"""

from nova_ssm.tests.functional import embedded  # first: it patches

import dataclasses
import json
import sys
import time
from typing import Any

from nova_ssm.engine import database
from nova_ssm.engine import queries


def run(directory: str, do: str, cmdb: str, *lines: str) -> dict[str, Any]:
    options: dict[str, dict[str, Any]] = {'ssm': {'extend': list(lines)}}
    if lines:
        options['cmdb'] = {'url': cmdb}
        # As its conductor would when it starts.
        import nova_cmdb.tasks  # noqa: F401
    with embedded.EmbeddedNova(directory, workflows=['build_instances'],
                               options=options, hosts=('host1',)) as nova:
        if do == 'boot':
            nova.boot('vm')
        flows = _wait(database.Database(embedded.CONF.ssm.connection))
        for server in nova.servers():
            if not any(flow.trouble for flow in flows):
                nova.wait(server['id'])
        return {'flows': [dataclasses.asdict(flow) for flow in flows],
                'servers': {server['id']: server['status']
                            for server in nova.servers()}}


def _wait(db: database.Database) -> list[queries.FlowInfo]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        # Not those that look after what a dead conductor left: they wait.
        flows = [flow for flow in queries.flows(db)
                 if flow.name.endswith(('build_instances', 'build_instance'))]
        if len(flows) > 1 and all(flow.finished_at or flow.trouble
                                  for flow in flows):
            return flows
        time.sleep(0.1)
    raise RuntimeError('these flows do not end: %s' % flows)


if __name__ == '__main__':
    json.dump(run(*sys.argv[1:]), sys.stdout, default=str)
