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

import contextlib
import logging


@contextlib.contextmanager
def one_process():
    """Take away the handlers that a command adds for its process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


def assert_one_line(result, *words):
    """A command failed, and said why in one line with these words."""
    code, out, err = result
    assert (code, out, err.count('\n')) == (1, '', 1), result
    assert err.startswith('ERROR: ')
    for word in words:
        assert word in err
