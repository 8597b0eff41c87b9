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

"""Building servers: a parent flow a request, a child flow a server."""

from taskflow import flow as taskflow_flow
from taskflow.patterns import linear_flow

from nova_ssm.engine import registry
from nova_ssm.tasks import abandoned
from nova_ssm.tasks import accelerators
from nova_ssm.tasks import children
from nova_ssm.tasks import compute
from nova_ssm.tasks import instances
from nova_ssm.tasks import placement
from nova_ssm.tasks import scheduling
from nova_ssm.tasks import steering
from nova_ssm.tasks import types
from nova_ssm.tasks import volumes


def schedule_and_build(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for all servers of a request together.

    1. choose and claim their hosts
    2. create their records in the cells of the hosts
    3. check the quota again
    4. post a flow for each of them
    """
    return linear_flow.Flow('schedule_and_build_instances').add(
        scheduling.ScheduleInstances(manager),
        instances.CreateInstances(manager),
        instances.RecheckQuota(manager),
        children.SpawnBuilds(manager),
    )


def build_instance(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for one server that has a host and a record.

    1. work out what the compute has to be told
    2. tell of the new server, create its disks' records and its tags
    3. point the API at its record, delete its build request
    4. create its accelerator requests
    5. tell the compute to build it

    The mapping comes before the build request goes: a user can always see,
    and delete, the server by one of them.
    """
    return linear_flow.Flow('build_instance').add(
        instances.ServerToErrorOnRevert(manager),
        scheduling.PrepareBuild(manager),
        instances.StartBuildAction(manager),
        volumes.CreateBlockDeviceMappings(manager),
        instances.CreateTags(manager),
        instances.MapInstance(manager),
        instances.DeleteBuildRequest(manager),
        accelerators.CreateArqs(manager),
        compute.CastBuild(manager),
    )


def reschedule_instance(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done for a server whose compute has failed to build it.

    1. see whether it may be tried again
    2. claim the next alternate host, put down its zone
    3. reserve its volumes again, create its accelerator requests
    4. tell the compute of that host to build it
    """
    return linear_flow.Flow('reschedule_instance').add(
        instances.RescheduleToErrorOnRevert(manager),
        scheduling.CheckRetries(manager),
        placement.ClaimAlternate(manager),
        instances.SetAvailabilityZone(manager),
        scheduling.PrepareRebuild(manager),
        volumes.ReattachVolumes(manager),
        accelerators.CreateArqs(manager),
        compute.CastBuild(manager),
    )


def fail_abandoned_builds(manager: types.Manager) -> taskflow_flow.Flow:
    """What is done once for each conductor that died while servers were built.

    1. put servers into ERROR that a compute gave up, since its call to that
       conductor was not answered
    """
    return linear_flow.Flow('fail_abandoned_builds').add(
        abandoned.FailAbandonedBuilds(manager),
    )


def flow_types(manager: types.Manager) -> list[registry.FlowType]:
    """The flows of this operation, for the registry."""
    return [
        # 1.1: the servers' records leave no row of their own.
        registry.FlowType('schedule_and_build_instances', '1.1',
                          lambda: schedule_and_build(manager),
                          cancelled=steering.build_cancelled,
                          instead=steering.BUILD_INSTEAD),
        # 1.1: some of its tasks leave no row of their own; 1.2: nor do the
        # disks' records.
        registry.FlowType('build_instance', '1.2',
                          lambda: build_instance(manager),
                          cancelled=steering.build_cancelled,
                          instead=steering.BUILD_INSTEAD),
        # 1.1: ReattachVolumes is undone, too.
        registry.FlowType('reschedule_instance', '1.1',
                          lambda: reschedule_instance(manager),
                          cancelled=steering.build_cancelled,
                          instead=steering.BUILD_INSTEAD),
        registry.FlowType('fail_abandoned_builds', '1.0',
                          lambda: fail_abandoned_builds(manager),
                          instead=steering.FOR_A_WORKER),
    ]
