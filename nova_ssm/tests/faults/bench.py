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

"""Runs one case, and looks at everything behind it."""

import dataclasses
import time
import traceback

from nova_ssm.tests.faults import invariants
from nova_ssm.tests.faults import plan as plan_module
from nova_ssm.tests.faults import variants
from nova_ssm.tests.faults import world as world_module

#: In how many servers a world may have had before there is a new one.
_OLD = 150


@dataclasses.dataclass
class Result:
    """What has become of a case.

    :param findings: what was not as it should be; empty: it has held
    :param seen: what happened, as in :class:`plan.Seen`
    :param struck: whether all that was to go wrong did
    :param cpu: seconds of CPU; a new world before it is counted with it
    """

    case: str
    findings: list[str] = dataclasses.field(default_factory=list)
    seen: list[plan_module.Seen] = dataclasses.field(default_factory=list)
    struck: bool = True
    seconds: float = 0.0
    cpu: float = 0.0

    @property
    def held(self) -> bool:
        return not self.findings


class Bench:
    """Runs cases in one world after the other.

    :param workflows: empty: stock Nova
    """

    def __init__(self, workflows: tuple[str, ...] =
                 world_module.WORKFLOWS) -> None:
        self._workflows = workflows
        self._world: world_module.World | None = None
        self._used = 0

    def close(self) -> None:
        """Clear the world away."""
        if self._world is not None:
            self._world.cleanUp()
            self._world = None

    def world(self) -> world_module.World:
        """A world in which there is nothing."""
        if self._world is None:
            self._world = world_module.World(self._workflows)
            self._world.setUp()
            self._used = 0
            # What is done but once, such as filling a cache, no case sees.
            warm = Result('')
            self._run(self._world, plan_module.Case('build'),
                      plan_module.Plan(), warm)
            if warm.findings:
                raise RuntimeError('\n'.join(warm.findings))
        return self._world

    def run(self, case: plan_module.Case) -> Result:
        """Run a case; what is found is told, and nothing raised."""
        began, worked = time.monotonic(), time.process_time()
        result = Result(str(case))
        try:
            world = self.world()
            plan = plan_module.Plan(case.faults)
            self._run(world, case, plan, result)
            result.seen = plan.seen
            result.struck = not plan.missed
        except Exception:  # noqa: BLE001 - told with the case
            result.findings.append(traceback.format_exc())
        self._used += 1
        if result.findings or self._used >= _OLD:
            # What was left behind is no other case's.
            self.close()
        result.seconds = time.monotonic() - began
        result.cpu = time.process_time() - worked
        return result

    def _run(self, world: world_module.World, case: plan_module.Case,
             plan: plan_module.Plan, result: Result) -> None:
        variant = variants.VARIANTS[case.variant]
        world_module.prefer(*variant.hosts)
        world.begin(plan_module.Plan())
        servers = variant.prepare(world)
        world.idle()
        world.begin(plan)
        with variant.weather(world):
            servers = variant.go(world, servers)
            world.idle()
            world.recover()
            if case.lost:
                world.audit()
        result.findings += invariants.Look(
            world, servers, variant.may_end(case)).all()
        self._clear(world, result, servers)

    def _clear(self, world: world_module.World, result: Result,
               servers: list[str]) -> None:
        """Delete the servers; nothing is left of them."""
        world.begin(plan_module.Plan())
        for server in servers:
            world.api.delete_server(server)
        world.idle()
        result.findings += ['deleted: ' + text for text in
                            invariants.Look(world, [], []).all()]
        world.forget()
