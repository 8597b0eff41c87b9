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
"""``nova-ssm-conductor``: nova-conductor with the durable workflows.

For a Nova that can't be patched. It is the same service, with the same
options, topic and service record; only the manager of the compute tasks is
another one. On a patched Nova it does what ``[conductor]
compute_task_manager = nova_ssm`` does.

Nova is imported inside the functions: nova.cmd.conductor decides about
eventlet when it is imported and must be the first.
"""

import sys
import time
import typing

NAMESPACE = 'nova.conductor.compute_task_manager'
NAME = 'nova_ssm'


def conductor_manager(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
    """Create Nova's ConductorManager with our manager of compute tasks.

    nova.service calls it as the class of nova-conductor's manager: after the
    configuration was read, before the workers are forked.

    :raises SystemExit: if our manager can't be loaded
    """
    from nova.conductor import manager
    import nova.conf
    conf = nova.conf.CONF
    if 'compute_task_manager' in conf.conductor:
        conf.set_override('compute_task_manager', NAME, group='conductor')
        return manager.ConductorManager(*args, **kwargs)
    manager.ComputeTaskManager = _load()
    made = _make(manager.ConductorManager, *args, **kwargs)
    _hook(made, made.compute_task_mgr)
    return made


def _hook(made: typing.Any, tasks: typing.Any) -> None:
    """Do what the patch does for every compute task manager."""
    made.post_start_hook = tasks.post_start_hook
    told, ended = made.set_shutdown_in_progress, made.graceful_shutdown

    def set_shutdown_in_progress() -> None:
        told()
        tasks.set_shutdown_in_progress()

    def graceful_shutdown(timeout: float) -> None:
        began = time.monotonic()
        # Before Nova, which shuts down what the steps under way need. It
        # keeps as much of the time for that.
        tasks.graceful_shutdown(max(0, timeout - 20))
        ended(max(0, timeout - (time.monotonic() - began)))

    made.set_shutdown_in_progress = set_shutdown_in_progress
    made.graceful_shutdown = graceful_shutdown


def _make(cls: typing.Any, *args: typing.Any,
          **kwargs: typing.Any) -> typing.Any:
    from oslo_log import log as logging

    from nova_ssm import exception
    try:
        return cls(*args, **kwargs)
    except exception.ConfigurationError as exc:
        logging.getLogger(__name__).critical(
            'nova-ssm-conductor cannot start: %s', exc)
        sys.exit(1)


def _load() -> typing.Any:
    from oslo_log import log as logging
    from stevedore import driver
    try:
        return driver.DriverManager(NAMESPACE, NAME).driver
    except Exception as exc:  # noqa: BLE001 - whatever a plugin may raise
        logging.getLogger(__name__).critical(
            'The entry point %s of %s could not be loaded: %s: %s. Install '
            'nova-ssm again.', NAME, NAMESPACE, type(exc).__name__, exc)
        sys.exit(1)


def main() -> None:
    """Run nova-conductor until it is told to stop."""
    from nova.cmd import conductor
    from nova import service
    service.SERVICE_MANAGERS['nova-conductor'] = (
        f'{__name__}.{conductor_manager.__name__}')
    conductor.main()
