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

"""etcd: a claim is a key with a lease of its own."""

from collections.abc import Mapping
import math
from typing import Any

import etcd3gw

from nova_ssm.engine.coordination import base


class Client(base.Client):
    """One of the servers of a cluster; the next one when it is away.

    A board that is given its client does not watch what is posted, in a
    thread that would keep the process from ending: we look anyway.
    """

    def __init__(self, server: base.Server, lease: float,
                 turn: int = 0) -> None:
        super().__init__(server, lease, turn)
        host, port = server.addresses[turn % len(server.addresses)]
        self.native = etcd3gw.Etcd3Client(
            host=host, port=port, protocol='https' if server.tls else 'http',
            ca_cert=server.cafile, cert_cert=server.certfile,
            cert_key=server.keyfile, timeout=server.patience)

    def connect(self) -> None:
        if self.server.user:
            answer = self.native.post(
                self.native.get_url('/auth/authenticate'),
                json={'name': self.server.user,
                      'password': self.server.password})
            self.native.session.headers['Authorization'] = answer['token']
        # Not its status: a member without a majority has one too.
        self.native.get(self.server.path)

    def terms(self) -> Mapping[str, Any]:
        return {'expiry': math.ceil(self.lease)}    # it knows no fractions

    def extend(self, board: Any, job: Any) -> None:
        # Not job.extend_expiry(): without a claim it breaks, and it keeps to
        # the first lease that it has seen.
        claim = board.get_owner_data(job)
        if claim is not None and 'lease_id' in claim:
            etcd3gw.Lease(claim['lease_id'], self.native).refresh()

    @property
    def lost(self) -> bool:
        # With a user, because what it is known by may have expired.
        return super().lost or bool(self.server.user)

    def close(self) -> None:
        self.native.session.close()


make = Client
