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

from taskflow.patterns import graph_flow
from taskflow.patterns import linear_flow
from taskflow.patterns import unordered_flow
from taskflow import retry

from nova_ssm.engine import serialization
from nova_ssm.tests.unit.engine import helpers

Do, Once, Read = helpers.Do, helpers.Once, helpers.Read
Deferred = helpers.Deferred


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


def deferring(world):
    """Tasks whose rows wait, before each kind of task, and side by side."""
    return {'flow': lambda: helpers.linear(
        Deferred('a', world), Read('r', world), Deferred('d', world),
        Do('e', world), Deferred('f', world), unordered_flow.Flow('sides').add(
            Do('g', world), Deferred('h', world)),
        Deferred('i', world), Once('b', world), Deferred('j', world),
        Do('c', world))}


def deferring_twice(world):
    """They are tried again."""
    return {'flow': lambda: helpers.linear(
        Deferred('a', world),
        linear_flow.Flow('again', retry=retry.Times(3, name='times')).add(
            Deferred('r', world), Deferred('b', world),
            FailsTwice('c', world)), Deferred('d', world))}


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


def two_ways(world, way):
    """A choice between two branches, and a tail for both of them."""
    def flow():
        whole = graph_flow.Flow('flow')
        common = linear_flow.Flow('common').add(
            Do('a', world), Read('r', world))
        choose = Choose('choose', world, way)
        near = linear_flow.Flow('near').add(
            Read('near-r', world), Do('near-b', world), Do('near-c', world))
        far = linear_flow.Flow('far').add(
            Do('far-b', world), Once('far-o', world), Read('far-r', world),
            Do('far-c', world))
        tail = linear_flow.Flow('tail').add(Do('b', world), Do('c', world))
        whole.add(common, choose, near, far, tail)
        whole.link(common, choose)
        for branch in (near, far):
            whole.link(choose, branch, decider=Chosen(branch.name),
                       decider_depth='flow')
            whole.link(branch, tail)
        return whole
    return {'flow': flow}


def near_way(world):
    return two_ways(world, 'near')


def far_way(world):
    return two_ways(world, 'far')


def ways(world):
    """The branches of which anything was done, or undone."""
    return {way for call in world.calls for way in ('near', 'far')
            if call.partition(' ')[2].startswith(way)}


def hopping(world, bad=2, tries=3):
    """A part that is tried with other hosts, told by their failures."""
    world.bad = bad
    return {'flow': lambda: helpers.linear(
        Do('a', world),
        linear_flow.Flow('hops', retry=NextHost(
            'hosts', world, tries)).add(
            Read('r', world), Pick('b', world), Once('o', world),
            OnHost('c', world)),
        Do('z', world))}


def hopping_once(world):
    return hopping(world, bad=1)


def hopping_in_vain(world, tries=3):
    return hopping(world, bad=9, tries=tries)


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


class Choose(Do):
    """Tells the way to go."""

    def __init__(self, name, world, way):
        super().__init__(name, world)
        self.way = way

    def execute(self, **kwargs):
        super().execute(**kwargs)
        return self.way

    def recover(self, **kwargs):
        super().recover(**kwargs)
        return self.way


class Chosen:
    """Whether a branch is the one that was chosen."""

    def __init__(self, way):
        self.way = way

    def __call__(self, history):
        return history['choose'] == self.way


class NextHost(retry.Retry):
    """Tries some hosts, as long as it is a host that is broken."""

    def __init__(self, name, world, tries=3):
        super().__init__(name=name, provides='attempted')
        self.world = world
        self.tries = tries

    def execute(self, history, **kwargs):
        self.world.call('try %d' % (len(history) + 1))
        return [failure.exception.host
                for _task, failure in history.outcomes_iter()]

    def on_failure(self, history, **kwargs):
        [failure] = [failure for _task, failure
                     in history.outcomes_iter(index=-1)]
        if isinstance(failure.exception, Broken) and (
                len(history) < self.tries):
            return retry.RETRY
        return retry.REVERT


class Pick(Do):
    """Takes the first host that was not attempted."""

    def execute(self, attempted, **kwargs):
        super().execute()
        return 'host-%d' % len(attempted)

    def recover(self, attempted, **kwargs):
        super().recover(attempted=attempted)
        return 'host-%d' % len(attempted)


class OnHost(Do):
    """Fails on as many hosts as are broken."""

    def execute(self, b, **kwargs):
        if b in ['host-%d' % number for number in range(self.world.bad)]:
            self.world.call('fail on ' + b)
            raise Broken(b, code=7)
        return super().execute()

    def recover(self, b, **kwargs):
        return super().recover(b=b)
