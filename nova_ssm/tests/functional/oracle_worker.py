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

"""One worker of the oracle: runs Nova's own tests, one at a time, as told.

The driver (``oracle.py``) writes a test id a line to standard input; this
process answers each with one JSON object a line on the standard output it was
started with; its keys are the attributes of ``oracle_pool.Answer``. What the
tests print goes to standard error. Started by the driver only.
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import unittest

# Nothing of Nova, oslo or the engine is imported up here: the package of
# Nova's tests decides first between eventlet and native threads.

ERROR_LIMIT = 6000  # characters of a traceback that are kept, from its end


class Result(unittest.TestResult):
    """The outcome of one test: ``status`` and the end of its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.status = 'ok'
        self.error = ''

    def addError(self, test, err):
        """Record an unexpected exception."""
        super().addError(test, err)
        self._fail(self.errors[-1][1])

    def addFailure(self, test, err):
        """Record a failed assertion."""
        super().addFailure(test, err)
        self._fail(self.failures[-1][1])

    def addSkip(self, test, reason):
        """Record a test that did not want to run."""
        super().addSkip(test, reason)
        if self.status == 'ok':
            self.status, self.error = 'skip', str(reason)

    def addExpectedFailure(self, test, err):
        """Record a test that is known to fail in Nova itself."""
        super().addExpectedFailure(test, err)
        if self.status == 'ok':
            self.status = 'xfail'

    def addUnexpectedSuccess(self, test):
        """Record a test that Nova expects to fail and that passed."""
        super().addUnexpectedSuccess(test)
        self._fail('unexpected success')

    def _fail(self, text: str) -> None:
        self.status, self.error = 'fail', text[-ERROR_LIMIT:]


class PluginSwitch:
    """Turns the plugins on for every test, without a change to Nova's files.

    ``ConfFixture`` is what each of Nova's tests sets its options up with; its
    ``setUp`` is wrapped. Each test gets a database of its own, a copy of an
    empty one with the schema, which is read and removed after the test.

    :param workflows: the value of ``[ssm] workflows``
    :param directory: where the databases go
    """

    def __init__(self, workflows: list[str], directory: str) -> None:
        self.workflows = workflows
        self.template = os.path.join(directory, 'template.db')
        self.path = os.path.join(directory, 'test.db')

    def install(self) -> None:
        """Make the template and wrap Nova's fixture. Call it once."""
        from cryptography import fernet
        from nova.tests.fixtures import conf as nova_conf_fixture

        from nova_ssm import conf as ssm_conf
        from nova_ssm.engine import database
        from nova_ssm.tests.functional import restart

        restart.no_threads()
        heed_stubs()
        database.upgrade('sqlite:///' + self.template)
        original = nova_conf_fixture.ConfFixture.setUp
        switch = self
        key = fernet.Fernet.generate_key().decode()

        # Nova's CellDatabases fixture lets one cell at a time be asked: all
        # else in the process waits, or is sent to that cell. A look of the
        # audit, which no test asks for, would so fail or block the test.
        def set_up(fixture):
            original(fixture)
            ssm_conf.register_opts(fixture.conf)
            fixture.config(group='conductor', compute_task_manager='nova_ssm')
            fixture.config(group='ssm', workflows=switch.workflows,
                           task_events_interval=0, audit_interval=0,
                           connection='sqlite:///' + switch.path,
                           encryption_keys=[key])

        nova_conf_fixture.ConfFixture.setUp = set_up

    def before(self) -> None:
        """Give the next test a fresh database."""
        self._remove()
        shutil.copyfile(self.template, self.path)

    def after(self) -> dict[str, int]:
        """Return how many flows the test ran, by state."""
        import sqlite3
        connection = sqlite3.connect(self.path, timeout=30)
        try:
            return dict(connection.execute(
                'SELECT state, COUNT(*) FROM ssm_flows GROUP BY state'))
        finally:
            connection.close()
            self._remove()

    def _remove(self) -> None:
        for suffix in ('', '-wal', '-shm', '-journal'):
            if os.path.exists(self.path + suffix):
                os.unlink(self.path + suffix)


def heed_stubs() -> None:
    """Let a test have what it puts in the place of a method of Nova's.

    Some of the tests of the API stub out a method of the conductor's manager
    that a workflow takes over: the stub is what they want to be called.
    """
    from nova.conductor import manager as nova_manager

    from nova_ssm import manager

    theirs, ours = nova_manager.ComputeTaskManager, manager.ComputeTaskManager
    known = dict(vars(theirs))
    original = ours._workflow

    def _workflow(self, method, **kwargs):
        if vars(theirs).get(method) is not known.get(method):
            return getattr(super(ours, self), method)
        return original(self, method, **kwargs)

    ours._workflow = _workflow


class Restarts:
    """Has every flow loaded again after each task, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def install(self) -> None:
        """Begin with it. Call it once."""
        from nova_ssm.tests.functional import restart

        original = restart._reload

        def reload(*args):
            self.count += 1
            return original(*args)

        restart._reload = reload
        restart.install()


class Runner:
    """Finds tests by id and runs them.

    :param switch: turns the plugins on, or None for stock Nova
    :param restarts: counts the restarts
    """

    def __init__(self, switch: PluginSwitch | None,
                 restarts: Restarts) -> None:
        self.switch = switch
        self.restarts = restarts
        self.loader = unittest.TestLoader()

    def find(self, test_id: str) -> unittest.TestCase | None:
        """Return a new object of the named test, None if there is none."""
        # A scenario ends in "(name)" and may hold dots.
        module_name = test_id.split('(')[0].rsplit('.', 2)[0]
        module = importlib.import_module(module_name)
        for test in flatten(self.loader.loadTestsFromModule(module)):
            if test.id() == test_id:
                return test
        return None

    def run(self, test_id: str) -> dict:
        """Run one test and return its answer to the driver."""
        start = time.monotonic()
        answer = {'id': test_id, 'status': 'fail'}
        try:
            test = self.find(test_id)
        except Exception as exc:  # whatever a module raises at import
            answer['error'] = 'not importable: %r' % exc
            return answer
        if test is None:
            answer['error'] = 'no such test in this release of Nova'
            return answer
        if self.switch:
            self.switch.before()
        self.restarts.count = 0
        result = Result()
        try:
            test.run(result)
        except SystemExit:
            # unittest lets it through; a service of Nova that refuses its
            # configuration raises it.
            result.addError(test, sys.exc_info())
        answer.update(status=result.status, error=result.error,
                      seconds=round(time.monotonic() - start, 2),
                      restarts=self.restarts.count)
        if self.switch:
            answer['states'] = self.switch.after()
            answer['flows'] = sum(answer['states'].values())
        return answer


def report_on_signal() -> None:
    """Write where each thread, green ones too, is when SIGUSR2 comes."""
    from oslo_reports.generators import threading as generators
    from oslo_reports import report

    def write(_number, frame):
        threads = report.TextReport('The test hangs')
        threads.add_section('Threads',
                            generators.ThreadReportGenerator(frame))
        threads.add_section('Green threads',
                            generators.GreenThreadReportGenerator())
        print(threads.run(), file=sys.stderr, flush=True)

    signal.signal(signal.SIGUSR2, write)


def flatten(suite):
    """Yield the tests of a suite and of the suites in it."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the command line that the driver made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--package', required=True,
                        help='the package of tests to import first')
    parser.add_argument('--workflows', default='',
                        help='comma-separated; empty: stock Nova')
    parser.add_argument('--restart', action='store_true',
                        help='load each flow again after every task')
    return parser.parse_args(argv)


def main() -> None:
    """Answer test ids from standard input until it ends."""
    options = parse(sys.argv[1:])
    del sys.argv[1:]  # Nova reads the command line
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    importlib.import_module(options.package)
    report_on_signal()
    with tempfile.TemporaryDirectory(prefix='ssm-oracle-') as directory:
        switch = None
        if options.workflows:
            switch = PluginSwitch(options.workflows.split(','), directory)
            switch.install()
        restarts = Restarts()
        if options.restart:
            restarts.install()
        runner = Runner(switch, restarts)
        answers.write('{"ready": true}\n')
        for line in sys.stdin:
            answers.write(json.dumps(runner.run(line.strip())) + '\n')


if __name__ == '__main__':
    main()
