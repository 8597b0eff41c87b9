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

"""One conductor process of the release that PYTHONPATH names.

Run by test_releases.py, with a JSON of what to do. The work of the tasks is
left out: see nova_ssm/tests/unit/flows/rehearsal.py, which is loaded from
the path that is given, since an old release does not have it.
"""

import importlib.util
import json
import os
import signal
import sys
import threading
import time
from unittest import mock


def main(order):
    from nova import objects
    objects.register_all()
    from nova_ssm.engine import database
    if order['do'] == 'sync':
        return database.upgrade(order['url'])
    if order['do'] == 'check':
        return database.Database(order['url']).check()
    rehearsal = _load(order['rehearsal'])
    with rehearsal.references():
        return {'begin': _begin, 'look': _look}[order['do']](
            order, rehearsal)


def _load(path):
    spec = importlib.util.spec_from_file_location('rehearsal', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _flow_types():
    from nova.conductor import manager
    import stevedore
    return [flow_type for extension in stevedore.ExtensionManager(
        'nova_ssm.workflows') for flow_type in extension.plugin(
            mock.Mock(spec=manager.ComputeTaskManager),
            mock.Mock()).flow_types()]


def _conductor(order, rehearsal):
    play = rehearsal.Rehearsal()
    called = play._called

    def log(what, name):
        with open(order['log'], 'a') as file:
            file.write('%s %s %s\n' % (order['release'], what, name))
        called(what, name)

    play._called = log
    return play.conductor(order['url'], _flow_types(), (order['key'],))


def _newest(name):
    from nova_ssm.engine import registry
    known = registry.Registry()
    for flow_type in _flow_types():
        known.add(flow_type)
    return known.get(name)


def _begin(order, rehearsal):
    """Begin a flow for each row that there is, and be killed behind it."""
    flow_type, rows = _newest(order['flow']), 0
    while True:
        rows += 1
        child = os.fork()
        if not child:
            _run_until(order, rehearsal, flow_type, rows)
        _pid, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return {'version': flow_type.version, 'killed': rows - 1}


def _die_behind(conductor, rows, atom=None):
    """Let it be killed behind so many rows, of that atom only if given."""
    written = []

    def after_commit(uuid, kind, name, state):
        if atom in (None, name):
            written.append((uuid, kind, name, state))
        if len(written) == rows:
            os.kill(os.getpid(), signal.SIGKILL)

    conductor.runner.after_commit = after_commit


def _run_until(order, rehearsal, flow_type, rows):
    conductor = _conductor(order, rehearsal)
    _die_behind(conductor, rows)
    outcome = conductor.runner.run(rehearsal.request(flow_type))
    assert outcome.state == 'SUCCESS', outcome
    # With what TaskFlow has begun, but not as if it had been killed.
    os._exit(0)


def _look(order, rehearsal):
    """Look for flows of dead conductors, a few times or until all are over.

    A release does not know by what it finds in the table that the process of
    another one is gone: it waits for the end of its lease.
    """
    from nova_ssm.engine import recovery
    conductor = _conductor(order, rehearsal)
    if order.get('kill'):
        _die_behind(conductor, 1, order['kill'])
    conductor.runner.worker.host = order['release']
    look = recovery.Recovery(conductor.runner, order['host'])
    looks, patience = 0, time.monotonic() + order['patience']
    while looks < order['looks'] or (
            conductor.runner.board.job_count and
            time.monotonic() < patience):
        looks += 1
        look.look()
        while any(thread.name.startswith('ssm-resume')
                  for thread in threading.enumerate()):
            time.sleep(0.01)
        time.sleep(0.2)
    conductor.runner.close()


if __name__ == '__main__':
    print(json.dumps(main(json.loads(sys.argv[1]))))
    sys.stdout.flush()
    os._exit(0)
