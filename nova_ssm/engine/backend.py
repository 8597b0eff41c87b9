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

"""The TaskFlow persistence backend that writes the journal of one flow."""

from typing import Any

from taskflow.persistence import base
from taskflow.persistence import models

from nova_ssm.engine import journal


class JournalBackend(base.Backend):
    """The TaskFlow persistence backend of one running flow."""

    def __init__(self, log: journal.FlowLog) -> None:
        super().__init__({})
        self.log = log
        self.detail: models.FlowDetail | None = None

    def get_connection(self) -> 'Connection':
        return Connection(self)

    def close(self) -> None:
        """Nothing to close: the connections are the database's."""


class Connection(base.Connection):
    """Passes what TaskFlow saves on to the flow's log."""

    def __init__(self, backend: JournalBackend) -> None:
        self._backend = backend

    @property
    def backend(self) -> JournalBackend:
        return self._backend

    def close(self) -> None:
        """Nothing to close: the connections are the database's."""

    def validate(self) -> None:
        """Whether the database is usable was asked when the service began."""

    def update_atom_details(
            self, atom_detail: models.AtomDetail) -> models.AtomDetail:
        self._backend.log.note(atom_detail)
        return atom_detail

    def update_flow_details(
            self, flow_detail: models.FlowDetail) -> models.FlowDetail:
        # The state of the flow is the runner's to write: TaskFlow says
        # FAILURE both for a flow that failed and for one that we lost.
        self._backend.detail = flow_detail
        return flow_detail

    def get_flow_details(self, fd_uuid: str,
                         lazy: bool = False) -> models.FlowDetail | None:
        return self._backend.detail

    def get_atoms_for_flow(self, fd_uuid: str) -> Any:
        return iter(self._backend.detail or ())

    def get_atom_details(self, ad_uuid: str) -> models.AtomDetail | None:
        detail = self._backend.detail
        return detail.find(ad_uuid) if detail is not None else None

    def _one_flow_only(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            'a journal holds one flow, and only ever grows')

    upgrade = clear_all = save_logbook = destroy_logbook = _one_flow_only
    get_logbook = get_logbooks = get_flows_for_book = _one_flow_only
