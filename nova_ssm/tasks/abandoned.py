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

"""What a dead conductor leaves behind in the computes."""

import abc
import time
from typing import ClassVar

from nova.compute import vm_states
from nova.conductor import manager as conductor_manager
from nova import exception
from nova import objects
from oslo_config import cfg
from oslo_db import exception as db_exc
from oslo_log import log as logging

from nova_ssm import compat
from nova_ssm.engine import queries
from nova_ssm.tasks import base
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)
CONF = cfg.CONF

#: The flows that end by telling a compute to build a server.
BUILD_FLOWS = ('build_instance', 'reschedule_instance')

#: Seconds that a compute has to answer a ping.
_PING_TIMEOUT = 5.0


def window() -> float:
    """For how many seconds a compute may wait for a conductor's answer."""
    return CONF.rpc_response_timeout + 10


def answers(manager: types.Manager, context: types.Context,
            host: str) -> bool:
    """Whether a compute has taken what it was sent before, and lives."""
    return compat.ping_alt(manager.compute_rpcapi, context, host,
                           _PING_TIMEOUT)


class LookAfter(base.NovaTask):
    """Look at the servers of flows that ended when a conductor died.

    The flow's inputs say when that was, on the database's clock: who goes on
    with it much later looks at the same servers.

    Recovery: look again; what was mended is not mended twice.
    """

    #: The flows that end by telling a compute.
    flows: ClassVar[tuple[str, ...]] = ()
    #: Seconds between two looks whether it is time.
    poll: ClassVar[float] = 1.0

    def execute(self, context: types.Context, told_since: float,
                told_until: float) -> None:
        db = self.manager.ssm.runner.db
        # By then every compute has given up that called the dead conductor.
        ready_at = time.monotonic() + told_until - queries.clock(db)
        while time.monotonic() < ready_at:
            self.wait(self.poll)
        for uuid in queries.subjects_finished(
                db, self.flows, told_since, told_until):
            self._look_in_cell(context, uuid)

    def _look_in_cell(self, context: types.Context, uuid: str) -> None:
        try:
            cell = objects.InstanceMapping.get_by_instance_uuid(
                context, uuid).cell_mapping
        except exception.InstanceMappingNotFound:
            return
        except db_exc.CantStartEngineError:
            # The conductor of a cell, which has no other servers.
            cell = None
        with conductor_manager.try_target_cell(context, cell) as cctxt:
            try:
                instance = objects.Instance.get_by_uuid(cctxt, uuid)
            except exception.InstanceNotFound:
                return
            self._look_at(cctxt, instance)

    @abc.abstractmethod
    def _look_at(self, context: types.Context,
                 instance: types.Instance) -> None:
        """Mend what its compute has left, if that gave it up.

        :param context: targeted at the cell of the server
        """


class FailAbandonedBuilds(LookAfter):
    """Put servers into ERROR that a compute gave up without a word.

    A compute that is calling a conductor when it dies waits for the answer
    until rpc_response_timeout. If that was one of the first calls of a
    build, it then gives the build up and frees the server's allocations, but
    leaves the server in BUILD: stock Nova leaves it there for ever. The
    flow that told the compute is over by then.

    Recovery: look again; a server in ERROR is not looked at any more.
    """

    flows = BUILD_FLOWS

    def _look_at(self, context: types.Context,
                 instance: types.Instance) -> None:
        if self._was_given_up(context, instance):
            self._fail(context, instance)

    def _was_given_up(self, context: types.Context,
                      instance: types.Instance) -> bool:
        """Whether a compute had the server, and is done with it.

        One that waits for a compute is still being scheduled; one that a
        compute works on has allocations.
        """
        return (instance.vm_state == vm_states.BUILDING and
                instance.task_state is None and
                not instance.host and
                not self.manager.report_client.get_allocs_for_consumer(
                    context, instance.uuid).get('allocations'))

    def _fail(self, context: types.Context,
              instance: types.Instance) -> None:
        exc = exception.BuildAbortException(
            instance_uuid=instance.uuid,
            reason='the compute lost its connection to nova-conductor, which '
                   'died during the build')
        base.while_handling(
            exc, self.manager._set_vm_state_and_notify, context,
            instance.uuid, 'build_instances',
            {'vm_state': vm_states.ERROR, 'task_state': None}, exc,
            spec_of(context, instance.uuid))


def spec_of(context: types.Context, uuid: str) -> types.RequestSpec | None:
    """What a server was asked for with, for those who listen.

    :returns: None if that is gone, or where it cannot be read
    """
    try:
        return objects.RequestSpec.get_by_instance_uuid(context, uuid)
    except (exception.RequestSpecNotFound,
            db_exc.CantStartEngineError) as exc:
        LOG.debug('There is no request spec: %s', exc, instance_uuid=uuid)
        return None
