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
"""Asks the cloud for what a plan says, through its public API.

Each request has a thread, which follows it until it has come to a good end;
what has not is looked at again when the load is over.
"""

from collections.abc import Callable
from collections.abc import Iterable
import concurrent.futures
import contextlib
import dataclasses
import functools
import threading
import time
from typing import Any
import uuid

from keystoneauth1 import exceptions as ksa_exc
import openstack
import pymysql

from nova_ssm.tests.cloud import chaos_plan
from nova_ssm.tests.cloud import chaos_tries as tries_module
from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import moves

#: Seconds to wait for an answer of the API.
_ANSWER = 60.0
#: Seconds that a request is followed.
_PATIENCE = 100.0
_POLL = 1.0
_VERSION = '2.90'
#: Servers that are there at the begin.
_FLEET = 9


class Fleet:
    """The servers that nobody does anything with."""

    def __init__(self) -> None:
        self._free: set[str] = set()
        self._lock = threading.Lock()

    def give(self, servers: Iterable[str]) -> None:
        """Say that servers are at rest."""
        with self._lock:
            self._free.update(servers)

    def take(self, share: float) -> str | None:
        """Take one of those at rest, None if there is none."""
        with self._lock:
            free = sorted(self._free)
            if not free:
                return None
            chosen = free[int(share * len(free))]
            self._free.remove(chosen)
            return chosen


class Client:
    """The requests of the load; nothing is looked up while they are sent."""

    def __init__(self, it: cloud.Cloud) -> None:
        client = it.client
        self._compute = client.compute
        self._image = client.image.find_image('cirros').id
        self._network = client.network.find_network('private').id
        self.flavors = {name: client.compute.find_flavor(name).id
                        for name in moves.FLAVORS}

    def send(self, method: str, path: str,
             body: dict[str, Any] | None = None) -> tuple[int | None, str]:
        """Send one request.

        :returns: the status, None if there was no answer; the request's id
        """
        try:
            response = self._compute.request(
                path, method, json=body, microversion=_VERSION,
                timeout=_ANSWER, raise_exc=False)
        except ksa_exc.HttpError as error:
            return error.http_status, error.request_id or ''
        except (ksa_exc.ClientException, openstack.exceptions.SDKException):
            return None, ''
        return response.status_code, response.headers.get(
            'x-openstack-request-id', '')

    def boot(self, name: str, count: int) -> tuple[int | None, str]:
        """Ask for servers; a port is made for each."""
        return self.send('POST', '/servers', {'server': {
            'name': name, 'min_count': count, 'max_count': count,
            'imageRef': self._image, 'flavorRef': self.flavors['m1.nano'],
            'networks': [{'uuid': self._network}]}})

    def act(self, server: str, body: dict[str, Any]
            ) -> tuple[int | None, str]:
        """Ask for an action."""
        return self.send('POST', f'/servers/{server}/action', body)


def patient(ask: Callable[[], Any], seconds: float = 120) -> Any:
    """Ask the database until it answers.

    :raises pymysql.MySQLError: if it does not in that time
    """
    limit = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except pymysql.MySQLError:
            if time.monotonic() > limit:
                raise
            time.sleep(_POLL)


class Load:
    """The load of one run."""

    def __init__(self, it: cloud.Cloud, plan: chaos_plan.Plan) -> None:
        self._cloud = it
        self._plan = plan
        self._client = Client(it)
        self._judge = tries_module.Judge(it)
        self._fleet = Fleet()
        self._name = f'chaos-{uuid.uuid4().hex[:6]}'
        self._began = time.monotonic()
        self.tries: list[tries_module.Try] = []
        #: What is broken now, or is about to be.
        self.fault = chaos_plan.NO_FAULT
        #: Requests for which no server was free: one was built instead.
        self.skipped = 0

    # -- in all

    def prepare(self) -> None:
        """Build some servers before anything is broken."""
        first = chaos_plan.Ask(-1, 0.0, chaos_plan.BUILD, 0.0, _FLEET)
        self._build(first)

    def run(self) -> None:
        """Send all requests of the plan, each at its time."""
        self._began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            jobs = []
            for ask in self._plan.asks:
                time.sleep(max(0.0, self._began + ask.at - time.monotonic()))
                jobs.append(pool.submit(self._perform, ask))
            for job in jobs:
                job.result()

    def look_again(self) -> list[tries_module.Try]:
        """Judge what is open; return what still is."""
        left = [one for one in self.tries if one.open]
        patient(functools.partial(self._judge.judge, left))
        return [one for one in left if one.open]

    def _perform(self, ask: chaos_plan.Ask) -> None:
        if ask.operation == chaos_plan.BUILD:
            self._build(ask)
            return
        server = self._fleet.take(ask.share)
        if server is None:
            # So that there is one for the next request.
            self.skipped += 1
            self._build(dataclasses.replace(ask, count=1))
        elif ask.operation == chaos_plan.DELETE:
            self._follow([self._on(ask, server, ask.operation)])
        else:
            self._move(ask, server)

    def _new(self, ask: chaos_plan.Ask, operation: str) -> tries_module.Try:
        at = max(0.0, time.monotonic() - self._began)
        one = tries_module.Try(ask.number, operation, self.fault,
                               round(at, 1))
        self.tries.append(one)
        return one

    def _follow(self, some: list[tries_module.Try]) -> None:
        """Look at tries until they have come to a good end, or for long."""
        limit = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(pymysql.MySQLError):
                self._judge.judge([one for one in some if one.open])
            done = not any(one.open for one in some)
            if done or time.monotonic() > limit:
                break
            time.sleep(_POLL)
        self._fleet.give(
            one.server for one in some if self._usable(one))

    @staticmethod
    def _usable(one: tries_module.Try) -> bool:
        """Tell whether the next request may have the server of this one."""
        if one.operation in chaos_plan.APART:
            # What is not deleted, or not confirmed, waits for the end.
            return one.operation == chaos_plan.CONFIRM and (
                one.outcome == tries_module.DONE)
        if one.operation == chaos_plan.RESIZE:
            return one.outcome == tries_module.BACK
        return one.outcome in (tries_module.DONE, tries_module.BACK) and (
            bool(one.server))

    # -- one by one

    def _build(self, ask: chaos_plan.Ask) -> None:
        name = f'{self._name}-{ask.number}x'
        some = [self._new(ask, chaos_plan.BUILD) for _ in range(ask.count)]
        answer, request_id = self._client.boot(name, ask.count)
        ids = patient(functools.partial(self._ids, name))
        for number, one in enumerate(some):
            one.answer, one.request_id = answer, request_id
            one.server = ids[number] if number < len(ids) else ''
        self._follow(some)

    def _ids(self, name: str) -> list[str]:
        rows = self._cloud.db(
            'SELECT instance_uuid AS id FROM nova_api.build_requests '
            'WHERE instance LIKE %s UNION SELECT uuid FROM '
            'nova_cell1.instances WHERE display_name LIKE %s UNION '
            'SELECT uuid FROM nova_cell0.instances WHERE display_name '
            'LIKE %s', f'%"{name}%', f'{name}%', f'{name}%')
        return sorted(row['id'] for row in rows)

    def _on(self, ask: chaos_plan.Ask, server: str,
            operation: str) -> tries_module.Try:
        """Ask for something to be done with a server."""
        one = self._new(ask, operation)
        one.server = server
        before = patient(functools.partial(
            moves.look, self._cloud, [server])).get(server)
        if before is None:
            one.outcome = tries_module.LOST
            return one
        flavor = before.flavor
        body: dict[str, Any] = {'confirmResize': None}
        if operation == chaos_plan.RESIZE:
            flavor = next(name for name in moves.FLAVORS
                          if name != before.flavor)
            body = {'resize': {'flavorRef': self._client.flavors[flavor]}}
        elif operation == chaos_plan.LIVE:
            body = {'os-migrateLive': {'host': None,
                                       'block_migration': 'auto'}}
        kind = moves.OPERATIONS.get(operation, moves.OPERATIONS['resize'])
        last = patient(functools.partial(self._last, server))
        one.move = moves.Move(kind, before, '', time.monotonic(), flavor,
                              *last)
        if operation == chaos_plan.DELETE:
            one.answer, one.request_id = self._client.send(
                'DELETE', f'/servers/{server}')
        else:
            one.answer, one.request_id = self._client.act(server, body)
        return one

    def _last(self, server: str) -> tuple[int, int]:
        rows = self._cloud.db(
            'SELECT COALESCE(MAX(id), 0) AS last FROM nova_cell1.migrations '
            'WHERE instance_uuid = %s', server)
        return rows[0]['last'], tries_module.last_fault(self._cloud, server)

    def _move(self, ask: chaos_plan.Ask, server: str) -> None:
        one = self._on(ask, server, ask.operation)
        self._follow([one])
        if (one.operation, one.outcome) == (chaos_plan.RESIZE,
                                            tries_module.DONE):
            self._follow([self._on(ask, server, chaos_plan.CONFIRM)])

    # -- afterwards

    def delete_all(self, seconds: float) -> list[str]:
        """Delete all servers; return the ids of those that do not go.

        Who does not go is asked again, as a user would.
        """
        limit = time.monotonic() + seconds
        again = 0.0
        while True:
            left = patient(self._living)
            if not left or time.monotonic() > limit:
                return left
            if time.monotonic() > again:
                for server in left:
                    self._client.send('DELETE', f'/servers/{server}')
                again = time.monotonic() + 40
            time.sleep(_POLL)

    def _living(self) -> list[str]:
        return sorted(row['id'] for row in self._cloud.db(
            'SELECT uuid AS id FROM nova_cell1.instances WHERE deleted = 0 '
            'UNION SELECT uuid FROM nova_cell0.instances WHERE deleted = 0 '
            'UNION SELECT instance_uuid FROM nova_api.build_requests'))
