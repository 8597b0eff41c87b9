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

"""ZooKeeper, as Debian's zookeeper brings it."""

from collections.abc import Sequence
import socket

from nova_ssm.tests.servers import base

_CLASSES = '/usr/share/java/zookeeper.jar'
_MAIN = 'org.apache.zookeeper.server.quorum.QuorumPeerMain'
_CONFIG = """\
dataDir=%(home)s/data
clientPort=%(port)d
clientPortAddress=%(host)s
# The unit of its sessions' timeouts, in milliseconds.
tickTime=200
minSessionTimeout=200
maxSessionTimeout=1000000
admin.enableServer=false
maxClientCnxns=0
4lw.commands.whitelist=ruok
"""
_LOGGING = """\
log4j.rootLogger=WARN, OUT
log4j.appender.OUT=org.apache.log4j.ConsoleAppender
log4j.appender.OUT.layout=org.apache.log4j.PatternLayout
log4j.appender.OUT.layout.ConversionPattern=%d %p %c %m%n
"""


class ZooKeeper(base.Server):
    """One ZooKeeper that is its own ensemble."""

    package = 'zookeeper'
    program = 'java'

    def prepare(self) -> None:
        files = {'zoo.cfg': _CONFIG % {'home': self.home, 'port': self.port,
                                       'host': base.HOST},
                 'log4j.properties': _LOGGING}
        for name, text in files.items():
            (self.home / name).write_text(text)

    def command(self) -> Sequence[str]:
        return [self.program, '-cp', '%s:%s' % (self.home, _CLASSES),
                '-Xmx128m', '-XX:+UseSerialGC',
                '-Djava.net.preferIPv4Stack=true', '-XX:TieredStopAtLevel=1',
                '-Dzookeeper.forceSync=no', '-Dzookeeper.skipACL=no',
                _MAIN, str(self.home / 'zoo.cfg')]

    def ready(self) -> bool:
        try:
            with socket.create_connection((base.HOST, self.port),
                                          timeout=2) as probe:
                probe.sendall(b'ruok')
                return probe.recv(4) == b'imok'
        except OSError:
            return False

    @property
    def hosts(self) -> str:
        return '%s:%d' % (base.HOST, self.port)
