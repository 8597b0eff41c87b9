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
    title = '%s %s' % (info.name, info.state)
    return '\n'.join([
        '<!DOCTYPE html>', '<html lang="en">', '<head>',
        '<meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" content="default-src '
        '\'none\'; style-src \'unsafe-inline\'">',
        '<meta name="viewport" content="width=device-width">',
        '<title>%s</title>' % _text(title),
        '<style>%s</style>' % _STYLE, '</head>', '<body>',
        '<h1>%s <span class="state %s">%s</span></h1>' % (
            _text(info.name), _text(info.state), _text(info.state)),
        _facts(content), *_failure(info), *_timeline(content),
        *_graph(content), *_children(content.children), '</body>', '</html>',
        ''])


def _text(value: object) -> str:
    return html.escape(masking.masked(str(value)))


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(
        '%Y-%m-%d %H:%M:%S UTC')


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
        ('Took', '%.3f s' % (until - info.created_at)),
        ('Taken over', '%d times' % info.claims if info.claims else None)]
    rows = ''.join('<tr><th>%s</th><td>%s</td></tr>' % (name, _text(value))
                   for name, value in facts if value)
    return '<table class="facts">%s</table>' % rows


def _owner(info: queries.FlowInfo) -> str | None:
    if info.owner is None or info.owner_alive:
        return info.owner
    return info.owner + ' (dead)'


def _failure(info: queries.FlowInfo) -> Iterable[str]:
    for title, told in (('Failure', info.failure),
                        ('Nobody goes on with it', info.trouble)):
        if told:
            yield '<h2>%s</h2><pre class="failure">%s</pre>' % (
                title, _text(told))


def _graph(content: Content) -> Iterable[str]:
    yield '<h2>Graph</h2>'
    if content.graph is None:
        yield '<p>Not drawn: %s</p>' % _text(content.missing)
    else:
        yield '<div class="graph">%s</div>' % svg.picture(content.graph)


# -- the timeline ----------------------------------------------------------

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

    yield '<table class="timeline">'
    yield _line('run by', '', ''.join(
        bar('owner' if hold.writer else 'nobody', hold.began_at,
            hold.ended_at or end, hold.writer or 'nobody')
        for hold in told.holds))
    for span in told.spans:
        ended = span.ended_at or end
        yield _line(_named(span), '+%.3f s' % (
            span.began_at - told.began_at), bar(
                _kind(span), span.began_at, ended,
                '%s: %s%.3f s, by %s' % (
                    _named(span), '' if span.placed else 'within ',
                    ended - span.began_at, span.writer)), _kind(span))
    yield '</table>'
    yield '<p class="legend">%s</p>' % ' '.join(
        '<span class="bar %s"></span> %s' % one for one in _LEGEND)


def _named(span: timeline_module.Span) -> str:
    return ('undo ' if span.what == events.UNDO else '') + span.task


def _kind(span: timeline_module.Span) -> str:
    if span.failed:
        return 'failed'
    if span.ended_at is None:
        return 'open'
    if span.what == events.UNDO:
        return 'undone'
    return 'done' if span.exact else 'read'


def _line(name: str, when: str, bars: str, kind: str = '') -> str:
    return ('<tr class="%s"><th>%s</th><td class="when">%s</td><td '
            'class="lane"><div class="bars">%s</div></td></tr>'
            % (kind, _text(name), _text(when), bars))


_LEGEND = (('done', 'done'), ('read', 'only reads'),
           ('failed', 'failed'), ('undone', 'undone'),
           ('open', 'begun'), ('nobody', 'run by nobody'))


def _children(children: Sequence[queries.FlowInfo]) -> Iterable[str]:
    if not children:
        return
    yield '<h2>Flows that it has posted</h2><table class="children">'
    for info in reversed(children):
        yield ('<tr><td>%s</td><td>%s</td><td>%s</td><td><span class="state '
               '%s">%s</span></td><td>%s</td></tr>' % (
                   _text(info.uuid), _text(info.name),
                   _text(info.subject or ''), _text(info.state),
                   _text(info.state), _text(info.failure or '')))
    yield '</table>'


_STYLE = '''
:root { color-scheme: light dark; --line: #8886; --done: #2a8f5b;
  --read: #7aa7c7; --failed: #c7372f; --undone: #c98a1b; --open: #3d74d6;
  --nobody: #9996; }
body { font: 15px/1.45 sans-serif; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; }
th { text-align: left; font-weight: 600; padding: .1rem 1rem .1rem 0; }
td { padding: .1rem 1rem .1rem 0; overflow-wrap: anywhere; }
.state { font-size: .8em; padding: .1em .5em; border-radius: .4em;
  color: #fff; background: #667; }
.SUCCESS { background: var(--done); } .FAILURE { background: var(--failed); }
.REVERTED { background: var(--undone); } .RUNNING { background: var(--open); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .6rem;
  border-left: 4px solid var(--failed); background: #8881; }
.timeline { width: 100%; } .timeline th, .when { white-space: nowrap; }
.timeline th { font-weight: 400; } .failed th { color: var(--failed); }
.when { text-align: right; font-variant-numeric: tabular-nums; }
.lane { width: 100%; padding: 0; }
.bars { position: relative; height: 1.1em; background: #8881; }
.bars .bar { position: absolute; top: 0; bottom: 0; }
.bar { border-radius: 2px; background: var(--done); }
.bar.read { background: var(--read); opacity: .55; }
.bar.failed { background: var(--failed); }
.bar.undone { background: var(--undone); }
.bar.open, .bar.owner { background: var(--open); }
.bar.nobody { background: var(--nobody); }
.legend .bar { display: inline-block; width: 1em; height: .8em;
  margin-left: 1em; }
.graph { overflow-x: auto; }
'''
