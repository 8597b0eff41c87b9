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

"""How other services are rid of what they keep for servers in vain.

What it was is in the journal before it is changed; and who comes to need it
meanwhile has it again.
"""

from typing import Any

from nova import context as nova_context
from nova import exception
from nova.network import constants
from nova.network import neutron
from nova import objects
from oslo_log import log as logging

from nova_ssm.audit import allocations
from nova_ssm.audit import fates
from nova_ssm.audit import services
from nova_ssm import compat
from nova_ssm.tasks import audit_steps
from nova_ssm.tasks import base
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)


class Keep(base.NovaTask):
    """Put down in the journal what is to be changed.

    Recovery: do it again; nothing has been changed yet.
    """

    default_provides = 'held'

    def execute(self,
                details: types.Properties | None) -> types.Properties | None:
        return details

    def had_effect(self, result: Any) -> bool:
        # It has none; but the next task takes away what it has seen.
        return result is not None


class MoveBindings(base.NovaTask):
    """Let ports be active on the host of their server.

    Where they were active they stay bound, and are not active.

    Reversion strategy: let them be active where they were.
    Recovery: do it again; what is active there already stays so.
    """

    reversion = 'let the ports be active where they were'

    def execute(self, held: types.Properties | None) -> None:
        if held is None:
            return
        context = nova_context.get_admin_context()
        for one in held['bindings']:
            if services.binding(context, one['port'], one['host']) is None:
                continue        # somebody has bound it anew
            services.bind_there(context, one['port'],
                                {**one, 'host': held['host']})

    def revert(self, held: types.Properties | None, result: Any,
               flow_failures: types.Failures) -> None:
        if held is None:
            return
        context = nova_context.get_admin_context()
        for one in held['bindings']:
            if services.binding(context, one['port'], one['host']) is None:
                continue
            services.bind_there(context, one['port'], one)
            if not one['there']:
                self.manager.network_api.delete_port_binding(
                    context, one['port'], held['host'])


class RemoveBindings(base.NovaTask):
    """Remove bindings of ports to hosts where their server is not.

    One that has become active meanwhile stays.

    Reversion strategy: make them again.
    Recovery: do it again; what is removed stays removed.
    """

    reversion = 'bind the ports to these hosts again'

    def execute(self, held: types.Properties | None) -> None:
        context = nova_context.get_admin_context()
        for one in (held or {}).get('bindings', ()):
            now = services.binding(context, one['port'], one['host'])
            if now is not None and now.get('status') == 'INACTIVE':
                self.manager.network_api.delete_port_binding(
                    context, one['port'], one['host'])

    def revert(self, held: types.Properties | None, result: Any,
               flow_failures: types.Failures) -> None:
        context = nova_context.get_admin_context()
        for one in (held or {}).get('bindings', ()):
            if services.binding(context, one['port'], one['host']) is None:
                services.bind(context, one['port'], one)


class CheckMoving(audit_steps.Look):
    """See that nobody has begun to move the server.

    :raises Uncertain: if somebody has, or if that cannot be seen: then its
        ports are bound as they were
    """

    effect = False

    def execute(self, held: types.Properties | None) -> None:
        if held is None:
            return
        look = self.survey()
        cell = objects.CellMapping.get_by_uuid(look.context, held['cell'])
        if look.owned([held['server']]) or allocations.is_moving(
                look, held['server'], cell):
            raise self.changed('somebody moves server %s' % held['server'])


class UnbindPort(base.NovaTask):
    """Take a port from a server that is no more, as Nova does.

    It is not deleted: who made it cannot be told.

    Reversion strategy: let it be the server's again.
    Recovery: do it again; a port that somebody else has by then is left.
    """

    reversion = "let the port be the server's again"

    def execute(self, subject: str, held: types.Properties | None) -> None:
        context = nova_context.get_admin_context()
        if held is None or not self._is_ours(context, subject, held):
            return
        client = neutron.get_client(context, admin=True)
        self.manager.network_api._unbind_ports(context, [subject], client,
                                               client)
        # It logs what goes wrong, and goes on.
        if self._is_ours(context, subject, held):
            raise exception.PortUpdateFailed(port_id=subject,
                                             reason='it is still bound')

    @staticmethod
    def _is_ours(context: types.Context, port: str,
                 held: types.Properties) -> bool:
        return any(one['device_id'] == held['server'] for one in
                   services.ports(context, id=[port]))

    def revert(self, subject: str, held: types.Properties | None,
               result: Any, flow_failures: types.Failures) -> None:
        if held is None:
            return
        context = nova_context.get_admin_context()
        for one in services.ports(context, id=[subject]):
            if not one['device_id']:
                services.change_port(context, subject, {
                    name: value for name, value in held['was'].items()
                    if value or name != constants.BINDING_HOST_ID})


class DeleteAccelerator(base.NovaTask):
    """Delete an accelerator request, which frees what it is bound to.

    Reversion strategy: none, it is the last step.
    Recovery: do it again, if it is still there.
    """

    def execute(self, subject: str, held: types.Properties | None) -> None:
        context = nova_context.get_admin_context()
        if held is None or not self._is_there(context, subject):
            return
        client = compat.accelerator_client(context)
        client.delete_arqs_by_uuid([subject])
        # It logs what goes wrong, and goes on.
        if self._is_there(context, subject):
            raise exception.AcceleratorRequestOpFailed(
                op='delete', msg='it is still there')

    @staticmethod
    def _is_there(context: types.Context, uuid: str) -> bool:
        return any(one['uuid'] == uuid
                   for one in services.accelerators(context))


class DeleteAttachment(base.NovaTask):
    """Delete the attachment of a volume.

    Reversion strategy: reserve the volume for the server again; a
    connection of a host is not made again.
    Recovery: do it again; what is gone stays gone.
    """

    reversion = 'reserve the volume for the server again'

    def execute(self, subject: str, held: types.Properties | None) -> None:
        context = nova_context.get_admin_context()
        if held is not None and self._is_there(context, subject):
            self.manager.volume_api.attachment_delete(context, subject)

    @staticmethod
    def _is_there(context: types.Context, uuid: str) -> bool:
        return any(True for _ in services.attachments(context, [uuid]))

    def revert(self, subject: str, held: types.Properties | None,
               result: Any, flow_failures: types.Failures) -> None:
        if held is None:
            return
        context = nova_context.get_admin_context()
        volume, server = held['was']['volume_id'], held['server']
        if any(one['volume_id'] == volume and one.get('instance') == server
               for one in services.attachments(context)):
            return
        self.manager.volume_api.attachment_create(context, volume, server)


class CheckGone(audit_steps.Look):
    """See that the server has not come to life.

    :raises Uncertain: if it has, or if that cannot be seen: then it has
        again what was taken
    """

    effect = False

    def execute(self, held: types.Properties | None) -> None:
        if held is None:
            return
        server = held['server']
        fate = fates.fates(self.survey(), {server}).get(server)
        if fate in (None, fates.Fate.LIVES):
            raise self.changed('server %s came to life' % server)
