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

"""Nova's tests decide between eventlet and threads: before anything else."""

from nova_ssm.tests.functional import embedded  # noqa: F401

import pytest

from nova_ssm.engine import rows
from nova_ssm.engine import runner
from nova_ssm.tests.functional import packages


@pytest.fixture(autouse=True)
def no_large_results():
    """A task that gives more than a row of the journal holds fails."""
    # Not the fixture: what tests patch has to be undone before their worlds.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner.Runner, 'largest', rows.PIECE)
        yield


@pytest.fixture(scope='session')
def built(tmp_path_factory):
    """The source archive, and the wheel that is made from it."""
    base = tmp_path_factory.mktemp('built')
    sdist = packages.sdist(base)
    return sdist, packages.wheel(sdist, base)


@pytest.fixture(scope='session')
def venv(built, tmp_path_factory):
    """Nova from PyPI, the wheel, and the example of a vendor."""
    base = tmp_path_factory.mktemp('beside')
    made = packages.Venv(base / 'venv')
    made.install('nova', built[1])
    made.install('--no-deps', packages.wheel(
        packages.ROOT / 'examples' / 'cmdb', base))
    return made
