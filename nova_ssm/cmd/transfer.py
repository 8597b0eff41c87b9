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

"""``nova-ssm flow transfer``: let another worker go on with a flow."""

import argparse
import time

from cliff import show

from nova_ssm.cmd import asking
from nova_ssm.cmd import db
from nova_ssm.cmd import flow as flow_cmd
from nova_ssm.cmd import main
from nova_ssm.cmd import steer
from nova_ssm.engine import database as database_module
from nova_ssm.engine import exception
from nova_ssm.engine import queries
from nova_ssm.engine import transfers

_POLL = 0.2


class Transfer(show.ShowOne):
    """Let a flow go on at another worker.

    The worker that runs it ends the step that is under way, and begins no
    further one.
    """

    app: main.NovaSSMApp

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'flow', metavar='ID',
            help='the uuid of the flow, or its beginning')
        parser.add_argument(
            '--to', metavar='WORKER|HOST',
            help='who is to go on with it: the name of a worker as in "flow '
                 'list", or of a host (default: any worker but its owner)')
        asking.add_yes(parser)
        parser.add_argument(
            '--wait', action='store_true',
            help='return when another worker runs it, or it is over')
        parser.add_argument(
            '--timeout', type=flow_cmd.positive_seconds, default=60.0,
            metavar='SECONDS',
            help='how long to wait (default: 60)')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple:
        database = db.journal_database(self.app.conf)
        database.check()
        before = queries.find(database, parsed_args.flow)
        asking.confirm(self.app, parsed_args, [
            'Transfer flow %s (%s): it ends the step that is under way, and '
            'goes on at %s' % (before.uuid, steer.describe(before),
                               parsed_args.to or 'another worker')])
        owner = transfers.ask(database, before.uuid, parsed_args.to)
        now = before
        if parsed_args.wait:
            now = _wait(database, before, parsed_args.timeout)
        return ('flow', 'name', 'from', 'to', 'state', 'owner'), (
            now.uuid, now.name, owner, parsed_args.to, now.state, now.owner)


def _wait(database: database_module.Database, before: queries.FlowInfo,
          timeout: float) -> queries.FlowInfo:
    """Wait until somebody else has claimed the flow, or it is over.

    :raises NotTransferable: when the time is over; says what it is doing
    """
    limit = time.monotonic() + timeout
    while True:
        now = queries.flow(database, before.uuid)
        if now.finished_at is not None:
            return now
        if (now.claims > before.claims and now.owner is not None and
                now.uuid not in transfers.pending(database)):
            return now
        if time.monotonic() > limit:
            raise exception.NotTransferable(
                'flow %s has not moved within %g seconds: %s; it moves when '
                'that is done' % (now.uuid, timeout, _doing(now)))
        time.sleep(_POLL)


def _doing(now: queries.FlowInfo) -> str:
    if now.owner is None:
        return 'nobody runs it yet'
    return '%s runs a step of it, behind %s' % (
        now.owner, now.task or 'its beginning')
