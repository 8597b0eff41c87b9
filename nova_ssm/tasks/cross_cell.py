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

"""The move of a server to a host in another cell.

Computes of two cells cannot talk to each other: the conductor does what they
would do among themselves. The server has records in both cells then, and one
of them is hidden: the one that the API's mapping does not point at.
"""

from typing import Any, TypeAlias

from nova import exception
from oslo_db import exception as db_exc
from oslo_log import log as logging
from taskflow.patterns import linear_flow
import tenacity

from nova_ssm.tasks import base
from nova_ssm.tasks import cross_cell_hosts as hosts
from nova_ssm.tasks import moves
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

#: The target cell, and the server's and the migration's records in it.
_Copied: TypeAlias = tuple[types.Cell, types.Instance, types.Migration]


def branch(manager: types.Manager) -> linear_flow.Flow:
    """What is done when the chosen host is in another cell.

    1. copy the records of the server to that cell, hidden
    2. bind ports, attach volumes and claim resources at the destination
    3. stop the server at its source, take a snapshot of its disk
    4. start it at the destination
    5. close the events of the conductors
    6. point the API at the other cell
    """
    return linear_flow.Flow('cross_cell').add(
        BeginCrossCell(manager),
        SetUpTargetCell(manager),
        hosts.PrepareAtDestination(manager),
        hosts.PrepareAtSource(manager),
        hosts.FinishAtDestination(manager),
        FinishEventsInBothCells(manager),
        SwitchCells(manager),
    )


class BeginCrossCell(base.NovaTask):
    """Put down that the move goes to another cell, see whether it can.

    :raises MigrationPreCheckError: if neutron cannot bind a port twice
    """

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, flavor: types.Flavor,
                move_spec: types.RequestSpec,
                host: types.Selection) -> None:
        migration.cross_cell_move = True
        migration.save()
        hosts.nova_task(self.manager, context, instance, migration, flavor,
                        move_spec, host)._perform_external_api_checks()


class SetUpTargetCell(base.NovaTask):
    """Copy the server's records to the other cell, hidden.

    Reversion strategy: delete the hidden copy, with all that hangs on it.
    Recovery: the same, then copy again. Nothing but our own flow knows of
    the copy yet.
    """

    default_provides = ('target_cell', 'target_instance', 'target_migration')
    reversion = 'delete the hidden copy in the other cell'

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, flavor: types.Flavor,
                move_spec: types.RequestSpec,
                host: types.Selection) -> _Copied:
        task = hosts.nova_task(self.manager, context, instance, migration,
                               flavor, move_spec, host)
        target_migration, cell = task._setup_target_cell_db()
        return cell, task._target_cell_instance, target_migration

    def recover(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, flavor: types.Flavor,
                move_spec: types.RequestSpec,
                host: types.Selection) -> _Copied:
        self._drop_copy(context, instance, host)
        return self.execute(context, instance, migration, flavor, move_spec,
                            host)

    def revert(self, context: types.Context, instance: types.Instance,
               host: types.Selection, result: Any,
               flow_failures: types.Failures) -> None:
        with hosts.only_logged(self, instance):
            if not hosts.is_switched(context, instance, host):
                self._drop_copy(context, instance, host)

    @staticmethod
    def _drop_copy(context: types.Context, instance: types.Instance,
                   host: types.Selection) -> None:
        copied = moves.current(hosts.in_cell_of(context, host),
                               instance.uuid)
        if copied is not None and copied.hidden:
            LOG.info('Deleting the hidden record of the server in cell %s',
                     host.cell_uuid, instance=instance)
            copied.destroy(hard_delete=True)


class FinishEventsInBothCells(base.NovaTask):
    """Close the events that a conductor opened for the move.

    Also their copies in the other cell: from now on those are shown.
    """

    effect = False

    def execute(self, context: types.Context, instance: types.Instance,
                target_instance: types.Instance) -> None:
        for cell_context in (context, target_instance._context):
            moves.close_events(cell_context, instance.uuid)


class SwitchCells(base.NovaTask):
    """Point the API at the server in the other cell, hide the old record.

    When the API is pointed there nothing is undone any more: the user may
    have confirmed the move already.

    :raises InstanceNotFound: if the server was deleted meanwhile

    Reversion strategy: hide the new record again, if the API still points
    at the old one.
    Recovery: do what is not done yet.
    """

    # It is not to be given up unseen.
    once = True
    reversion = 'hide the record in the other cell again'

    def execute(self, context: types.Context, instance: types.Instance,
                target_instance: types.Instance,
                claimed_migration: types.Migration, target_cell: types.Cell,
                move_spec: types.RequestSpec, host: types.Selection) -> None:
        if moves.current(context, instance.uuid) is None:
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        task = hosts.finish_task(
            self.manager, instance, target_instance, claimed_migration,
            target_cell, None, move_spec)
        try:
            _patiently(task._update_instance_mapping)
        except Exception:
            if not _patiently(hosts.is_switched, context, instance, host):
                raise
            LOG.exception('The record of the server in its old cell could '
                          'not be hidden', instance=instance)

    def recover(self, context: types.Context, instance: types.Instance,
                target_instance: types.Instance,
                claimed_migration: types.Migration, target_cell: types.Cell,
                move_spec: types.RequestSpec, host: types.Selection) -> None:
        if not hosts.is_switched(context, instance, host):
            self.execute(context, instance, target_instance,
                         claimed_migration, target_cell, move_spec, host)
            return
        now = moves.current(context, instance.uuid)
        if now is not None:
            now.hidden = True
            now.save()

    def revert(self, context: types.Context, instance: types.Instance,
               host: types.Selection, result: Any,
               flow_failures: types.Failures) -> None:
        with hosts.only_logged(self, instance):
            if hosts.is_switched(context, instance, host):
                return
            copied = moves.current(hosts.in_cell_of(context, host),
                                   instance.uuid)
            if copied is not None:
                copied.hidden = True
                copied.save()


#: A database that is away for a moment is no reason to destroy a server.
_patiently: Any = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(
        (db_exc.DBError, db_exc.CantStartEngineError)),
    wait=tenacity.wait_exponential(multiplier=0.5, max=10),
    stop=tenacity.stop_after_attempt(10), reraise=True)
