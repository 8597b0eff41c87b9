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

"""What a flow looks like, as data, in text and as a picture."""

import itertools
import json
import re
from xml.dom import minidom

import pytest
from taskflow.patterns import graph_flow
from taskflow.patterns import linear_flow
from taskflow import task as taskflow_task

from nova_ssm.engine import drawing
from nova_ssm.engine import graphs
from nova_ssm.engine import registry
from nova_ssm.engine import svg
from nova_ssm.engine import task
from nova_ssm.tests.unit.engine import examples
from nova_ssm.tests.unit.engine import helpers

Do, Once, Read = helpers.Do, helpers.Once, helpers.Read


def graph_of(flows):
    return graphs.graph_of(
        registry.FlowType('flow', '1.2', flows(helpers.World())['flow']))


def layers(part):
    return [[item.name for item in layer] for layer in part.layers]


def part(graph, name):
    return next(item for layer in graph.whole.layers for item in layer
                if item.name == name)


# -- as data ---------------------------------------------------------------

def test_tasks_one_after_another():
    graph = graph_of(examples.simple)
    assert (graph.name, graph.version) == ('flow', '1.2')
    assert layers(graph.whole) == [['a'], ['r'], ['b'], ['s'], ['c']]
    assert graph.whole.links == [
        ('a', 'r'), ('r', 'b'), ('b', 's'), ('s', 'c')]
    assert [(atom.name, atom.effect, atom.once, atom.undone)
            for atom in graph.atoms()] == [
        ('a', True, False, 'unmake it'), ('r', False, False, None),
        ('b', True, True, 'unmake it'), ('s', False, False, None),
        ('c', True, False, 'unmake it')]


def test_a_task_says_what_it_does():
    [made, *_others] = graph_of(examples.simple).atoms()
    assert made.does == (
        'Make something in the world; on recovery only if it is not there')


def test_tasks_side_by_side():
    graph = graph_of(examples.branching)
    assert layers(graph.whole) == [['a'], ['sides'], ['d']]
    [sides] = graph.whole.layers[1]
    assert [sorted(layer) for layer in layers(sides)] == [['b', 'c', 'r']]
    assert sides.links == []


def test_a_part_that_is_tried_again():
    hops = part(graph_of(examples.hopping), 'hops')
    assert hops.retry.name == 'hosts'
    assert hops.retry.does.startswith('Tries some hosts')
    assert layers(hops) == [['r'], ['b'], ['o'], ['c']]
    assert not hops.retry.effect


def test_branches_and_their_choices():
    graph = graph_of(examples.near_way)
    assert layers(graph.whole) == [
        ['common'], ['choose'], ['near', 'far'], ['tail']]
    assert set(graph.whole.links) == {
        ('common', 'choose'), ('choose', 'near'), ('choose', 'far'),
        ('near', 'tail'), ('far', 'tail')}
    assert {name: part(graph, name).choices for name in ('near', 'tail')} == {
        'near': [graphs.Choice('choose', 'Chosen')], 'tail': []}


def _is_far(history):
    """It is far."""


def _or_near(history):
    return True


def over_one(world):
    """A choice of a task that is not right before the branches."""
    def flow():
        whole = graph_flow.Flow('flow')
        choose, between = Do('choose', world), Do('between', world)
        near, far = Do('near', world), Do('far', world)
        whole.add(choose, between, near, far)
        whole.link(choose, between)
        for branch, decider in ((near, _or_near), (far, _is_far)):
            whole.link(between, branch)
            whole.link(choose, branch, decider=decider)
        return whole
    return {'flow': flow}


def test_a_choice_is_told_in_words_but_only_direct_links_are_drawn():
    graph = graph_of(over_one)
    assert layers(graph.whole) == [['choose'], ['between'], ['near', 'far']]
    assert set(graph.whole.links) == {
        ('choose', 'between'), ('between', 'near'), ('between', 'far')}
    assert part(graph, 'near').choices == [graphs.Choice('choose', 'or near')]
    assert part(graph, 'far').choices == [
        graphs.Choice('choose', 'It is far')]


def test_what_comes_before_a_task():
    before = graph_of(examples.near_way).before
    assert before['a'] == set()
    assert before['near-b'] == {'a', 'r', 'choose', 'near-r'}
    assert before['b'] == set(before) - {'b', 'c'}


def test_what_has_an_effect_only_sometimes():
    class Sometimes(Do):
        def had_effect(self, result):
            return False

    graph = graph_of(lambda world: {'flow': lambda: helpers.linear(
        Sometimes('a', world), Do('b', world))})
    assert [atom.sometimes for atom in graph.atoms()] == [True, False]


def test_plain_tasks_of_taskflow_may_do_anything():
    class Plain(taskflow_task.Task):
        def execute(self):
            pass

    [plain] = graph_of(lambda world: {
        'flow': lambda: helpers.linear(Plain('plain'))}).atoms()
    assert (plain.effect, plain.undone) == (True, 'yes')


def test_one_that_does_not_say_how_it_is_undone():
    class Mute(task.Task):
        def execute(self):
            pass

        def revert(self, **kwargs):
            pass

    [mute] = graph_of(lambda world: {
        'flow': lambda: helpers.linear(Mute('mute'))}).atoms()
    assert mute.undone == 'yes'


EVERY = [examples.simple, examples.branching, examples.retrying,
         examples.hopping, examples.near_way, over_one,
         lambda world: {'flow': helpers.linear},
         lambda world: {'flow': lambda: linear_flow.Flow(
             'flow', retry=examples.NextHost('hosts', world)).add(
                 Do('a', world))}]


@pytest.mark.parametrize('flows', EVERY)
def test_the_data_are_json_and_have_every_task(flows):
    graph = graph_of(flows)
    data = json.loads(json.dumps(graph.data()))
    assert data == graph.data()
    assert (data['name'], data['version']) == ('flow', '1.2')
    assert sorted(names_in(data)) == sorted(
        atom.name for atom in graph.atoms())


def names_in(data):
    if isinstance(data, dict):
        found = [data['task']] if 'task' in data else []
        return found + names_in(list(data.values()))
    if isinstance(data, list):
        return [name for item in data for name in names_in(item)]
    return []


def test_a_task_as_data():
    [item, *_others] = graph_of(examples.simple).data()['items']
    assert item == {
        'task': 'a', 'effect': True, 'sometimes': False, 'once': False,
        'undone': 'unmake it', 'state': None, 'does':
        'Make something in the world; on recovery only if it is not there'}


def test_a_part_as_data():
    data = graph_of(examples.hopping).data()
    [_a, hops, _z] = data['items']
    assert (hops['flow'], hops['tries']) == ('hops', 0)
    assert hops['retry']['task'] == 'hosts'
    assert hops['links'][0] == {'from': 'r', 'to': 'b'}
    [_common, _choose, near, *_rest] = graph_of(
        examples.near_way).data()['items']
    assert near['choices'] == [{'by': 'choose', 'when': 'Chosen'}]


# -- in text ---------------------------------------------------------------

def test_text():
    assert drawing.text(graph_of(examples.hopping)).splitlines() == [
        'flow 1.2',
        '● a       undo: unmake it',
        '┌ hops    tried again by hosts: Tries some hosts, as long as it is '
        'a host that is broken',
        '│ ○ r',
        '│ ● b     undo: unmake it',
        '│ ◉ o     undo: unmake it',
        '│ ● c     undo: unmake it',
        '└',
        '● z       undo: unmake it',
        '', drawing.LEGEND]


def test_text_of_branches():
    lines = drawing.text(graph_of(examples.near_way)).splitlines()
    # Without the column of what undoes them.
    assert [re.sub(' +(undo: .*)?$', '', line) for line in lines[5:20]] == [
        '● choose',
        '┌─ one of',
        '│  ┌ near      if choose: Chosen',
        '│  │ ○ near-r',
        '│  │ ● near-b',
        '│  │ ● near-c',
        '│  └',
        '│  ┌ far       if choose: Chosen',
        '│  │ ● far-b',
        '│  │ ◉ far-o',
        '│  │ ○ far-r',
        '│  │ ● far-c',
        '│  └',
        '└─',
        '┌ tail']


def test_text_of_what_is_in_no_order():
    assert '┌─ in any order' in drawing.text(
        graph_of(examples.branching))


def test_text_with_states():
    graph = graph_of(examples.simple)
    for atom, state in zip(graph.atoms(), (
            'done', 'done', 'failed', 'not reached', 'not reached'),
            strict=True):
        atom.state = state
    assert drawing.text(graph).splitlines()[1:4] == [
        '● a       done         undo: unmake it',
        '○ r       done',
        '◉ b       failed       undo: unmake it']


@pytest.mark.parametrize('flows', EVERY)
def test_text_for_a_terminal_that_knows_ascii_only(flows):
    drawn = drawing.text(graph_of(flows))
    plain = drawing.ascii_only(drawn)
    assert plain.isascii()
    assert '?' not in plain
    assert len(plain.splitlines()) == len(drawn.splitlines())


@pytest.mark.parametrize('flows', EVERY)
def test_mermaid_has_every_task_and_link_once(flows):
    graph = graph_of(flows)
    lines = [line.strip() for line in drawing.mermaid(graph).splitlines()]
    assert lines[0] == 'flowchart TB'
    for atom in graph.atoms():
        if not atom.name.startswith(('times', 'hosts')):
            assert len([line for line in lines if re.match(
                r'%s(\[|\(\[)"' % atom.name, line)]) == 1
    assert len([line for line in lines if line.startswith('subgraph')]) == (
        lines.count('end'))
    assert '-->' not in lines[0]


def test_mermaid_has_the_choices():
    assert 'choose --> |"choose: Chosen"| near' in drawing.mermaid(
        graph_of(examples.near_way))


@pytest.mark.parametrize('flows', EVERY)
def test_dot_is_balanced_and_has_every_task(flows):
    graph = graph_of(flows)
    drawn = drawing.dot(graph)
    assert drawn.count('{') == drawn.count('}')
    for atom in graph.atoms():
        if not atom.name.startswith(('times', 'hosts')):
            assert drawn.count('"%s" [label="%s"' % (
                atom.name, atom.name)) == 1


def test_dot_links_tasks_and_cuts_at_parts():
    drawn = drawing.dot(graph_of(examples.near_way))
    assert ('"choose" -> "near-r" [label="choose: Chosen", '
            'lhead="cluster_near"];') in drawn
    assert '"near-c" -> "b" [ltail="cluster_near", lhead="cluster_tail"];' in (
        drawn)


# -- as a picture ----------------------------------------------------------

def parsed(graph):
    return minidom.parseString(svg.picture(graph).encode())


def rects(document):
    return [tuple(int(rect.getAttribute(name)) for name in (
        'x', 'y', 'width', 'height'))
        for rect in document.getElementsByTagName('rect')]


def words(document):
    return [''.join(node.data for node in text.childNodes)
            for text in document.getElementsByTagName('text')]


@pytest.mark.parametrize('flows', EVERY)
def test_the_picture_has_every_task_once(flows):
    graph = graph_of(flows)
    said = words(parsed(graph))
    for atom in graph.atoms():
        assert len([text for text in said if re.match(
            r'[●◉○↻] %s(:|$)' % re.escape(atom.name), text)]) == 1


@pytest.mark.parametrize('flows', EVERY)
def test_in_the_picture_nothing_overlaps_or_sticks_out(flows):
    document = parsed(graph_of(flows))
    _x, _y, width, height = map(int, document.documentElement.getAttribute(
        'viewBox').split())
    boxes = rects(document)
    for x, y, w, h in boxes:
        assert x >= 0 and x + w <= width
        assert y >= 0 and y + h <= height
    for (x, y, w, h), (a, b, c, d) in itertools.combinations(boxes, 2):
        apart = (x + w <= a or a + c <= x or y + h <= b or b + d <= y)
        # A frame is drawn before what is in it.
        inside = x < a and a + c < x + w and y < b and b + d < y + h
        assert apart != inside


@pytest.mark.parametrize('flows', EVERY)
def test_the_picture_needs_nothing_and_has_no_colours(flows):
    drawn = svg.picture(graph_of(flows))
    for word in ('#', 'rgb', 'script', 'href', 'url', 'black', 'white'):
        assert word not in drawn.replace('http://www.w3.org', '')
    assert 'currentColor' in drawn


@pytest.mark.parametrize('flows', EVERY)
def test_the_words_of_a_task_fit_into_it(flows):
    """Wide letters are 0.6 of the size of their font."""
    for text in parsed(graph_of(flows)).getElementsByTagName('text'):
        wide = len(text.firstChild.data) * 0.6 * int(
            text.getAttribute('font-size'))
        assert wide <= svg._WIDTH + 2 * svg._PADDING


def test_the_picture_shows_choices_states_and_tries():
    graph = graph_of(examples.near_way)
    graph.atoms()[0].state = 'done'
    graph.atoms()[-1].state = 'not reached'
    document = parsed(graph)
    assert words(document).count('if choose: Chosen') == 2
    assert 'done' in words(document)
    assert len([group for group in document.getElementsByTagName('g')
                if group.getAttribute('opacity')]) == 1
    hopping = graph_of(examples.hopping)
    part(hopping, 'hops').tries = 3
    assert '(try 3)' in ' '.join(words(parsed(hopping)))


def test_what_reads_only_is_dashed():
    document = parsed(graph_of(examples.simple))
    assert [bool(rect.getAttribute('stroke-dasharray'))
            for rect in document.getElementsByTagName('rect')] == [
        False, True, False, True, False]


def test_words_are_escaped():
    class Odd(Do):
        """Less < more & "so"."""

    drawn = svg.picture(graph_of(lambda world: {
        'flow': lambda: helpers.linear(Odd('a', world))}))
    assert 'Less &lt; more &amp;' in drawn
    assert minidom.parseString(drawn.encode())
