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

"""Draws the graph of a flow in text: for a terminal, Mermaid and Graphviz."""

from collections.abc import Iterator
import json

from nova_ssm.engine import colors
from nova_ssm.engine import graphs

LEGEND = ('rows in the journal: ● when it ends   ◉ when it begins, too   '
          '○ none, it can be done again')
#: What a terminal gets that knows no such characters.
_ASCII = str.maketrans('●◉○│├└┌─', '*@o||`+-')


def ascii_only(drawing: str) -> str:
    """A drawing without the characters that not every terminal has."""
    return drawing.translate(_ASCII).encode('ascii', 'replace').decode()


def text(graph: graphs.Graph, colored: bool = False) -> str:
    """The graph as a tree of lines, the first task above.

    Has a column of the states of the tasks if the graph has them.

    :param colored: paint the states, for a terminal
    """
    lines = [('%s %s' % (graph.name, graph.version), '', ''),
             *_part_lines(graph.whole, '')]
    widths = [max(len(line[column]) for line in lines)
              for column in range(2)]
    drawn = ['  '.join((
        tree.ljust(widths[0]),
        *([_state(state, widths[1], colored)] if widths[1] else []),
        notes)).rstrip()
        for tree, state, notes in lines]
    return '\n'.join([*drawn, '', LEGEND])


def _state(state: str, width: int, colored: bool) -> str:
    padding = ' ' * (width - len(state))
    return (colors.painted(state, state) if colored else state) + padding


def _part_lines(part: graphs.Part,
                indent: str) -> Iterator[tuple[str, str, str]]:
    for layer in part.layers:
        if len(layer) > 1:
            yield from _side_by_side(layer, indent)
        else:
            yield from _item_lines(layer[0], indent)


def _side_by_side(layer: list[graphs.Atom | graphs.Part],
                  indent: str) -> Iterator[tuple[str, str, str]]:
    chosen = any(item.choices for item in layer)
    yield (indent + ('┌─ one of' if chosen else '┌─ in any order'), '', '')
    for item in layer:
        yield from _item_lines(item, indent + '│  ')
    yield (indent + '└─', '', '')


def _item_lines(item: graphs.Atom | graphs.Part,
                indent: str) -> Iterator[tuple[str, str, str]]:
    why = '; '.join('if %s: %s' % (choice.by, choice.when)
                    for choice in item.choices)
    if isinstance(item, graphs.Atom):
        yield ('%s%s %s' % (indent, mark(item), item.name),
               item.state or '', '; '.join(filter(None, (why, note(item)))))
        return
    yield (indent + '┌ ' + item.name, *_retry(item, why))
    yield from _part_lines(item, indent + '│ ')
    yield (indent + '└', '', '')


def _retry(part: graphs.Part, why: str) -> tuple[str, str]:
    if part.retry is None:
        return '', why
    again = 'tried again by %s: %s' % (part.retry.name, part.retry.does)
    return ('try %d' % part.tries if part.tries else '',
            '; '.join(filter(None, (why, again))))


def mark(atom: graphs.Atom) -> str:
    """The sign of a task: see LEGEND."""
    if not atom.effect:
        return '○'
    return '◉' if atom.once else '●'


def note(atom: graphs.Atom) -> str:
    """What people have to know of a task beside its name."""
    return '; '.join(filter(None, (
        'has an effect only sometimes' if atom.sometimes else '',
        'undo: ' + atom.undone if atom.undone else '')))


# -- for other programs ----------------------------------------------------

def mermaid(graph: graphs.Graph) -> str:
    """The graph in the language of Mermaid."""
    lines = ['flowchart TB']
    _mermaid_part(graph.whole, lines, '  ')
    painted: dict[str, list[str]] = {}
    for atom in graph.atoms():
        color = colors.picture(atom.state)
        if color is not None:
            painted.setdefault(color, []).append(atom.name)
    for color, names in painted.items():
        name = colors.names()[color]
        lines.append('  classDef %s stroke:%s,stroke-width:3px' % (
            name, color))
        lines.append('  class %s %s' % (','.join(names), name))
    return '\n'.join(lines)


def _mermaid_part(part: graphs.Part, lines: list[str], indent: str) -> None:
    for item in _items(part):
        if isinstance(item, graphs.Part):
            lines.append('%ssubgraph %s["%s"]' % (
                indent, item.name, _title(item)))
            _mermaid_part(item, lines, indent + '  ')
            lines.append(indent + 'end')
        else:
            form = ('%s["%s"]' if item.effect else '%s(["%s"])')
            lines.append(indent + form % (item.name, _label(item, '<br>')))
    for before, after in part.links:
        choices = _choices(part, after)
        lines.append('%s%s --> %s%s' % (
            indent, before, '|"%s"| ' % choices if choices else '', after))


def dot(graph: graphs.Graph) -> str:
    """The graph in the language of Graphviz."""
    lines = ['digraph %s {' % _quoted(graph.name), '  compound=true;',
             '  node [shape=box];']
    _dot_part(graph.whole, lines, '  ')
    return '\n'.join([*lines, '}'])


def _dot_part(part: graphs.Part, lines: list[str], indent: str) -> None:
    for item in _items(part):
        if isinstance(item, graphs.Part):
            lines.append('%ssubgraph %s {' % (
                indent, _quoted('cluster_' + item.name)))
            lines.append('%s  label=%s;' % (indent, _quoted(_title(item))))
            _dot_part(item, lines, indent + '  ')
            lines.append(indent + '}')
        else:
            lines.append('%s%s [label=%s%s];' % (
                indent, _quoted(item.name), _quoted(_label(item, '\n')),
                ('' if item.effect else ', style=dashed') +
                _dot_color(item)))
    for before, after in part.links:
        lines.append(indent + _dot_link(part, before, after))


def _dot_color(atom: graphs.Atom) -> str:
    color = colors.picture(atom.state)
    return '' if color is None else ', color=%s, penwidth=3' % _quoted(color)


def _dot_link(part: graphs.Part, before: str, after: str) -> str:
    """A link; Graphviz links nodes, and cuts at the border of a part."""
    by_name = {item.name: item for item in _items(part)}
    ends = {'label': _choices(part, after)}
    first, last = by_name[before], by_name[after]
    if isinstance(first, graphs.Part):
        ends['ltail'] = 'cluster_' + before
    if isinstance(last, graphs.Part):
        ends['lhead'] = 'cluster_' + after
    said = ', '.join('%s=%s' % (key, _quoted(value))
                     for key, value in ends.items() if value)
    return '%s -> %s%s;' % (
        _quoted(_last_name(first)), _quoted(_first_name(last)),
        ' [%s]' % said if said else '')


def _first_name(item: graphs.Atom | graphs.Part) -> str:
    return (item.name if isinstance(item, graphs.Atom)
            else _first_name(item.layers[0][0]))


def _last_name(item: graphs.Atom | graphs.Part) -> str:
    return (item.name if isinstance(item, graphs.Atom)
            else _last_name(item.layers[-1][-1]))


def _items(part: graphs.Part) -> list[graphs.Atom | graphs.Part]:
    return [item for layer in part.layers for item in layer]


def _choices(part: graphs.Part, name: str) -> str:
    return ', '.join('%s: %s' % (choice.by, choice.when)
                     for item in _items(part) if item.name == name
                     for choice in item.choices)


def _title(part: graphs.Part) -> str:
    if part.retry is None:
        return part.name
    return '%s, tried again by %s' % (part.name, part.retry.name)


def _label(atom: graphs.Atom, newline: str) -> str:
    return atom.name if not atom.state else '%s%s%s' % (
        atom.name, newline, atom.state)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
