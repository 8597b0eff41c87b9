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

"""With many flows in the tables little is read, on the real databases."""

import pytest

from nova_ssm.engine import database
from nova_ssm.tests.bench import filling
from nova_ssm.tests.bench import questions
from nova_ssm.tests.bench import rush
from nova_ssm.tests.bench import scale
from nova_ssm.tests.servers import mariadb
from nova_ssm.tests.servers import postgresql

#: So many that to read all of them is never the cheapest way to some.
FINISHED, UNFINISHED = 15000, 1500


@pytest.fixture(scope='module', params=('mariadb', 'postgresql'))
def server(request):
    with (mariadb.MariaDB() if request.param == 'mariadb' else
          # As for disks that need not seek.
          postgresql.PostgreSQL(options=['random_page_cost=1.1'])) as one:
        yield one


@pytest.fixture(scope='module')
def answers(server):
    """Each question, asked of full tables."""
    url = server.fresh()
    database.upgrade(url)
    db = database.Database(url)
    filler = filling.Filler(db)
    filler.unfinished(UNFINISHED, list(filler.workers(8)))
    filler.finished(FINISHED)
    filling.analyze(db)
    yield scale.ask(questions.Tables(db), UNFINISHED, repeat=1)
    db.close()


@pytest.mark.parametrize('question', questions.OPERATIONS)
def test_no_question_reads_what_is_over(answers, question):
    """Neither a table as a whole, nor more rows than are not over."""
    assert answers[question].troubles == []
    assert answers[question].rows <= 2 * UNFINISHED


@pytest.mark.parametrize('question, index', (
    ('is there anything to be done', 'owner_idx'),
    ('  but for 200 that wait', 'owner_idx'),
    ('look for orphans: none', 'owner_idx'),
    ('look for orphans: 10,000', 'owner_idx'),
    ('count the unfinished', 'finished_idx'),
    ('flow list', 'created_idx'),
    ('flow list --marker', 'created_idx'),
    ('flow list --unfinished', 'finished_idx'),
    ('flow list --server', 'subject_idx'),
    ('flow list --request', 'request_idx'),
    ('flow list --operation', 'name_idx'),
    ('flow list --state', 'state_idx'),
    ('flow list --failed', 'state_idx'),
    ('flow list --older', 'created_idx'),
    ('flow list --project', 'project_idx')))
def test_what_is_shown_is_chosen_by_an_index_alone(answers, question, index):
    assert '%s (index only)' % index in answers[question].plan


def test_several_workers_share_what_they_find(server):
    """Rather than all claiming the same, and all but one in vain."""
    shared, fought = (rush.run(server.fresh(), order, 300, workers=3)
                      for order in reversed(rush.ORDERS))
    assert shared.won == fought.won == 300
    assert shared.lost < fought.lost
