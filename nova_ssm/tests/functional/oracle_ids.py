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

"""Names Nova's functional tests: for ``oracle_find.py``, which starts it.

Writes one JSON list to standard output: of each test its id, and whether its
class can create servers.
"""

import importlib
import json
import os
import pkgutil
import sys
import unittest

from nova_ssm.tests.functional import oracle_worker


def main() -> None:
    """Import all tests of a package; Nova's own decides how."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    package = importlib.import_module('nova.tests.functional')
    from nova.tests.functional import integrated_helpers
    loader = unittest.TestLoader()
    found: dict[str, bool] = {}
    for module in pkgutil.walk_packages(package.__path__,
                                        package.__name__ + '.'):
        tests = loader.loadTestsFromModule(importlib.import_module(
            module.name))
        for test in oracle_worker.flatten(tests):
            found[test.id()] = isinstance(
                test, integrated_helpers.InstanceHelperMixin)
    with answers:
        json.dump(sorted(found.items()), answers)


if __name__ == '__main__':
    sys.argv[1:] = []   # Nova reads the command line
    main()
