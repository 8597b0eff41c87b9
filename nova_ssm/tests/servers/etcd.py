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

"""etcd, as Debian's etcd-server brings it."""

from collections.abc import Sequence
import json
import pathlib
import tempfile
import urllib.request

from nova_ssm.tests.servers import base


class Etcd(base.Server):
    """One etcd that is its own cluster."""

    package = 'etcd-server'
    program = 'etcd'

    def __init__(self) -> None:
        super().__init__()
        # It waits for the disk at each write, and cannot be told not to.
        memory = pathlib.Path('/dev/shm')
        if memory.is_dir():
            self.home.rmdir()
            self.home = pathlib.Path(tempfile.mkdtemp(
                prefix='nova-ssm-', dir=memory))
        self._peers = base.free_port()

    def command(self) -> Sequence[str]:
        client = 'http://%s:%d' % (base.HOST, self.port)
        peer = 'http://%s:%d' % (base.HOST, self._peers)
        return [self.program, '--name=one',
                '--data-dir=%s' % (self.home / 'data'),
                '--listen-client-urls=%s' % client,
                '--advertise-client-urls=%s' % client,
                '--listen-peer-urls=%s' % peer,
                '--initial-advertise-peer-urls=%s' % peer,
                '--initial-cluster=one=%s' % peer]

    def ready(self) -> bool:
        url = 'http://%s:%d/health' % (base.HOST, self.port)
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return json.load(answer)['health'] == 'true'
        except (OSError, ValueError):
            return False

    @property
    def hosts(self) -> str:
        return '%s:%d' % (base.HOST, self.port)
