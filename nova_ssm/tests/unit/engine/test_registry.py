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

"""Which flows a process can run."""

import pytest

from nova_ssm.engine import exception
from nova_ssm.engine import registry
from nova_ssm.tests.unit.engine import helpers


@pytest.fixture
def known():
    made = registry.Registry()
    made.add(registry.FlowType('resize', '2.3', helpers.linear))
    return made


@pytest.mark.parametrize('version, can', [
    ('2.3', True), ('2.0', True),
    ('2.4', False),             # a newer conductor's
    ('2.10', False),            # not a text
    ('1.9', False), ('3.0', False)])
def test_a_flow_of_the_same_major_version_and_not_newer_can_be_run(
        known, version, can):
    assert known.can_run('resize', version) is can


def test_an_unknown_flow_cannot_be_run(known):
    assert not known.can_run('other', '2.3')
    with pytest.raises(exception.UnknownFlow,
                       match='no flow named other .*only resize'):
        known.get('other')


def test_an_empty_registry_says_so():
    with pytest.raises(exception.UnknownFlow, match='only none'):
        registry.Registry().get('resize')


def test_a_name_belongs_to_one_flow(known):
    known.add(known.get('resize'))
    with pytest.raises(ValueError, match='two flows are named resize'):
        known.add(registry.FlowType('resize', '2.3', lambda: None))


def test_what_an_older_release_began_is_run_by_the_older_graph(known):
    newer = registry.FlowType('resize', '3.1', lambda: None)
    known.add(newer)
    assert known.get('resize') is newer
    assert known.get('resize', '3.0') is newer
    assert known.get('resize', '2.1').version == '2.3'
    assert known.can_run('resize', '2.1') and known.can_run('resize', '3.1')
    with pytest.raises(exception.UnknownFlow,
                       match='version 3.2 of the flow resize is not known '
                             'here, only 2.3, 3.1'):
        known.get('resize', '3.2')


@pytest.mark.parametrize('version', ['', 'two', '1.x'])
def test_a_version_that_is_none_is_not_known(known, version):
    assert 'has no version but %r' % version in known.why_not(
        'resize', version)


# -- changes of an operator -------------------------------------------------

@pytest.fixture
def changed(known):
    known.add(registry.FlowType('resize', '2.3+abc', lambda: None))
    return known


def test_what_begins_gets_the_changes(changed):
    assert changed.get('resize').version == '2.3+abc'
    assert [one.version for one in changed.plain()] == ['2.3']


def test_each_flow_is_gone_on_with_as_it_was_begun(changed):
    assert changed.get('resize', '2.1').version == '2.3'
    assert changed.get('resize', '2.1+abc').version == '2.3+abc'
    assert not changed.can_run('resize', '2.4+abc')


@pytest.mark.parametrize('version', ['2.3+other', '2.1+other'])
def test_a_flow_with_other_changes_cannot_be_run(changed, version):
    assert changed.why_not('resize', version) == (
        'the flow resize was begun with changes by an operator that are not '
        'the same here: it has version %s, here are 2.3, 2.3+abc' % version)


def test_a_release_without_changes_leaves_a_changed_flow_alone(known):
    assert 'begun with changes by an operator' in known.why_not(
        'resize', '2.3+abc')
