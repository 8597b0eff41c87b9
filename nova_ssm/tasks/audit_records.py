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

"""How records end that have lost what they belong to."""

from nova import exception
from nova import objects
from oslo_log import log as logging

from nova_ssm.tasks import audit_steps
from nova_ssm.tasks import base
from nova_ssm.tasks import destinations
from nova_ssm.tasks import moves
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)


class EndMapping(base.NovaTask):
    """Remove a mapping to no server, or mark it as that of a deleted one.

    Gives what it was: so the journal has it.

    Reversion strategy: none, it is the last step.
    Recovery: do it again; what is gone stays gone.
    """

    default_provides = 'was'

    def execute(self, context: types.Context, subject: str,
                details: types.Properties | None) -> types.Properties | None:
        if details is None:
            return None
        try:
            mapping = objects.InstanceMapping.get_by_instance_uuid(
                context, subject)
        except exception.InstanceMappingNotFound:
            return None
        was = {'project': mapping.project_id, 'user': mapping.user_id,
               'cell': mapping.cell_mapping and mapping.cell_mapping.uuid}
        if details['deleted']:
            mapping.queued_for_delete = True
            mapping.save()
            return was
        self._forget_spec(context, subject)
        mapping.destroy()
        return was

    @staticmethod
    def _forget_spec(context: types.Context, uuid: str) -> None:
        try:
            objects.RequestSpec.get_by_instance_uuid(context, uuid).destroy()
        except exception.RequestSpecNotFound:
            LOG.debug('There is no request spec', instance_uuid=uuid)


class EndMigration(base.NovaTask):
    """End a migration record, and free or give back what it holds.

    A live migration whose destination has the server is completed.

    Recovery: do it again; the record ends last.
    """

    def execute(self, context: types.Context, subject: str,
                details: types.Properties | None) -> None:
        if details is None:
            return
        with audit_steps.cell_of(context, details) as cctxt:
            migration = moves.record(cctxt, subject)
            if migration is None:
                return
            there = details.get('there', False)
            host = (migration.source_compute if there
                    else migration.dest_compute)
            if migration.is_live_migration and host:
                destinations.unbind(self.manager, cctxt, migration, host)
            if not migration.is_live_migration:
                self._ask_for_it_as_it_is(cctxt, migration)
            # If the server is at the destination, that frees the source.
            moves.give_back(self.manager, cctxt, objects.Instance(
                cctxt, uuid=details['server']), migration)
            if there:
                migration.status = 'completed'
                migration.save()
            else:
                moves.fail_migration(cctxt, subject)

    @staticmethod
    def _ask_for_it_as_it_is(context: types.Context,
                             migration: types.Migration) -> None:
        """Let no later move make of a server what its resize did not."""
        instance = moves.current(context, migration.instance_uuid)
        # Or it is resized again by now, and its request is that one's.
        if (instance is not None and instance.task_state is None and
                instance.host == migration.source_compute):
            moves.put_flavor_back(context, instance)
