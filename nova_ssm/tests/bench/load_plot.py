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
"""Draws what ``tools/bench.sh load`` has measured."""

import pathlib
from typing import Any

import matplotlib

matplotlib.use('Agg')

from matplotlib import pyplot  # noqa: E402

_COLOURS = ('#1f77b4', '#ff7f0e', '#2ca02c', '#d62728')


def draw(found: dict[str, Any],
         directory: pathlib.Path) -> list[pathlib.Path]:
    """Draw how long a build takes at each rate.

    :returns: the files
    """
    drawing, axis = pyplot.subplots(figsize=(6, 4))
    workers = sorted({one['workers'] for one in found['figures']})
    for colour, number in zip(_COLOURS, workers, strict=False):
        mine = sorted((one['rate'], one['p50'], one['p99'])
                      for one in found['figures']
                      if one['workers'] == number)
        rates, p50, p99 = zip(*mine, strict=True)
        axis.plot(rates, p99, marker='o', color=colour,
                  label='%d worker(s), p99' % number)
        axis.plot(rates, p50, marker='.', linestyle='--', color=colour,
                  label='%d worker(s), p50' % number)
    axis.axhline(found['waited'], color='#9aa5b1', linestyle=':',
                 label='what the tasks wait')
    axis.set_xlabel('requests a second')
    axis.set_ylabel('seconds from a request to its end')
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    drawing.tight_layout()
    paths = [directory / 'load.svg', directory / 'load.png']
    for path in paths:
        drawing.savefig(path, dpi=120)
    pyplot.close(drawing)
    return paths
