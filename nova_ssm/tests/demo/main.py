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

"""The demo: kill a conductor in the middle of its work and start it again.

One process runs nova-api, nova-scheduler, placement and the computes, another
one nova-conductor. A request for several servers is under way when the
conductor is killed (SIGKILL); then it is started again. With the plugins on
it goes on where the dead one stopped; stock Nova (--stock) forgets the
servers. Real: Nova, placement, RPC, the databases (SQLite) and the kill.
Faked by Nova's own test fixtures: guests, keystone, glance, neutron, cinder.
"""

import argparse
import sys
import time

from nova_ssm.tests.demo import embedded
from nova_ssm.tests.demo import nodes
from nova_ssm.tests.demo import story


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog='tools/demo.sh', description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Exit status: 0 every server is as it should be and nothing '
               'is left over\n(--stock: servers were forgotten), 1 not so, '
               '2 the demo could not run.')
    parser.add_argument('--stock', action='store_true',
                        help='the same with the plugins off')
    parser.add_argument('--cloud', action='store_true',
                        help='on the cloud of processes (tools/cloud.sh up) '
                             'instead')
    parser.add_argument('--servers', type=int, default=8, metavar='N',
                        help='in the one request (default: %(default)s)')
    parser.add_argument('--dir', required=True,
                        help='where its files go (default: demo in the '
                             'state directory)')
    parser.add_argument('-v', '--verbose', action='store_true',
                        help='say each step of each flow')
    options = parser.parse_args(argv)
    if options.servers < 2:
        parser.error('--servers: at least 2, so that there is a middle')
    return options


def tell(options: argparse.Namespace) -> bool:
    """Tell the story where it was asked for."""
    if options.cloud:
        # Needs the packages of the cloud.
        from nova_ssm.tests.cloud import settings
        from nova_ssm.tests.demo import cloud
        try:
            return cloud.CloudDemo(
                options.servers, options.stock, options.verbose).run()
        except settings.CloudError as exc:
            raise story.DemoError(str(exc)) from exc
    return embedded.EmbeddedDemo(
        options.dir, options.servers, options.stock, options.verbose).run()


def main(argv: list[str] | None = None) -> int:
    """Run the demo, return the exit status."""
    options = parse(sys.argv[1:] if argv is None else argv)
    start = time.monotonic()
    try:
        good = tell(options)
    except (story.DemoError, nodes.NodeError) as exc:
        print('demo: %s' % exc, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print('%.0f seconds' % (time.monotonic() - start))
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
