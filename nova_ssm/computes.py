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

"""What the conductor says to computes, written in one walk.

A server goes to its compute with all that is known of it, and with its
request spec. To write them as they write themselves takes a quarter of what
the conductor does for a build: see :mod:`nova_ssm.engine.primitives`.
"""

from typing import Any

from nova.compute import rpcapi
from nova.objects import base
from nova import rpc

from nova_ssm.engine import primitives


class ObjectSerializer(base.NovaObjectSerializer):
    """Nova's, which writes the same in less time."""

    def serialize_entity(self, context: Any, entity: Any) -> Any:
        if isinstance(entity, base.NovaObject):
            return primitives.primitive(entity)
        # What is in a container comes here again.
        return super().serialize_entity(context, entity)


class ComputeAPI(rpcapi.ComputeAPI):
    """Nova's own client of the computes, but for the serializer."""

    def __init__(self) -> None:
        super().__init__()
        self._stock: Any = None
        self._router: Any = None

    @property
    def router(self) -> rpc.ClientRouter:
        """As Nova's: the same target, and the same cap of the version."""
        # That is made anew when the service is told to look again what
        # versions the computes have.
        stock = super().router
        if self._stock is not stock:
            client = stock.default_client
            self._router = rpc.ClientRouter(self.get_client(
                client.target, client.version_cap, ObjectSerializer()))
            self._stock = stock
        return self._router
