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

"""Draws what ``tools/bench.sh conductor`` has measured.

Run by the interpreter that has matplotlib, with the file of the figures.
"""

import json
import pathlib
import sys
from typing import Any

import matplotlib

matplotlib.use('Agg')

from matplotlib import pyplot  # noqa: E402

_COLOURS = {'stock': '#9aa5b1', 'ssm': '#1f77b4'}
_BARS = (('cpu_ms', 'processor time a server, ms'),
         ('commit', 'commits a server'))


def draw(found: dict[str, Any], path: pathlib.Path) -> None:
    """Draw processor time, commits, and the times of all servers.

    :param found: what :func:`conductor_report.data` has made
    """
    figure, axes = pyplot.subplots(1, 2 + len(found['loads']),
                                   figsize=(7 + 3 * len(found['loads']), 4))
    for axis, (key, title) in zip(axes, _BARS, strict=False):
        _bars(axis, found, key, title)
    for axis, (load, figures) in zip(axes[2:], found['loads'].items(),
                                     strict=True):
        _times(axis, found['titles'][load], figures, found['modes'])
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def _bars(axis: Any, found: dict[str, Any], key: str, title: str) -> None:
    for index, mode in enumerate(found['modes']):
        axis.bar([place + 0.4 * index for place in range(
            len(found['loads']))],
            [figures[mode].get(key, 0) for figures in found['loads'].values()],
            width=0.38, label=mode, color=_COLOURS[mode])
    axis.set_xticks([place + 0.2 for place in range(len(found['loads']))],
                    [name.replace('-', '-\n') for name in found['loads']])
    axis.set_title(title, fontsize=9)
    axis.legend(fontsize=8)


def _times(axis: Any, title: str, figures: dict[str, Any],
           modes: list[str]) -> None:
    for mode in modes:
        # One that has failed has not come to all loads.
        took = sorted(figures[mode].get('took_s', ()))
        axis.step(took, [(index + 1) / len(took)
                         for index in range(len(took))],
                  where='post', label=mode, color=_COLOURS[mode])
    axis.set_xlim(left=0)
    axis.set_xlabel('seconds from the answer of the API', fontsize=8)
    axis.set_title(f'{title}: share of servers that are done', fontsize=9)
    axis.legend(fontsize=8)


def main() -> int:
    """Draw beside the file that is named. Returns the status."""
    path = pathlib.Path(sys.argv[1])
    draw(json.loads(path.read_text()), path.with_suffix('.svg'))
    return 0


if __name__ == '__main__':
    sys.exit(main())
