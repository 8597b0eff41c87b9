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

"""A process of the demo: some services of an embedded Nova.

Says ``{"ready": true}`` on standard output when its services run, then answers
requests, one JSON object a line, until standard input ends. ``demo.main``
starts it; what the services log goes to standard error.
"""

import argparse
import json
import logging
import os
import sys
import time
from typing import Any


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--directory', required=True)
    parser.add_argument('--roles', required=True, help='comma-separated')
    parser.add_argument('--hosts', required=True, help='comma-separated')
    parser.add_argument('--host', default='controller')
    parser.add_argument('--workflows', default='', help='comma-separated')
    parser.add_argument('--wait', action='store_true',
                        help='another process makes the databases')
    parser.add_argument('--verbose', action='store_true')
    return parser.parse_args(argv)


def answer(nova: Any, request: dict) -> Any:
    """Do what was asked: boot, servers or guests."""
    if request['do'] == 'boot':
        return nova.boot(request['name'], request['count'])['id']
    if request['do'] == 'servers':
        return [{'id': server['id'], 'name': server['name'],
                 'status': server['status'],
                 'host': server['OS-EXT-SRV-ATTR:host'],
                 'fault': server.get('fault', {}).get('message')}
                for server in nova.servers()]
    if request['do'] == 'guests':
        return {host: nova.services[host].manager.driver
                .list_instance_uuids() for host in nova.hosts}
    raise ValueError('unknown request %r' % request)


def main() -> None:
    """Run services until standard input ends."""
    options = parse(sys.argv[1:])
    del sys.argv[1:]  # Nova reads the command line
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    logging.basicConfig(
        level=logging.INFO if options.verbose else logging.WARNING,
        format='%(asctime)s %(levelname)s %(name)s %(message)s')

    # Takes seconds; and Nova must not be imported before it.
    from nova_ssm.tests.functional import embedded

    # As many servers as are asked for.
    quota = {'instances': -1, 'cores': -1, 'ram': -1}
    ready = os.path.join(options.directory, embedded.READY)
    while options.wait and not os.path.exists(ready):
        time.sleep(0.02)
    nova = embedded.EmbeddedNova(
        options.directory, shared=True, roles=options.roles.split(','),
        hosts=options.hosts.split(','), host=options.host,
        workflows=[name for name in options.workflows.split(',') if name],
        options={'quota': quota})
    nova.setUp()
    answers.write('{"ready": true}\n')
    for line in sys.stdin:
        answers.write(json.dumps(answer(nova, json.loads(line))) + '\n')


if __name__ == '__main__':
    status = 1
    try:
        main()
        status = 0
    except BaseException:
        logging.exception('this process of the demo ends')
    # The threads of the services would go on. There is nothing to tidy up:
    # the directory is the demo's own.
    os._exit(status)
