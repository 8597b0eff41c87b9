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

"""What became of each task of a flow: an account, for people.

Of the graph, which says what the task does, and the journal, which says what
it did. Either may be missing: a plugin that is gone, a damaged journal.
"""

from collections.abc import Iterable, Sequence
import dataclasses
from typing import Any

from nova_ssm.engine import events
from nova_ssm.engine import graphs
from nova_ssm.engine import progress
from nova_ssm.engine import timeline


@dataclasses.dataclass(frozen=True)
class Account:
    """What became of one task, or retry.

    :param state: one of :mod:`nova_ssm.engine.progress`
    :param does: one line on what it does; None without a graph
    :param effect: whether it changes anything, or only reads; None without a
        graph
    :param sometimes: whether it changes something only sometimes
    :param undone: one line on what its undoing does; None if nothing
    :param tries: how often it was executed; 0 if the journal knows of none
    :param runs: each time that it was executed, or undone
    """

    task: str
    state: str
    does: str | None = None
    effect: bool | None = None
    sometimes: bool = False
    undone: str | None = None
    tries: int = 0
    runs: tuple[timeline.Span, ...] = ()

    @property
    def worker(self) -> str | None:
        """Who ran it last."""
        return self.runs[-1].writer if self.runs else None

    @property
    def began_at(self) -> float | None:
        """When it was begun for the first time."""
        return self.runs[0].began_at if self.runs else None

    @property
    def ended_at(self) -> float | None:
        """When it ended for the last time; None if it goes on."""
        return self.runs[-1].ended_at if self.runs else None

    def seconds(self, what: str = events.EXECUTE) -> float | None:
        """How long that took, all times together.

        :returns: None if that is not known of all of them, or there are none
        """
        took = [run.seconds for run in self.runs if run.what == what]
        known = [one for one in took if one is not None]
        return sum(known) if known and len(known) == len(took) else None

    def within(self, what: str = events.EXECUTE) -> float | None:
        """How long it took at the most; None if nothing is known."""
        ended = [(run.ended_at, run.began_at) for run in self.runs
                 if run.what == what]
        known = [end - began for end, began in ended if end is not None]
        return sum(known) if known else None

    def data(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {
            'task': self.task, 'does': self.does, 'state': self.state,
            'effect': self.effect, 'sometimes': self.sometimes,
            'undone': self.undone, 'tries': self.tries,
            'seconds': self.seconds(),
            'undo_seconds': self.seconds(events.UNDO),
            'began_at': self.began_at, 'ended_at': self.ended_at,
            'worker': self.worker,
            'runs': [dataclasses.asdict(run) for run in self.runs]}


def accounts(graph: graphs.Graph | None,
             made: timeline.Timeline | None) -> list[Account]:
    """An account of each task: in the order of the graph, if there is one.

    :param graph: with the states of its tasks
    :param made: None if the journal cannot be read
    """
    runs: dict[str, list[timeline.Span]] = {}
    for span in made.spans if made is not None else ():
        runs.setdefault(span.task, []).append(span)
    found = [_of_atom(atom, runs.pop(atom.name, ()), tries) for atom, tries
             in _atoms(graph.whole if graph is not None else None)]
    # What the graph does not have: all of them, if there is none.
    found += [Account(name, _state(spans), tries=_tries(spans),
                      runs=tuple(spans)) for name, spans in runs.items()]
    return found


def _atoms(part: graphs.Part | None
           ) -> Iterable[tuple[graphs.Atom, int]]:
    """Each atom, and how often it was tried if it is a retry."""
    if part is None:
        return
    if part.retry is not None:
        yield part.retry, part.tries
    for layer in part.layers:
        for item in layer:
            if isinstance(item, graphs.Atom):
                yield item, 0
            else:
                yield from _atoms(item)


def _of_atom(atom: graphs.Atom, spans: Sequence[timeline.Span],
             tries: int) -> Account:
    return Account(atom.name, atom.state or progress.NOT_REACHED, atom.does,
                   atom.effect, atom.sometimes, atom.undone,
                   tries or _tries(spans), tuple(spans))


def _tries(spans: Iterable[timeline.Span]) -> int:
    return sum(span.what == events.EXECUTE for span in spans)


def _state(spans: Sequence[timeline.Span]) -> str:
    """As :mod:`nova_ssm.engine.progress` has it, without a graph."""
    last = spans[-1]
    if last.ended_at is None:
        return progress.RUNNING
    if last.what == events.EXECUTE:
        return progress.FAILED if last.failed else progress.DONE
    if last.failed:
        return progress.NOT_UNDONE
    begun = [span for span in spans if span.what == events.EXECUTE]
    return (progress.FAILED_REVERTED if begun and begun[-1].failed
            else progress.REVERTED)
