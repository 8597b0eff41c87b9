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

"""Redis: a claim is a key that expires."""

from typing import Any

from redis import backoff
from redis import retry
from redis import sentinel
from taskflow.utils import redis_utils

from nova_ssm.engine.coordination import base


class Client(base.Client):
    """Redis, or what its Sentinels say is the master."""

    def __init__(self, server: base.Server, lease: float,
                 turn: int = 0) -> None:
        super().__init__(server, lease, turn)
        options: dict[str, Any] = {
            'username': server.user, 'password': server.password,
            'socket_timeout': server.patience,
            'socket_connect_timeout': server.patience,
            # Whoever asks us decides about trying again.
            'retry': retry.Retry(backoff.NoBackoff(), 0)}
        if server.tls:
            options.update(ssl=True, ssl_ca_certs=server.cafile,
                           ssl_certfile=server.certfile,
                           ssl_keyfile=server.keyfile)
        if server.sentinel:
            self.native = sentinel.Sentinel(
                server.addresses, **options).master_for(
                    server.sentinel, redis_class=redis_utils.RedisClient)
        else:
            host, port = server.addresses[turn % len(server.addresses)]
            self.native = redis_utils.RedisClient(
                host=host, port=port, **options)

    def conf(self) -> dict[str, Any]:
        return {'board': 'redis',
                'namespace': self.server.path.strip('/').replace('/', ':')}

    def jobs(self, board: Any) -> list[Any]:
        return board._fetch_jobs()

    def owner(self, board: Any, job: Any) -> str | None:
        # The board's find_owner() breaks if there is none.
        owner = self.native.get(job.owner_key)
        return None if owner is None else owner.decode()

    @property
    def lost(self) -> bool:
        return super().lost and not self.server.sentinel

    def close(self) -> None:
        self.native.close()


make = Client
