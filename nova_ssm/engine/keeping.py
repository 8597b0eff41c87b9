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
"""Which changes of a task, or of a retry, must not be lost: they leave a row.

What is not among them is found out again by running again.
"""

from collections.abc import Collection
from typing import Any

from taskflow.persistence import models
from taskflow import retry as taskflow_retry
from taskflow import states as taskflow_states

from nova_ssm.engine import task as ssm_task


def must_write(atom: Any, detail: models.AtomDetail,
               choosers: Collection[str]) -> bool:
    """Whether that an atom has ended leaves a row.

    :param atom: a task or a retry; None if it is not known
    :param detail: how it has ended
    :param choosers: the names of those whose results choose branches
    """
    if isinstance(atom, taskflow_retry.Retry):
        return _retry_must_write(atom, detail)
    if detail.state == taskflow_states.SUCCESS:
        if detail.name in choosers:
            return True     # or a resumed flow might choose otherwise
        if getattr(atom, 'deferred', False):
            return False
        had_effect = getattr(atom, 'had_effect', None)
        return had_effect is None or had_effect(detail.results)
    if detail.state == taskflow_states.REVERTED:
        return not isinstance(atom, ssm_task.Task) or atom.undoes()
    return detail.state in _FAILED


def _retry_must_write(retry: taskflow_retry.Retry,
                      detail: models.AtomDetail) -> bool:
    """Whether a retry leaves a row.

    It does nothing outside of the process, but that a new try begins has to
    be known: what the last one did, and undid, is of no account then.
    """
    if detail.state == taskflow_states.SUCCESS:
        return len(detail.results) > 1
    if detail.state == taskflow_states.REVERTED:
        return type(retry).revert is not taskflow_retry.Retry.revert
    return detail.state in _FAILED


_FAILED = frozenset((taskflow_states.FAILURE, taskflow_states.REVERT_FAILURE))
