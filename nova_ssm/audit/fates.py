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

"""What has become of servers that somebody else has something of."""

from collections.abc import Collection
import enum

from nova import exception
from nova import objects

from nova_ssm.audit import survey as survey_module


class Fate(enum.Enum):
    """What Nova knows of a server.

    LIVES: it is there, is asked for, or was deleted just now. OVER: it is
    deleted. UNKNOWN: Nova never had it, or has forgotten it.
    """

    LIVES = 'lives'
    OVER = 'over'
    UNKNOWN = 'unknown'


def fates(survey: survey_module.Survey,
          uuids: Collection[str]) -> dict[str, Fate]:
    """What has become of servers; nothing if a cell could not be read."""
    records = survey.records(uuids)
    owned = survey.owned(uuids)
    mapped = {mapping.instance_uuid for some in survey_module.batched(uuids)
              for mapping in objects.InstanceMappingList.get_by_instance_uuids(
                  survey.context, list(some))
              if not mapping.queued_for_delete}
    found = {}
    for uuid in uuids:
        known = [record for record, _cell in records.get(uuid, ())]
        if uuid in owned or any(not record.deleted or
                                not survey.is_old(record)
                                for record in known):
            found[uuid] = Fate.LIVES
        elif known:
            found[uuid] = Fate.OVER
        elif uuid in mapped or _is_asked_for(survey, uuid):
            found[uuid] = Fate.LIVES
        else:
            found[uuid] = Fate.UNKNOWN
    return found if survey.complete else {}


def _is_asked_for(survey: survey_module.Survey, uuid: str) -> bool:
    """Whether the API is at it: this is the first that it writes."""
    try:
        objects.RequestSpec.get_by_instance_uuid(survey.context, uuid)
    except exception.RequestSpecNotFound:
        return False
    return True


def why(server: str, fate: Fate) -> str:
    """The reason for a finding, in words."""
    if fate is Fate.OVER:
        return 'server %s is deleted' % server
    return ('Nova does not know server %s: it was deleted and archived, it '
            'never came to be, or it belongs to somebody else' % server)
