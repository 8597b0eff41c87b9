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

"""The colours of the states of tasks, in a terminal and in pictures."""

from nova_ssm.engine import progress

#: Of each state the number of its colour in a terminal (ECMA-48, SGR), and
#: one for pictures that is read on white and on black.
_COLORS = {
    progress.DONE: ('32', '#2e9e4f'),
    progress.RUNNING: ('36', '#2388c9'),
    progress.INTERRUPTED: ('33', '#c99a1a'),
    progress.FAILED: ('31', '#d1453b'),
    progress.FAILED_REVERTED: ('31', '#d1453b'),
    progress.NOT_UNDONE: ('1;31', '#a3162b'),
    progress.REVERTED: ('35', '#9a5fc0'),
    progress.SKIPPED: ('2', '#8a8a8a'),
    progress.NOT_REACHED: ('2', '#8a8a8a'),
}


def _of(state: str | None) -> tuple[str, str] | None:
    return _COLORS.get((state or '').removesuffix(progress.OR_SKIPPED))


def painted(text: str, state: str) -> str:
    """A text in the colour of a state, for a terminal."""
    found = _of(state)
    return text if found is None else '\033[%sm%s\033[0m' % (found[0], text)


def picture(state: str | None) -> str | None:
    """The colour of a state in pictures, as #rrggbb."""
    found = _of(state)
    return None if found is None else found[1]


def names() -> dict[str, str]:
    """A word for each colour of pictures."""
    return {color: 'c' + color[1:] for _number, color in _COLORS.values()}
