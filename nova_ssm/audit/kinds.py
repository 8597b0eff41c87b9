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

"""All kinds of things that an audit looks for."""

from collections.abc import Callable, Collection, Iterator
import dataclasses
from typing import TypeAlias

from nova_ssm.audit import allocations
from nova_ssm.audit import belongings
from nova_ssm.audit import builds
from nova_ssm.audit import events
from nova_ssm.audit import failures
from nova_ssm.audit import findings
from nova_ssm.audit import live
from nova_ssm.audit import moves
from nova_ssm.audit import records
from nova_ssm.audit import resizes
from nova_ssm.audit import survey

_Find: TypeAlias = Callable[
    [survey.Survey, Collection[str] | None], Iterator[findings.Finding]]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of finding.

    :param find: looks for it, everywhere or at some subjects
    :param flow: the name of the flow that repairs it
    :param quick: whether it costs so little that each conductor may look
        again and again
    """

    name: str
    about: str
    find: _Find
    flow: str
    quick: bool = False


def _kind(name: str, about: str, find: _Find, quick: bool = False) -> Kind:
    return Kind(name, about, find,
                survey.REPAIRS + name.replace('-', '_'), quick)


KINDS = {kind.name: kind for kind in (
    _kind(builds.LOST, 'servers that were asked for, and nobody builds',
          builds.lost, quick=True),
    _kind(builds.STUCK, 'servers that wait for a host, and nobody looks '
          'for one', builds.stuck, quick=True),
    _kind(moves.LOST, 'servers whose move was asked for, and never begun',
          moves.lost, quick=True),
    _kind(moves.STUCK, 'servers whose move was begun, and nobody goes on',
          moves.stuck),
    _kind(live.STUCK, 'servers whose live migration a compute has let go',
          live.stuck, quick=True),
    _kind(resizes.STUCK, 'servers whose resize its destination has not '
          'finished', resizes.stuck, quick=True),
    _kind(failures.UNTOLD, 'servers that have failed, and have no fault',
          failures.untold, quick=True),
    _kind(events.ENDLESS, 'servers at rest whose actions have no end',
          events.endless, quick=True),
    _kind(allocations.ORPHAN, 'allocations without a server or migration',
          allocations.orphans, quick=True),
    _kind(allocations.MISPLACED, 'servers with allocations on hosts where '
          'they are not', allocations.misplaced),
    _kind(records.MAPPING, 'instance mappings without an instance, or a '
          'request for one', records.mappings),
    _kind(records.MIGRATION, 'migrations without an end',
          records.migrations, quick=True),
    _kind(belongings.BINDING, 'ports that are bound to hosts where their '
          'server is not', belongings.bindings, quick=True),
    _kind(belongings.MISPLACED, 'ports that are active on hosts where their '
          'server is not', belongings.misplaced, quick=True),
    _kind(belongings.PORT, 'ports of servers that are no more',
          belongings.ports),
    _kind(belongings.ACCELERATOR, 'accelerator requests without a server',
          belongings.accelerators),
    _kind(belongings.ATTACHMENT, 'attachments of volumes without a server',
          belongings.attachments),
)}
