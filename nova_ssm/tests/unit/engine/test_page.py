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

"""One flow as a page, without a browser."""

import dataclasses
from html import parser
import re

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
import pytest

from nova_ssm.engine import colors
from nova_ssm.engine import graphs
from nova_ssm.engine import page
from nova_ssm.engine import progress
from nova_ssm.engine import queries
from nova_ssm.engine import stopwatch
from nova_ssm.engine import style
from nova_ssm.engine import timeline
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers


class Reader(parser.HTMLParser):
    """Takes a page apart.

    :ivar words: what people read
    :ivar unclosed: what was begun and is not ended
    """

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.unclosed, self.links = [], [], [], []
        self.bars = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != 'meta':
            self.unclosed.append(tag)
        attrs = dict(attrs)
        self.links += [attrs[name] for name in ('src', 'href')
                       if name in attrs]
        if tag == 'div' and attrs.get('class', '').startswith('bar '):
            self.bars.append((attrs['class'].split()[1], attrs['title'],
                              attrs['style']))

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.unclosed.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return ' '.join(self.words)


def page_of(made, db, uuid):
    info = queries.flow(db, uuid)
    graph = graphs.graph_of(made.registry.get(info.name))
    progress.mark(graph, queries.atoms(db, uuid), info)
    return page.page(page.Content(
        info, graph, None, timeline.read(db, uuid),
        queries.children(db, uuid), queries.clock(db)))


@pytest.fixture
def read(process, db):
    """Runs a flow, and reads its page."""
    def make(flows):
        made = process(flows)
        outcome = made.run()
        return Reader(page_of(made, db, outcome.uuid))
    return make


def test_it_is_whole_html(read, world):
    found = read(examples.simple(world))
    assert found.unclosed == []
    assert found.tags.count('svg') == 1
    assert 'SUCCESS' in found.words


def test_it_needs_nothing_from_elsewhere(read, world):
    found = read(examples.simple(world))
    assert found.links == []
    assert not {'script', 'link', 'img', 'iframe'} & set(found.tags)


def test_each_task_has_a_bar_in_its_order(read, world):
    found = read(examples.simple(world))
    assert [title.partition(':')[0] for kind, title, _style in found.bars
            if kind in ('done', 'read')] == ['a', 'r', 'b', 's', 'c']


def test_what_failed_and_was_undone_is_told(read, world):
    found = read(examples.failing(examples.simple)(world))
    kinds = [kind for kind, _title, _style in found.bars]
    assert kinds.count('failed') == 1
    assert kinds.count('undone') == 3
    assert 'compute is broken' in found.text
    assert 'undo a' in found.words
    assert 'All that it did was undone after' in found.text
    assert ': c failed.' in found.text


def test_the_whole_cause_can_be_unfolded(read, world):
    found = read(examples.failing(examples.simple)(world))
    assert found.tags.count('details') == found.tags.count('summary') == 1
    assert 'Traceback (most recent call last)' in found.text


def test_each_task_says_how_long_it_took(read, world):
    found = read(examples.simple(world))
    for _kind, title, _style in found.bars[1:]:
        assert re.match(r'\w+: \d+\.\d{3} s from \+\d+\.\d{3} s on, by ',
                        title)
    assert 'within' not in found.text


def test_what_an_older_release_ran_was_within_some_time(
        read, world, monkeypatch):
    monkeypatch.setattr(stopwatch.Stopwatch, 'seconds',
                        lambda self, name, state: None)
    found = read(examples.simple(world))
    assert [title.split()[1] for kind, title, _style in found.bars
            if kind == 'read'] == ['within', 'within']


@pytest.mark.parametrize('state, words', (
    ('SUCCESS', 'It has succeeded after'),
    ('REVERTED', 'All that it did was undone after'),
    ('FAILURE', 'could not be undone'), ('KILLED', 'nothing was undone'),
    ('RUNNING', 'It is under way since')))
def test_it_says_in_a_sentence_what_has_become_of_it(
        process, world, db, state, words):
    outcome = process(examples.simple(world)).run()
    info = dataclasses.replace(queries.flow(db, outcome.uuid), state=state)
    found = Reader(page.page(page.Content(
        info, None, '', timeline.read(db, outcome.uuid), [], 0)))
    assert words in found.text


def test_what_is_scrolled_can_be_reached_by_the_keyboard(
        process, world, db):
    made = process(examples.parent(world))
    text = page_of(made, db, made.run().uuid)
    scrolled = re.findall('<div class="[^"]*scroll"[^>]*>', text)
    assert len(scrolled) == 2
    for tag in scrolled:
        assert 'tabindex="0"' in tag
        assert 'role="region"' in tag and 'aria-label="' in tag


def test_one_state_has_one_colour_in_the_graph_and_beside_it():
    sheet = style.sheet()
    for kind, state in (('done', progress.DONE), ('failed', progress.FAILED),
                        ('undone', progress.REVERTED)):
        assert '.%s { --color: %s; }' % (kind, colors.picture(state)) in (
            sheet)
    assert 'url(' not in sheet and '@import' not in sheet


def test_bars_stay_in_their_lane(read, world):
    found = read(examples.retrying(world))
    for _kind, _title, css in found.bars:
        left, width = map(float, re.match(
            r'left: ([-\d.]+)%; width: max\(2px, ([-\d.]+)%\)',
            css).groups())
        assert -0.01 <= left <= 100.01
        assert 0 <= width <= 100.01 - left + 0.01


def test_that_nobody_had_it_is_shown(process, world, url, db):
    world.kill_at = 4
    with pytest.raises(helpers.Killed):
        process(examples.simple(world)).run()
    helpers.expire_leases(url)
    made = process(examples.simple(world))
    [outcome] = made.resume_all()
    found = Reader(page_of(made, db, outcome.uuid))
    assert [kind for kind, _title, _style in found.bars[:3]] == [
        'owner', 'nobody', 'owner']


def test_one_that_is_not_over(process, world, db):
    world.kill_at = 4
    made = process(examples.simple(world))
    with pytest.raises(helpers.Killed):
        made.run()
    [info] = queries.flows(db)
    found = Reader(page_of(made, db, info.uuid))
    assert 'Seen' in found.words
    assert 'RUNNING' in found.words


def test_the_children_are_listed(process, world, db):
    made = process(examples.parent(world))
    outcome = made.run()
    found = Reader(page_of(made, db, outcome.uuid))
    assert {child.uuid for child in outcome.children} <= set(found.words)


def test_one_that_cannot_be_drawn_or_read_is_still_shown(
        process, world, db):
    outcome = process(examples.simple(world)).run()
    found = Reader(page.page(page.Content(
        queries.flow(db, outcome.uuid), None, 'no plugin', None, [],
        queries.clock(db))))
    assert 'Not drawn: no plugin' in found.words
    assert 'The journal cannot be read.' in found.words


def test_what_looks_like_a_secret_is_masked(process, world, db):
    world.failing['do a'] = ValueError("password='hunter2hunter2'")
    made = process(examples.simple(world))
    outcome = made.run()
    assert 'hunter2' not in page_of(made, db, outcome.uuid)


@settings(max_examples=25, deadline=None)
@given(text=strategies.text(
    alphabet=strategies.characters(blacklist_categories=('Cs', 'Cc')),
    min_size=1, max_size=60))
def test_no_text_breaks_the_page(text):
    """Whatever a task raises is text, and no part of the page."""
    info = queries.FlowInfo(
        uuid='u', parent_uuid=None, name='flow', version='1.0',
        state='REVERTED', subject=text, project_id=None, user_id=None,
        request_id=None, owner=None, owner_alive=False, claims=0, task=None,
        task_state=None, since=0, created_at=0, finished_at=1,
        failure='<script>' + text, trouble=None)
    found = Reader(page.page(page.Content(info, None, '<b>', None, [], 2)))
    assert found.unclosed == []
    assert not {'script', 'b'} & set(found.tags)
