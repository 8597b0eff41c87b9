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

"""How Nova's objects come through the journal."""

import contextlib
import datetime
import json
from unittest import mock
import zlib

from cryptography import fernet
import hypothesis
from hypothesis import strategies
from nova import context as nova_context
from nova import exception
from nova import objects
from nova.objects import base
import pytest

from nova_ssm.engine import primitives
from nova_ssm.engine import serialization
from nova_ssm import objects as ssm_objects

KEY = fernet.Fernet.generate_key().decode()
UUID = 'a1000000-0000-4000-8000-000000000001'
CELL = objects.CellMapping(
    uuid='c1000000-0000-4000-8000-000000000001', name='cell1',
    database_connection='sqlite://', transport_url='fake://')


@pytest.fixture
def serializer():
    return ssm_objects.serializer(serialization.Vault([KEY]))


def make_context(**values):
    values = {'user_id': 'user', 'project_id': 'project', 'is_admin': False,
              'overwrite': False, 'request_id': 'req-1', **values}
    return nova_context.RequestContext(**values)


def through(serializer, value, context=None):
    return serializer.unpack(serializer.pack(value),
                             serialization.Reading(context))


# -- contexts -------------------------------------------------------------

CATALOG = [{'type': 'network', 'name': 'neutron', 'endpoints': [
    {'publicURL': 'http://neutron', 'region': 'one'}]}]


def test_context(serializer):
    context = make_context(
        auth_token='secret', roles=['member', 'reader'],
        user_name='Ada', project_name='engines', remote_address='::1',
        service_catalog=CATALOG, user_domain_id='default',
        project_domain_id='default', global_request_id='req-global',
        read_deleted='yes', system_scope='all')
    read = through(serializer, context)
    assert type(read) is nova_context.RequestContext
    assert read.to_dict() == context.to_dict()
    assert read.auth_token == 'secret'
    assert read.global_id == context.global_id
    assert read.get_auth_plugin().get_token() == 'secret'


def test_context_of_an_admin(serializer):
    context = make_context(is_admin=True, project_id=None)
    read = through(serializer, context)
    assert (read.is_admin, read.project_id) == (True, None)
    assert read.timestamp == context.timestamp


@pytest.mark.parametrize('keys', ([], [KEY]))
def test_context_does_not_tell_its_token(keys):
    packed = ssm_objects.serializer(serialization.Vault(keys)).pack(
        make_context(auth_token='the-secret', service_token='another'))
    assert b'the-secret' not in zlib.decompress(packed)
    assert b'another' not in zlib.decompress(packed)


def test_context_whose_token_is_lost():
    """Without keys it cannot come back; the reading says so."""
    serializer = ssm_objects.serializer(serialization.Vault())
    reading = serialization.Reading()
    read = serializer.unpack(serializer.pack(make_context(auth_token='x')),
                             reading)
    assert read.auth_token is None
    assert 'encryption_keys was empty' in reading.missing[0]


def test_context_without_token_misses_nothing():
    serializer = ssm_objects.serializer(serialization.Vault())
    reading = serialization.Reading()
    serializer.unpack(serializer.pack(make_context()), reading)
    assert reading.missing == []


# -- references -----------------------------------------------------------

@contextlib.contextmanager
def cells():
    """Reading from a cell needs no database here."""
    def target(context, cell):
        context.cell_uuid = cell.uuid
    with mock.patch.object(objects.CellMapping, 'get_by_uuid',
                           return_value=CELL) as get, \
            mock.patch.object(nova_context, 'set_target_cell', target):
        yield get


@pytest.mark.parametrize('in_cell', (True, False))
def test_instance_is_read_afresh(serializer, in_cell):
    context = make_context()
    with cells(), mock.patch.object(objects.Instance, 'get_by_uuid') as get:
        instance = objects.Instance(
            ssm_objects.in_cell(context, CELL) if in_cell else context,
            uuid=UUID, user_data='c2VjcmV0')
        packed = serializer.pack(instance)
        assert serializer.unpack(
            packed, serialization.Reading(context)) is get.return_value
    (read_with, uuid), kwargs = get.call_args
    assert uuid == UUID
    assert read_with.cell_uuid == (CELL.uuid if in_cell else None)
    assert {'flavor', 'system_metadata', 'tags'} <= set(
        kwargs['expected_attrs'])
    assert b'c2VjcmV0' not in zlib.decompress(packed)
    # The context of the flow itself stays where it is.
    assert context.cell_uuid is None


def test_instance_that_was_deleted_is_read(serializer):
    context, asked = make_context(), []

    def get(context, uuid, expected_attrs):
        asked.append(context.read_deleted)
        return objects.Instance(context, uuid=uuid, deleted=True)
    with mock.patch.object(objects.Instance, 'get_by_uuid', get):
        read = through(serializer, objects.Instance(context, uuid=UUID),
                       context)
    assert asked == ['yes'] and read.deleted
    assert context.read_deleted == 'no'


def test_instance_that_was_archived_keeps_its_name(serializer):
    context = make_context()
    with mock.patch.object(
            objects.Instance, 'get_by_uuid',
            side_effect=exception.InstanceNotFound(instance_id=UUID)):
        read = through(serializer, objects.Instance(context, uuid=UUID),
                       context)
    assert (read.uuid, read.deleted) == (UUID, True)


def test_build_request_is_read_afresh(serializer):
    with mock.patch.object(objects.BuildRequest,
                           'get_by_instance_uuid') as get:
        assert through(
            serializer, objects.BuildRequest(instance_uuid=UUID),
            'context') is get.return_value
    get.assert_called_once_with('context', UUID)


def test_build_request_that_was_deleted(serializer):
    """To destroy it says so once more, as it says to Nova."""
    context = make_context()
    with mock.patch.object(
            objects.BuildRequest, 'get_by_instance_uuid',
            side_effect=exception.BuildRequestNotFound(uuid=UUID)):
        read = through(serializer,
                       objects.BuildRequest(instance_uuid=UUID), context)
    assert read.instance_uuid == UUID
    assert not read.obj_attr_is_set('instance')
    with mock.patch.object(
            objects.BuildRequest, '_destroy_in_db',
            side_effect=exception.BuildRequestNotFound(uuid=UUID)):
        with pytest.raises(exception.BuildRequestNotFound):
            read.destroy()


@pytest.mark.parametrize('in_cell', (True, False))
def test_migration_is_read_afresh(serializer, in_cell):
    """By an administrator, as Nova does: a user may move a server, too."""
    context = make_context()
    with cells(), mock.patch.object(objects.Migration, 'get_by_uuid') as get:
        migration = objects.Migration(
            ssm_objects.in_cell(context, CELL) if in_cell else context,
            uuid=UUID)
        assert through(serializer, migration, context) is get.return_value
    read_with, uuid = get.call_args.args
    assert uuid == UUID
    assert read_with.is_admin and not context.is_admin
    assert read_with.cell_uuid == (CELL.uuid if in_cell else None)


def test_migration_that_is_gone_keeps_its_name(serializer):
    context = make_context()
    with mock.patch.object(
            objects.Migration, 'get_by_uuid',
            side_effect=exception.MigrationNotFound(migration_id=UUID)):
        read = through(serializer, objects.Migration(context, uuid=UUID),
                       context)
    assert (read.uuid, read.deleted) == (UUID, True)


@pytest.mark.parametrize('in_cell', (True, False))
def test_context_stays_in_its_cell(serializer, in_cell):
    with cells():
        context = make_context()
        if in_cell:
            context = ssm_objects.in_cell(context, CELL)
        read = through(serializer, context)
    assert read.cell_uuid == (CELL.uuid if in_cell else None)
    assert read.request_id == context.request_id


def test_context_of_the_first_release_has_no_cell():
    value = ssm_objects._dump_context(make_context())
    del value['cell']
    assert ssm_objects._load_context(value, None).cell_uuid is None


def test_cell_does_not_tell_its_password(serializer):
    cell = objects.CellMapping(
        uuid=CELL.uuid, database_connection='mysql://nova:pass@db/nova')
    with cells() as get:
        packed = serializer.pack(cell)
        assert serializer.unpack(packed) is CELL
    get.assert_called_once_with(None, CELL.uuid)
    assert b'pass' not in zlib.decompress(packed)


# -- what lives in the request only ---------------------------------------

def primitive(obj):
    """What goes over the bus, in an order that two objects share."""
    return json.dumps(ordered(obj.obj_to_primitive()), sort_keys=True,
                      default=str)


def ordered(plain):
    if isinstance(plain, dict):
        # The names of what has changed come from a set.
        return {key: sorted(value) if key == 'nova_object.changes'
                else ordered(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [ordered(item) for item in plain]
    return plain


TEXT = strategies.text(max_size=20)
NUMBER = strategies.integers(0, 2 ** 31)
UUIDS = strategies.uuids(version=4).map(str)


def maybe(strategy):
    return strategies.none() | strategy


FLAVORS = strategies.builds(
    objects.Flavor, id=NUMBER, name=TEXT, memory_mb=NUMBER, vcpus=NUMBER,
    root_gb=NUMBER, ephemeral_gb=NUMBER, flavorid=TEXT, swap=NUMBER,
    rxtx_factor=strategies.floats(0, 10), vcpu_weight=NUMBER,
    disabled=strategies.booleans(), is_public=strategies.booleans(),
    extra_specs=strategies.dictionaries(TEXT, TEXT, max_size=3),
    description=maybe(TEXT),
    created_at=maybe(strategies.datetimes(
        min_value=datetime.datetime(2000, 1, 1),
        timezones=strategies.just(datetime.UTC))))
GROUPS = strategies.builds(
    objects.RequestGroup, requester_id=maybe(TEXT),
    use_same_provider=strategies.booleans(),
    resources=strategies.dictionaries(
        strategies.just('CUSTOM_X'), NUMBER),
    provider_uuids=strategies.lists(UUIDS, max_size=2))
LIMITS = strategies.builds(
    objects.SchedulerLimits, numa_topology=strategies.none(),
    vcpu=maybe(NUMBER), disk_gb=maybe(NUMBER), memory_mb=maybe(NUMBER))
SPECS = strategies.builds(
    objects.RequestSpec, instance_uuid=UUIDS, project_id=TEXT,
    num_instances=NUMBER, availability_zone=maybe(TEXT), flavor=FLAVORS,
    force_hosts=maybe(strategies.lists(TEXT, max_size=2)),
    scheduler_hints=maybe(strategies.dictionaries(
        TEXT, strategies.lists(TEXT, max_size=2), max_size=2)),
    requested_resources=strategies.lists(GROUPS, max_size=2),
    limits=LIMITS,
    is_bfv=strategies.booleans())
SELECTIONS = strategies.builds(
    objects.Selection, compute_node_uuid=UUIDS, service_host=TEXT,
    nodename=TEXT, cell_uuid=UUIDS, allocation_request=maybe(TEXT),
    allocation_request_version=maybe(TEXT), availability_zone=maybe(TEXT),
    limits=maybe(LIMITS))
NETWORKS = strategies.builds(
    objects.NetworkRequestList, objects=strategies.lists(strategies.builds(
        objects.NetworkRequest, network_id=maybe(TEXT),
        port_id=maybe(UUIDS), tag=maybe(TEXT), arq_uuid=maybe(UUIDS),
        device_profile=maybe(TEXT)), max_size=3))
DISKS = strategies.builds(
    objects.BlockDeviceMappingList, objects=strategies.lists(
        strategies.builds(
            objects.BlockDeviceMapping, id=NUMBER, instance_uuid=UUIDS,
            source_type=strategies.just('volume'),
            destination_type=strategies.just('volume'),
            volume_id=maybe(UUIDS), attachment_id=maybe(UUIDS),
            boot_index=maybe(NUMBER), tag=maybe(TEXT),
            delete_on_termination=strategies.booleans()), max_size=3))
TAGS = strategies.builds(
    objects.TagList, objects=strategies.lists(strategies.builds(
        objects.Tag, resource_id=UUIDS, tag=TEXT), max_size=3))


@pytest.mark.parametrize('values', (
    FLAVORS, SPECS, SELECTIONS, NETWORKS, DISKS, TAGS), ids=(
        'flavor', 'request spec', 'selection', 'networks', 'disks', 'tags'))
@hypothesis.settings(max_examples=30, deadline=None, database=None,
                     suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(data=strategies.data())
def test_objects_are_written_whole(serializer, values, data):
    value = data.draw(values)
    read = through(serializer, value, make_context())
    assert type(read) is type(value)
    assert primitive(read) == primitive(value)


@hypothesis.settings(max_examples=20, deadline=None, database=None,
                     suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(spec=SPECS)
def test_legacy_dictionaries_with_objects_in_them(serializer, spec):
    """What compute and conductor say to each other about another try."""
    spec.obj_set_defaults()
    spec.security_groups = objects.SecurityGroupList()
    for name in ('image', 'instance_group', 'numa_topology', 'pci_requests',
                 'retry', 'force_nodes', 'ignore_hosts',
                 'requested_destination', 'user_id'):
        if not spec.obj_attr_is_set(name):
            setattr(spec, name, None)
    for legacy in (spec.to_legacy_filter_properties_dict(),
                   spec.to_legacy_request_spec_dict()):
        read = through(serializer, legacy, make_context())
        assert read.keys() == legacy.keys()
        for name, value in legacy.items():
            if hasattr(value, 'obj_to_primitive'):
                assert primitive(read[name]) == primitive(value)
            else:
                assert read[name] == value


def test_injected_files_are_secret(serializer):
    secret = serialization.Secret([('/etc/motd', 'aGVsbG8=')])
    packed = serializer.pack(secret)
    assert b'motd' not in zlib.decompress(packed)
    assert serializer.unpack(packed) == secret


# -- how they are written ---------------------------------------------------

def filled(cls, depth=0):
    """An object with something in each of its fields that takes anything."""
    made = cls()
    for name, field in cls.fields.items():
        values = [1, 'text', [], {}, True, UUID, '10.0.0.1', '10.0.0.0/24',
                  datetime.datetime.now(datetime.UTC), None]
        inner = getattr(field, 'objname', None)
        if inner and depth < 3:
            found = base.NovaObjectRegistry.obj_classes()[inner][0]
            one = filled(found, depth + 1)
            values = [one, [one, one], None]
        for value in values:
            with contextlib.suppress(Exception):
                setattr(made, name, value)
                break
    return made


def in_order(plain):
    """A written form whose changes, which are a set, are in an order."""
    if isinstance(plain, dict):
        return {key: sorted(value) if key.endswith('.changes')
                else in_order(value) for key, value in plain.items()}
    if isinstance(plain, (list, tuple)):
        return [in_order(value) for value in plain]
    return plain


NOVAS = sorted(base.NovaObjectRegistry.obj_classes())


@pytest.mark.parametrize('name', NOVAS)
def test_each_of_novas_objects_is_written_as_it_writes_itself(name):
    obj = filled(base.NovaObjectRegistry.obj_classes()[name][0])
    for _changed in (True, False):
        assert in_order(primitives.primitive(obj)) == in_order(
            obj.obj_to_primitive())
        obj.obj_reset_changes(recursive=False)
