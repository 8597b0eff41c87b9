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

"""What the demo shows while it runs: live on a terminal, else line by line."""

import collections
from collections.abc import Sequence

from rich import console as rich_console
from rich import live as rich_live
from rich import table as rich_table

from nova_ssm.tests.demo import watch

STYLE = {watch.REQUESTED: 'yellow', watch.CAST: 'cyan',
         watch.BUILDING: 'blue', watch.ACTIVE: 'green', watch.ERROR: 'red'}
ROWS = 16  # more servers than this are shown as numbers only


class Screen:
    """The demo's output.

    :param verbose: also say each step of each flow
    """

    def __init__(self, verbose: bool = False) -> None:
        self.console = rich_console.Console(highlight=False)
        if not self.console.is_terminal:
            self.console.width = 100
        self.verbose = verbose
        self._live: rich_live.Live | None = None
        self._last = ''
        self._steps: dict[str, int] = {}

    def say(self, text: str, style: str = '') -> None:
        """Print a line of the story."""
        self.console.print(text, style=style or None, soft_wrap=True)

    def show(self, servers: Sequence[watch.Server],
             flows: Sequence[watch.Flow] = ()) -> None:
        """Show where the servers stand now."""
        if self.verbose:
            self._say_steps(servers, flows)
        line = summary(servers, flows)
        if self.console.is_terminal:
            if self._live is None:
                self._live = rich_live.Live(console=self.console)
                self._live.start()
            self._live.update(_table(servers, flows))
        elif line != self._last:
            self.say('    ' + line)
        self._last = line

    def freeze(self) -> None:
        """Leave what is shown now as it is; the story goes on below."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def closing(self, title: str, rows: Sequence[tuple[str, str, bool]],
                ) -> None:
        """Print the closing table.

        :param rows: what was looked at, what was found, whether it is right
        """
        table = rich_table.Table(title=title, title_justify='left')
        table.add_column('looked at')
        table.add_column('found')
        for name, found, right in rows:
            table.add_row(name, found, style='' if right else 'bold red')
        self.console.print(table)

    def _say_steps(self, servers: Sequence[watch.Server],
                   flows: Sequence[watch.Flow]) -> None:
        names = {server.uuid: server.name for server in servers}
        parents = {flow.parent for flow in flows}
        for flow in flows:
            steps = flow.before + flow.after
            for step in steps[self._steps.get(flow.uuid, 0):]:
                self.say('    %s (%s): %s%s' % (
                    flow.name, 'all of them' if flow.uuid in parents
                    else names.get(flow.subject, flow.subject), step,
                    ', after it was resumed' if flow.resumed else ''))
            self._steps[flow.uuid] = len(steps)


def summary(servers: Sequence[watch.Server],
            flows: Sequence[watch.Flow]) -> str:
    """Return one line that says where the servers stand."""
    places = collections.Counter(server.place for server in servers)
    parts = ['%d %s' % (places[place], place)
             for place in watch.PLACES if places[place]]
    if flows:
        parts.append('%d of %d flows finished' % (
            sum(flow.finished for flow in flows), len(flows)))
    return ', '.join(parts) or 'no servers yet'


def _table(servers: Sequence[watch.Server],
           flows: Sequence[watch.Flow]) -> rich_table.Table:
    parents = {flow.parent for flow in flows}
    own = {flow.subject: flow for flow in flows if flow.uuid not in parents}
    table = rich_table.Table(title=summary(servers, flows),
                             title_justify='left', box=None)
    for column in ('server', 'where it is', 'host', 'last step'):
        table.add_column(column)
    for server in servers[:ROWS]:
        flow = own.get(server.uuid)
        steps = flow.before + flow.after if flow else ()
        table.add_row(server.name, server.place, server.host,
                      (steps[-1] if steps else '')
                      + (' (resumed)' if flow and flow.resumed else ''),
                      style=STYLE[server.place])
    return table
