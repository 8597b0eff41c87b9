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
"""What was asked of the cloud in a chaos test, and what became of it."""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
from typing import Any

from nova_ssm.tests.cloud import chaos_plan
from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import moves

DONE = 'done'
#: As before, and the server has a fault that says why.
BACK = 'back'
#: In ERROR, and the server has a fault that says why.
ERROR = 'error'
STUCK = 'stuck'
LOST = 'lost'
#: It failed, and nobody says so.
SILENT = 'silent'
ODD = 'odd'
#: The API itself has answered with an error, and has done nothing.
REFUSED = 'refused'
#: What came to an end that a user can understand.
SURVIVED = (DONE, BACK, ERROR)
BAD = (STUCK, LOST, SILENT, ODD)
OUTCOMES = (*SURVIVED, *BAD, REFUSED)
#: What is seen while it may still change.
_OPEN = (STUCK, LOST, SILENT, ODD)

ACCEPTED = 202
#: A deletion is answered with this.
DELETED = 204


@dataclasses.dataclass
class Try:
    """One operation on one server."""

    ask: int
    operation: str
    #: The fault of the slot in which it was asked for.
    fault: str
    #: When, in seconds from the begin.
    at: float
    server: str = ''
    request_id: str = ''
    #: The status of the API's answer, None if there was none.
    answer: int | None = None
    outcome: str = STUCK
    #: In words, for people.
    text: str = ''
    #: The fault that the server got.
    message: str | None = None
    #: Kinds of what is left over of it.
    left: list[str] = dataclasses.field(default_factory=list)
    #: What is needed to judge a move, and not written.
    move: moves.Move | None = None

    @property
    def accepted(self) -> bool:
        """Whether the API has said yes."""
        return self.answer in (ACCEPTED, DELETED)

    @property
    def open(self) -> bool:
        """Whether it has not come to a good end so far."""
        return self.outcome in _OPEN

    @property
    def well(self) -> bool:
        """Whether it survived, and left nothing."""
        return not self.open and not self.left

    def plain(self) -> dict[str, Any]:
        """Return it for the results."""
        return {field.name: getattr(self, field.name)
                for field in dataclasses.fields(self) if field.name != 'move'}


def last_fault(it: cloud.Cloud, server: str) -> int:
    """Return the number of the newest fault of a server, 0 if it has none."""
    return it.db('SELECT COALESCE(MAX(id), 0) AS last FROM '
                 'nova_cell1.instance_faults WHERE instance_uuid = %s',
                 server)[0]['last']


class Judge:
    """Says what has become of tries so far."""

    def __init__(self, it: cloud.Cloud) -> None:
        self._cloud = it
        self._movers = {name: moves.Mover(it, operation)
                        for name, operation in moves.OPERATIONS.items()}
        self._ways: dict[str, Callable[[Try], str]] = {
            chaos_plan.BUILD: self._build, chaos_plan.RESIZE: self._move,
            chaos_plan.LIVE: self._move, chaos_plan.DELETE: self._delete,
            chaos_plan.CONFIRM: self._confirm}

    def judge(self, tries: Iterable[Try]) -> None:
        """Look at tries, and write into them what is seen.

        :raises pymysql.MySQLError: if the database does not answer
        """
        for one in tries:
            outcome = self._ways[one.operation](one) if one.server else LOST
            if not one.accepted and outcome in (BACK, SILENT, LOST):
                # Nobody was promised anything, and nothing has changed.
                outcome = REFUSED
            one.outcome = outcome

    def _row(self, one: Try) -> dict[str, Any] | None:
        for cell in ('nova_cell1', 'nova_cell0'):
            rows = self._cloud.db(
                'SELECT uuid, host, vm_state, task_state, (SELECT message '
                f'FROM {cell}.instance_faults AS fault WHERE '
                'fault.instance_uuid = uuid ORDER BY id DESC LIMIT 1) AS '
                f'message FROM {cell}.instances WHERE deleted = 0 '
                'AND uuid = %s', one.server)
            if rows:
                one.text = '{vm_state}/{task_state} on {host}'.format(
                    **rows[0])
                return rows[0]
        one.text = 'no such server'
        return None

    def _build(self, one: Try) -> str:
        row = self._row(one)
        if row is None:
            asked = self._cloud.db(
                'SELECT 1 FROM nova_api.build_requests WHERE '
                'instance_uuid = %s', one.server)
            one.text = 'a build request only' if asked else one.text
            return STUCK if asked else LOST
        one.message = row['message']
        if row['vm_state'] == 'error':
            return ERROR if row['message'] else SILENT
        done = (row['vm_state'], row['task_state']) == ('active', None)
        return DONE if done else STUCK

    def _move(self, one: Try) -> str:
        assert one.move is not None
        verdict = self._movers[one.operation].verdict(one.move)
        one.text, one.message = verdict.text, verdict.fault
        if verdict.kind == moves.ERROR:
            return ERROR if verdict.fault else SILENT
        return {moves.DONE: DONE, moves.BACK: BACK, moves.STUCK: STUCK,
                moves.LOST: LOST, moves.SILENT: SILENT}.get(
                    verdict.kind, ODD)

    def _delete(self, one: Try) -> str:
        row = self._row(one)
        if row is None:
            return DONE
        if row['task_state'] is not None:
            return STUCK
        return self._unchanged(one, row)

    def _confirm(self, one: Try) -> str:
        row = self._row(one)
        if row is None:
            return LOST
        if (row['vm_state'], row['task_state']) == ('active', None):
            return DONE
        if row['task_state'] is not None:
            return STUCK
        return self._unchanged(one, row)

    def _unchanged(self, one: Try, row: dict[str, Any]) -> str:
        """Say how a failure is shown to the user."""
        assert one.move is not None
        new = last_fault(self._cloud, one.server) > one.move.last_fault
        one.message = row['message'] if new else None
        if not new:
            return SILENT
        return ERROR if row['vm_state'] == 'error' else BACK
