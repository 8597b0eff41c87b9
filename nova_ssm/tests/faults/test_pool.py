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

"""Processes end, fail and die, and leave no files behind."""

import multiprocessing
import os
import signal
import tempfile

import pytest

from nova_ssm.tests.faults import bench
from nova_ssm.tests.faults import pool


class _Bench:
    """Leaves files behind, and dies if it is asked to."""

    def __init__(self, workflows):
        self.files = tempfile.mkdtemp()

    def run(self, case):
        with open(os.path.join(self.files, 'left'), 'w'):
            pass
        if case.variant == 'dies':
            os.kill(os.getpid(), signal.SIGKILL)
        return bench.Result(str(case), [self.files])

    def close(self):
        pass


def _serve_fake(pipe, workflows, files):
    bench.Bench = _Bench
    pool.serve(pipe, workflows, files)


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    monkeypatch.setattr(tempfile, 'tempdir', None)

    def run(*names):
        todo, done = list(names), []
        pool.Pool(1, (), lambda: todo.pop(0) if todo else None,
                  done.append, _serve_fake).run()
        return done
    return run


def test_a_process_has_a_directory_of_its_own_that_goes_with_it(
        run, tmp_path):
    first, second = run('one/', 'two/')
    assert first.findings == second.findings
    assert first.findings[0].startswith(str(tmp_path / pool.PREFIX))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_leaves_no_files_and_has_a_successor(
        run, tmp_path):
    one, dies, two = run('one/', 'dies/', 'two/')
    assert 'did not end' in dies.findings[0]
    assert one.findings != two.findings
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_told_to_end_takes_its_files_along(tmp_path):
    files = tmp_path / 'files'
    files.mkdir()
    context = multiprocessing.get_context('spawn')
    pipe, theirs = context.Pipe()
    process = context.Process(target=_serve_fake,
                              args=(theirs, (), str(files)))
    process.start()
    pipe.send('one/')
    pipe.recv()
    assert list(files.iterdir())
    process.terminate()
    process.join()
    assert not files.exists()
