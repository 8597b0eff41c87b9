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

"""The options of section [nova_ssm] in tempest.conf."""

from oslo_config import cfg

service_option = cfg.BoolOpt(
    'nova_ssm', default=False,
    help='Whether nova-conductor runs its operations as task graphs.')

nova_ssm_group = cfg.OptGroup('nova_ssm', title='Durable workflows of Nova')

nova_ssm_opts = [
    cfg.ListOpt('workflows', default=['build_instances', 'resize',
                                      'live_migrate'],
                help='The operations that run as task graphs.'),
    cfg.BoolOpt('task_events', default=True,
                help='Whether tasks are events of the action of a server.'),
    cfg.StrOpt('nova_ssm_command',
               help='How nova-ssm is called here, with its --config-file. '
                    'Tests that read the journal need it.'),
    cfg.StrOpt('kill_command',
               help='Kills one of several conductors with SIGKILL. Tests '
                    'that kill need it.'),
    cfg.StrOpt('start_command', help='Starts that one again.'),
    cfg.IntOpt('kill_tries', default=6,
               help='How often to kill it, at the most, until it was in the '
                    'middle of a build.'),
]
