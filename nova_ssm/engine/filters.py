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

"""Which flows people ask for; found by an index, however many there are."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import sqlalchemy as sa

from nova_ssm.engine import schema
from nova_ssm.engine import states

_F = schema.flows.c

#: States of what has not done what it was to do.
FAILED = (states.REVERTED, states.FAILURE, states.KILLED)


@dataclasses.dataclass(frozen=True)
class Filters:
    """Only the flows of which all of this is true.

    :param unfinished: that are not over
    :param subject: that work on it, e.g. the uuid of a server
    :param name: of this name, e.g. resize
    :param state: in this state, one of nova_ssm.engine.states
    :param owner: run by this worker, or by one on this host
    :param failed: that were reverted, given up, or could not be undone
    :param older: begun so many seconds ago, or before
    :param newer: begun since then
    :param parent: posted by this flow
    """

    unfinished: bool = False
    subject: str | None = None
    request_id: str | None = None
    project_id: str | None = None
    name: str | None = None
    state: str | None = None
    owner: str | None = None
    failed: bool = False
    older: float | None = None
    newer: float | None = None
    parent: str | None = None

    def chosen(self, limit: int, *conditions: Any) -> Iterator[sa.Select]:
        """Their uuids and times, newest first: each query by one index.

        What several of them find is to be put together.

        :param conditions: further ones
        """
        wanted = [column == value for column, value in (
            (_F.subject, self.subject), (_F.request_id, self.request_id),
            (_F.project_id, self.project_id), (_F.name, self.name),
            (_F.parent_uuid, self.parent)) if value]
        if self.owner:
            wanted.append(sa.or_(
                _F.owner == self.owner,
                _F.owner.startswith(self.owner + ':', autoescape=True)))
        if self.older is not None:
            wanted.append(_F.created_at <= schema.now() - self.older)
        if self.newer is not None:
            wanted.append(_F.created_at >= schema.now() - self.newer)
        for state in self._states():
            in_state = [] if state is None else [_F.state == state]
            yield _newest([*wanted, *in_state, *conditions],
                          self._is_unfinished(), limit)

    def _states(self) -> tuple[str | None, ...]:
        if not self.failed:
            return (self.state,)
        return tuple(one for one in FAILED if self.state in (None, one))

    def _is_unfinished(self) -> bool:
        """Whether all of them are: few, found by an index of their own."""
        return self.unfinished or bool(self.owner) or self.state in (
            states.PENDING, states.RUNNING)


def _newest(conditions: list[Any], unfinished: bool, limit: int) -> sa.Select:
    """By one index alone if it can be."""
    order: list[Any] = [_F.created_at.desc(), _F.uuid.desc()]
    query = sa.select(_F.uuid, _F.created_at)
    if unfinished:
        query = query.where(_F.finished_at.is_(None))
        order.insert(0, schema.alike(_F.finished_at).desc())
        # Of a project, too, less is unfinished than finished.
        for dialect in ('mysql', 'mariadb'):
            query = query.with_hint(
                schema.flows, 'USE INDEX (ssm_flows_finished_idx, '
                'ssm_flows_subject_idx, ssm_flows_request_idx)', dialect)
    return query.where(*conditions).order_by(*order).limit(limit)
