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
"""Draws what ``tools/bench.sh engine`` has measured."""

import pathlib
from typing import Any

import matplotlib

matplotlib.use('Agg')

from matplotlib import pyplot  # noqa: E402

from nova_ssm.tests.bench import engine_report  # noqa: E402

_COLOURS = {'memory': '#9aa5b1', 'floor': '#2ca02c', 'ours': '#1f77b4',
            'dbos': '#ff7f0e', 'taskflow': '#d62728'}


def draw(found: dict[str, Any],
         directory: pathlib.Path) -> list[pathlib.Path]:
    """Draw the time of a task for each database, and flows at once.

    :param found: what :func:`engine_report.data` has made
    :returns: the files
    """
    figures = found['figures']
    databases = list(dict.fromkeys(one['database'] for one in figures))
    together = any(one['flows_per_s'] for one in figures)
    drawing, axes = pyplot.subplots(
        1, len(databases) + together, squeeze=False,
        figsize=(4 * (len(databases) + together), 4.2))
    for axis, database in zip(axes[0], databases, strict=False):
        _lines(axis, database,
               [one for one in figures if one['database'] == database])
    if together:
        _bars(axes[0][-1], databases, figures)
    drawing.tight_layout()
    paths = [directory / 'engine.svg', directory / 'engine.png']
    for path in paths:
        drawing.savefig(path, dpi=120)
    pyplot.close(drawing)
    return paths


def _lines(axis: Any, database: str, figures: list[dict[str, Any]]) -> None:
    for peer, title in engine_report.TITLES.items():
        mine = sorted((one['tasks'], one['ms'] / one['tasks'])
                      for one in figures if one['peer'] == peer)
        if mine:
            axis.plot(*zip(*mine, strict=True), marker='o', label=title,
                      color=_COLOURS[peer])
    axis.set_xscale('log')
    axis.set_yscale('log')
    sizes = sorted({one['tasks'] for one in figures})
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.set_xlabel('tasks in the flow')
    axis.set_ylabel('ms a task')
    axis.set_title(database)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)


def _bars(axis: Any, databases: list[str],
          figures: list[dict[str, Any]]) -> None:
    rates = {(one['database'], one['peer']): one['flows_per_s']
             for one in figures if one['flows_per_s']}
    peers = [peer for peer in engine_report.TITLES
             if any(key[1] == peer for key in rates)]
    for index, peer in enumerate(peers):
        axis.bar([place + index / (len(peers) + 1)
                  for place in range(len(databases))],
                 [rates.get((database, peer), 0) for database in databases],
                 width=0.9 / (len(peers) + 1), color=_COLOURS[peer])
    axis.set_yscale('log')
    axis.set_xticks([place + 0.4 for place in range(len(databases))],
                    databases)
    axis.set_title('many flows of 10 tasks at once')
    axis.set_ylabel('flows a second')
    axis.grid(alpha=0.3, axis='y')
