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

"""A conductor in the world of live migrations, which can be killed."""

import copy

from nova import context as nova_context
from nova import exception
from nova import objects
from nova.objects import base as nova_base

from nova_ssm.engine import journal
from nova_ssm.engine import serialization
from nova_ssm.flows import live_migrate
from nova_ssm.tests.unit.engine import helpers
from nova_ssm.tests.unit.tasks import live_world


class Conductor(helpers.Process):
    """A conductor that can be killed; another one reads what it journaled."""

    flow_types = staticmethod(live_migrate.flow_types)
    world_type = live_world.LiveWorld

    def __init__(self, url, world):
        codec = serialization.Codec
        super().__init__(url, world, {
            flow.name: flow.factory
            for flow in self.flow_types(world.manager)},
            serializer=serialization.Serializer(
                nova_base.NovaObjectSerializer(), (
                    codec(live_world.Server, 'server',
                          lambda server: server.uuid,
                          lambda uuid, context: self._server(world, uuid)),
                    codec(objects.Migration, 'migration', lambda m: m.uuid,
                          lambda uuid, context: world._migration(
                              world.context.elevated(), uuid)),
                    codec(live_world.Spec, 'spec', lambda spec: {},
                          lambda value, context: live_world.Spec()),
                    codec(nova_context.RequestContext, 'context',
                          lambda context: None,
                          lambda value, context: copy.copy(world.context)))))

    def _after_commit(self, uuid, kind, atom, state):
        super()._after_commit(uuid, kind, atom, state)
        if self.world.kill_after_rows:
            self.kill()

    @staticmethod
    def _server(world, uuid):
        try:
            return world._record(world.context, uuid)
        except exception.InstanceNotFound:
            return live_world.Server(world, world.context, uuid=uuid,
                                     deleted=True)

    def migrate(self, destination=None):
        """Do what the workflow does for a request."""
        return self.runner.run(journal.FlowRequest(
            name='live_migrate_forced' if destination else 'live_migrate',
            context=self.world.context, subject=live_world.UUID, store={
                'instance': self._server(self.world, live_world.UUID),
                'migration_uuid': live_world.MIGRATION,
                'destination': destination, 'block_migration': None,
                'disk_over_commit': False,
                'request_spec': live_world.Spec(), 'owner': 'project'}))
