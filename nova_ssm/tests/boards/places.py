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

"""Where flows are run in these tests: a database, and a job board."""

import dataclasses
import functools

from nova_ssm.engine import boards
from nova_ssm.engine.coordination import base
from nova_ssm.engine.coordination import board as coordinated
from nova_ssm.engine import database
from nova_ssm.engine import registry
from nova_ssm.engine import runner
from nova_ssm.engine import serialization


@dataclasses.dataclass(frozen=True)
class Place:
    """What the conductors of one test share.

    :param url: of the journal's database
    :param server: where the board is, None for ``sql``
    """

    url: str
    server: base.Server | None = None

    def board(self, db: database.Database,
              serializer: serialization.Serializer,
              lease: float) -> boards.Board:
        """Make the board of a runner."""
        if self.server is None:
            return runner.sql_board(db, serializer)
        return coordinated.TaskflowBoard(db, serializer, self.server, lease)

    @staticmethod
    def posted(board: boards.Board) -> int:
        """How many flows the board knows of."""
        if isinstance(board, coordinated.TaskflowBoard):
            return len(board._claims.jobs())
        return board.job_count

    def runner(self, flows: registry.Registry, host: str = 'host',
               lease: float = 60, renew: bool = False) -> runner.Runner:
        """Make a runner with connections of its own."""
        return runner.Runner(
            database.Database(self.url), serialization.Serializer(), flows,
            host, lease=lease, renew=renew,
            board=functools.partial(self.board, lease=lease))
