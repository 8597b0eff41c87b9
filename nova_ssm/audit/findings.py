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

"""What an audit finds: things that nobody looks after any more."""

from collections.abc import Collection
import dataclasses
import hashlib
import json
from typing import Any


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    :param kind: which one of :data:`nova_ssm.audit.kinds.KINDS`
    :param subject: the uuid of what is stuck, or left
    :param since: seconds since the epoch, on the clock of who wrote it last;
        None if nobody wrote that down
    :param what: what is the matter
    :param why: how it came to that
    :param remedy: what a repair would do
    :param safe: whether that needs nobody's consent
    :param state: what must not have changed until it is repaired
    :param details: what a repair has to know, plain JSON
    """

    kind: str
    subject: str
    what: str
    why: str
    remedy: str
    safe: bool
    state: tuple[Any, ...]
    server: str | None = None
    project: str | None = None
    since: float | None = None
    details: dict[str, Any] = dataclasses.field(
        default_factory=dict, compare=False, hash=False)

    @property
    def key(self) -> tuple[str, str]:
        """Names it among all findings."""
        return (self.kind, self.subject)

    @property
    def group(self) -> tuple[str, str]:
        """Names what is repaired together: the servers of one request."""
        return (self.kind, self.details['group'])

    @property
    def mark(self) -> str:
        """Stands for its state: the same as long as nobody touches it."""
        return hashlib.sha256(json.dumps(
            self.state, default=str).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Filter:
    """Which findings are asked for; empty ones ask for all.

    :param older: seconds for which nobody may have touched it
    """

    kinds: frozenset[str] = frozenset()
    projects: frozenset[str] = frozenset()
    servers: frozenset[str] = frozenset()
    older: float = 0.0

    def wants(self, finding: Finding, now: float) -> bool:
        """Whether a finding is one of those."""
        return (_among(finding.kind, self.kinds) and
                _among(finding.project, self.projects) and
                _among(finding.server, self.servers) and
                (finding.since is None or
                 finding.since <= now - self.older))


def _among(value: Any, wanted: Collection[Any]) -> bool:
    return not wanted or value in wanted
