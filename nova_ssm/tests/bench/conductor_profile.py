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

"""Where the conductors' time goes, sampled from outside by py-spy."""

import collections
from collections.abc import Iterator
import contextlib
import os
import pathlib
import re
import signal
import subprocess

from rich import table

from nova_ssm.tests.cloud import cloud
from nova_ssm.tests.cloud import settings

#: Samples a second: no divisor of what runs by the clock.
_RATE = 199
_FRAME = re.compile(r'^(?P<name>.*) \((?P<path>[^()]*?)(:\d+)?\)$')
#: Layers, the outermost first: a sample counts for the one that the deepest
#: frame of any of them is in.
_LAYERS = (
    ('nova_ssm/engine', 'nova_ssm.engine'), ('nova_ssm/tasks', 'tasks'),
    ('nova_ssm/', 'nova_ssm'), ('taskflow/', 'TaskFlow'),
    ('networkx/', 'networkx'), ('sqlalchemy/', 'SQLAlchemy'),
    ('pymysql/', 'PyMySQL'), ('oslo_db/', 'oslo.db'),
    ('oslo_messaging/', 'oslo.messaging'), ('amqp/', 'amqp'),
    ('kombu/', 'kombu'), ('oslo_versionedobjects/', 'versioned objects'),
    ('oslo_log/', 'logging'), ('logging/', 'logging'),
    ('keystoneauth1/', 'keystoneauth'), ('requests/', 'requests'),
    ('urllib3/', 'requests'), ('nova/', 'Nova'))


@contextlib.contextmanager
def sampled(it: cloud.Cloud, path: pathlib.Path) -> Iterator[None]:
    """Sample the conductors meanwhile.

    :param path: takes the stacks, in lines ``frame;frame;... count``
    :raises CloudError: if there is no py-spy
    """
    python = os.environ.get('NOVA_SSM_BENCH_PYTHON', '')
    program = pathlib.Path(python).parent / 'py-spy'
    if not program.is_file():
        raise settings.CloudError(
            'there is no py-spy beside NOVA_SSM_BENCH_PYTHON; start this by '
            'tools/bench.sh')
    running = []
    for name in settings.CONDUCTORS:
        for pid in it.members(name):
            part = path.with_suffix(f'.{pid}')
            running.append((part, subprocess.Popen(
                [str(program), 'record', '--pid', str(pid), '--rate',
                 str(_RATE), '--format', 'raw', '--gil', '--output',
                 str(part), '--duration', '3600'],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)))
    try:
        yield
    finally:
        for _part, process in running:
            process.send_signal(signal.SIGINT)
        with open(path, 'w') as whole:
            for part, process in running:
                process.wait(60)
                if part.exists():
                    whole.write(part.read_text())
                    part.unlink()


def _stacks(path: pathlib.Path) -> Iterator[tuple[list[str], int]]:
    for line in path.read_text().splitlines():
        stack, _space, count = line.rpartition(' ')
        yield stack.split(';'), int(count)


def _short(frame: str) -> str:
    """A frame as module and function."""
    match = _FRAME.match(frame)
    if match is None:
        return frame
    where = match['path'].rpartition('site-packages/')[2]
    return f'{where.removesuffix(".py")} {match["name"]}'


def _layer(stack: list[str]) -> str:
    for frame in reversed(stack):
        for mark, name in _LAYERS:
            if mark in frame:
                return name
    return 'Python'


def tables(where: pathlib.Path) -> Iterator[table.Table]:
    """What the samples of each mode and load say."""
    kinds = collections.defaultdict(list)
    for path in sorted(where.glob('*.txt')):
        kinds[path.stem.rpartition('-')[0]].append(path)
    for kind, paths in kinds.items():
        stacks = [stack for path in paths for stack in _stacks(path)]
        yield _top(f'{kind}: by layer', stacks,
                   lambda stack: {_layer(stack)})
        yield _top(f'{kind}: by function, with what it calls', stacks,
                   lambda stack: set(map(_short, stack)), ours=True)


def _top(title: str, stacks: list[tuple[list[str], int]], keys: object,
         ours: bool = False) -> table.Table:
    counts: collections.Counter[str] = collections.Counter()
    total = 0
    for stack, count in stacks:
        total += count
        for key in keys(stack):  # type: ignore[operator]
            counts[key] += count
    shown = table.Table(title=title)
    shown.add_column('')
    shown.add_column('of all', justify='right')
    for key, count in counts.most_common(300):
        if not ours or 'nova_ssm' in key or 'taskflow' in key:
            shown.add_row(key, f'{100 * count / max(total, 1):.1f} %')
    return shown
