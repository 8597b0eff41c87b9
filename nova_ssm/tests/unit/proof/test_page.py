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
"""The page is what is made of the results that are kept by it."""

import pytest

from nova_ssm.tests.proof import page
from nova_ssm.tests.proof import parts


def test_the_page_of_the_documentation_was_not_edited():
    path = page.SOURCE / 'reliability.rst'
    assert path.read_text() == page.render(page.kept()), (
        'run tools/prove.sh --from RESULTS; nobody edits this page')


@pytest.fixture
def source(tmp_path):
    where = tmp_path / 'source'
    where.mkdir()
    return where


@pytest.fixture
def kept(source, all_results):
    """The page with one part of each kind."""
    page.keep(map(parts.read, all_results), source)
    return source


def test_what_was_kept_makes_the_same_page_again(kept):
    first = page.write(kept).read_text()
    page.keep(page.kept(kept), kept)
    assert page.write(kept).read_text() == first


def test_it_says_that_nobody_edits_it(kept):
    assert 'Do not edit it' in page.write(kept).read_text()


def test_each_part_says_its_commit_and_its_date(kept):
    text = page.write(kept).read_text()
    for part in page.kept(kept):
        assert (f'   * - ``{part.command}``\n     - {part.commit}\n'
                f'     - {part.date}\n') in text


def test_a_cell_has_stock_beside_ours(kept):
    assert ('   * - broker\n     - build\n     - 1\n     - 0\n     - 0\n'
            '     - 2\n     - 2\n     - 1\n     - 0\n     - 1\n'
            ) in page.write(kept).read_text()


def test_what_was_not_tried_is_a_dash_and_not_a_zero(kept):
    assert ('   * - a task dies\n     - build\n     - -\n     - -\n     - -\n'
            '     - 5\n') in page.write(kept).read_text()


def test_what_did_not_run_is_named(source, results):
    page.keep([parts.read(results('chaos'))], source)
    text = page.write(source).read_text()
    assert 'Not run for this page: The conductor at work killed' in text


def test_new_results_take_the_place_of_those_of_their_kind(kept, results):
    page.keep([parts.read(results('chaos', commit='new'))], kept)
    commits = {part.kind: part.commit for part in page.kept(kept)}
    assert commits['chaos'] == 'new'
    assert set(commits) == {'chaos', 'crash', 'boundaries', 'oracle',
                            'faults', 'ownership'}


def test_runs_of_one_kind_are_one_table(kept, results):
    page.keep([parts.read(results('chaos')),
               parts.read(results('chaos', date='2026-11-23 08:00'))], kept)
    assert '     - 4\n     - 4\n     - 2\n' in page.write(kept).read_text()
