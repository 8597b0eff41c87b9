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

"""Nova inside this process, on files."""

from nova_ssm.tests.functional import embedded  # first: it patches

from nova_ssm.tests.demo import watch


def _boot(nova, name, count):
    nova.boot(name, count)
    return [nova.wait(server['id']) for server in nova.servers()]


def test_another_nova_goes_on_with_the_same_files(tmp_path):
    files = watch.Files(str(tmp_path))
    with embedded.EmbeddedNova(str(tmp_path)) as nova:
        before = _boot(nova, 'first', 2)
        guests = {host: nova.services[host].manager.driver
                  .list_instance_uuids() for host in nova.hosts}
        assert not any(files.leftovers(guests).values())
    assert len(before) == 2
    with embedded.EmbeddedNova(str(tmp_path)) as nova:
        assert ({server['id'] for server in nova.servers()}
                == {server['id'] for server in before})
        assert len(_boot(nova, 'second', 1)) == 3


def test_flows_run_when_the_plugins_are_on(tmp_path):
    files = watch.Files(str(tmp_path))
    with embedded.EmbeddedNova(str(tmp_path),
                               workflows=['build_instances']) as nova:
        _boot(nova, 'vm', 2)
        flows = files.flows()
        guests = {host: nova.services[host].manager.driver
                  .list_instance_uuids() for host in nova.hosts}
        assert not any(files.leftovers(guests).values())
    assert flows
    assert all(flow.finished and flow.before for flow in flows)
    assert not any(flow.resumed for flow in flows)
