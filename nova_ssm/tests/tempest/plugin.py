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

"""Tells tempest what there is: an entry point in tempest.test_plugins."""

import pathlib

from tempest import config
from tempest.test_discover import plugins

from nova_ssm.tests.tempest import config as ours


class NovaSSMTempestPlugin(plugins.TempestPlugin):
    """The tests of nova_ssm."""

    def load_tests(self):
        here = pathlib.Path(__file__).resolve().parent
        # The tests, and the directory that their package is in.
        return str(here), str(here.parents[2])

    def register_opts(self, conf):
        conf.register_opt(ours.service_option, group='service_available')
        config.register_opt_group(conf, ours.nova_ssm_group,
                                  ours.nova_ssm_opts)

    def get_opt_lists(self):
        return [(ours.nova_ssm_group.name, ours.nova_ssm_opts),
                ('service_available', [ours.service_option])]
