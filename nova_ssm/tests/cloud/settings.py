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
"""Where the cloud lives: directories, ports, names. Reads the environment."""

import dataclasses
import functools
import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[3]
#: Names, in the environment, the process that has reserved the cloud.
HOLDER = 'NOVA_SSM_CLOUD_HOLDER'
HERE = pathlib.Path(__file__).resolve().parent
HOST = '127.0.0.1'

#: Offsets from the base port. Nothing here is a port that a system's own
#: database, broker or keystone would use.
_OFFSETS = {
    'mariadb': 0,
    'rabbitmq': 1,
    'epmd': 2,
    'memcached': 3,
    'keystone': 4,
    'placement': 5,
    'glance': 6,
    'neutron': 7,
    'nova-api': 8,
    'rabbitmq-dist': 9,
}

CONDUCTORS = ('cond1', 'cond2')
COMPUTES = ('cmp1', 'cmp2', 'cmp3')
#: The database account of the conductors.
CONDUCTOR_USER = 'conductor'
DATABASES = ('keystone', 'placement', 'glance', 'neutron', 'nova_api',
             'nova_cell0', 'nova_cell1')


class CloudError(Exception):
    """Something the user has to know; the text says what to do."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything the environment decides."""

    #: The directory of the state (``NOVA_SSM_STATE``).
    state: pathlib.Path
    #: The first of ten TCP ports on the loopback (``NOVA_SSM_CLOUD_PORT``).
    base_port: int = 18700
    #: The password of every account; the cloud listens on loopback only.
    password: str = 'secret'
    #: Whether the conductors log what they debug.
    debug: bool = True
    #: For how many seconds a service waits for an answer by RPC
    #: (``NOVA_SSM_CLOUD_RPC_TIMEOUT``); Nova's default is 60.
    rpc_timeout: int = 60
    #: Where Nova's services find what a test wants of them, if they do.
    orders: pathlib.Path | None = None

    @functools.cached_property
    def home(self) -> pathlib.Path:
        """The directory of the cloud."""
        return self.state / 'cloud'

    @property
    def venv(self) -> pathlib.Path:
        """The virtual environment of the services."""
        return self.home / 'venv'

    @property
    def tempest_venv(self) -> pathlib.Path:
        """The virtual environment of tempest."""
        return self.home / 'tempest-venv'

    @property
    def etc(self) -> pathlib.Path:
        """The configuration files."""
        return self.home / 'etc'

    @property
    def var(self) -> pathlib.Path:
        """The data of the services."""
        return self.home / 'var'

    @property
    def log(self) -> pathlib.Path:
        """The logs."""
        return self.home / 'log'

    @property
    def run(self) -> pathlib.Path:
        """The pid files."""
        return self.home / 'run'

    @property
    def results(self) -> pathlib.Path:
        """What tempest and the crash test found."""
        return self.home / 'results'

    @property
    def mode_file(self) -> pathlib.Path:
        """Holds the mode of the conductors: ``ssm`` or ``stock``."""
        return self.home / 'mode'

    def unruly_file(self, name: str) -> pathlib.Path:
        """Return the file by which an API is told to misbehave."""
        return self.run / f'{name}.unruly'

    @property
    def uv(self) -> str:
        """The ``uv`` to build environments with."""
        return os.environ.get('UV') or str(self.state / 'tools/bin/uv')

    def port(self, name: str) -> int:
        """Return the TCP port of a service.

        :param name: a name of the table above
        """
        return self.base_port + _OFFSETS[name]

    @property
    def ports(self) -> dict[str, int]:
        """All ports, by the name of the service."""
        return {name: self.port(name) for name in _OFFSETS}

    def url(self, name: str, path: str = '') -> str:
        """Return the URL of an API."""
        return f'http://{HOST}:{self.port(name)}{path}'

    def database_url(self, name: str, user: str = 'openstack') -> str:
        """Return the SQLAlchemy URL of a database.

        :param user: its conductors have an account of their own, so that
            their statements can be told from those of the others
        """
        return (f'mysql+pymysql://{user}:{self.password}@{HOST}:'
                f'{self.port("mariadb")}/{name}?charset=utf8mb4')

    @property
    def credentials(self) -> dict[str, str]:
        """The ``OS_*`` variables of the administrator."""
        return {
            'OS_AUTH_URL': self.url('keystone', '/v3'),
            'OS_USERNAME': 'admin',
            'OS_PASSWORD': self.password,
            'OS_PROJECT_NAME': 'admin',
            'OS_USER_DOMAIN_ID': 'default',
            'OS_PROJECT_DOMAIN_ID': 'default',
            'OS_IDENTITY_API_VERSION': '3',
            'OS_REGION_NAME': 'RegionOne',
        }


def load() -> Settings:
    """Read the environment.

    :raises CloudError: if a number in it cannot be used
    """
    state = pathlib.Path(os.environ.get('NOVA_SSM_STATE') or ROOT / '.state')
    port = _number('NOVA_SSM_CLOUD_PORT', 18700, 1024, 65000,
                   'the first of ten free ports')
    timeout = _number('NOVA_SSM_CLOUD_RPC_TIMEOUT', 60, 10, 600, 'seconds')
    return Settings(state.expanduser().absolute(), port, rpc_timeout=timeout)


def _number(name: str, default: int, least: int, most: int,
            what: str) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or not least <= int(text) <= most:
        raise CloudError(f'{name} is {text!r}: give {what}, a number from '
                         f'{least} to {most}')
    return int(text)
