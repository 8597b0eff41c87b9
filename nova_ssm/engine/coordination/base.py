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

"""Where a job board is, and what every kind of client can do."""

from collections.abc import Mapping
import dataclasses
import importlib
from typing import Any

from oslo_utils import netutils

from nova_ssm.engine import exception

#: The kinds of servers: the package of the client, and the usual port.
KINDS = {'zookeeper': ('kazoo', 2181), 'etcd': ('etcd3gw', 2379),
         'redis': ('redis', 6379)}


@dataclasses.dataclass(frozen=True)
class Server:
    """Where a job board is.

    :param kind: ``zookeeper``, ``etcd`` or ``redis``
    :param hosts: host:port of each; without any that of this machine
    :param path: below which the board keeps its names
    :param sentinel: what the Sentinels, which are the hosts then, call the
        redis
    :param patience: how long to wait for an answer, in seconds
    """

    kind: str
    hosts: tuple[str, ...] = ()
    path: str = '/nova_ssm'
    user: str | None = None
    password: str | None = dataclasses.field(default=None, repr=False)
    tls: bool = False
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    sentinel: str | None = None
    patience: float = 3.0

    def __str__(self) -> str:
        return '%s at %s' % (self.kind, ', '.join(
            '%s:%d' % address for address in self.addresses))

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """:raises BoardUnusable: if one of the hosts is none"""
        found = []
        for text in self.hosts or ('localhost',):
            try:
                host, port = netutils.parse_host_port(
                    text, KINDS[self.kind][1])
            except ValueError:
                host, port = None, None
            if not host or not port:
                raise exception.BoardUnusable(
                    '[ssm] jobboard_hosts: %r is not host:port' % text)
            found.append((host, int(port)))
        return found


class Client:
    """The client of one server, and its own way with claims.

    TaskFlow would make it too, but not such that nobody waits for ever when
    the server is away, nor with a user and a password for each kind.

    :param lease: how long a claim is good without being extended, in seconds
    :param turn: how many clients were made before this one
    :ivar native: what TaskFlow's board works with
    """

    def __init__(self, server: Server, lease: float, turn: int = 0) -> None:
        self.server = server
        self.lease = lease
        self.turn = turn
        self.native: Any = None

    def connect(self) -> None:
        """Reach the server.

        :raises Exception: if it is not there
        """

    def conf(self) -> dict[str, Any]:
        """What TaskFlow's board is given beside the client."""
        return {'board': self.server.kind, 'path': self.server.path}

    def options(self) -> dict[str, Any]:
        """What TaskFlow's board is made with beside that."""
        return {}

    def terms(self) -> Mapping[str, Any]:
        """What a claim is made with beside its owner."""
        return {'expiry': self.lease}

    def extend(self, board: Any, job: Any) -> None:
        """Let the claim of a job, if there is one, last its time again."""
        job.extend_expiry(self.lease)

    def jobs(self, board: Any) -> list[Any]:
        """What is on the board now.

        Not by its iterjobs(), which asks for the state of each, one by one.
        """
        return board._fetch_jobs(ensure_fresh=True)

    def owner(self, board: Any, job: Any) -> str | None:
        """What the one calls itself who has claimed a job."""
        return board.find_owner(job)

    def name(self, worker: str) -> str:
        """What a worker calls itself in claims: a word of it is its id."""
        return worker

    @property
    def lost(self) -> bool:
        """Whether another client may reach the server, if this one fails."""
        return len(self.server.addresses) > 1

    def check(self) -> None:
        """:raises BoardUnusable: if the server is known to be away"""

    def close(self) -> None:
        """Close the connections."""


def client(server: Server, lease: float, turn: int = 0) -> Client:
    """Make a client, which is not connected.

    :raises BoardUnusable: if its library is not installed, or the lease
        does not do
    """
    package, _port = KINDS[server.kind]
    try:
        module = importlib.import_module(
            'nova_ssm.engine.coordination.' + server.kind)
    except ImportError as exc:
        raise exception.BoardUnusable(
            '[ssm] jobboard = %s needs the Python package %s (%s): install '
            'it with pip install "nova-ssm[%s]"'
            % (server.kind, package, exc, server.kind)) from exc
    return module.make(server, lease, turn)
