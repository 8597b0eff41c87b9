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

"""What consumers hold in placement."""

from collections.abc import Sequence
import time
from typing import Any

from oslo_serialization import jsonutils

from nova_ssm.tasks import types


def held_by(manager: types.Manager, context: types.Context,
            consumer: str) -> dict[str, Any]:
    """What a server, or a migration record, holds: by resource provider."""
    return manager.report_client.get_allocs_for_consumer(
        context, consumer).get('allocations') or {}


def providers(host: types.Selection) -> set[str]:
    """The resource providers that a claim on the host takes from."""
    if not host.allocation_request:
        return set()
    return set(jsonutils.loads(host.allocation_request)['allocations'])


def free_claim(manager: types.Manager, context: types.Context, uuid: str,
               settle: float = 0) -> None:
    """Free what a server holds while its migration record has the source.

    :param settle: see :func:`await_quiet`, for a claim of which nobody has
        heard
    """
    await_quiet(manager, context, [uuid], settle)
    if held_by(manager, context, uuid):
        manager.report_client.delete_allocation_for_instance(
            context, uuid, force=True)


def await_quiet(manager: types.Manager, context: types.Context,
                uuids: Sequence[str], settle: float) -> None:
    """Wait until nobody claims for these servers any more.

    A scheduler does not know that the conductor which asked it is dead.

    :param settle: seconds that a scheduler may take from one claim to the
        next; 0 does not wait
    """
    client = manager.report_client
    before: Any = None
    while True:
        now = [client.get_allocs_for_consumer(context, uuid)
               for uuid in uuids]
        if now == before or not settle:
            return
        before = now
        time.sleep(settle)
