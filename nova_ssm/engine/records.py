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

"""What the journal says of one atom, and of a flow's failure."""

from collections.abc import Callable, Mapping
from typing import Any

from oslo_utils import uuidutils
from taskflow.persistence import models
from taskflow import states as taskflow_states

from nova_ssm.engine import failures
from nova_ssm.engine import masking


#: What is the same for nearly every task is not written.
_USUAL = {'state': taskflow_states.SUCCESS,
          'intention': taskflow_states.EXECUTE, 'version': '1.0',
          'kind': models.atom_detail_type(models.TaskDetail('', ''))}


def compact(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what :func:`full` knows by itself."""
    return {name: value for name, value in record.items()
            if name not in _USUAL or value != _USUAL[name]}


def full(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as :func:`take` made it; the first releases wrote it so."""
    return {**_USUAL, **record}


def is_record(plain: Any) -> bool:
    """Whether something in a journal is a record."""
    if not isinstance(plain, dict):
        return False
    record = full(plain)
    needed = {taskflow_states.FAILURE: 'failure',
              taskflow_states.REVERT_FAILURE: 'revert_failure'}
    state = record['state']
    return (isinstance(state, str) and
            record['kind'] in ('TASK_DETAIL', 'RETRY_DETAIL') and
            needed.get(state, 'state') in record)


def take(detail: models.AtomDetail,
         seconds: float | None = None) -> dict[str, Any]:
    """The record of an atom, for the journal.

    :param seconds: how long that took which has ended; None if it is not
        known. Older releases do not write it, and pass over it
    """
    record: dict[str, Any] = {
        'state': detail.state, 'intention': detail.intention,
        'version': detail.version,
        'kind': models.atom_detail_type(detail)}
    # What a revert returns is of no use to anybody.
    if detail.results is not None:
        record['results'] = detail.results
    for name in ('failure', 'revert_failure'):
        failure = getattr(detail, name)
        if failure is not None:
            record[name] = failures.exception_of(failure)
    if seconds is not None and isinstance(detail, models.TaskDetail):
        record['seconds'] = seconds
    return record


def restore(name: str, record: Mapping[str, Any]) -> models.AtomDetail:
    """TaskFlow's detail of an atom, from its record in the journal."""
    cls = models.atom_detail_class(record['kind'])
    detail = cls(name, uuidutils.generate_uuid())
    detail.state = record['state']
    detail.intention = record['intention']
    detail.version = record['version']
    if 'results' in record:
        detail.results = record['results']
    for field in ('failure', 'revert_failure'):
        if field in record:
            setattr(detail, field, failures.to_failure(record[field]))
    return detail


def first_failure(failed: tuple[str, BaseException] | None, atom: str,
                  record: Mapping[str, Any]
                  ) -> tuple[str, BaseException] | None:
    """Which failure is the flow's, after this change of an atom.

    The first one, unless a retry gives its task another chance.
    """
    if record['state'] == taskflow_states.FAILURE and failed is None:
        return (atom, record['failure'])
    if (record['state'] == taskflow_states.PENDING and
            failed is not None and failed[0] == atom):
        return None
    return failed


def first_stuck(stuck: tuple[str, BaseException] | None, atom: str,
                record: Mapping[str, Any]
                ) -> tuple[str, BaseException] | None:
    """Which atom could not be reverted, after this change of an atom."""
    if stuck is None and record['state'] == taskflow_states.REVERT_FAILURE:
        return (atom, record['revert_failure'])
    return stuck


def summary(failed: tuple[str, BaseException] | None,
            stuck: tuple[str, BaseException] | None = None,
            mask: Callable[[str], str] = masking.masked) -> str | None:
    """One line for people: which task failed, and why.

    :param stuck: the task that could not be reverted
    :param mask: takes the secrets of the flow out
    """
    if failed is None:
        return None
    text = mask(_named(failed))[:4000 if stuck is None else 3000]
    if stuck is not None:
        text += '; undoing ' + mask(_named(stuck))[:1000]
    return storable(text)


def storable(text: str) -> str:
    """The text without what no database takes."""
    return text.replace('\0', ' ').encode('utf-8', 'replace').decode('utf-8')


def _named(failure: tuple[str, BaseException]) -> str:
    atom, exc = failure
    return '%s: %s: %s' % (atom, type(exc).__name__, exc)
