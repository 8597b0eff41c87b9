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

"""A world in which a compute has given up a move without a word."""

import contextlib
import types
from unittest import mock

from nova.compute import vm_states
from nova import exception
from nova import objects
import pytest

from nova_ssm.engine import queries
from nova_ssm.tasks import abandoned
from nova_ssm.tasks import abandoned_moves
from nova_ssm.tasks import untouched
from nova_ssm.tests.unit.tasks import live_world
from nova_ssm.tests.unit.tasks import resize_world
from nova_ssm.tests.unit.tasks import world as world_module

UUID, MIGRATION = live_world.UUID, live_world.MIGRATION
SOURCE, HELD, RP = live_world.SOURCE, live_world.HELD, live_world.RP
#: One that no conductor has taken yet.
NEXT_REQUEST = 'req-of-the-next-move'
#: Seconds: [DEFAULT] rpc_response_timeout.
TIMEOUT = 60


class Journal:
    """Which flows have ended when, on a clock that waits for nobody."""

    def __init__(self):
        self.now = 1000.0
        self.ended = {UUID: self.now}
        self.unfinished = []
        #: The states of the flows of the last move.
        self.states = ['SUCCESS']
        self.happens = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        for when, what in list(self.happens):
            if self.now >= when:
                self.happens.remove((when, what))
                what()

    def clock(self, db):
        return self.now

    def subjects_finished(self, db, names, since, until=None):
        return [uuid for uuid, at in self.ended.items()
                if at > since and (until is None or at <= until)]

    def look(self, cls, world):
        """Look after what a conductor has left that has just died."""
        cls(world.manager).execute(
            world.context, self.now - abandoned.window(),
            self.now + abandoned.window())

    def flows(self, db, subject, unfinished=False, limit=None,
              request_id=None):
        if unfinished:
            return [uuid for uuid in self.unfinished if uuid == subject]
        if request_id == NEXT_REQUEST:
            return []
        assert request_id == 'req-of-the-move'
        return [types.SimpleNamespace(state=state) for state in self.states]

    def subjects_unfinished(self, db, subjects, but):
        assert but == 'repair_'
        return set(self.unfinished) & set(subjects)


@pytest.fixture
def journal(monkeypatch):
    made = Journal()
    monkeypatch.setattr(abandoned, 'time', made)
    monkeypatch.setattr(abandoned_moves, 'time', made)
    monkeypatch.setattr(untouched, 'time', made)
    # Not in the time of the world, in which others wait.
    monkeypatch.setattr(abandoned.LookAfter, 'wait',
                        staticmethod(made.sleep))
    monkeypatch.setattr(abandoned, 'CONF', types.SimpleNamespace(
        rpc_response_timeout=TIMEOUT))
    for name in ('clock', 'subjects_finished', 'subjects_unfinished',
                 'flows'):
        monkeypatch.setattr(queries, name, getattr(made, name))
    return made


@contextlib.contextmanager
def with_migration(world, **values):
    world.manager.ssm = mock.Mock()
    migration = objects.Migration(
        world.context.elevated(), uuid=MIGRATION, instance_uuid=UUID,
        source_compute=SOURCE, source_node='source-node',
        dest_compute='host1', dest_node='host1-node',
        new_instance_type_id=resize_world.NEW, **values)
    migration.create()
    world.placement.held = {MIGRATION: {RP[SOURCE]: HELD},
                            UUID: {RP['host1']: HELD}}
    world.events[UUID].append(live_world.Event('compute_of_the_move'))
    world.last_action, world.last_request = 'migrate', 'req-of-the-move'
    with mock.patch.object(
            objects.MigrationList, 'get_by_filters',
            lambda context, filters, **sorting: objects.MigrationList(
                objects=[world._migration(context.elevated(), MIGRATION)]
            )), mock.patch.object(
                objects.InstanceActionList, 'get_by_instance_uuid',
                lambda context, uuid, limit: [types.SimpleNamespace(
                    request_id=world.last_request,
                    action=world.last_action)]):
        yield


def assert_given_back(world):
    assert world.placement.held == {UUID: {RP[SOURCE]: HELD}}
    assert world.migrations[MIGRATION]['status'] == 'error'
    assert (world.server.vm_state, world.server.task_state) == (
        vm_states.ACTIVE, None)
    [fault] = world.faults[UUID]
    assert type(fault.exc) is exception.MigrationError
    assert 'nova-conductor' in str(fault.exc)
    for event in world.events[UUID]:
        # What a compute has ended stays as that has said.
        assert (type(event.error) is exception.MigrationError or
                event.event in (abandoned_moves.ABORT_EVENT,
                                abandoned_moves.PREPARE_EVENT))


def assert_untouched(world, status, task_state):
    assert MIGRATION in world.placement.held
    assert world.migrations[MIGRATION]['status'] == status
    assert world.server.task_state == task_state
    assert not world.faults
    # What is over has no open events, whoever has left them open.
    assert {event.finish_time is None for event in world.events[UUID]} == {
        task_state is not None}
    assert not any(event.error for event in world.events[UUID])


def killed_at_each_step(world, look, journal):
    """Look until it is done, dying behind one more effect each time."""
    for moment in range(1, 30):
        journal.ended[UUID] = journal.now
        if not world.crash(moment, look, world):
            return
    pytest.fail('it never comes to its end')


@pytest.fixture
def mortal(monkeypatch):
    """Effects are where a conductor may die."""
    monkeypatch.setattr(live_world.LiveWorld, 'point', lambda world: (
        world_module.World.step(world, world.steps.pop())))
