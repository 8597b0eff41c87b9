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

"""Flows that the tests of the runner run."""

from taskflow.patterns import linear_flow
from taskflow.patterns import unordered_flow
from taskflow import retry

from nova_ssm.engine import serialization
from nova_ssm.tests.unit.engine import helpers

Do, Once, Read = helpers.Do, helpers.Once, helpers.Read


class Broken(Exception):
    """What the tasks of these tests raise."""

    def __init__(self, host, *, code):
        super().__init__('%s is broken' % host)
        self.host = host
        self.code = code


def simple(world):
    """A task of each kind."""
    return {'flow': lambda: helpers.linear(
        Do('a', world), Read('r', world), Once('b', world), Read('s', world),
        Do('c', world))}


def branching(world):
    """Tasks side by side, with one after them."""
    return {'flow': lambda: helpers.linear(
        Do('a', world), unordered_flow.Flow('sides').add(
            Do('b', world), Do('c', world), Read('r', world)),
        Do('d', world))}


def retrying(world):
    """A part that is tried three times."""
    return {'flow': lambda: helpers.linear(
        Do('a', world),
        linear_flow.Flow('again', retry=retry.Times(3, name='times')).add(
            Read('r', world), Do('b', world), Once('o', world),
            FailsTwice('c', world)))}


def parent(world):
    return {'flow': lambda: helpers.linear(
                Do('p', world), helpers.Spawn('spawn', world)),
            'child-0': lambda: helpers.linear(Do('k', world)),
            'child-1': lambda: helpers.linear(Do('l', world))}


class FailsTwice(Do):
    """Counts in the world how often it was undone."""

    def execute(self, **kwargs):
        if self.world.count('undo b') < 2:
            raise Broken('compute', code=1)
        return super().execute(**kwargs)


class Unserializable(Do):

    def execute(self, **kwargs):
        super().execute(**kwargs)
        return object()


def failing(flows):
    """The same flows, the last task of which fails."""
    def make(world):
        world.failing['do c'] = Broken('compute', code=7)
        return flows(world)
    return make


class UsesPassword(Do):

    def execute(self, password, **kwargs):
        self.world.calls.append('password %s'
                                % serialization.reveal(password))
        return super().execute()
