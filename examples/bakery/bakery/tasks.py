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

"""How one step is done, undone and recovered.

The world of the bakery is a directory: an oven is a file that only one loaf
can have, a baked loaf is a file on the shelf.
"""

import pathlib
from typing import Any

from nova_ssm.engine import task

from bakery import objects

OVENS = 4


class BakeryTask(task.Task):
    """A task in a bakery.

    :param home: its directory
    """

    def __init__(self, home: pathlib.Path) -> None:
        # Names are in the journal: they must not follow the module.
        super().__init__(name=type(self).__name__)
        self.home = home

    def oven(self, number: int) -> pathlib.Path:
        return self.home / ('oven-%d' % number)


class TakeOven(BakeryTask):
    """Take an oven that is free.

    Reversion strategy: free each oven that has the loaf.
    Recovery: if an oven has the loaf already, that is the one.
    """

    reversion = 'free it'
    default_provides = 'heated'

    def execute(self, loaf: objects.Loaf) -> objects.Loaf:
        for number in range(OVENS):
            try:
                with self.oven(number).open('x') as oven:
                    oven.write(loaf.name)
            except FileExistsError:
                continue
            return objects.Loaf(name=loaf.name, oven=number)
        raise RuntimeError('no oven is free')

    def recover(self, loaf: objects.Loaf) -> objects.Loaf:
        for number in self.taken(loaf):
            return objects.Loaf(name=loaf.name, oven=number)
        return self.execute(loaf)

    def revert(self, loaf: objects.Loaf, **_kwargs: Any) -> None:
        for number in self.taken(loaf):
            self.oven(number).unlink(missing_ok=True)

    def taken(self, loaf: objects.Loaf) -> list[int]:
        return [number for number in range(OVENS)
                if self.oven(number).exists() and
                self.oven(number).read_text() == loaf.name]


class Bake(BakeryTask):
    """Wait until it is done. Nothing comes of doing it again."""

    effect = False

    def execute(self, heated: objects.Loaf, seconds: float) -> None:
        self.wait(seconds)


class FreeOven(BakeryTask):
    """Let others have the oven.

    Recovery: it may be free already, and somebody else's by now.
    """

    def execute(self, heated: objects.Loaf) -> None:
        oven = self.oven(heated.oven)
        if oven.exists() and oven.read_text() == heated.name:
            oven.unlink()


class PutOnShelf(BakeryTask):
    """Put it on the shelf: the last step."""

    def execute(self, heated: objects.Loaf, burnt: bool) -> None:
        if burnt:
            raise RuntimeError('%s is burnt' % heated.name)
        (self.home / ('shelf-%s' % heated.name)).write_text(
            'from oven %d' % heated.oven)
