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

"""Each conductor looks after what nobody else does, in turn.

The database's clock says whose turn it is: no election, and no two that do
the same. Whoever is dead misses its turn, and the next one has its own.
"""

from collections.abc import Callable, Iterable

from oslo_db import exception as db_exc
from oslo_log import log as logging

from nova_ssm.audit import kinds
from nova_ssm.audit import looks
from nova_ssm.audit import repairs
from nova_ssm.engine import looping
from nova_ssm.engine import queries
from nova_ssm.engine import runner as runner_module

LOG = logging.getLogger(__name__)

#: Seconds for which nobody may have touched what is taken for stuck.
AGE = 15.0
#: Seconds between the two looks of a turn.
SETTLE = 2.0


class Auditor(looping.Loop):
    """Looks again and again, and has repaired what is safe to be repaired.

    :param interval: seconds of a turn; of all workers one looks in each
    :param begin: makes what one look reads with
    :param tell: told the kinds of what each turn finds; of a turn that is not
        ours, none
    :param note: called in each turn, whosever it is
    """

    def __init__(self, runner: runner_module.Runner, interval: float,
                 begin: looks.Begin,
                 tell: Callable[[Iterable[str]], None] = lambda kinds: None,
                 note: Callable[[], None] = lambda: None) -> None:
        super().__init__('ssm-audit')
        self._runner = runner
        self._interval = interval
        self._begin = begin
        self._tell = tell
        self._note = note

    def _run(self) -> None:
        while not self._stop.wait(self._wait()):
            try:
                self.turn()
            except db_exc.CantStartEngineError:
                LOG.info('The conductor of a cell has no API database: what '
                         'nobody works on is looked for by others')
                return
            except Exception as exc:  # noqa: BLE001 - try again, and say so
                LOG.warning('Looking for what nobody works on failed, '
                            'trying again: %s', exc)

    def _wait(self) -> float:
        """Seconds until the next turn begins."""
        try:
            return self._interval - (
                queries.clock(self._runner.db) % self._interval)
        except Exception as exc:  # noqa: BLE001 - the database may be away
            LOG.debug('The clock of the database cannot be read: %s', exc)
            return self._interval

    def is_mine(self) -> bool:
        """Whether it is the turn of this worker."""
        # Asking for it registers it.
        me = self._runner.worker.id
        db = self._runner.db
        workers = sorted(queries.living(db))
        turn = round(queries.clock(db) / self._interval)
        return bool(workers) and (
            workers[turn % len(workers)] == me)

    def turn(self) -> int:
        """Look, if it is our turn.

        :returns: how many repairs there are now
        """
        self._note()
        if not self.is_mine():
            self._tell(())
            return 0
        found = looks.find(
            self._begin, [kind for kind in kinds.KINDS.values()
                          if kind.quick], SETTLE)
        self._tell(one.kind for one in found)
        found = [one for one in found if one.safe]
        return len(repairs.post(self._runner.board, found, self._runner.db,
                                patient=True))
