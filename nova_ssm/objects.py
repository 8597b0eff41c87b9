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

"""How Nova's objects are journaled.

Rows that the database already holds are written as references and read
afresh on resume; what lives only in the request is written whole.
"""

import copy
from typing import Any

from nova import context as nova_context
from nova import exception
from nova import objects
from nova.objects import base
from nova import utils

from nova_ssm.engine import serialization

#: What a compute, or a task of ours, expects to find on an instance without
#: asking the database again.
_INSTANCE_ATTRS = ['device_metadata', 'flavor', 'info_cache', 'keypairs',
                   'metadata', 'numa_topology', 'pci_devices',
                   'pci_requests', 'resources', 'security_groups',
                   'system_metadata', 'tags', 'trusted_certs', 'vcpu_model']


#: Fields that Nova does not mark, though there are secrets in them.
_SENSITIVE = {
    'Instance': ('user_data',),
    'LibvirtLiveMigrateBDMInfo': ('connection_info_json',),
}


def serializer(vault: serialization.Vault) -> serialization.Serializer:
    """The serializer for everything that Nova's tasks take and give."""
    return serialization.Serializer(
        objects=base.NovaObjectSerializer(), vault=vault,
        sensitive=_SENSITIVE, codecs=(
            serialization.Codec(nova_context.RequestContext,
                                'RequestContext', _dump_context,
                                _load_context),
            serialization.Codec(objects.Instance, 'Instance',
                                _dump_instance, _load_instance, _user_data),
            serialization.Codec(objects.BuildRequest, 'BuildRequest',
                                _dump_build_request, _load_build_request,
                                _user_data_asked_for),
            serialization.Codec(objects.Migration, 'Migration',
                                _dump_migration, _load_migration),
            serialization.Codec(objects.CellMapping, 'CellMapping',
                                lambda cell: cell.uuid, _load_cell),
        ))


def _dump_context(context: nova_context.RequestContext) -> dict[str, Any]:
    values = context.to_dict()
    token = values.pop('auth_token', None)
    # Derived from the others by from_dict().
    values.pop('user_identity', None)
    return {'values': values, 'cell': context.cell_uuid,
            'token': serialization.Secret(token) if token else None}


def _load_context(value: dict[str, Any],
                  _context: Any) -> nova_context.RequestContext:
    context = nova_context.RequestContext.from_dict(
        {**value['values'],
         'auth_token': serialization.reveal(value['token'])})
    return _in_cell_of(value, context)


def _dump_instance(instance: objects.Instance) -> dict[str, Any]:
    return {'uuid': instance.uuid,
            'cell': getattr(instance._context, 'cell_uuid', None)}


def _load_instance(value: dict[str, Any],
                   context: nova_context.RequestContext) -> objects.Instance:
    """The instance as it is now, also one that was deleted meanwhile."""
    context = _in_cell_of(value, context)
    try:
        with utils.temporary_mutation(context, read_deleted='yes'):
            return objects.Instance.get_by_uuid(
                context, value['uuid'], expected_attrs=_INSTANCE_ATTRS)
    except exception.InstanceNotFound:
        # Deleted and archived: there is nothing left but its name.
        return objects.Instance(context, uuid=value['uuid'], deleted=True)


def _user_data(instance: objects.Instance) -> str | None:
    """What no failure may repeat, though the database has it."""
    if instance.obj_attr_is_set('user_data'):
        return instance.user_data
    return None


def _user_data_asked_for(build_request: objects.BuildRequest) -> str | None:
    if build_request.obj_attr_is_set('instance') and build_request.instance:
        return _user_data(build_request.instance)
    return None


def _dump_migration(migration: objects.Migration) -> dict[str, Any]:
    return {'uuid': migration.uuid,
            'cell': getattr(migration._context, 'cell_uuid', None)}


def _load_migration(value: dict[str, Any],
                    context: nova_context.RequestContext
                    ) -> objects.Migration:
    """The record as it is now, or its name if it is gone."""
    # Nova writes these records as an administrator.
    context = _in_cell_of(value, context).elevated()
    try:
        with utils.temporary_mutation(context, read_deleted='yes'):
            return objects.Migration.get_by_uuid(context, value['uuid'])
    except exception.MigrationNotFound:
        return objects.Migration(context, uuid=value['uuid'], deleted=True)


def _in_cell_of(value: dict[str, Any],
                context: nova_context.RequestContext
                ) -> nova_context.RequestContext:
    """The context, or one of its own if the value came from a cell."""
    # Journals of the first release have contexts without.
    if value.get('cell') is None:
        return context
    return in_cell(context, _load_cell(value['cell'], context))


def in_cell(context: nova_context.RequestContext,
            cell: objects.CellMapping) -> nova_context.RequestContext:
    """A context of its own that reads from the cell.

    Its ``cell_uuid`` is what the journal writes of an instance that has it.
    """
    copied = copy.copy(context)
    nova_context.set_target_cell(copied, cell)
    return copied


def _dump_build_request(
        build_request: objects.BuildRequest) -> dict[str, Any]:
    return {'instance_uuid': build_request.instance_uuid}


def _load_build_request(
        value: dict[str, Any],
        context: nova_context.RequestContext) -> objects.BuildRequest:
    try:
        return objects.BuildRequest.get_by_instance_uuid(
            context, value['instance_uuid'])
    except exception.BuildRequestNotFound:
        # Deleted, by its user or by us. To destroy it says so once more.
        return objects.BuildRequest(
            context, instance_uuid=value['instance_uuid'])


def _load_cell(uuid: str,
               context: nova_context.RequestContext) -> objects.CellMapping:
    return objects.CellMapping.get_by_uuid(context, uuid)
