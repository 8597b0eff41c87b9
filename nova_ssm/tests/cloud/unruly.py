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
"""Lets an API misbehave, by the word of a file.

A WSGI layer in front of placement and neutron. While its file says so, the
API answers 500 or 503, answers late, or does not answer at all; otherwise a
request costs one look for a file that is not there.
"""

from collections.abc import Callable
from collections.abc import Iterable
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import time
from typing import Any

#: The environment of the service: the WSGI module, and the file.
MODULE = 'NOVA_SSM_CLOUD_WSGI'
FILE = 'NOVA_SSM_CLOUD_UNRULY'

SLOW = 'slow'
SILENT = 'silent'
#: What an order may ask for.
MANNERS = ('500', '503', SLOW, SILENT)
#: How many seconds a slow answer takes longer.
DELAY = 4.0

_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_REASONS = {'500': 'Internal Server Error', '503': 'Service Unavailable'}


@dataclasses.dataclass(frozen=True)
class Order:
    """How an API shall behave, and until when (seconds since the epoch)."""

    manner: str
    until: float


def give(path: pathlib.Path, manner: str, seconds: float) -> None:
    """Let an API misbehave from now on; it ends by itself.

    :param manner: one of ``MANNERS``
    """
    new = path.with_suffix('.new')
    new.write_text(json.dumps(
        {'manner': manner, 'until': time.time() + seconds}))
    # The whole file at once: who reads half of it would crash.
    os.replace(new, path)


def take_back(path: pathlib.Path) -> None:
    """Let an API behave again."""
    path.unlink(missing_ok=True)


class Layer:
    """The layer in front of one API.

    :param application: the API
    :param path: the file with the order
    """

    def __init__(self, application: _App, path: pathlib.Path) -> None:
        self._application = application
        self._path = path
        self._numbers = itertools.count()

    def _order(self) -> Order | None:
        with contextlib.suppress(FileNotFoundError):
            order = Order(**json.loads(self._path.read_text()))
            if time.time() < order.until:
                return order
        return None

    def __call__(self, environ: dict[str, Any],
                 start: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request, or not."""
        order = self._order()
        if order is None:
            return self._application(environ, start)
        if order.manner == SLOW:
            time.sleep(DELAY)
            return self._application(environ, start)
        if order.manner == SILENT:
            return self._silent(environ, order)
        text = _REASONS[order.manner]
        start(f'{order.manner} {text}', [('Content-Type', 'text/plain')])
        return [text.encode()]

    def _silent(self, environ: dict[str, Any], order: Order) -> list[bytes]:
        """Give no answer. Half of the requests are done all the same.

        The caller cannot tell which half: that is how an answer is lost
        behind a proxy.
        """
        if next(self._numbers) % 2:
            found = self._application(environ, lambda *args: None)
            for _ in found:
                pass
            close = getattr(found, 'close', None)
            if close:
                close()
        time.sleep(max(0.0, order.until - time.time()))
        # Without a status the server closes the connection.
        return []
