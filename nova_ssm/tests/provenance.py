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
"""Of what, and when, something was measured."""

import pathlib
import subprocess
import time

_ROOT = pathlib.Path(__file__).resolve().parents[2]
UNKNOWN = 'unknown'


def commit() -> str:
    """Return the commit of this checkout, ``+`` behind it if changed.

    What no commit holds cannot be looked up again, and an archive of a
    release has no commit: ``unknown``.
    """
    def git(*arguments: str) -> str:
        return subprocess.run(
            ['git', '-C', str(_ROOT), *arguments], capture_output=True,
            text=True, check=True).stdout.strip()

    try:
        changed = git('status', '--porcelain', '--', 'nova_ssm', 'patches')
        return git('rev-parse', '--short=10', 'HEAD') + (
            '+' if changed else '')
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN


def stamp() -> dict[str, str]:
    """Return the commit, and the time in UTC, for a file of results."""
    return {'commit': commit(),
            'date': time.strftime('%Y-%m-%d %H:%M', time.gmtime())}
