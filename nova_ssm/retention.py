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

"""For how long flows are kept that are over."""

from oslo_config import cfg
from oslo_messaging import opts as messaging_options

from nova_ssm.engine import purge
from nova_ssm import exception


def ages(conf: cfg.ConfigOpts) -> purge.Ages:
    """For how long flows are kept, as ``[ssm]`` says.

    :raises ConfigurationError: if conductors would miss them
    """
    return purge.Ages(*(
        checked(conf, '[ssm] ' + name, conf.ssm[name])
        if conf.ssm[name] else None
        for name in ('keep_finished', 'keep_failed')))


def checked(conf: cfg.ConfigOpts, name: str, age: float) -> float:
    """An age at which flows may go, in seconds.

    :param name: what the operator has set it with
    :raises ConfigurationError: if conductors would miss them
    """
    if age < look_back(conf):
        raise exception.ConfigurationError(
            '%s is too short (%d seconds): conductors look back for %d '
            'seconds at what has ended, because of [DEFAULT] '
            'rpc_response_timeout' % (name, age, look_back(conf)))
    return age


def look_back(conf: cfg.ConfigOpts) -> float:
    """For how many seconds conductors look back at flows that have ended.

    See :mod:`nova_ssm.tasks.abandoned`.
    """
    # Nova has registered it; a command of ours may not have.
    conf.register_opts([option for _group, options in
                        messaging_options.list_opts() for option in options
                        if option.name == 'rpc_response_timeout'])
    return 3 * (conf.rpc_response_timeout + 10)
