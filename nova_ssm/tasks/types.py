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

"""Short names of what tasks take and give, for their signatures."""

from typing import Any, TypeAlias

from nova.conductor import manager
from nova import context as nova_context
from nova import objects
from nova.objects import migrate_data
from taskflow.types import failure as taskflow_failure

from nova_ssm.engine import serialization

Manager: TypeAlias = manager.ComputeTaskManager
Context: TypeAlias = nova_context.RequestContext

BuildRequest: TypeAlias = objects.BuildRequest
Cell: TypeAlias = objects.CellMapping
Disks: TypeAlias = objects.BlockDeviceMappingList
Flavor: TypeAlias = objects.Flavor
Instance: TypeAlias = objects.Instance
Migration: TypeAlias = objects.Migration
Networks: TypeAlias = objects.NetworkRequestList | None
RequestSpec: TypeAlias = objects.RequestSpec
Selection: TypeAlias = objects.Selection
Tags: TypeAlias = objects.TagList | None

#: What the computes of a live migration have agreed on.
MigrateData: TypeAlias = migrate_data.LiveMigrateData
#: What a consumer holds in placement, by resource provider.
Held: TypeAlias = dict[str, Any] | None
#: Resource providers by request group.
ProviderMapping: TypeAlias = dict[str, list[str]]

#: The conductor that a compute is calling, which waits for the answer, and
#: the former state of the server; None if nobody waits.
Caller: TypeAlias = dict[str, str] | None

#: Plain JSON, beside the objects that Nova's legacy dictionaries hold.
Properties: TypeAlias = dict[str, Any]
Secret: TypeAlias = serialization.Secret

#: What TaskFlow tells a task that it reverts: failures by task.
Failures: TypeAlias = dict[str, taskflow_failure.Failure]
