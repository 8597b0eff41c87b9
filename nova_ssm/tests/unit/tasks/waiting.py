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

"""Tasks that wait, in a world with a time of its own."""

from collections.abc import Callable, Iterator
from typing import Any

from nova_ssm.engine import ownership
from nova_ssm.engine import task


def replaced(sleep: Callable[[float], Any]
             ) -> Iterator[tuple[type, str, Any]]:
    """What to put in the place of which attributes.

    :param sleep: what a task calls that waits, run by an engine or not
    """
    yield ownership.Ownership, 'wait', lambda self, seconds: sleep(seconds)
    yield task.Task, 'wait', staticmethod(lambda seconds: sleep(seconds))
