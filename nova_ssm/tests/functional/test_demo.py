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

"""A conductor that is killed, for real: the demo, as a test."""

import pytest

from nova_ssm.tests.demo import embedded
from nova_ssm.tests.demo import story


def _tell(directory, stock):
    demo = embedded.EmbeddedDemo(str(directory), 6, stock, verbose=False)
    try:
        return demo.run(), demo
    except story.DemoError as exc:
        if 'done before the kill' in str(exc):
            pytest.skip('the machine was too slow to kill it in time')
        raise


def test_another_conductor_finishes_what_a_killed_one_began(tmp_path):
    good, demo = _tell(tmp_path / 'ssm', stock=False)
    assert good
    flows = demo.databases.flows()
    assert any(flow.resumed for flow in flows)
    assert all(flow.finished for flow in flows)


def test_stock_nova_forgets_servers_when_its_conductor_is_killed(tmp_path):
    # What the test above would not notice if the kill came too late.
    good, demo = _tell(tmp_path / 'stock', stock=True)
    assert good
    assert not demo.databases.flows()


def test_a_directory_with_other_files_is_left_alone(tmp_path):
    (tmp_path / 'precious').touch()
    with pytest.raises(story.DemoError, match='name another one'):
        embedded.prepare(str(tmp_path))
    assert (tmp_path / 'precious').exists()
