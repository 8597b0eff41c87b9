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

"""Redis, as Debian's redis-server brings it."""

from collections.abc import Sequence

import redis
from redis import backoff
from redis import retry

from nova_ssm.tests.servers import base

_ONCE = retry.Retry(backoff.NoBackoff(), 0)


class Redis(base.Server):
    """One Redis that keeps what it was told over a restart.

    :param password: what its clients have to know
    """

    package = 'redis-server'
    program = 'redis-server'

    def __init__(self, password: str = '') -> None:
        super().__init__()
        self.password = password

    def prepare(self) -> None:
        # Not on the command line, which everybody sees.
        path = self.home / 'redis.conf'
        path.touch(0o600)
        if self.password:
            path.write_text('requirepass %s\n' % self.password)
        base.own(path)

    def command(self) -> Sequence[str]:
        return [self.program, str(self.home / 'redis.conf'),
                '--bind', base.HOST, '--port', str(self.port),
                '--dir', str(self.home), '--save', '',
                '--appendonly', 'yes', '--appendfsync', 'no']

    def ready(self) -> bool:
        try:
            with redis.Redis(host=base.HOST, port=self.port,
                             password=self.password or None,
                             socket_timeout=2, retry=_ONCE) as client:
                return client.ping()
        except redis.RedisError:
            return False

    @property
    def hosts(self) -> str:
        return '%s:%d' % (base.HOST, self.port)
