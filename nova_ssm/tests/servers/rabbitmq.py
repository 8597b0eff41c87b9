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

"""RabbitMQ, as Debian's rabbitmq-server brings it."""

from collections.abc import Sequence

import amqp

from nova_ssm.tests.servers import base


class _Epmd(base.Server):
    """Where the nodes of an Erlang find each other; no node starts without.

    One that a node starts by itself would outlive it, and serve all of the
    machine.
    """

    package = 'erlang-base'
    program = 'epmd'

    def command(self) -> Sequence[str]:
        return [self.program, '-address', base.HOST, '-port', str(self.port)]


class RabbitMQ(base.Server):
    """One broker without plugins; guest may do all."""

    package = 'rabbitmq-server'
    # Not the one in /usr/sbin, which becomes another user.
    program = '/usr/lib/rabbitmq/bin/rabbitmq-server'

    def __init__(self) -> None:
        super().__init__()
        self._epmd = _Epmd()
        self._distribution = base.free_port()

    def start(self) -> None:
        if not self._epmd.running:
            self._epmd.start()
        super().start()

    def remove(self) -> None:
        super().remove()
        self._epmd.remove()

    def prepare(self) -> None:
        for name, text in {
                'rabbitmq.conf': 'listeners.tcp.1 = %s:%d\n' % (
                    base.HOST, self.port),
                'rabbitmq-env.conf': '', 'plugins': '[].\n'}.items():
            (self.home / name).write_text(text)
            base.own(self.home / name)

    def command(self) -> Sequence[str]:
        return [self.program]

    def environment(self) -> dict[str, str]:
        return super().environment() | {
            'RABBITMQ_NODENAME': 'nova-ssm-%d@localhost' % self.port,
            'RABBITMQ_DIST_PORT': str(self._distribution),
            'RABBITMQ_MNESIA_BASE': str(self.home / 'data'),
            'RABBITMQ_LOG_BASE': str(self.home / 'logs'),
            'RABBITMQ_CONFIG_FILE': str(self.home / 'rabbitmq.conf'),
            'RABBITMQ_CONF_ENV_FILE': str(self.home / 'rabbitmq-env.conf'),
            'RABBITMQ_ENABLED_PLUGINS_FILE': str(self.home / 'plugins'),
            'RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS':
                '-kernel inet_dist_use_interface {127,0,0,1} +S 2:2',
            'ERL_EPMD_ADDRESS': base.HOST,
            'ERL_EPMD_PORT': str(self._epmd.port),
            # The broker is the process itself, not a child of a shell.
            'RUNNING_UNDER_SYSTEMD': 'true',
        }

    def ready(self) -> bool:
        try:
            with amqp.Connection('%s:%d' % (base.HOST, self.port),
                                 connect_timeout=2, read_timeout=2):
                return True
        except (OSError, amqp.AMQPError):
            return False

    @property
    def url(self) -> str:
        """For ``[DEFAULT] transport_url``."""
        return 'rabbit://guest:guest@%s:%d/' % (base.HOST, self.port)
