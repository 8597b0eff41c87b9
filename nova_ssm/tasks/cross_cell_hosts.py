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

"""What the computes of two cells do for a server that moves between them."""

from collections.abc import Iterator
import contextlib
from typing import Any
import uuid as uuidlib

import glanceclient.exc
from nova.compute import task_states
from nova.compute import utils as compute_utils
from nova.compute import vm_states
from nova.conductor.tasks import cross_cell_migrate
from nova import exception
from nova.image import glance
from nova import objects
from oslo_log import log as logging
from oslo_utils import excutils

from nova_ssm import objects as ssm_objects
from nova_ssm.tasks import base
from nova_ssm.tasks import cross_cell_calls as calls
from nova_ssm.tasks import moves
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

Seen = calls.Seen


def nova_task(manager: types.Manager, context: types.Context,
              instance: types.Instance, migration: types.Migration,
              flavor: types.Flavor, spec: types.RequestSpec,
              host: types.Selection,
              target_instance: types.Instance | None = None,
              rpcapi: Any = None
              ) -> cross_cell_migrate.CrossCellMigrationTask:
    """Nova's own task, for the helpers that it has."""
    task = cross_cell_migrate.CrossCellMigrationTask(
        context, instance, flavor, spec, migration,
        rpcapi or manager.compute_rpcapi, host, [])
    if target_instance is not None:
        task._target_cell_context = target_instance._context
        task._target_cell_instance = target_instance
    return task


def finish_task(manager: types.Manager, instance: types.Instance,
                target_instance: types.Instance, migration: types.Migration,
                target_cell: types.Cell, snapshot_id: str | None,
                spec: types.RequestSpec
                ) -> cross_cell_migrate.FinishResizeAtDestTask:
    """Nova's own task of the last steps.

    :param migration: the record in the target cell
    """
    return cross_cell_migrate.FinishResizeAtDestTask(
        target_instance._context, target_instance, migration, instance,
        manager.compute_rpcapi, target_cell, snapshot_id, spec)


def in_cell_of(context: types.Context,
               host: types.Selection) -> types.Context:
    """A context of its own that reads from the cell of the host."""
    return ssm_objects.in_cell(context, objects.CellMapping.get_by_uuid(
        context, host.cell_uuid))


def is_switched(context: types.Context, instance: types.Instance,
                host: types.Selection) -> bool:
    """Whether the API is pointed at the server in the cell of the host."""
    mapping = objects.InstanceMapping.get_by_instance_uuid(
        context, instance.uuid)
    return bool(mapping.cell_mapping is not None and
                mapping.cell_mapping.uuid == host.cell_uuid)


@contextlib.contextmanager
def only_logged(task: base.NovaTask,
                instance: types.Instance) -> Iterator[None]:
    """Let the others be undone too, if one of them cannot be; as Nova does."""
    try:
        yield
    except Exception:  # noqa: BLE001 - whatever it is
        LOG.exception('Rollback for task %s failed.', task.name,
                      instance=instance)


class PrepareAtDestination(calls.Call):
    """Bind ports, attach volumes and claim resources at the destination.

    :raises MigrationPreCheckError: if the destination cannot take the server

    Reversion strategy: delete the bindings and the attachments; forget the
    claim in the source's record. The destination forgets it when the record
    in its cell is gone.
    Recovery: wait for the end of the compute, if it was called; delete the
    bindings and attachments and make them again; claim what is not claimed.
    """

    default_provides = 'claimed_migration'
    reversion = 'delete the port bindings and volume attachments'
    event = 'compute_prep_snapshot_based_resize_at_dest'

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, flavor: types.Flavor,
                move_spec: types.RequestSpec, host: types.Selection,
                target_instance: types.Instance,
                target_migration: types.Migration,
                owner: str) -> types.Migration:
        return nova_task(
            self.manager, context, instance, migration, flavor, move_spec,
            host, target_instance)._prep_resize_at_dest(target_migration)

    def recover(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, flavor: types.Flavor,
                move_spec: types.RequestSpec, host: types.Selection,
                target_instance: types.Instance,
                target_migration: types.Migration,
                owner: str) -> types.Migration:
        uuid, cctxt = instance.uuid, target_instance._context
        done = self._outcome(cctxt, instance, host.service_host,
                             lambda: self._told(cctxt, uuid))
        if done is False:
            raise exception.MigrationPreCheckError(
                reason=self._failure(cctxt, uuid))
        moves.check(context, uuid, migration.uuid, owner,
                    task_states.RESIZE_PREP, 'pre-migrating')
        task = nova_task(self.manager, context, instance, migration, flavor,
                         move_spec, host, target_instance)
        self._detach(task)
        if done is None:
            return self.execute(
                context, instance, migration, flavor, move_spec, host,
                target_instance, target_migration, owner)
        target_instance.refresh()
        task.compute_rpcapi = _Claimed(target_instance.migration_context)
        return task._prep_resize_at_dest(target_migration)

    def revert(self, context: types.Context, instance: types.Instance,
               migration: types.Migration, flavor: types.Flavor,
               move_spec: types.RequestSpec, host: types.Selection,
               target_instance: types.Instance, result: Any,
               flow_failures: types.Failures) -> None:
        with only_logged(self, instance):
            if is_switched(context, instance, host):
                return
            task = nova_task(self.manager, context, instance, migration,
                             flavor, move_spec, host, target_instance)
            # Or the ports would be left without a binding that is active.
            task.network_api.migrate_instance_start(
                context, instance, objects.Migration(
                    source_compute=host.service_host,
                    dest_compute=migration.source_compute))
            self._detach(task)
            now = moves.current(context, instance.uuid)
            if now is not None:
                now.drop_migration_context()

    @staticmethod
    def _detach(task: cross_cell_migrate.CrossCellMigrationTask) -> None:
        """Delete what was made for the destination, as far as it was."""
        source, target = task.instance, task._target_cell_instance
        undo = cross_cell_migrate.PrepResizeAtDestTask(
            task._target_cell_context, target, task.flavor, None,
            task.request_spec, task.compute_rpcapi, task.host_selection,
            task.network_api, task.volume_api)
        undo._bindings_by_port_id = {
            vif['id']: None for vif in target.get_network_info()}
        copies = _attachments(target)
        if copies:
            made = {attachment['id'] for attachment in
                    task.volume_api.attachment_get_all(
                        task.context, instance_id=source.uuid)}
            if task.context.project_id != source.project_id:
                # Cinder does not list those of another project.
                made |= copies
            undo._created_volume_attachment_ids = sorted(
                made - _attachments(source))
        undo.rollback(None)


def _attachments(instance: types.Instance) -> set[str]:
    """The attachments that the records in the instance's cell know of."""
    return {bdm.attachment_id for bdm in instance.get_bdms()
            if bdm.is_volume and bdm.attachment_id}


class _Claimed:
    """Answers for a compute that has claimed already."""

    def __init__(self, claim: objects.MigrationContext) -> None:
        self._claim = claim

    def prep_snapshot_based_resize_at_dest(
            self, *args: Any) -> objects.MigrationContext:
        return self._claim


class PrepareAtSource(calls.Call):
    """Stop the server at its source, take a snapshot of its disk.

    The source keeps the disk, but the guest is gone there.

    :raises MigrationPreCheckError: if the server is not what it was

    Reversion strategy: delete the snapshot. A server whose guest is gone is
    left in ERROR: its user may reboot it where it was.
    Recovery: wait for the end of the compute if it was called, else call it.
    """

    default_provides = 'snapshot_id'
    reversion = 'delete the snapshot'
    event = 'compute_prep_snapshot_based_resize_at_source'

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, flavor: types.Flavor,
                move_spec: types.RequestSpec, owner: str) -> str | None:
        moves.check(context, instance.uuid, migration.uuid, owner,
                    task_states.RESIZE_PREP, 'pre-migrating')
        return cross_cell_migrate.PrepResizeAtSourceTask(
            context, instance, flavor, migration, move_spec,
            self.manager.compute_rpcapi, _OneImage(migration)).execute()

    def recover(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, flavor: types.Flavor,
                move_spec: types.RequestSpec, owner: str) -> str | None:
        uuid = instance.uuid
        now = moves.current(context, uuid)
        if now is None or now.task_state != task_states.RESIZE_PREP:
            done = self._outcome(context, instance, migration.source_compute,
                                 lambda: self._look(context, uuid))
            if done is False:
                raise self._migration_error(context, uuid)
            if done:
                return None if move_spec.is_bfv else _image_id(migration)
            LOG.info('Compute %s has not got the call, calling it again',
                     migration.source_compute, instance=instance)
            instance.refresh()
            instance.task_state = task_states.RESIZE_PREP
            instance.save(expected_task_state=task_states.RESIZE_MIGRATING)
        return self.execute(context, instance, migration, flavor, move_spec,
                            owner)

    def _look(self, context: types.Context, uuid: str) -> Seen:
        now = moves.current(context, uuid)
        if now is not None and now.task_state == task_states.RESIZE_MIGRATED:
            return Seen.DONE
        if now is None or now.task_state != task_states.RESIZE_MIGRATING:
            # Also a compute that was started again has given it up.
            return Seen.FAILED
        return self._told(context, uuid)

    def revert(self, context: types.Context, instance: types.Instance,
               migration: types.Migration, move_spec: types.RequestSpec,
               host: types.Selection, result: Any,
               flow_failures: types.Failures) -> None:
        with only_logged(self, instance):
            if is_switched(context, instance, host):
                return
            if not move_spec.is_bfv:
                compute_utils.delete_image(context, instance, glance.API(),
                                           _image_id(migration))
            now = moves.current(context, instance.uuid)
            if (now is not None and
                    now.task_state == task_states.RESIZE_MIGRATED):
                LOG.error('The guest is gone from its source host %s. The '
                          'instance may need to be hard rebooted.', now.host,
                          instance=instance)
                now.vm_state = vm_states.ERROR
                now.save()


def _image_id(migration: types.Migration) -> str:
    """The snapshot's id in glance: known before there is one, and after."""
    return str(uuidlib.uuid5(uuidlib.UUID(migration.uuid), 'resize-temp'))


class _OneImage:
    """Glance, for a single image whose id is known."""

    def __init__(self, migration: types.Migration) -> None:
        self._api = glance.API()
        self._id = _image_id(migration)

    def create(self, context: types.Context,
               values: dict[str, Any]) -> dict[str, Any]:
        """Create it, or take the one that an earlier attempt created."""
        try:
            return self._api.create(context, {**values, 'id': self._id})
        except glanceclient.exc.HTTPConflict:
            return self._api.get(context, self._id)

    def delete(self, context: types.Context, image_id: str) -> None:
        self._api.delete(context, image_id)


class FinishAtDestination(calls.Call):
    """Start the server at the destination.

    Reversion strategy: destroy the guest there, if it was started.
    Recovery: wait for the end of the compute if it was called, else call it.
    """

    reversion = 'destroy the guest at the destination'
    event = 'compute_finish_snapshot_based_resize_at_dest'
    undo_event = 'compute_revert_snapshot_based_resize_at_dest'

    def execute(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, target_instance: types.Instance,
                claimed_migration: types.Migration, target_cell: types.Cell,
                move_spec: types.RequestSpec, snapshot_id: str | None,
                owner: str) -> None:
        moves.check(context, instance.uuid, migration.uuid, owner,
                    task_states.RESIZE_MIGRATED, 'post-migrating')
        finish_task(
            self.manager, instance, target_instance, claimed_migration,
            target_cell, snapshot_id,
            move_spec)._finish_snapshot_based_resize_at_dest()

    def recover(self, context: types.Context, instance: types.Instance,
                migration: types.Migration, target_instance: types.Instance,
                claimed_migration: types.Migration, target_cell: types.Cell,
                move_spec: types.RequestSpec, snapshot_id: str | None,
                owner: str) -> None:
        if not self._events(context, instance.uuid):
            # Nova opens one in the source's cell before it calls.
            self.execute(
                context, instance, migration, target_instance,
                claimed_migration, target_cell, move_spec, snapshot_id,
                owner)
            return
        task = finish_task(
            self.manager, instance, target_instance, claimed_migration,
            target_cell, snapshot_id, move_spec)
        try:
            # Nova cannot close a second one of the same name.
            with contextlib.ExitStack() as stack:
                stack.push(compute_utils.EventReporter(
                    context, self.event, claimed_migration.dest_compute,
                    instance.uuid))
                self._go_on(task)
        except Exception:  # noqa: BLE001 - whatever it is, it is raised again
            with excutils.save_and_reraise_exception(logger=LOG):
                # As Nova does; it has no helper for it.
                instance.task_state = None
                instance.vm_state = vm_states.ERROR
                instance.save()
                task._copy_latest_fault(context)
        target_instance.refresh()

    def _go_on(self, task: cross_cell_migrate.FinishResizeAtDestTask) -> None:
        cctxt, uuid = task.context, task.instance.uuid
        done = self._outcome(cctxt, task.instance,
                             task.migration.dest_compute,
                             lambda: self._look(cctxt, uuid))
        if done is False:
            raise self._migration_error(cctxt, uuid)
        if done is None:
            task.compute_rpcapi.finish_snapshot_based_resize_at_dest(
                cctxt, task.instance, task.migration, task.snapshot_id,
                task.request_spec)

    def _look(self, context: types.Context, uuid: str) -> Seen:
        now = moves.current(context, uuid)
        if now is None or now.vm_state == vm_states.ERROR:
            return Seen.FAILED
        if now.vm_state == vm_states.RESIZED:
            return Seen.DONE
        return self._told(context, uuid)

    def revert(self, context: types.Context, instance: types.Instance,
               target_instance: types.Instance,
               claimed_migration: types.Migration, host: types.Selection,
               result: Any, flow_failures: types.Failures) -> None:
        with only_logged(self, instance):
            if is_switched(context, instance, host):
                return
            cctxt = target_instance._context
            now = moves.current(cctxt, instance.uuid)
            if now is not None and now.vm_state == vm_states.RESIZED:
                self._destroy(cctxt, now, claimed_migration)

    def _destroy(self, context: types.Context, instance: types.Instance,
                 migration: types.Migration) -> None:
        """Have the guest destroyed; twice at worst, that does no harm."""
        def look() -> Seen:
            return self._told(context, instance.uuid, self.undo_event)

        if look() is not Seen.NOTHING:
            self._end(context, instance, migration.dest_compute, look)
            return
        self.manager.compute_rpcapi.revert_snapshot_based_resize_at_dest(
            context, instance, migration)
