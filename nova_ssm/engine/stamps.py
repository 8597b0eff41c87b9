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

"""Tells a payload of the journal from one that was written elsewhere.

What holds a payload says of itself whether it is whole; not whether it stands
where it was put. So each carries a stamp behind its end, which readers that
know nothing of it pass over. It is no protection from who means harm.
"""

import struct
import zlib

from nova_ssm.engine import exception

_MARK = b'\0fj1'
_STAMP = struct.Struct('>4sI')
#: How many bytes a payload grows by.
SIZE = _STAMP.size


def stamped(flow_uuid: str, seq: int, payload: bytes) -> bytes:
    """A payload for a row of a flow."""
    return payload + _STAMP.pack(_MARK, _sum(flow_uuid, seq, payload))


def opened(payload: bytes) -> bytes:
    """The payload without its stamp; the first release wrote none."""
    # SQLite gives text if somebody has put text there.
    if isinstance(payload, bytes) and payload[-SIZE:].startswith(_MARK):
        return payload[:-SIZE]
    return payload


def checked(flow_uuid: str, seq: int, payload: bytes) -> bytes:
    """The same, of a row of which it is known where it was read.

    :raises DamagedJournal: if it was not written there
    """
    inner = opened(payload)
    if inner is not payload:
        _mark, found = _STAMP.unpack(payload[-SIZE:])
        if found != _sum(flow_uuid, seq, inner):
            raise exception.DamagedJournal(
                'row %d does not hold what was written there' % seq)
    return inner


def _sum(flow_uuid: str, seq: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(
        ('%s/%d' % (flow_uuid, seq)).encode()))
