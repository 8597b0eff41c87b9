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

"""What devstack's iniset and inidelete do, on files that oslo.config reads.

An option that is there is replaced in its place; a new one comes first in
its section; a new section is the last one.
"""

import pathlib
import re
import sys


def _lines(path: pathlib.Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _section(lines: list[str], section: str) -> tuple[int, int]:
    """Where a section's options begin and end; it is added if missing."""
    header = '[%s]' % section
    if header not in lines:
        lines += ['', header]
    begin = lines.index(header) + 1
    end = next((number for number in range(begin, len(lines))
                if lines[number].startswith('[')), len(lines))
    return begin, end


def change(verb: str, file: str, section: str, option: str,
           value: str = '') -> None:
    path = pathlib.Path(file)
    lines = _lines(path)
    begin, end = _section(lines, section)
    there = [number for number in range(begin, end)
             if re.match(re.escape(option) + r'[ \t]*=', lines[number])]
    line = '%s = %s' % (option, value)
    if verb == 'delete':
        lines = [text for number, text in enumerate(lines)
                 if number not in there]
    elif there:
        for number in there:
            lines[number] = line
    else:
        lines.insert(begin, line)
    path.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    change(*sys.argv[1:])
