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

"""The journal of one flow: what is written of it, and when.

Append-only, keyed (flow, sequence). A row is written

* when the flow starts (with its claim, in one transaction),
* when a task that had an effect ended, failed, or was reverted; one that is
  deferred leaves none when it ended,
* when a task ended that chooses between branches,
* when a retry begins a new try, but not the first,
* before a task that must not begin twice unseen begins,
* when the flow ends: in the transaction of its last task, if that is known
  to be the last.

What else TaskFlow reports (states on the way, intentions, results of tasks
that only read or are deferred) waits in memory and goes along with the next
row: it can be found out again by running, or recovering, again.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any, TypeVar

from oslo_db import exception as db_exc
from oslo_log import log as logging
from oslo_utils import uuidutils
import sqlalchemy as sa
from taskflow.persistence import models
from taskflow import states as taskflow_states
from taskflow import storage as taskflow_storage

from nova_ssm.engine import boards
from nova_ssm.engine import database
from nova_ssm.engine import events
from nova_ssm.engine import exception
from nova_ssm.engine import keeping
from nova_ssm.engine import masking
from nova_ssm.engine import ownership
from nova_ssm.engine import records
from nova_ssm.engine import rows
from nova_ssm.engine import schema
from nova_ssm.engine import serialization
from nova_ssm.engine import states
from nova_ssm.engine import stopwatch
from nova_ssm.engine import task as ssm_task
from nova_ssm.engine import worker as worker_module

LOG = logging.getLogger(__name__)
T = TypeVar('T')

#: Called after each commit with (flow uuid, kind, atom, state). Tests hang
#: their crash points here.
AfterCommit = Callable[[str, str, 'str | None', 'str | None'], None]


@dataclasses.dataclass
class FlowRequest:
    """A flow to be run: what it is called and what it is given.

    :param name: its name in the registry
    :param store: its inputs by name
    :param context: the request context, given to its tasks as ``context``
    :param subject: what it works on, e.g. the uuid of a server
    :ivar next_seq: where its journal goes on once it is posted
    """

    name: str
    # What is in these two, no log may show.
    store: dict[str, Any] = dataclasses.field(repr=False)
    context: Any = dataclasses.field(default=None, repr=False)
    version: str = '1.0'
    subject: str | None = None
    project_id: str | None = None
    user_id: str | None = None
    request_id: str | None = None
    parent_uuid: str | None = None
    uuid: str = dataclasses.field(default_factory=uuidutils.generate_uuid)
    mask: masking.Mask = dataclasses.field(
        default_factory=masking.Mask, repr=False, compare=False)
    next_seq: int = dataclasses.field(default=1, init=False)


class Spawn(ssm_task.Task):
    """A task whose result is a list of FlowRequest: the flow's children.

    They are posted in the transaction that journals this task: either all
    of them exist, or none does and the task runs again. It is the last task
    of its flow: what is posted goes on by itself, also if the flow reverts.
    """


class FlowLog:
    """Writes the journal of one flow for its owner.

    :param worker: the owning worker
    :param board: the board on which it has claimed the flow
    :param after_commit: told of each row once it is committed
    :param next_seq: where the journal of the flow goes on
    :param version_of: the version of a flow that is posted now, by its name
    :ivar mask: knows the secrets of the flow
    :param largest: the bytes that one task may give; None if that is not
        limited
    :ivar ended: the state that the flow is written to have ended in
    :ivar ownership: asked before each step
    :ivar telling: tells others of each step
    """

    def __init__(self, db: database.Database,
                 serializer: serialization.Serializer,
                 flow_uuid: str, worker: worker_module.Worker,
                 board: boards.Board,
                 after_commit: AfterCommit | None = None,
                 next_seq: int = 0,
                 version_of: Callable[[str], str] = lambda name: '1.0',
                 largest: int | None = None) -> None:
        self.version_of = version_of
        self.largest = largest
        #: Of the flow, as it was begun; None for the newest.
        self.version: str | None = None
        self.uuid = flow_uuid
        self.writer = worker.id
        self.children: list[FlowRequest] = []
        self.ended: str | None = None
        self.worker = worker
        self.ownership = ownership.Ownership(db, flow_uuid, worker, board)
        self._db = db
        self._serializer = serializer
        self._after_commit = after_commit
        self._seq = next_seq
        self.forget()

    def forget(self) -> None:
        """Know nothing of what the flow has done: it is read back."""
        self.tasks: dict[str, Any] = {}
        #: The tasks whose results choose between branches.
        self.choosers: set[str] = set()
        self.started: set[str] = set()
        self.failed: tuple[str, BaseException] | None = None
        #: The task that could not be reverted, and why.
        self.stuck: tuple[str, BaseException] | None = None
        #: Of each atom the state and the intention that we know of.
        self.seen: dict[str, tuple[str, str]] = {}
        self.mask = masking.Mask()
        self.telling = events.NOBODY
        self._watch = stopwatch.Stopwatch()
        self._waiting: dict[str, dict[str, Any]] = {}

    # -- what TaskFlow reports --------------------------------------------

    def note(self, detail: models.AtomDetail) -> None:
        """Take in one change of one atom; write it if it must not be lost.

        :raises FlowLost: if the flow has another owner
        """
        state = detail.state
        if state in _ASKED:
            if state in _TURNS:
                self.ownership.turn(state == taskflow_states.REVERTING)
            self.ownership.check()
        if detail.name == taskflow_storage.Storage.injector_name:
            return
        self._watch.note(detail.name, state)
        if state == taskflow_states.RUNNING:
            self._note_running(detail)
        elif state in _KEPT:
            self._note_ended(detail)
        self.telling.note(detail, self.tasks.get(detail.name), self.mask,
                          self._watch.lap(detail.name))

    def _note_running(self, detail: models.AtomDetail) -> None:
        # A retry goes from SUCCESS to SUCCESS: what comes now is new.
        self.seen[detail.name] = (detail.state, detail.intention)
        task = self.tasks.get(detail.name)
        if getattr(task, 'once', False) and detail.name not in self.started:
            self.started.add(detail.name)
            self._write_atom(detail.name, detail.state)

    def _note_ended(self, detail: models.AtomDetail) -> None:
        was = self.seen.get(detail.name)
        now = (detail.state, detail.intention)
        moved = was is None or was[0] != detail.state
        if was == now and isinstance(detail, models.TaskDetail):
            return      # its progress only
        record = records.take(
            detail, self._watch.seconds(detail.name, detail.state))
        children = self._take_children(detail, record) if moved else []
        # Whoever gave what cannot be written is known here, and not yet
        # known to have ended.
        encoded = self._serializer.encode(
            records.compact(record), self.mask)
        if detail.state == taskflow_states.SUCCESS:
            self._check_size(detail.name, encoded)
        self._waiting[detail.name] = encoded
        packed = [(child, pack_request(self._serializer, child))
                  for child in children]
        self.seen[detail.name] = now
        self.failed = records.first_failure(
            self.failed, detail.name, record)
        self.stuck = records.first_stuck(
            self.stuck, detail.name, record)
        if moved:
            self.started.discard(detail.name)
            if keeping.must_write(self.tasks.get(detail.name), detail,
                                  self.choosers):
                self._write_atom(detail.name, detail.state, packed)

    def _check_size(self, atom: str, encoded: serialization.Plain) -> None:
        if self.largest is None:
            return
        size = len(self._serializer.compress(encoded))
        if size > self.largest:
            raise exception.ResultTooLarge(
                'task %s of flow %s gives %d bytes to the journal, more than '
                '%d: let it give less, or something that can be looked up '
                'again' % (atom, self.uuid, size, self.largest))

    def _take_children(self, detail: models.AtomDetail,
                       record: dict[str, Any]) -> list[FlowRequest]:
        if (detail.state != taskflow_states.SUCCESS or
                not isinstance(self.tasks.get(detail.name), Spawn)):
            return []
        record['results'] = [child.uuid for child in detail.results]
        for child in detail.results:
            child.parent_uuid = self.uuid
            child.version = self.version_of(child.name)
        return list(detail.results)

    def _write_atom(self, atom: str, state: str,
                    children: list[tuple[FlowRequest, bytes]] | None = None
                    ) -> None:
        ends = self._is_last(state)

        def also(connection: sa.Connection) -> None:
            insert_flows(connection, children or (), self.writer)
            if ends:
                self._finish(connection, states.SUCCESS)

        entries = [rows.Entry(states.ATOM, atom, state,
                              self._serializer.compress(self._waiting))]
        if ends:
            entries.append(rows.Entry(states.END, None, states.SUCCESS))
        self.write(entries, also)
        self.children.extend(child for child, _payload in children or ())
        self._waiting.clear()
        self._said(states.ATOM, atom, state)
        if ends:
            self._has_ended(states.SUCCESS)

    def _is_last(self, state: str) -> bool:
        """Whether nothing is left to be done, or undone, after this."""
        return (state == taskflow_states.SUCCESS and self.failed is None and
                all(self.seen.get(name, _UNSEEN)[0] in _PASSED
                    for name in self.tasks))

    # -- writing ----------------------------------------------------------

    def write(self, entries: Sequence[rows.Entry],
              also: Callable[[sa.Connection], Any] | None = None) -> None:
        """Append entries, in one transaction with whatever ``also`` does.

        While the database is away it waits: nobody else can take the flow
        over meanwhile, and once somebody has, our row meets theirs.

        :raises FlowLost: if another owner wrote this row
        :raises JournalBroken: if the database refuses it
        """
        built = rows.build(self.uuid, self._seq, self.writer, entries)

        def work(connection: sa.Connection) -> None:
            rows.insert(connection, built)
            if also is not None:
                also(connection)

        try:
            self._write(work)
        except db_exc.DBDuplicateEntry:
            # Ours after all, if the connection broke after the commit.
            if not self._is_ours(entries[0]):
                raise exception.FlowLost(
                    'flow %s is written by another worker' % self.uuid) \
                    from None
        self._seq += len(built)

    def _write(self, work: Callable[[sa.Connection], T]) -> T:
        return self._wait(lambda: self._db.write(
            work, give_up=self.worker.suspended.is_set))

    def _wait(self, write: Callable[[], T]) -> T:
        try:
            return write()
        except db_exc.DBDuplicateEntry:
            raise
        except Exception as exc:
            raise exception.JournalBroken(
                'the journal of flow %s cannot be written: %s'
                % (self.uuid, database.first_line(exc))) from exc

    def _is_ours(self, entry: rows.Entry) -> bool:
        def work(connection: sa.Connection) -> Any:
            return connection.execute(sa.select(
                schema.journal.c.writer, schema.journal.c.kind,
                schema.journal.c.atom, schema.journal.c.state).where(
                    schema.journal.c.flow_uuid == self.uuid,
                    schema.journal.c.seq == self._seq)).first()
        row = self._write(work)
        return row is not None and tuple(row) == (
            self.writer, entry.kind, entry.atom, entry.state)

    def end(self, state: str) -> None:
        """Write that the flow is over, and let go of it.

        Nothing to do if that went along with its last task.

        :raises FlowLost: if another owner wrote this row
        """
        if self.ended is not None:
            assert self.ended == state, (self.uuid, self.ended, state)
            return
        self.write([rows.Entry(states.END, None, state)],
                   lambda connection: self._finish(connection, state))
        self._has_ended(state)

    def _finish(self, connection: sa.Connection, state: str) -> None:
        done = connection.execute(schema.flows.update().where(
            schema.flows.c.uuid == self.uuid,
            schema.flows.c.owner == self.writer).values(
                state=state, owner=None,
                failure=records.summary(self.failed, self.stuck, self.mask),
                trouble=None,
                updated_at=schema.now(), finished_at=schema.now()))
        if done.rowcount != 1:
            raise exception.FlowLost(
                'flow %s was taken away from worker %s'
                % (self.uuid, self.writer))

    def _has_ended(self, state: str) -> None:
        self.ended = state
        self._said(states.END, None, state)

    def _said(self, kind: str, atom: str | None, state: str | None) -> None:
        if self._after_commit is not None:
            self._after_commit(self.uuid, kind, atom, state)


#: What is not noted of a flow that is to go on elsewhere: that a step begins,
#: or fails. It may fail since this process is being stopped.
_ASKED = frozenset((taskflow_states.RUNNING, taskflow_states.REVERTING,
                    taskflow_states.FAILURE,
                    taskflow_states.REVERT_FAILURE))
_TURNS = frozenset((taskflow_states.RUNNING, taskflow_states.REVERTING))
_ENDED = frozenset((taskflow_states.SUCCESS, taskflow_states.FAILURE,
                    taskflow_states.REVERTED,
                    taskflow_states.REVERT_FAILURE))
_PASSED = frozenset((taskflow_states.SUCCESS, taskflow_states.IGNORE))
_UNSEEN = (taskflow_states.PENDING, '')
_KEPT = _ENDED | {taskflow_states.PENDING, taskflow_states.IGNORE}


def pack_request(serializer: serialization.Serializer,
                 request: FlowRequest) -> bytes:
    """What a flow is given, as its first row holds it.

    The mask of the request learns the secrets in it.

    :raises NotSerializable: if there is a value we cannot write
    """
    return serializer.pack([request.context, request.store], request.mask)


def insert_flows(connection: sa.Connection,
                 packed: Sequence[tuple[FlowRequest, bytes]],
                 owner: str | None) -> None:
    """Post flows: the row of each, and what it was given as its first step.

    :param packed: each with what :func:`pack_request` made of it
    """
    if not packed:
        return
    flows: list[dict[str, Any]] = []
    built: list[dict[str, Any]] = []
    for request, payload in packed:
        flows.append({
            'uuid': request.uuid, 'parent_uuid': request.parent_uuid,
            'name': request.name, 'version': request.version,
            'subject': request.subject, 'project_id': request.project_id,
            'user_id': request.user_id, 'request_id': request.request_id})
        start = rows.build(request.uuid, 0, owner or '', [
            rows.Entry(states.START, payload=payload)])
        request.next_seq = len(start)
        built += start
    connection.execute(schema.flows.insert().values(
        state=states.RUNNING if owner else states.PENDING, owner=owner,
        generation=0, priority='NORMAL', created_at=schema.now(),
        updated_at=schema.now()), flows if len(flows) > 1 else flows[0])
    rows.insert(connection, built)


def new_detail(request_uuid: str, name: str,
               store: Mapping[str, Any]) -> models.FlowDetail:
    """TaskFlow's detail of a flow that was given these inputs."""
    detail = models.FlowDetail(name, request_uuid)
    injector = models.TaskDetail(taskflow_storage.Storage.injector_name,
                                 uuidutils.generate_uuid())
    injector.state = taskflow_states.SUCCESS
    injector.results = dict(store)
    detail.add(injector)
    return detail


def given(detail: models.FlowDetail) -> dict[str, Any]:
    """What a flow was given, by name, with its context; to be changed."""
    return next(atom.results for atom in detail
                if atom.name == taskflow_storage.Storage.injector_name)
