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

"""``nova-ssm flow pause|resume|cancel|kill|retry``: have flows obey."""

import argparse
import importlib
import time
from typing import Any, ClassVar

from cliff import lister

from nova_ssm.cmd import asking
from nova_ssm.cmd import db
from nova_ssm.cmd import flow as flow_cmd
from nova_ssm.cmd import main
from nova_ssm.engine import database as database_module
from nova_ssm.engine import exception
from nova_ssm.engine import orders
from nova_ssm.engine import queries
from nova_ssm.engine import retries
from nova_ssm.engine import states

_POLL = 0.2

#: Exit code of what was not, or not yet, obeyed.
NOT_DONE = 3


class Steer(lister.Lister):
    """What the commands have in common that give an order.

    :cvar verb: what is ordered
    :cvar does: what that means, in words
    :cvar wants: what is waited for
    """

    app: main.NovaSSMApp
    verb: ClassVar[str] = ''
    does: ClassVar[str] = ''
    wants: ClassVar[str] = ''
    _code = 0

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'flow', metavar='ID', nargs='+',
            help='the uuid of a flow, or its beginning; may be several')
        asking.add_yes(parser)
        parser.add_argument(
            '--wait', action='store_true',
            help='return when %s; exit code %d if it is not' % (
                self.wants, NOT_DONE))
        parser.add_argument(
            '--timeout', type=flow_cmd.positive_seconds, default=60.0,
            metavar='SECONDS',
            help='how long to wait (default: 60)')
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Show what has become of it; the exit code tells whether it did."""
        return super().run(parsed_args) or self._code

    def take_action(self, parsed_args: argparse.Namespace) -> tuple:
        database = db.journal_database(self.app.conf)
        database.check()
        before = [queries.find(database, uuid) for uuid in parsed_args.flow]
        asking.confirm(self.app, parsed_args, [
            self.tell(database, info) for info in before])
        ordered: dict[str, queries.FlowInfo] = {}
        for info in before:
            for uuid in self.order(database, info, parsed_args):
                ordered[uuid] = (info if uuid == info.uuid else
                                 queries.flow(database, uuid))
        if not queries.living(database):
            self.app.stderr.write(
                'No conductor is alive that could do it: the next one that '
                'starts does.\n')
        results = dict.fromkeys(ordered, 'ordered')
        if parsed_args.wait:
            results = self._wait(database, ordered, parsed_args.timeout)
        return ('flow', 'name', 'subject', 'state', 'result'), [
            (uuid, info.name, info.subject,
             queries.flow(database, uuid).state, results[uuid])
            for uuid, info in ordered.items()]

    def tell(self, database: database_module.Database,
             info: queries.FlowInfo) -> str:
        """What is going to be done to one flow."""
        return '%s flow %s (%s): %s' % (
            self.verb.capitalize(), info.uuid, describe(info), self.does)

    def order(self, database: database_module.Database,
              info: queries.FlowInfo, parsed_args: argparse.Namespace
              ) -> list[str]:
        """Give the order; returns the flows that have it."""
        return orders.give(database, info.uuid, self.verb, asking.who(),
                           getattr(parsed_args, 'reason', None))

    def _wait(self, database: database_module.Database,
              ordered: dict[str, queries.FlowInfo],
              timeout: float) -> dict[str, str]:
        """What has become of the orders when all are obeyed, or time is up.

        Notes in the exit code whether all of them were.
        """
        limit = time.monotonic() + timeout
        results: dict[str, str] = {}
        while True:
            for uuid in ordered.keys() - results.keys():
                found = self.look(ordered[uuid],
                                  queries.flow(database, uuid))
                if found is not None:
                    results[uuid], well = found
                    self._code = self._code if well else NOT_DONE
            if len(results) == len(ordered):
                return results
            if time.monotonic() > limit:
                self._code = NOT_DONE
                return {uuid: results.get(uuid) or 'not yet: ' + doing(
                    queries.flow(database, uuid)) for uuid in ordered}
            time.sleep(_POLL)

    def look(self, before: queries.FlowInfo, now: queries.FlowInfo
             ) -> tuple[str, bool] | None:
        """What has become of an order.

        :returns: that in words, and whether it is what was wanted; None if
            nothing has, yet
        """
        raise NotImplementedError


def describe(info: queries.FlowInfo) -> str:
    """A flow in a few words."""
    words = [info.name, 'of', info.subject or 'nothing']
    words.append('in ' + info.state)
    if info.finished_at is None:
        words.append('behind ' + (info.task or 'its beginning'))
    return ' '.join(words)


def doing(now: queries.FlowInfo) -> str:
    """What keeps a flow from obeying."""
    if now.owner is None or not now.owner_alive:
        return 'nobody runs it%s' % (
            ': ' + now.trouble if now.trouble else '')
    return ('%s runs a step of it, behind %s: it obeys when that is done'
            % (now.owner, now.task or 'its beginning'))


class Pause(Steer):
    """Let flows wait at their next step, until "flow resume".

    Nothing is undone, and nobody else goes on with them. Whoever waits for
    the answer of a flow is not kept waiting.
    """

    verb = orders.PAUSE
    does = 'it ends the step that is under way, and begins no further one'
    wants = 'they wait'

    def look(self, before: queries.FlowInfo, now: queries.FlowInfo
             ) -> tuple[str, bool] | None:
        if now.finished_at is not None:
            return 'too late, it has ended: ' + now.state, False
        if now.order != orders.PAUSE:
            return 'it was ordered otherwise meanwhile', False
        if now.owner is None or not now.owner_alive:
            return 'paused behind ' + (now.task or 'its beginning'), True
        return None


class Resume(Steer):
    """Let flows go on that wait since "flow pause"."""

    verb = 'resume'
    does = 'a conductor goes on with it'
    wants = 'somebody runs them, or they are over'

    def order(self, database: database_module.Database,
              info: queries.FlowInfo, parsed_args: argparse.Namespace
              ) -> list[str]:
        return orders.resume(database, info.uuid)

    def look(self, before: queries.FlowInfo, now: queries.FlowInfo
             ) -> tuple[str, bool] | None:
        if now.finished_at is not None:
            return 'it has ended: ' + now.state, True
        if now.order == orders.PAUSE:
            return 'it is to wait again', False
        if now.owner_alive:
            return 'it goes on at %s' % now.owner, True
        return None


class Cancel(Steer):
    """Have flows undo what they have done, as if their next step had failed.

    The server is left as by an operation that failed: after a resize or a
    migration as it was before, after a build in ERROR. That is not possible
    any more when a compute was told to begin.
    """

    verb = orders.CANCEL
    wants = 'all is undone'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--reason', metavar='TEXT',
            help='why; the users of the server see it')
        return parser

    def tell(self, database: database_module.Database,
             info: queries.FlowInfo) -> str:
        return '%s\n    %s' % (
            super().tell(database, info), queries.left(database, info.uuid))

    does = 'what it has done is undone'

    def look(self, before: queries.FlowInfo, now: queries.FlowInfo
             ) -> tuple[str, bool] | None:
        if now.finished_at is None:
            return (now.answer, False) if now.answer else None
        if now.state == states.REVERTED:
            return 'all is undone', True
        if now.state == states.SUCCESS:
            return 'too late, it has ended: ' + now.state, False
        return '%s: %s' % (now.state, now.failure), False


class Kill(Steer):
    """Give flows up: they are over, and nothing of them is undone.

    For flows that cannot go on nor be cancelled, e.g. since their journal is
    damaged. What they may have left is for "nova-ssm audit" to find.
    """

    verb = orders.KILL
    does = ('it is over, and nothing is undone; "nova-ssm audit" finds what '
            'it leaves')
    wants = 'they are over'

    def tell(self, database: database_module.Database,
             info: queries.FlowInfo) -> str:
        return '%s\n    %s' % (
            super().tell(database, info), queries.left(database, info.uuid))

    def look(self, before: queries.FlowInfo, now: queries.FlowInfo
             ) -> tuple[str, bool] | None:
        if now.finished_at is None:
            return None
        if now.state == states.KILLED:
            return now.failure or 'given up', True
        return 'too late, it has ended: ' + now.state, False


class Retry(Steer):
    """Have flows that have failed tried again.

    What could not be undone (FAILURE) is undone from the task on whose
    revert failed. A resize, a cold or a live migration that was reverted is
    begun again, if nobody has done anything to the server since. What else
    was reverted needs a new request: it is said which one, and why.
    """

    verb = 'retry'
    wants = 'they are over again'

    def tell(self, database: database_module.Database,
             info: queries.FlowInfo) -> str:
        return '%s flow %s (%s): %s\n    it had failed: %s' % (
            self.verb.capitalize(), info.uuid, describe(info),
            'what could not be undone is undone'
            if info.state == states.FAILURE else 'it begins again',
            info.failure)

    def order(self, database: database_module.Database,
              info: queries.FlowInfo, parsed_args: argparse.Namespace
              ) -> list[str]:
        retries.retry(database, info.uuid, asking.who(), _refusal)
        return [info.uuid]

    def look(self, before: queries.FlowInfo, now: queries.FlowInfo
             ) -> tuple[str, bool] | None:
        if now.finished_at is None:
            return None
        well = now.state == (states.REVERTED if before.state ==
                             states.FAILURE else states.SUCCESS)
        return (': '.join(filter(None, (now.state, now.failure))), well)


def _refusal(name: str, version: str) -> str | None:
    """Why a flow that was reverted cannot be begun again, if so."""
    catalog: Any = importlib.import_module('nova_ssm.catalog').installed()
    try:
        flow_type = catalog.flow_type(name, version)
    except exception.UnknownFlow as exc:
        return 'it is not known here whether it can be begun again: %s' % exc
    if flow_type.again is not None:
        return None
    return ('all that it has done was undone, and a flow named %s cannot be '
            'begun again: %s' % (name, flow_type.instead))
