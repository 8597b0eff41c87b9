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

"""The flows that a request begins have ids that follow from the request.

So a request is begun once, whoever does it: the conductor that took it from
its queue, or the one that found out that it was lost. Who is second meets
the row of the first.
"""

import uuid

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, 'nova_ssm.requests')

#: Names of the requests, whatever the flows that serve them are called.
RESIZE, LIVE_MIGRATE = 'resize', 'live_migrate'


def build(server: str) -> str:
    """The flow that builds the servers of a request.

    :param server: the uuid of the first of them
    """
    return _key('build', server)


def move(request: str, server: str, request_id: str) -> str:
    """The flow that moves a server.

    :param request: RESIZE or LIVE_MIGRATE
    :param request_id: of the user's request; each has its own
    """
    return _key(request, server, request_id)


def repair(kind: str, subject: str, turn: int) -> str:
    """The flow that repairs a finding of an audit.

    :param turn: how often that was tried before
    """
    return _key('repair', kind, subject, str(turn))


def _key(*parts: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, ' '.join(parts)))
