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
"""nova-compute, which refuses servers whose name asks for it.

``python -m nova_ssm.tests.cloud.injection_compute ARGUMENTS`` is nova-compute
with the same arguments. What it sends back is tried on the next host: that
cannot be had of a hypervisor, which is not asked so early.
"""

import functools
import sys
from typing import Any

#: ``refuse-resize-<host>...`` is not resized to that host.
PREFIX = 'refuse-resize-'


def _watch_compute() -> None:
    from nova.compute import manager
    from nova.conf import CONF
    from nova import exception

    original = manager.ComputeManager._prep_resize

    @functools.wraps(original)
    def prep_resize(self: Any, context: Any, image: Any, instance: Any,
                    *args: Any, **kwargs: Any) -> Any:
        if (instance.display_name or '').startswith(PREFIX + CONF.host):
            raise exception.ComputeResourcesUnavailable(
                reason=f'{CONF.host} refuses {instance.display_name}')
        return original(self, context, image, instance, *args, **kwargs)

    manager.ComputeManager._prep_resize = prep_resize


def main() -> None:
    """Run nova-compute."""
    # Before anything else of Nova: it decides about eventlet.
    from nova.cmd import compute
    _watch_compute()
    sys.argv[0] = 'nova-compute'
    compute.main()


if __name__ == '__main__':
    main()
