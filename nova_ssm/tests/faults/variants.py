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

"""The operations, each in all ways that it can go."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
from typing import Any, ClassVar
from unittest import mock

from nova import exception
from nova.tests import fixtures as nova_fixtures
from nova.tests.functional.api import client

from nova_ssm.tests.faults import invariants
from nova_ssm.tests.faults import plan
from nova_ssm.tests.faults import world as world_module

World = world_module.World
End = invariants.End
IMAGE = '155d900f-4e14-4e4c-a73d-069cbf4541e6'   # one of GlanceFixture's
VOLUME = nova_fixtures.CinderFixture.IMAGE_BACKED_VOL

#: By name.
VARIANTS: dict[str, 'Variant'] = {}


class Variant:
    """One way of one operation.

    :cvar ends: how its servers end if no conductor fails
    :cvar failed: how they may end if one does
    :cvar failed_at: how they may end too if what fails is in a flow, or is a
        task (``FLOW.TASK``), of this name
    :cvar died: how they may end too if one dies
    :cvar hosts: which hosts the scheduler likes best
    """

    ends: ClassVar[Sequence[End]] = (End('ACTIVE', 'host1'),)
    failed: ClassVar[Sequence[End]] = (End('ERROR', None),)
    failed_at: ClassVar[Mapping[str, Sequence[End]]] = {}
    died: ClassVar[Sequence[End]] = ()
    hosts: ClassVar[Sequence[str]] = ('host1', 'host2', 'host3')

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__doc__:
            VARIANTS[cls.name()] = cls()

    @classmethod
    def name(cls) -> str:
        """As it is called on the command line."""
        return ''.join('-' + one.lower() if one.isupper() else one
                       for one in cls.__name__).strip('-')

    def may_end(self, case: plan.Case) -> list[End]:
        """How its servers may end, with what goes wrong in a case."""
        failing = case.raises or case.lost
        places = {place for fault in case.faults if failing for place in (
            fault.spot.flow, '%s.%s' % (fault.spot.flow, fault.spot.atom))}
        return [*self.ends, *(self.failed if failing else ()),
                *(end for place in sorted(places)
                  for end in self.failed_at.get(place, ())),
                *(self.died if case.dies else ())]

    def prepare(self, world: World) -> list[str]:
        """What has to be there before; the ids of servers."""
        return []

    def go(self, world: World, servers: list[str]) -> list[str]:
        """Ask the API for it; the ids of all servers."""
        raise NotImplementedError()

    @contextlib.contextmanager
    def weather(self, world: World) -> Iterator[None]:
        """What is not as usual meanwhile."""
        yield


def flavor(world: World, name: str) -> str:
    return next(one['id'] for one in world.api.get_flavors()
                if one['name'] == name)


def boot(world: World, count: int = 1, **body: Any) -> list[str]:
    """Ask for servers."""
    request = {'name': 'server', 'flavorRef': flavor(world, 'm1.tiny'),
               'imageRef': IMAGE, 'min_count': count, 'max_count': count,
               'return_reservation_id': True, 'networks': [
                   {'uuid': world.case.neutron.network_1['id']}],
               'tags': ['one', 'two'], **body}
    answer = world.api.post_server({'server': request})
    return [one['id'] for one in world.api.get_servers(
        search_opts={'reservation_id': answer['reservation_id']})]


@contextlib.contextmanager
def failing(world: World, method: str, exc: BaseException,
            *hosts: str) -> Iterator[None]:
    """Let the drivers of some computes fail at something."""
    with contextlib.ExitStack() as stack:
        for host in hosts:
            stack.enter_context(mock.patch.object(
                world.computes[host].manager.driver, method,
                side_effect=exc))
        yield


FULL = exception.ComputeResourcesUnavailable(reason='made to fail')
DISK = {'boot_index': 0, 'uuid': VOLUME, 'source_type': 'volume',
        'destination_type': 'volume'}


class Build(Variant):
    """One server."""

    def go(self, world: World, servers: list[str]) -> list[str]:
        return boot(world)


class BuildMany(Build):
    """Several servers in one request."""

    ends = (End('ACTIVE', 'host1'), End('ACTIVE', 'host2'),
            End('ACTIVE', 'host3'))

    def go(self, world: World, servers: list[str]) -> list[str]:
        return boot(world, 3)


class BuildVolume(Build):
    """A server that boots from a volume."""

    def go(self, world: World, servers: list[str]) -> list[str]:
        return boot(world, block_device_mapping_v2=[DISK], imageRef='')


class BuildNowhere(Build):
    """A server for which there is no host."""

    ends = (End('ERROR', None),)

    def go(self, world: World, servers: list[str]) -> list[str]:
        return boot(world, flavorRef=flavor(world, 'm1.xlarge'))


class BuildElsewhere(Build):
    """A server whose first host cannot take it."""

    ends = (End('ACTIVE', 'host2'),)

    def weather(self, world: World) -> Any:
        return failing(world, 'spawn', FULL, 'host1')


class BuildVolumeElsewhere(BuildElsewhere):
    """A server with a volume, whose first host cannot take it."""

    def go(self, world: World, servers: list[str]) -> list[str]:
        return boot(world, block_device_mapping_v2=[DISK], imageRef='')


class BuildInVain(Build):
    """A server that none of its hosts can take."""

    ends = (End('ERROR', None),)

    def weather(self, world: World) -> Any:
        return failing(world, 'spawn', FULL, *world.computes)


# -- moves --------------------------------------------------------------------

class Move(Variant):
    # Of moves, which begin with a server on host1.

    ends = (End('VERIFY_RESIZE', 'host2'),)
    failed = (End('ACTIVE', 'host1'),)

    def prepare(self, world: World) -> list[str]:
        world_module.prefer('host1')
        servers = self.boot(world)
        world.idle()
        world_module.prefer(*self.hosts)
        return servers

    hosts = ('host2', 'host3', 'host1')

    def boot(self, world: World) -> list[str]:
        return boot(world)

    def go(self, world: World, servers: list[str]) -> list[str]:
        for server in servers:
            try:
                world.api.post_server_action(server, self.action(world))
            except client.OpenStackApiException as exc:
                # The conductor that the API was calling failed, or died.
                if exc.response.status_code < 400:
                    raise
        return servers

    def action(self, world: World) -> dict[str, Any]:
        """What the API is asked for."""
        raise NotImplementedError()


class Resize(Move):
    """A server that becomes larger."""

    def action(self, world: World) -> dict[str, Any]:
        return {'resize': {'flavorRef': flavor(world, 'm1.small')}}


class ResizeVolume(Resize):
    """A server with a volume that becomes larger."""

    def boot(self, world: World) -> list[str]:
        return boot(world, block_device_mapping_v2=[DISK], imageRef='')


class ResizeNowhere(Resize):
    """A server that becomes too large for any host."""

    ends = (End('ACTIVE', 'host1'),)

    def action(self, world: World) -> dict[str, Any]:
        return {'resize': {'flavorRef': flavor(world, 'm1.xlarge')}}


class ResizeElsewhere(Resize):
    """A server whose new host cannot take it."""

    ends = (End('VERIFY_RESIZE', 'host3'),)
    # A compute that is told that its request to try another host failed puts
    # the server into ERROR, as ever.
    failed_at = dict.fromkeys(('reschedule_resize', '-'),
                              (End('ERROR', 'host1'),))

    def weather(self, world: World) -> Any:
        return unprepared(world, 'host2')


class ResizeInVain(Resize):
    """A server that no other host can take."""

    ends = (End('ERROR', 'host1'),)     # as the last compute leaves it
    # Who undoes it for a dead conductor does so when the compute, whose call
    # was not answered, has put the server into ERROR, or before.
    died = (End('ACTIVE', 'host1'),)

    def weather(self, world: World) -> Any:
        return unprepared(world, 'host1', 'host2', 'host3', 'far')


class ResizeAcross(Resize):
    """A server that goes to another cell."""

    hosts = ('far', 'host2', 'host3', 'host1')
    ends = (End('VERIFY_RESIZE', 'far'),)
    # Nova puts a server into ERROR whose guest was stopped for it.
    failed = (*Move.failed, End('ERROR', 'host1'))


class ResizeAcrossVolume(ResizeAcross):
    """A server with a volume that goes to another cell."""

    def boot(self, world: World) -> list[str]:
        return boot(world, block_device_mapping_v2=[DISK], imageRef='')


class Migrate(Move):
    """A server that goes elsewhere as it is."""

    def action(self, world: World) -> dict[str, Any]:
        return {'migrate': None}


class MigrateForced(Move):
    """A server that goes to a host that was named."""

    ends = (End('VERIFY_RESIZE', 'host3'),)

    def action(self, world: World) -> dict[str, Any]:
        return {'migrate': {'host': 'host3'}}


class LiveMigrate(Move):
    """A server that goes elsewhere while it runs."""

    ends = (End('ACTIVE', 'host2'),)
    # Nova puts a server into ERROR if it does not know what has failed.
    failed = (End('ACTIVE', 'host1'), End('ERROR', 'host1'))
    # A host that its ports cannot be bound to is unfit for Nova, too: the
    # next one is tried.
    failed_at = {'live_migrate.CheckDestination': (End('ACTIVE', 'host3'),)}

    def action(self, world: World) -> dict[str, Any]:
        return {'os-migrateLive': {'host': None, 'block_migration': 'auto'}}


class LiveMigrateVolume(LiveMigrate):
    """A server with a volume that goes elsewhere while it runs."""

    def boot(self, world: World) -> list[str]:
        return boot(world, block_device_mapping_v2=[DISK], imageRef='')


class LiveMigrateTo(LiveMigrate):
    """A server that goes to a host that was named, if it is fit."""

    ends = (End('ACTIVE', 'host3'),)

    def action(self, world: World) -> dict[str, Any]:
        return {'os-migrateLive': {'host': 'host3',
                                   'block_migration': 'auto'}}


class LiveMigrateForced(LiveMigrate):
    """A server that goes to a host that was named, fit or not."""

    ends = (End('ACTIVE', 'host3'),)

    def go(self, world: World, servers: list[str]) -> list[str]:
        with mock.patch.object(world.api, 'microversion', '2.67'):
            return super().go(world, servers)

    def action(self, world: World) -> dict[str, Any]:
        return {'os-migrateLive': {
            'host': 'host3', 'block_migration': 'auto', 'force': True}}


class LiveMigrateElsewhere(LiveMigrate):
    """A server whose new host turns out to be unfit."""

    ends = (End('ACTIVE', 'host3'),)

    def weather(self, world: World) -> Any:
        return failing(world, 'check_can_live_migrate_destination', UNFIT,
                       'host2')


class LiveMigrateInVain(LiveMigrate):
    """A server for which all hosts turn out to be unfit."""

    ends = (End('ACTIVE', 'host1'),)

    def weather(self, world: World) -> Any:
        return failing(world, 'check_can_live_migrate_destination', UNFIT,
                       'host2', 'host3', 'far')


UNFIT = exception.MigrationPreCheckError(reason='made to fail')


@contextlib.contextmanager
def unprepared(world: World, *hosts: str) -> Iterator[None]:
    """Let some computes fail to prepare for a server."""
    with contextlib.ExitStack() as stack:
        for host in hosts:
            stack.enter_context(mock.patch.object(
                world.computes[host].manager, '_prep_resize',
                side_effect=FULL))
        yield
