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

"""Looks twice: what comes and goes is at work, and no finding."""

from collections.abc import Callable, Iterable
import time

from nova_ssm.audit import findings
from nova_ssm.audit import kinds as kinds_module
from nova_ssm.audit import survey as survey_module
from nova_ssm.engine import database
from nova_ssm.engine import queries
from nova_ssm import exception

#: Makes what one look reads with: nothing is kept from look to look.
Begin = Callable[[], survey_module.Survey]


def find(begin: Begin, kinds: Iterable[kinds_module.Kind],
         settle: float) -> list[findings.Finding]:
    """What is there, and is still there some time later, unchanged.

    :param settle: seconds between the two looks, on the database's clock
    """
    survey = begin()
    first: dict[str, dict[str, findings.Finding]] = {}
    for kind in kinds:
        survey.say('looking for %s' % kind.about)
        found = {one.subject: one for one in kind.find(survey, None)}
        if found:
            first[kind.name] = found
    if not first:
        return []
    survey.say('looking again, in %g seconds' % settle)
    wait(survey.db, settle)
    survey = begin()
    return [one for name, found in first.items()
            for one in kinds_module.KINDS[name].find(survey, found.keys())
            if one.subject in found and
            one.state == found[one.subject].state]


def wait(db: database.Database, settle: float) -> None:
    """Wait until the database's clock has gone on."""
    until = queries.clock(db) + settle
    while (left := until - queries.clock(db)) > 0:
        time.sleep(min(left, 1.0))


def again(survey: survey_module.Survey, kind: str, subject: str
          ) -> findings.Finding | None:
    """One finding as it is now, None if it is none any more.

    :raises Uncertain: if it cannot be seen now
    """
    found = next((one for one in kinds_module.KINDS[kind].find(
        survey, {subject}) if one.subject == subject), None)
    if found is None and survey.gaps:
        raise exception.Uncertain('it cannot be seen now: %s'
                                  % '; '.join(survey.gaps))
    return found
