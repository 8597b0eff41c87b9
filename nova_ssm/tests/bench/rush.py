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

"""Several workers that find the same flows without an owner, all at once.

A claim is lost if another worker was faster: it cost a transaction for
nothing.
"""

from collections.abc import Iterator
import concurrent.futures
import dataclasses
import threading
import time
from typing import Any

from taskflow import exceptions as taskflow_exc

from nova_ssm.engine import database
from nova_ssm.engine import jobboard
from nova_ssm.engine import orphans
from nova_ssm.engine import serialization
from nova_ssm.engine import worker as worker_module
from nova_ssm.tests.bench import filling

WORKERS, HANDS, FLOWS = 4, 32, 2000
ORDERS = ('oldest first', 'own share first')
#: Seconds between two looks.
_INTERVAL = 0.2


@dataclasses.dataclass
class Result:
    """How it went.

    :param won: claims that were granted
    :param lost: claims for which another worker was faster
    """

    won: int
    lost: int
    seconds: float


def run(url: str, order: str, flows: int = FLOWS,
        workers: int = WORKERS) -> Result:
    """Let workers take all of the flows.

    :param url: an empty database
    :param order: one of ORDERS
    """
    database.upgrade(url)
    db = database.Database(url)
    filling.Filler(db).unfinished(flows, [None, 'dead'])
    db.close()
    gate = threading.Barrier(workers)
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(
            _work, [url] * workers, [order] * workers, [gate] * workers))
    return Result(sum(won for won, _lost in results),
                  sum(lost for _won, lost in results),
                  time.monotonic() - began)


def _work(url: str, order: str,
          gate: threading.Barrier) -> tuple[int, int]:
    """One worker: takes what its hands hold, ends it, and looks again."""
    db = database.Database(url)     # connections of its own
    me = worker_module.Worker(db, 'host', 3600)
    me.start(renew=False)
    board = jobboard.SQLJobBoard('bench', {
        'database': db, 'serializer': serialization.Serializer()})
    won = lost = 0
    gate.wait(60)
    while True:
        taken: list[Any] = []
        tried = 0
        for job in _jobs(board, db, me.id, order):
            if len(taken) == HANDS:
                break
            tried += 1
            try:
                board.claim(job, me.id)
                taken.append(job)
            except taskflow_exc.UnclaimableJob:
                lost += 1
        won += len(taken)
        for job in taken:
            board.trash(job, me.id)
        if not tried:
            db.close()
            return won, lost
        time.sleep(_INTERVAL)


def _jobs(board: jobboard.SQLJobBoard, db: database.Database, me: str,
          order: str) -> Iterator[jobboard.SQLJob]:
    if order == ORDERS[1]:
        return board.free_jobs(me)
    rows = sorted(orphans.page(db, orphans.PAGE).rows,
                  key=lambda row: row.created_at)
    return (jobboard.SQLJob(board, row) for row in rows)
