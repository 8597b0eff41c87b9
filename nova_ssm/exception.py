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

"""What can be wrong: with the setup, and on the way of a flow."""


class ConfigurationError(Exception):
    """nova-conductor must not start like this; says what to do."""


class DestinationUnfit(Exception):
    """A host that was chosen for a server cannot take it; another may do.

    :param host: its name
    :param reason: why, in Nova's own words
    """

    def __init__(self, host: str, reason: BaseException) -> None:
        super().__init__('%s: %s' % (host, reason))
        self.host = host
        self.reason = reason


class TooLate(Exception):
    """A request came when what it was to go on with was over; says what."""


class Uncertain(Exception):
    """Whether something is lost cannot be said now; says why not."""
