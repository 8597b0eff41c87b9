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

"""Draws the graph of a flow as a picture.

The picture has no colours of its own, so it is readable on any ground, and
needs nothing but a program that shows SVG.
"""

from collections.abc import Callable
import dataclasses
import textwrap
from xml.sax import saxutils

from nova_ssm.engine import colors
from nova_ssm.engine import drawing
from nova_ssm.engine import graphs
from nova_ssm.engine import progress

_WIDTH = 340            # of a task
_GAP = 24               # between two tasks, for the arrow
_PADDING = 14
_LINE = 15              # of small text
_TITLE = 20
_SMALL = 54             # characters of small text that a task has room for

#: Tasks that are drawn pale: they have no part in how the flow went.
_PALE = (progress.SKIPPED, progress.NOT_REACHED)


@dataclasses.dataclass
class _Box:
    """Something that has a size and can be drawn anywhere.

    :param draw: gives its elements, of x and y of its left upper corner
    """

    width: int
    height: int
    draw: Callable[[int, int], list[str]]


def picture(graph: graphs.Graph) -> str:
    """The graph as SVG, to be shown by itself or within a page."""
    box = _part(graph.whole)
    if graph.whole.retry is not None:
        box = _framed(graph.whole, box)
    width, height = box.width + 4, box.height + 4
    return '\n'.join([
        '<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        'viewBox="0 0 %d %d" width="%d" style="max-width: 100%%" '
        'font-family="sans-serif" fill="currentColor">'
        % (width, height, width),
        '<title>%s</title>' % _escaped('The flow %s' % graph.name),
        *box.draw(2, 2), '</svg>'])


def _item(item: graphs.Atom | graphs.Part) -> _Box:
    box = (_atom(item) if isinstance(item, graphs.Atom)
           else _framed(item, _part(item)))
    if not item.choices:
        return box
    lines = [line for choice in item.choices for line in _wrapped(
        'if %s: %s' % (choice.by, choice.when))]
    above = len(lines) * _LINE + 6

    def draw(x: int, y: int) -> list[str]:
        return _texts(lines, x + box.width // 2, y + _LINE - 2,
                      ' text-anchor="middle" font-style="italic"'
                      ) + box.draw(x, y + above)

    return _Box(box.width, box.height + above, draw)


# -- a task ----------------------------------------------------------------

def _atom(atom: graphs.Atom) -> _Box:
    lines = _wrapped(atom.does)
    if atom.sometimes:
        lines += _wrapped('Has an effect only sometimes')
    if atom.undone:
        lines += _wrapped('Undo: ' + atom.undone)
    height = _TITLE + 10 + len(lines) * _LINE

    def draw(x: int, y: int) -> list[str]:
        color = colors.picture(atom.state)
        paint = ('stroke="currentColor"' if color is None else
                 'fill="%s" stroke="%s" stroke-width="2"' % (color, color))
        shape = ('<rect x="%d" y="%d" width="%d" height="%d" rx="4" '
                 'fill-opacity="%s" %s%s/>' % (
                     x, y, _WIDTH, height,
                     '0.06' if color is None else '0.15', paint,
                     '' if atom.effect else ' stroke-dasharray="5 4"'))
        state = '' if not atom.state else (
            '<text x="%d" y="%d" font-size="12" text-anchor="end">%s</text>'
            % (x + _WIDTH - 10, y + 19, _escaped(atom.state)))
        return ['<g%s>' % (' opacity="0.5"' if atom.state in _PALE else ''),
                shape, *_texts([drawing.mark(atom) + ' ' + atom.name],
                               x + 10, y + 19,
                               ' font-weight="bold"', size=13), state,
                *_texts(lines, x + 10, y + _TITLE + 16), '</g>']

    return _Box(_WIDTH, height, draw)


# -- a part ----------------------------------------------------------------

def _part(part: graphs.Part) -> _Box:
    """The tasks and parts of a part, from top to bottom."""
    layers = [[(item, _item(item)) for item in layer]
              for layer in part.layers]
    widths = [sum(box.width for _item, box in layer) + _GAP * (
        len(layer) - 1) for layer in layers]
    heights = [max(box.height for _item, box in layer) for layer in layers]
    width = max(widths, default=0)

    def draw(x: int, y: int) -> list[str]:
        drawn: list[str] = []
        places: dict[str, tuple[int, int, int]] = {}
        for layer, wide, high in zip(layers, widths, heights, strict=True):
            left = x + (width - wide) // 2
            for item, box in layer:
                drawn += box.draw(left, y)
                places[item.name] = (left + box.width // 2, y,
                                     y + box.height)
                left += box.width + _GAP
            y += high + _GAP
        for before, after in part.links:
            drawn += _arrow(places[before], places[after])
        return drawn

    return _Box(width, sum(heights) + _GAP * max(len(layers) - 1, 0), draw)


def _framed(part: graphs.Part, inside: _Box) -> _Box:
    """A part with its name, and what tries it again."""
    lines = []
    if part.retry is not None:
        tries = ' (try %d)' % part.tries if part.tries else ''
        lines = _wrapped('↻ %s: %s%s' % (
            part.retry.name, part.retry.does, tries))
    right = _PADDING * (1 if part.retry is None else 3)
    above = _PADDING + _TITLE + len(lines) * _LINE
    width = inside.width + _PADDING + right
    height = inside.height + above + _PADDING

    def draw(x: int, y: int) -> list[str]:
        drawn = [
            '<rect x="%d" y="%d" width="%d" height="%d" rx="10" '
            'fill-opacity="0.04" stroke="currentColor" '
            'stroke-opacity="0.5"/>' % (x, y, width, height),
            *_texts([part.name], x + _PADDING, y + 20, size=13),
            *_texts(lines, x + _PADDING, y + 36)]
        if part.retry is not None:
            drawn += _way_back(x + _PADDING + inside.width, y + above,
                               inside.height)
        return drawn + inside.draw(x + _PADDING, y + above)

    return _Box(width, height, draw)


# -- lines and words -------------------------------------------------------

def _arrow(start: tuple[int, int, int],
           end: tuple[int, int, int]) -> list[str]:
    """A line from below one thing to the top of another."""
    from_x, _top, from_y = start
    to_x, to_y, _bottom = end
    middle = to_y - _GAP // 2
    return [_line('M %d %d V %d H %d V %d' % (
        from_x, from_y, middle, to_x, to_y - 6)),
        '<path d="M %d %d l -4 -7 h 8 z"/>' % (to_x, to_y)]


def _way_back(x: int, y: int, height: int) -> list[str]:
    """A line from the last task of a part to its first."""
    return [_line('M %d %d h %d v %d h %d' % (
        x, y + height - 12, _PADDING, 32 - height, 6 - _PADDING)),
        '<path d="M %d %d l 7 -4 v 8 z"/>' % (x, y + 20)]


def _line(path: str) -> str:
    return '<path d="%s" fill="none" stroke="currentColor"/>' % path


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _SMALL)


def _texts(lines: list[str], x: int, y: int, more: str = '',
           size: int = 11) -> list[str]:
    return ['<text x="%d" y="%d" font-size="%d"%s>%s</text>' % (
        x, y + number * _LINE, size, more, _escaped(line))
        for number, line in enumerate(lines)]


def _escaped(text: str) -> str:
    return saxutils.escape(text)
