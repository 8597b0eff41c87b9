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

"""A resize that fails leaves the request spec as the server is."""

import types

from nova import context as nova_context
from nova import exception
from nova import objects
import pytest

from nova_ssm.tasks import moves
from nova_ssm.tasks import resize
from nova_ssm.tests.unit.tasks import resize_world

OLD, NEW = resize_world.OLD, resize_world.NEW


def _flavor(number, nodes):
    made = resize_world.flavor(number)
    made.vcpus = 4
    made.extra_specs = {'hw:numa_nodes': str(nodes)} if nodes else {}
    return made


def _spec(number, nodes):
    """A request spec that asks for so many NUMA nodes; none: None."""
    made = resize_world.spec(number)
    moves.ask_for(made, types.SimpleNamespace(
        flavor=_flavor(number, nodes),
        image_meta=objects.ImageMeta.from_dict({})))
    made.obj_reset_changes(recursive=True)
    return made


@pytest.fixture
def saved(monkeypatch):
    """The request specs that are put down."""
    found = []
    monkeypatch.setattr(objects.RequestSpec, 'save',
                        lambda spec: found.append(spec))
    return found


def _revert(monkeypatch, given, server, result=True):
    """Undo it for a server with a flavor, or for none."""
    monkeypatch.setattr(moves, 'current', lambda context, uuid: server)
    resize.SaveRequestSpec(None).revert(
        nova_context.RequestContext(is_admin=False),
        types.SimpleNamespace(uuid=resize_world.UUID), given, result, {})


def _server(number, nodes):
    return types.SimpleNamespace(
        flavor=_flavor(number, nodes),
        image_meta=objects.ImageMeta.from_dict({}))


def _cells(spec):
    return spec.numa_topology and len(spec.numa_topology.cells)


@pytest.mark.parametrize('old', [0, 1, 2])
@pytest.mark.parametrize('new', [0, 1, 2])
def test_it_asks_for_the_flavor_and_the_topology_of_the_server(
        monkeypatch, saved, old, new):
    # The compute that could not take it has given it back as it got it.
    given = _spec(NEW, new)
    _revert(monkeypatch, given, _server(OLD, old))
    [spec] = saved
    assert spec.flavor.id == OLD
    assert _cells(spec) == (old or None)
    # Other tasks are undone with what the request was.
    assert (given.flavor.id, _cells(given)) == (NEW, new or None)


def test_it_is_put_down_once_more_if_that_is_repeated(monkeypatch, saved):
    for _time in range(2):
        _revert(monkeypatch, _spec(NEW, 2), _server(OLD, 1))
    assert [_cells(spec) for spec in saved] == [1, 1]


@pytest.mark.parametrize('server, result', [
    (None, True), (_server(OLD, 1), False)])
def test_there_is_nothing_to_put_down(monkeypatch, saved, server, result):
    _revert(monkeypatch, _spec(NEW, 2), server, result)
    assert saved == []


def test_a_request_spec_that_is_gone_is_left(monkeypatch):
    def save(spec):
        raise exception.RequestSpecNotFound(instance_uuid=resize_world.UUID)

    monkeypatch.setattr(objects.RequestSpec, 'save', save)
    _revert(monkeypatch, _spec(NEW, 2), _server(OLD, 1))
