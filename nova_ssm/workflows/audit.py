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

"""Looking after what no flow works on: in each conductor, and on demand."""

from collections.abc import Iterable
import time

from nova.conductor import manager as conductor_manager
from nova import context as nova_context
from oslo_config import cfg

from nova_ssm.audit import auditor
from nova_ssm.audit import certainty
from nova_ssm.audit import survey
from nova_ssm.engine import registry
from nova_ssm.engine import runner as runner_module
from nova_ssm.flows import audit as flows
from nova_ssm import plugins

CONF = cfg.CONF

#: Seconds after which who was handed a request is at beginning its flow.
_HANDED = 0.2


class Audit(plugins.Workflow):
    """Repairs what was lost before a journal knew of it.

    It is there whenever another one is.
    """

    methods = ('ssm_answer',)

    def __init__(self, manager: conductor_manager.ComputeTaskManager,
                 runner: runner_module.Runner) -> None:
        super().__init__(manager, runner)
        self._inquiry = certainty.Inquiry(self.runner)
        self._auditor: auditor.Auditor | None = None

    def flow_types(self) -> Iterable[registry.FlowType]:
        return flows.flow_types(self.manager, self._inquiry)

    def start(self) -> None:
        """Look for what is lost, from now on."""
        if CONF.ssm.audit_interval and self._auditor is None:
            self._auditor = auditor.Auditor(
                self.runner, CONF.ssm.audit_interval, self._survey,
                tell=self.manager.ssm.telemetry.audited,
                note=self._inquiry.note)
            self._auditor.start()
            self.manager.ssm.on_stop.append(self._auditor.stop)

    def _survey(self) -> survey.Survey:
        return survey.Survey(self.runner.db, auditor.AGE,
                             lambda: self.manager.report_client)

    def ssm_answer(self, context: nova_context.RequestContext) -> str:
        """Say who we are, when all that we were given before has begun."""
        time.sleep(_HANDED)
        self.runner.starts.wait()
        return self.runner.worker.id
