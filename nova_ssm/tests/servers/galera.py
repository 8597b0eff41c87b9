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

"""A Galera cluster of MariaDBs, as Debian's galera-4 makes it."""

from collections.abc import Sequence
import contextlib
import pathlib

import pymysql

from nova_ssm.tests.servers import base
from nova_ssm.tests.servers import mariadb

_PROVIDER = '/usr/lib/galera/libgalera_smm.so'


class Node(mariadb.MariaDB):
    """One node of a cluster.

    :param first: a node that is there already; None makes a new cluster
    """

    def __init__(self, first: 'Node | None' = None) -> None:
        super().__init__()
        if not pathlib.Path(_PROVIDER).exists():
            raise base.ServerError('%s is not there: install the Debian '
                                   'package galera-4' % _PROVIDER)
        # The state transfer takes the port behind it.
        self.group, self.transfer = base.free_port(), base.free_port()
        self.members = [self] if first is None else first.members
        if first is not None:
            self.members.append(self)

    def command(self) -> Sequence[str]:
        others = [node for node in self.members
                  if node is not self and node.running]
        return [
            *super().command(), '--wsrep-on=ON',
            '--wsrep-provider=%s' % _PROVIDER, '--binlog-format=ROW',
            '--innodb-autoinc-lock-mode=2', '--wsrep-cluster-name=ssm',
            '--wsrep-node-name=%d' % self.members.index(self),
            '--wsrep-node-address=%s' % base.HOST,
            # Without state snapshot a node cannot come back: rsync is not
            # in every Debian.
            '--wsrep-sst-method=rsync',
            '--wsrep-sst-receive-address=%s:%d' % (base.HOST, self.transfer),
            '--wsrep-provider-options=%s' % ';'.join((
                'base_host=%s' % base.HOST, 'base_port=%d' % self.group,
                'gmcast.listen_addr=tcp://%s:%d' % (base.HOST, self.group),
                'ist.recv_addr=%s:%d' % (base.HOST, base.free_port()),
                # The first one goes on without the second, not the other way.
                'pc.weight=%d' % (2 if self is self.members[0] else 1),
                'evs.keepalive_period=PT0.3S', 'evs.suspect_timeout=PT1S',
                'evs.inactive_timeout=PT3S', 'gcache.size=16M')),
            '--wsrep-cluster-address=gcomm://%s' % ','.join(
                '%s:%d' % (base.HOST, node.group) for node in others)]

    def ready(self) -> bool:
        try:
            [(_name, state)] = self.sql("SHOW STATUS LIKE 'wsrep_ready'")
        except pymysql.MySQLError:
            return False
        return state == 'ON'

    def conflicts(self) -> int:
        """How often a transaction here met another one of another node."""
        return sum(int(value) for name, value in self.sql(
            "SHOW STATUS LIKE 'wsrep_local%'") if name in (
                'wsrep_local_cert_failures', 'wsrep_local_bf_aborts'))

    def go_on_alone(self) -> None:
        """What an operator says to the rest of a cluster without quorum."""
        self.sql("SET GLOBAL wsrep_provider_options = 'pc.bootstrap=true'")


@contextlib.contextmanager
def cluster(size: int = 2):
    """Some nodes, each of which takes writes."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(Node())]
        for _ in range(size - 1):
            nodes.append(stack.enter_context(Node(nodes[0])))
        yield nodes
