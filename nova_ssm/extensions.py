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

"""Tasks that an operator or vendor brings to the flows of this package.

A task is an entry point in ``nova_ssm.tasks``: a class that is called with
the conductor's manager and ``name``. Its place in a flow is a line of
``[ssm] extend``.
"""

from collections.abc import Sequence
import functools
from importlib import metadata
from typing import Any

from oslo_log import log as logging

from nova_ssm.engine import exception as engine_exc
from nova_ssm.engine import extending
from nova_ssm.engine import registry
from nova_ssm.engine import soundness
from nova_ssm.engine import task as ssm_task
from nova_ssm import exception
from nova_ssm.tasks import types

LOG = logging.getLogger(__name__)

NAMESPACE = 'nova_ssm.tasks'


def apply(lines: Sequence[str], manager: types.Manager,
          known: registry.Registry,
          writable: soundness.Writable) -> list[registry.FlowType]:
    """Change flows as the lines of ``[ssm] extend`` say.

    Each flow stays known without them, too: what was begun before is
    finished as it was begun.

    :param known: the flows; gets the changed ones
    :param writable: tells classes that the journal has a form for
    :returns: the changed ones
    :raises ConfigurationError: if a line cannot be used; says why
    """
    try:
        return _apply(lines, manager, known, writable)
    except engine_exc.BadExtension as exc:
        raise exception.ConfigurationError(
            '[ssm] extend: %s. Mend the line, or take it out' % exc) from None


def _apply(lines: Sequence[str], manager: types.Manager,
           known: registry.Registry,
           writable: soundness.Writable) -> list[registry.FlowType]:
    by_flow: dict[str, list[extending.Change]] = {}
    for line in lines:
        change = extending.parse(line)
        if change in by_flow.setdefault(change.flow, []):
            raise engine_exc.BadExtension('%s: it is there twice' % change)
        by_flow[change.flow].append(change)
    made = []
    for name, changes in by_flow.items():
        plain = [one for one in known.plain() if one.name == name]
        if not plain:
            raise engine_exc.BadExtension(
                '%s: no flow %s is run here; name its workflow in [ssm] '
                'workflows. There are: %s' % (
                    changes[0], name, ', '.join(sorted(
                        one.name for one in known.plain())) or 'none'))
        for flow_type in plain:
            extended = extending.extend(
                flow_type, changes, functools.partial(_find, manager))
            soundness.check(flow_type, extended, writable)
            known.add(extended)
            made.append(extended)
            LOG.info('Flow %s is run with changes, as version %s: %s', name,
                     extended.version, '; '.join(map(str, changes)))
    return made


def _find(manager: types.Manager, name: str) -> extending.Maker | None:
    """What makes the installed task of a name, None if there is none."""
    found = list(metadata.entry_points(group=NAMESPACE, name=name))
    if not found:
        return None
    if len(found) > 1:
        raise engine_exc.BadExtension(
            'two packages install a task named %s: %s' % (
                name, ', '.join(one.value for one in found)))
    try:
        cls: Any = found[0].load()
    except Exception as exc:
        raise engine_exc.BadExtension(
            'the task %s (%s) cannot be loaded: %s: %s' % (
                name, found[0].value, type(exc).__name__, exc)) from exc
    if not (isinstance(cls, type) and issubclass(cls, ssm_task.Task)):
        raise engine_exc.BadExtension(
            '%s (%s) is not a task: it must be a subclass of '
            'nova_ssm.engine.task.Task' % (name, found[0].value))
    return lambda named: cls(manager, name=named)


def installed() -> list[str]:
    """The names that the lines may have beside those of the flows' tasks."""
    return sorted(metadata.entry_points(group=NAMESPACE).names)
