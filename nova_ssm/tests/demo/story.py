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

"""The story that the demo tells, wherever its Nova runs."""

import abc
import collections
from collections.abc import Mapping
import dataclasses
import time

from nova_ssm.tests.demo import screen as demo_screen
from nova_ssm.tests.demo import watch

LOOK = 0.003  # seconds between two looks while the kill is being timed
SHOW = 0.1  # seconds between two looks afterwards
PATIENCE = 120  # seconds for the servers to settle
QUIET = 8  # seconds without a change that count as "nothing more happens"


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Shown:
    """A server as the API shows it.

    :ivar fault: the message of its fault; empty: it has none
    """

    name: str
    status: str
    fault: str


class Story(abc.ABC):
    """A request for servers, a conductor killed in the middle, the rest.

    :param databases: of the Nova it happens in
    :param count: number of servers
    :param stock: without the plugins: the servers are expected to be stuck
    :param verbose: say each step of each flow
    """

    def __init__(self, databases: watch.Databases, count: int, stock: bool,
                 verbose: bool) -> None:
        self.databases = databases
        self.count = count
        self.stock = stock
        self.screen = demo_screen.Screen(verbose)

    @abc.abstractmethod
    def start(self) -> None:
        """Start Nova, and say so."""

    @abc.abstractmethod
    def boot(self) -> None:
        """Ask for the servers."""

    @abc.abstractmethod
    def kill(self) -> str:
        """Kill the conductor that works on them; return what it was."""

    @abc.abstractmethod
    def revive(self) -> None:
        """Make sure that there is a conductor, and say so."""

    @abc.abstractmethod
    def shown(self) -> list[Shown]:
        """Return the servers as the API shows them."""

    @abc.abstractmethod
    def guests(self) -> Mapping[str, list[str]]:
        """Return the UUIDs of the guests that run, by host."""

    @abc.abstractmethod
    def end(self) -> None:
        """Clean up, however the story ended."""

    @abc.abstractmethod
    def where_to_look(self) -> str:
        """Return where the logs are."""

    def run(self) -> bool:
        """Tell the story; return whether it ended as it should."""
        try:
            self.start()
            self.screen.say('[bold]2.[/] One request for %d servers'
                            % self.count)
            self.boot()
            self._kill_in_the_middle()
            self.revive()
            self._watch()
            return self._close()
        finally:
            self.screen.freeze()
            self.end()

    def _kill_in_the_middle(self) -> None:
        wanted = max(1, self.count // 3)
        deadline = time.monotonic() + PATIENCE
        while True:
            servers = self.databases.servers()
            if sum(server.place != watch.REQUESTED
                   for server in servers) >= wanted:
                break
            if time.monotonic() > deadline:
                raise DemoError(
                    'the conductor handed over no server within %d seconds; '
                    'look into %s' % (PATIENCE, self.where_to_look()))
            time.sleep(LOOK)
        victim = self.kill()
        servers, flows = self.databases.servers(), self.databases.flows()
        self.screen.say('[bold]3.[/] %s is killed (SIGKILL) in the middle of '
                        'it' % victim, 'red')
        self.screen.show(servers, flows)
        self.screen.freeze()
        if not any(server.place == watch.REQUESTED for server in servers) \
                and all(flow.finished for flow in flows):
            raise DemoError(
                'the conductor was done before the kill reached it: nothing '
                'was in its hands; try again with more --servers')

    def _watch(self) -> None:
        start = changed = time.monotonic()
        before = None
        while True:
            servers = self.databases.servers()
            flows = self.databases.flows()
            self.screen.show(servers, flows)
            now = time.monotonic()
            if (servers, flows) != before:
                before, changed = (servers, flows), now
            if all(server.place in watch.SETTLED for server in servers) \
                    and all(flow.finished for flow in flows):
                break
            if self.stock and now - changed > QUIET:
                self.screen.freeze()
                self.screen.say('   nothing more happens')
                break
            if now - start > PATIENCE:
                break
            time.sleep(SHOW)
        self.screen.freeze()

    def _close(self) -> bool:
        shown = self.shown()
        leftovers = self.databases.leftovers(self.guests())
        rows = self._rows(shown, leftovers)
        good = len(shown) == self.count and all(right for *_, right in rows)
        for server in shown:
            if server.fault:
                self.screen.say('   %s: %s' % (server.name, server.fault))
        self.screen.closing('after the kill', rows)
        stuck = leftovers[watch.STUCK]
        if self.stock:
            self.screen.say(
                '%d of %d servers stay in BUILD for ever: the work was in '
                'the memory of the process that died. Compare with '
                'tools/demo.sh without --stock.' % (len(stuck), self.count)
                if stuck else 'No server was forgotten this time: try again.',
                'bold')
            return bool(stuck)
        self.screen.say(
            'Every server is as it should be, and nothing is left over.'
            if good else 'This is not as it should be; look into %s'
            % self.where_to_look(), 'bold green' if good else 'bold red')
        return good

    def _rows(self, shown: list[Shown], leftovers: dict[str, list[str]],
              ) -> list[tuple[str, str, bool]]:
        status = collections.Counter(server.status for server in shown)
        faultless = [server.name for server in shown
                     if server.status == 'ERROR' and not server.fault]
        rows = [('servers asked for', str(self.count),
                 len(shown) == self.count),
                ('status in the API', ', '.join(
                    '%d %s' % (number, name)
                    for name, number in sorted(status.items())),
                 not status['BUILD'])]
        rows += self._resumed()
        rows += [(name, _some(found), not found)
                 for name, found in leftovers.items()]
        rows.append(('servers in ERROR without a fault', _some(faultless),
                     not faultless))
        return rows

    def _resumed(self) -> list[tuple[str, str, bool]]:
        if self.stock:
            return []
        flows = self.databases.flows()
        resumed = [flow for flow in flows if flow.resumed]
        return [
            ('flows', '%d, of which %d were resumed' % (
                len(flows), len(resumed)), bool(resumed)),
            ('steps of the resumed flows', '%d found done, %d done then' % (
                sum(len(flow.before) for flow in resumed),
                sum(len(flow.after) for flow in resumed)), True)]


def _some(found: list[str]) -> str:
    if not found:
        return 'none'
    return '%d: %s%s' % (len(found), ', '.join(found[:3]),
                         ' ...' if len(found) > 3 else '')
