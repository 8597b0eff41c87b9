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

"""Nova in this process, with two cells, for one case after the other.

What is real: Nova and placement, their databases, the engine, the journal.
What is fake: guests, neutron, glance and cinder, which Nova's own fixtures
stand in for, and the time that a task waits.
"""

import logging
import os
import threading
from typing import Any

from cryptography import fernet
import fixtures
from nova.policies import base as base_policies
from nova.policies import servers as servers_policies
from nova.scheduler import weights
from nova import test
from nova.tests import fixtures as nova_fixtures
from nova.tests.functional import fixtures as functional_fixtures
from nova.tests.functional import integrated_helpers
from nova.virt import fake
from nova.volume import cinder
from oslo_config import cfg
import oslo_messaging
from oslo_messaging import opts as messaging_opts
import sqlalchemy as sa
from sqlalchemy import pool

from nova_ssm.audit import kinds
from nova_ssm.audit import looks
from nova_ssm.audit import repairs
from nova_ssm.audit import survey
from nova_ssm import conf as ssm_conf
from nova_ssm.engine import database
from nova_ssm.engine import queries
from nova_ssm.engine import recovery
from nova_ssm.engine import schema
from nova_ssm.tests.faults import calls
from nova_ssm.tests.faults import hooks
from nova_ssm.tests.faults import plan as plan_module
from nova_ssm.tests.faults import traffic

CONF = cfg.CONF
#: The computes, and the cells they are in.
HOSTS = {'host1': 'cell1', 'host2': 'cell1', 'host3': 'cell1',
         'far': 'cell2'}
WORKFLOWS = ('build_instances', 'resize', 'live_migrate')
#: Seconds; no lease ends by itself.
LEASE = 3000.0

#: The hosts that the scheduler likes best, the best first.
_preferred: list[str] = list(HOSTS)


class Preference(weights.BaseHostWeigher):
    """Lets the scheduler choose hosts in an order that is known."""

    def _weigh_object(self, host_state: Any, weight_properties: Any) -> float:
        return -_preferred.index(host_state.host)


def prefer(*hosts: str) -> None:
    """Let the scheduler try these hosts first, then the others."""
    _preferred[:] = [*hosts, *(host for host in HOSTS if host not in hosts)]


class Case(test.TestCase, integrated_helpers.PlacementInstanceHelperMixin):
    """What sets Nova up, and clears it away."""

    NUMBER_OF_CELLS = 2
    compute_driver = 'fake.MediumFakeDriver'

    def runTest(self) -> None:
        pass

    def setUp(self) -> None:
        super().setUp()
        # No service reports, and none is ever taken for dead.
        self.flags(compute_driver=self.compute_driver,
                   report_interval=3600, service_down_time=360000)
        # Each of these threads looks for work each second, whether it ever
        # had some or not: hundreds take more than a case does.
        for group, options in messaging_opts.list_opts():
            if group is None:
                CONF.register_opts(options)
        self.flags(executor_thread_pool_size=8, default_thread_pool_size=4,
                   cell_worker_thread_pool_size=4)
        self.flags(weight_classes=[__name__ + '.Preference'],
                   group='filter_scheduler')
        policy = self.useFixture(nova_fixtures.RealPolicyFixture())
        policy.set_rules({servers_policies.CROSS_CELL_RESIZE:
                          base_policies.RULE_ADMIN_API}, overwrite=False)
        self.neutron = self.useFixture(nova_fixtures.NeutronFixture(self))
        self.glance = self.useFixture(nova_fixtures.GlanceFixture(self))
        self.cinder = self.useFixture(nova_fixtures.CinderFixture(self))
        self.placement = self.useFixture(
            functional_fixtures.PlacementFixture()).api
        self.useFixture(nova_fixtures.AllServicesCurrent())
        self.useFixture(nova_fixtures.NotificationFixture(self))
        self.api = self.useFixture(nova_fixtures.OSAPIFixture(
            api_version='v2.1')).admin_api
        self.admin_api = self.api
        self.api.microversion = 'latest'


class World(fixtures.Fixture):
    """Nova, and a conductor that may be killed.

    :param workflows: ``[ssm] workflows``; empty: stock Nova
    """

    def __init__(self, workflows: tuple[str, ...] = WORKFLOWS) -> None:
        super().__init__()
        self.workflows = list(workflows)
        self.plan = plan_module.Plan()
        self._conductors: list[calls.Process] = []
        self._lock = threading.Lock()

    def _setUp(self) -> None:
        self.traffic = self.useFixture(traffic.Traffic())
        # A third of the work of a case is to open and close SQLite's files.
        self.useFixture(fixtures.MockPatchObject(
            pool, 'NullPool', pool.QueuePool))
        self.case = Case()
        self.addCleanup(self.case.doCleanups)
        self.case.setUp()
        self._configure()
        # Nova's would keep the guest at the source.
        self.useFixture(fixtures.MockPatchObject(
            fake.FakeDriver, 'post_live_migration_at_source',
            lambda driver, context, instance, network_info:
                driver.instances.pop(instance.uuid, None)))
        conductor = self.case.start_service('conductor', host='controller')
        self.case.start_service('scheduler')
        self.computes = {}
        for host, cell in HOSTS.items():
            self.computes[host] = self.case._start_compute(
                host, cell_name=cell)
        CONF.set_override('host', 'controller')
        first = conductor.manager.compute_task_mgr
        self._type = type(first)
        self._serve(first)
        self.useFixture(traffic.Clock(self.traffic))
        self.useFixture(traffic.Hosts())
        self.useFixture(hooks.Hooks(
            {'neutron': self.case.neutron, 'glance': self.case.glance,
             'cinder': cinder.API}, self._process_of))
        self.useFixture(fixtures.MockPatchObject(
            threading, 'excepthook', _say_nothing_of_deaths))

    @property
    def api(self) -> Any:
        return self.case.api

    def _configure(self) -> None:
        self.case.flags(rpc_response_timeout=60)
        # Stock Nova shows a server whose build was given up without the
        # scheduler hints that its schema asks for.
        self.case.flags(response_validation='ignore', group='api')
        logging.getLogger().setLevel(logging.CRITICAL)
        if not self.workflows:
            return
        files = self.useFixture(fixtures.TempDir()).path
        ssm_conf.register_opts(CONF)
        self.case.flags(compute_task_manager='nova_ssm', group='conductor')
        self.case.flags(
            workflows=self.workflows, lease=LEASE, concurrency=1,
            audit_interval=0,
            connection='sqlite:///' + os.path.join(files, 'ssm.db'),
            encryption_keys=[fernet.Fernet.generate_key().decode()],
            group='ssm')
        database.upgrade(CONF.ssm.connection)
        self.useFixture(fixtures.MonkeyPatch(
            'nova_ssm.runtime.Runtime.start',
            lambda this, on_death=None: None))

    # -- conductors -------------------------------------------------------

    def _serve(self, first: Any) -> None:
        """Have each request served by the conductor that lives."""
        self._conductors = [self._conductor(first)]
        for name in dir(self._type):
            method = getattr(self._type, name)
            if not name.startswith('_') and callable(method):
                first.__dict__[name] = self._endpoint(name)

    def _endpoint(self, name: str) -> Any:
        def serve(*args: Any, **kwargs: Any) -> Any:
            process = self.conductor
            try:
                with calls.scope(process, name):
                    return getattr(self._type, name)(
                        process.manager, *args, **kwargs)
            except calls.Death:
                # Who waits for an answer waits in vain.
                raise oslo_messaging.MessagingTimeout(
                    'the conductor died') from None
        return serve

    def _conductor(self, manager: Any) -> calls.Process:
        if self.workflows:
            # Registers it, which every conductor does but once.
            assert manager.ssm.runner.worker
        return calls.Process(manager, self.plan)

    @property
    def conductor(self) -> calls.Process:
        """One that lives: there are others when one dies."""
        with self._lock:
            if self._conductors[-1].dead:
                with calls.outside():
                    self._conductors.append(self._conductor(self._type()))
            return self._conductors[-1]

    def _process_of(self, runner: Any) -> calls.Process:
        return next(one for one in self._conductors
                    if one.manager.ssm.runner is runner)

    def begin(self, plan: plan_module.Plan) -> None:
        """Let other things go wrong from now on."""
        self.plan = plan
        self._conductors = [self.conductor]
        self._conductors[0].plan = plan

    def idle(self) -> None:
        """Wait until nothing is under way.

        :raises traffic.Busy: if that does not come to an end
        """
        self.traffic.wait()

    def recover(self) -> None:
        """Let living conductors go on with what dead ones left."""
        if not self.workflows:
            return
        looking: dict[int, recovery.Recovery] = {}
        for _again in range(30):
            self._expire()
            process = self.conductor
            looks = looking.setdefault(id(process), recovery.Recovery(
                process.manager.ssm.runner, process.manager.host,
                on_death=process.manager._on_worker_death))
            try:
                with calls.scope(process, 'recovery'):
                    looks.look()
            except calls.Death:
                continue
            for thread in threading.enumerate():
                if thread.name.startswith('ssm-resume-'):
                    thread.join(60)
            self.idle()
            if not process.dead and not self.unfinished():
                return

    def audit(self) -> int:
        """Let a conductor look for what no journal knows of, and repair it.

        :returns: how much of it is repaired
        """
        if not self.workflows:
            return 0
        manager = self.conductor.manager
        runner = manager.ssm.runner
        found = looks.find(
            lambda: survey.Survey(runner.db, 0, lambda:
                                  manager.report_client),
            [kind for kind in kinds.KINDS.values() if kind.quick], 0)
        posted = repairs.post(
            runner.board, [one for one in found if one.safe], runner.db,
            patient=True)
        self.recover()
        return len(posted)

    def _expire(self) -> None:
        """Let the leases of the dead run out."""
        dead = [one.manager.ssm.runner.worker.id
                for one in self._conductors if one.dead]
        with self.journal.transaction() as connection:
            connection.execute(schema.workers.update().where(
                schema.workers.c.id.in_(dead)).values(
                    expires_at=schema.now() - 1))

    @property
    def journal(self) -> database.Database:
        return self._conductors[0].manager.ssm.runner.db

    def unfinished(self) -> list[Any]:
        """The flows that have not ended."""
        if not self.workflows:
            return []
        return queries.flows(self.journal, unfinished=True)

    def flows(self) -> list[Any]:
        """All flows since the journal was emptied."""
        return queries.flows(self.journal) if self.workflows else []

    def forget(self) -> None:
        """Empty the journal."""
        if not self.workflows:
            return
        with self.journal.transaction() as connection:
            for table in (schema.journal, schema.transfers, schema.flows):
                connection.execute(sa.delete(table))
            connection.execute(sa.delete(schema.workers).where(
                schema.workers.c.expires_at < schema.now()))


def _say_nothing_of_deaths(args: Any) -> None:
    if args.exc_type is not calls.Death:
        threading.__excepthook__(args)
