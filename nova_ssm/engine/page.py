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

"""One flow as a page: its graph, and when it did what.

Self-contained: no script, nothing that is fetched from elsewhere, and a
policy in the page that forbids both. So it can be attached to a bug report,
and opened anywhere. Its texts come from the journal, where the secrets of the
flow are masked; what only looks like one is masked once more.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import datetime
import html

from nova_ssm.engine import events
from nova_ssm.engine import graphs
from nova_ssm.engine import masking
from nova_ssm.engine import queries
from nova_ssm.engine import states
from nova_ssm.engine import style
from nova_ssm.engine import svg
from nova_ssm.engine import timeline as timeline_module


@dataclasses.dataclass
class Content:
    """What a page shows.

    :param graph: with the states of its tasks; None if it cannot be drawn
    :param missing: why not
    :param timeline: None if the journal cannot be read
    :param children: the flows that this one has posted
    :param made_at: when the page is made, on the database's clock
    """

    info: queries.FlowInfo
    graph: graphs.Graph | None
    missing: str | None
    timeline: timeline_module.Timeline | None
    children: Sequence[queries.FlowInfo]
    made_at: float


def page(content: Content) -> str:
    """The page as HTML."""
    info = content.info
    return '\n'.join([
        '<!DOCTYPE html>', '<html lang="en">', '<head>',
        '<meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src '
        '\'none\'; style-src \'unsafe-inline\'">',
        '<meta name="viewport" content="width=device-width">',
        '<title>%s</title>' % _text('%s %s' % (info.name, info.state)),
        '<style>%s</style>' % style.sheet(), '</head>', '<body>', '<main>',
        '<h1>%s %s</h1>' % (_text(info.name), _state(info.state)),
        '<p>%s</p>' % _text(_summary(content)), _facts(content),
        *_failures(content), *_timeline(content), *_graph(content),
        *_children(content.children), '</main>', '</body>', '</html>', ''])


def _text(value: object) -> str:
    return html.escape(masking.masked(str(value)))


def _state(state: str) -> str:
    return '<span class="state %s">%s</span>' % (_text(state), _text(state))


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(
        '%Y-%m-%d %H:%M:%S UTC')


def _summary(content: Content) -> str:
    """What has become of it, in one sentence."""
    info = content.info
    took = '%.3f s' % ((info.finished_at or content.made_at) -
                       info.created_at)
    failed = [one.task for one in (
        content.timeline.failures if content.timeline else ())
        if one.what == events.EXECUTE]
    why = ': %s failed' % failed[-1] if failed else ''
    return {
        states.SUCCESS: 'It has succeeded after %s.' % took,
        states.REVERTED: 'All that it did was undone after %s%s.' % (
            took, why),
        states.FAILURE: 'It failed after %s%s, and could not be undone.' % (
            took, why),
        states.KILLED: 'It was given up after %s; nothing was undone.' % took,
    }.get(info.state, 'It is under way since %s.' % took)


def _facts(content: Content) -> str:
    info = content.info
    until = info.finished_at or content.made_at
    facts = [
        ('Flow', info.uuid), ('Version', info.version),
        ('Subject', info.subject), ('Request', info.request_id),
        ('Project', info.project_id), ('User', info.user_id),
        ('Parent', info.parent_uuid), ('Owner', _owner(info)),
        ('Begun', _date(info.created_at)),
        ('Over' if info.finished_at else 'Seen', _date(until)),
        ('Taken over', '%d times' % info.claims if info.claims else None)]
    return '<dl class="facts">%s</dl>' % ''.join(
        '<div><dt>%s</dt><dd>%s</dd></div>' % (name, _text(value))
        for name, value in facts if value)


def _owner(info: queries.FlowInfo) -> str | None:
    if info.owner is None or info.owner_alive:
        return info.owner
    return info.owner + ' (dead)'


def _failures(content: Content) -> Iterable[str]:
    info, told = content.info, content.timeline
    whole = told.failures if told is not None else []
    if info.failure or whole:
        yield '<h2>Failure</h2>'
    if info.failure and not whole:
        yield '<div class="failure failed"><pre>%s</pre></div>' % _text(
            info.failure)
    for one in whole:
        yield ('<div class="failure failed"><h3>%s%s</h3><p class="dim">%s, '
               'by %s</p><pre>%s: %s</pre><details><summary>Traceback'
               '</summary><pre>%s</pre></details></div>' % (
                   'Undoing ' if one.what == events.UNDO else '',
                   *map(_text, (one.task, _date(one.at), one.writer,
                                one.cause.removeprefix('builtins.'),
                                one.message, one.traceback))))
    if info.trouble:
        yield ('<h2>Nobody goes on with it</h2><div class="failure failed">'
               '<pre>%s</pre></div>' % _text(info.trouble))


def _graph(content: Content) -> Iterable[str]:
    yield '<h2>Graph</h2>'
    if content.graph is None:
        yield '<p>Not drawn: %s</p>' % _text(content.missing)
    else:
        # Whoever has no mouse can scroll it, too.
        yield ('<div class="graph scroll" tabindex="0" role="region" '
               'aria-label="Graph">%s</div>' % svg.picture(content.graph))


def _timeline(content: Content) -> Iterable[str]:
    yield '<h2>Timeline</h2>'
    told = content.timeline
    if told is None:
        yield '<p>The journal cannot be read.</p>'
        return
    end = told.ended_at or max(content.made_at, told.last)
    whole = max(end - told.began_at, 1e-6)

    def bar(kind: str, began: float, ended: float, label: str) -> str:
        left = 100 * (began - told.began_at) / whole
        width = 100 * (ended - began) / whole
        return ('<div class="bar %s" style="left: %.3f%%; width: '
                'max(2px, %.3f%%)" title="%s"></div>'
                % (kind, left, width, _text(label)))

    yield '<ol class="timeline">'
    yield _line('', '', '<span>0</span><span>%.3f s</span><span>%.3f s'
                '</span>' % (whole / 2, whole), 'axis')
    yield _line('run by', '', ''.join(
        bar(style.OWNER if hold.writer else style.NOBODY, hold.began_at,
            hold.ended_at or end, hold.writer or 'nobody')
        for hold in told.holds))
    for span in told.spans:
        ended = span.ended_at or end
        yield _line(_named(span), _took(span, ended), bar(
            _kind(span), span.began_at, ended, '%s: %s from +%.3f s on, by '
            '%s' % (_named(span), _took(span, ended),
                    span.began_at - told.began_at, span.writer)),
            _kind(span))
    yield '</ol>'
    yield '<p class="legend">%s</p>' % ''.join(
        '<span><span class="bar %s"></span>%s</span>' % one
        for one in _LEGEND)
    yield '<p>%s</p>' % _text('Run by ' + ', then '.join(
        '%s for %.3f s' % (hold.writer or 'nobody', (
            hold.ended_at or end) - hold.began_at)
        for hold in told.holds)) if told.holds else ''


def _named(span: timeline_module.Span) -> str:
    return ('undo ' if span.what == events.UNDO else '') + span.task


def _took(span: timeline_module.Span, ended: float) -> str:
    seconds = (ended - span.began_at if span.seconds is None
               else span.seconds)
    if span.ended_at is None:
        return '%.3f s so far' % seconds
    return '%s%.3f s' % ('' if span.placed else 'within ', seconds)


def _kind(span: timeline_module.Span) -> str:
    if span.failed:
        return style.FAILED
    if span.ended_at is None:
        return style.OPEN
    if span.what == events.UNDO:
        return style.UNDONE
    return style.DONE if span.exact else style.READ


def _line(name: str, took: str, bars: str, kind: str = '') -> str:
    return ('<li class="%s"><span class="name">%s</span><span class="took">'
            '%s</span><div class="bars">%s</div></li>'
            % (kind, _text(name), _text(took), bars))


_LEGEND = ((style.DONE, 'done'), (style.READ, 'leaves no row of its own'),
           (style.FAILED, 'failed'), (style.UNDONE, 'undone'),
           (style.OPEN, 'under way'), (style.NOBODY, 'run by nobody'))


def _children(children: Sequence[queries.FlowInfo]) -> Iterable[str]:
    if not children:
        return
    yield ('<h2>Flows that it has posted</h2><div class="scroll" '
           'tabindex="0" role="region" aria-label="Flows that it has posted">'
           '<table><thead><tr>%s</tr></thead><tbody>' % ''.join(
               '<th scope="col">%s</th>' % name for name in (
                   'Flow', 'Name', 'Subject', 'State', 'Failure')))
    for info in reversed(children):
        yield '<tr>%s</tr>' % ''.join(
            '<td>%s</td>' % cell for cell in (
                _text(info.uuid), _text(info.name),
                _text(info.subject or ''), _state(info.state),
                _text(info.failure or '')))
    yield '</tbody></table></div>'
