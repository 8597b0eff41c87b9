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

"""What ``tools/bench.sh conductor`` shows: figures a server, and ratios."""

from collections.abc import Iterator
import dataclasses
import statistics
from typing import Any

from rich import table

from nova_ssm.tests.bench import conductor_meter as meter_module

#: What is compared: key, title, digits.
FIGURES = (
    ('cpu_ms', 'processor, ms', 0),
    *((kind, kind.upper(), 1) for kind in meter_module.STATEMENTS),
    ('p50_s', 'time p50, s', 2), ('max_s', 'time max, s', 2))


def data(result: Any) -> dict[str, Any]:
    """All figures as plain data.

    :param result: a :class:`~nova_ssm.tests.bench.conductor.Result`
    """
    modes = sorted({turn.mode for turn in result.turns}, reverse=True)
    loads = list(dict.fromkeys(turn.load for turn in result.turns))
    return {
        'sizes': dataclasses.asdict(result.sizes),
        'machine': result.machine, 'modes': modes, 'titles': result.titles,
        'idle': {mode: _idle(reading)
                 for mode, reading in result.idle.items()},
        'loads': {load: _load(
            [turn for turn in result.turns if turn.load == load], modes)
            for load in loads},
        'turns': [dataclasses.asdict(turn) for turn in result.turns]}


def _idle(reading: meter_module.Reading) -> dict[str, float]:
    """What idle conductors use in a second, all of them together."""
    return {key: value / reading.seconds
            for key, value in reading.per(1).items()}


def _load(turns: list[Any], modes: list[str]) -> dict[str, Any]:
    by_mode = {mode: [turn for turn in turns if turn.mode == mode]
               for mode in modes}
    found: dict[str, Any] = {
        mode: _figures(some) for mode, some in by_mode.items()}
    if set(modes) == {'stock', 'ssm'}:
        found['ratio'] = _ratios(found['ssm'], found['stock'])
        rounds = {turn.round for turn in by_mode['ssm']} & {
            turn.round for turn in by_mode['stock']}
        found['ratios_by_round'] = [_ratios(*(
            _figures([turn for turn in by_mode[mode]
                      if turn.round == number])
            for mode in ('ssm', 'stock'))) for number in sorted(rounds)]
    return found


def _figures(turns: list[Any]) -> dict[str, Any]:
    used = sum((turn.used for turn in turns), meter_module.NOTHING)
    took = [seconds for turn in turns for seconds in turn.took]
    if not took:
        return {}
    return {'servers': len(took), **used.per(len(took)),
            'p50_s': statistics.median(took), 'max_s': max(took),
            'took_s': took}


def _ratios(ours: dict[str, Any],
            stock: dict[str, Any]) -> dict[str, float | None]:
    # A ratio to next to nothing says nothing.
    return {key: ours[key] / stock[key] if stock.get(key, 0) > 0.05 else None
            for key, _title, _digits in FIGURES if key in ours}


def tables(found: dict[str, Any]) -> Iterator[table.Table]:
    """The figures as tables, one for each kind of work."""
    machine = ', '.join(
        f'{key} {value:.1f}' if isinstance(value, float) else
        f'{value} {key}' for key, value in found['machine'].items())
    for load, figures in found['loads'].items():
        shown = table.Table(
            title=f'{found["titles"][load]}: for each server',
            caption=machine)
        shown.add_column('')
        for _key, title, _digits in FIGURES:
            shown.add_column(title, justify='right')
        for mode in found['modes']:
            if figures[mode]:
                shown.add_row(f'{mode} ({figures[mode]["servers"]})', *(
                    f'{figures[mode][key]:.{digits}f}'
                    for key, _title, digits in FIGURES))
        if 'ratio' in figures:
            shown.add_row('ssm / stock', *map(_ratio(figures), FIGURES))
        yield shown
    yield _idle_table(found)


def _ratio(figures: dict[str, Any]) -> Any:
    """Writes a ratio, and the least and the largest of a round."""
    def text(figure: tuple[str, str, int]) -> str:
        ratio = figures['ratio'].get(figure[0])
        if ratio is None:
            return '-'
        rounds = [one[figure[0]] for one in figures['ratios_by_round']
                  if one.get(figure[0]) is not None]
        if len(rounds) < 2:
            return f'{ratio:.2f}'
        return f'{ratio:.2f}\n{min(rounds):.2f}-{max(rounds):.2f}'
    return text


def _idle_table(found: dict[str, Any]) -> table.Table:
    shown = table.Table(title='idle conductors, in a second')
    shown.add_column('')
    columns = FIGURES[:-2]
    for _key, title, _digits in columns:
        shown.add_column(title, justify='right')
    for mode, used in found['idle'].items():
        shown.add_row(mode, *(f'{used[key]:.1f}'
                              for key, _title, _digits in columns))
    return shown
