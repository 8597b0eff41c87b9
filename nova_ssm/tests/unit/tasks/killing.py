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

"""Kills a conductor at each moment of what it does.

A moment is each effect in the world, and each row of the journal.
"""

import itertools

from nova_ssm.tests.unit.engine import helpers


def everywhere(conductor, url, work, check, prepare=lambda world: None,
               moments=None, again=False):
    """Kill a conductor at each moment, and let another one go on.

    Each time in a world of its own, until it lives to the end of its work.

    :param conductor: its class; which world it lives in stands there
    :param work: what it is killed at
    :param check: called with the world when nobody has anything left to do
    :param prepare: called with the world before
    :param moments: that it is killed at; default: each, or each second one
        if again
    :param again: kill the second one too, and let a third one go on
    """
    killed = 0
    for moment in moments or itertools.count(2 if again else 1,
                                             2 if again else 1):
        with conductor.world_type().entered() as world:
            prepare(world)
            world.kill_at = moment
            try:
                work(conductor(url, world))
            except helpers.Killed:
                killed += 1
                assert world.points == moment
            else:
                assert killed, 'no moment to be killed in'
                return
            if again:
                world.kill_at = moment + 2 + moment % 7
                go_on(url, world)
            world.kill_at = None
            go_on(url, world)
            check(world)


def go_on(url, world):
    """Have what is left done by another conductor, which may die too."""
    helpers.expire_leases(url)
    try:
        type(world.process)(url, world).resume_all()
    except helpers.Killed:
        pass
